"""The inventory of terminals as a table, and what somebody should look after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from anju.v1 import terminals_pb2
from identity.commands.session import instant

COLUMNS = (
    "terminal",
    "station",
    "state",
    "last contact",
    "certificate until",
    "serial",
    "software",
    "sensor",
    "formats",
)
SERIAL_SHOWN = 12
_ACTIVE = terminals_pb2.TERMINAL_STATE_ACTIVE


def inventory_row(one: terminals_pb2.Terminal) -> tuple[str, ...]:
    made_of = one.equipment
    sensor = (made_of.sensor_vendor, made_of.sensor_model, made_of.sensor_version)
    return (
        one.terminal_id,
        one.station_id,
        terminals_pb2.TerminalState.Name(one.state).removeprefix("TERMINAL_STATE_"),
        instant(one.last_contact),
        instant(one.certificate_not_after),
        one.certificate_serial[:SERIAL_SHOWN] or "-",
        made_of.software_version or "-",
        " ".join(part for part in sensor if part) or "-",
        ", ".join(made_of.template_formats) or "-",
    )


def warnings(
    terminals: Sequence[terminals_pb2.Terminal],
    now: datetime,
    expiry: timedelta,
    silence: timedelta,
) -> Iterator[str]:
    """What to look after among active terminals.

    Args:
        expiry: certificates that have no more than this left.
        silence: terminals whose last contact is at least this long ago.
    """
    for one in terminals:
        if one.state != _ACTIVE:
            continue
        left = one.certificate_not_after.ToDatetime(tzinfo=UTC) - now
        if left <= timedelta(0):
            yield f"{one.terminal_id}: its certificate has expired; provision it again"
        elif left <= expiry:
            yield f"{one.terminal_id}: its certificate expires in {left.days} days, not renewed yet"
        if not one.HasField("last_contact"):
            yield f"{one.terminal_id}: it has a certificate and has never called"
            continue
        silent = now - one.last_contact.ToDatetime(tzinfo=UTC)
        if silent >= silence:
            yield f"{one.terminal_id}: no contact for {silent.days} days"
