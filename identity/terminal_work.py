"""``anju terminal run``, ``submit`` and ``queue``: what a person sees of the terminal's outbox.

Needs the extra ``[terminal]`` only. Lines hold labels, states and ids, never a person's data, so
they may go to the system's log.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import typer

from devices.terminal import Entry, EntryState, Outbox
from identity.capture_check import examiner

ATTENTION_HELP = (
    "what needs attention waits for you: --retry KEY sends it once more as it is; --discard KEY "
    "forgets it, once the person was captured again"
)
BEIJING = timezone(timedelta(hours=8))


def run(directory: Path, spool: Path | None) -> None:
    """Run the outbox in the foreground until SIGTERM or Ctrl-C; print each change as a line."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Outbox(directory, spool, examiner=examiner()) as outbox:
        typer.echo(f"terminal {directory}: {len(outbox.queue.entries(EntryState.QUEUED))} queued")
        outbox.run(stop, _Lines(outbox).show)
    typer.echo("stopped; what is queued stays")


class _Lines:
    """Prints what has changed since it last looked."""

    def __init__(self, outbox: Outbox) -> None:
        self._entries = {one.key: one for one in outbox.queue.entries()}
        self._notices: list[str] = []

    def show(self, outbox: Outbox) -> None:
        for entry in outbox.queue.entries():
            if self._entries.get(entry.key) != entry:
                typer.echo(entry_line(entry))
                self._entries[entry.key] = entry
        notices = outbox.notices()
        for notice in notices:
            if notice not in self._notices:
                typer.echo(f"note: {notice}", err=True)
        if self._notices and not notices:
            typer.echo("note: all is well again", err=True)
        self._notices = notices


def send_within(outbox: Outbox, key: str, wait_s: float) -> Entry:
    """Send, or let the process that runs already send, until the entry is settled or time is up."""
    end = time.monotonic() + wait_s
    while True:
        outbox.send()
        entry = outbox.entry(key)
        if entry.state is not EntryState.QUEUED or time.monotonic() >= end:
            return entry
        time.sleep(0.2)


def entry_line(entry: Entry) -> str:
    """One entry in one line, without the register's message, which may quote what was sent."""
    return f"{_clock(entry.changed_at)} {entry.label}: {entry.state.value}{_outcome(entry)}"


def entry_rows(entries: Sequence[Entry]) -> list[tuple[str, str, str, str, str]]:
    """For the operator's own eyes: with the register's message."""
    return [
        (
            entry.key,
            entry.label,
            _clock(entry.changed_at),
            entry.state.value,
            entry.message or _outcome(entry).lstrip(", "),
        )
        for entry in entries
    ]


def _outcome(entry: Entry) -> str:
    if entry.application is not None:
        case = f", case {entry.application.case_id}" if entry.application.case_id else ""
        return f", {entry.application.state.name} {entry.application.application_id}{case}"
    refused = "/".join(part for part in (entry.status, entry.reason) if part)
    return f", {refused}" if refused else ""


def _clock(at: datetime) -> str:
    return at.astimezone(BEIJING).strftime("%Y-%m-%d %H:%M:%S")
