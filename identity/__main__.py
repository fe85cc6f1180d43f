"""``python -m identity`` is the ``anju`` command."""

from identity.cli import main

main()
