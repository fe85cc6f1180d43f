"""The client library: what runs on a capture terminal, or behind an operator's command line.

Needs the extra ``[terminal]`` and nothing of the service::

    provision("10.0.0.5:7444", "MNDA0-WT0XQ-...", Path("credentials"))  # once
    log_in(Path("credentials"), "anna", password="...")  # who works at the terminal
    with TerminalClient(Path("credentials")) as terminal:
        application = terminal.enrol(person, [record])

or, through a network that comes and goes, :class:`Outbox`.
"""

from devices.terminal.client import TerminalClient, provision
from devices.terminal.outbox import Outbox
from devices.terminal.queue import Entry, EntryState, Limits
from devices.terminal.session import OperatorSession, log_in, log_out
from devices.terminal.types import (
    Application,
    ApplicationState,
    FingerFile,
    Gender,
    MissingFinger,
    MissingReason,
    Permit,
    Person,
    Sample,
    SampleFormat,
)
from devices.terminal.wire import Connection, connect

__all__ = [
    "Application",
    "ApplicationState",
    "Connection",
    "Entry",
    "EntryState",
    "FingerFile",
    "Gender",
    "Limits",
    "MissingFinger",
    "MissingReason",
    "OperatorSession",
    "Outbox",
    "Permit",
    "Person",
    "Sample",
    "SampleFormat",
    "TerminalClient",
    "connect",
    "log_in",
    "log_out",
    "provision",
]
