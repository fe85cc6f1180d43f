"""`root-key`, `root-show`, `root-sign`: for the machine that has a root key and no network.

Part of `python -m issuance`, which needs the base dependencies alone; `CEREMONY.md` says when.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from issuance import ceremony
from issuance.errors import IssuanceError
from issuance.key_facts import to_json
from issuance.key_files import FileKeyStore
from issuance.keys import KeyUse
from issuance.signing import Algorithm

PASSPHRASE_VARIABLE: Final = "ANJU_ROOT_PASSPHRASE"  # noqa: S105 - a name, no passphrase
_ROOT_KEY_LIFE: Final = timedelta(days=10 * 365)
_MAX_ROOT_BYTES: Final = 1 << 20

Store = Annotated[Path, typer.Option("--keys", help="Directory of this machine's root key.")]
Last = Annotated[
    Path | None, typer.Option(help="The root in force, to recognise its signatures too.")
]


def root_key(store: Store, facts: Annotated[Path, typer.Option("--facts", "-o")]) -> None:
    """Make a root key in KEYS and write its public facts to FACTS, to be carried to the office.

    Asks for a passphrase, or takes it from ANJU_ROOT_PASSPHRASE.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    keys = FileKeyStore(store, _passphrase(confirm=True))
    made = keys.generate(KeyUse.TRUST_ROOT, Algorithm.EDDSA, now, now + _ROOT_KEY_LIFE)
    facts.write_bytes(to_json(made))
    typer.echo(f"root key {made.kid}; its public facts are in {facts}")


def root_show(
    root: Annotated[Path, typer.Argument(help="A proposed or signed root.")],
    last: Last = None,
) -> None:
    """What a root says: read this aloud before anybody signs."""
    data = _read(root)
    said = ceremony.summary(data, _read(last) if last else None)
    typer.echo(f"root         version {said.version}, expires {said.expires_at:%Y-%m-%d}")
    typer.echo(f"fingerprint  {said.fingerprint}")
    for role, kids in said.keys.items():
        needed = f" ({said.threshold} must sign the next root)" if role == "root" else ""
        typer.echo(f"{role:<12} {', '.join(kids)}{needed}")
    typer.echo(f"signed by    {', '.join(said.signed_by) or 'nobody yet'}")


def root_sign(
    proposal: Annotated[Path, typer.Argument(help="The proposed root, perhaps signed by others.")],
    store: Store,
    output: Annotated[Path, typer.Option("--output", "-o", help="The root with our signature.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="Sign only if this is the fingerprint; asked for otherwise.")
    ] = None,
) -> None:
    """Add this machine's signature to a root, after its fingerprint was confirmed."""
    data = _read(proposal)
    root_show(proposal)
    said = ceremony.summary(data)
    if fingerprint is None:
        typer.confirm("Is this the root that all of us have looked at?", abort=True)
    elif fingerprint.strip().lower() != said.fingerprint:
        raise IssuanceError(f"the fingerprint is {said.fingerprint}; nothing was signed")
    keys = FileKeyStore(store, _passphrase())
    if not keys.infos():
        raise IssuanceError(f"there is no root key in {store}")
    output.write_bytes(ceremony.sign(data, keys))
    typer.echo(f"signed       {output}")


def _passphrase(*, confirm: bool = False) -> bytes | None:
    """From the environment (empty for none), or asked for without echo."""
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given is None:
        given = typer.prompt(
            "Passphrase of the root key",
            default="",
            hide_input=True,
            confirmation_prompt=confirm,
            show_default=False,
        )
    return str(given).encode() or None


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    if len(data) > _MAX_ROOT_BYTES:
        raise IssuanceError(f"{path} is no root: it is larger than {_MAX_ROOT_BYTES} bytes")
    return data
