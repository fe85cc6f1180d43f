"""Terminals, their one-time tokens, and certificates that are no longer accepted."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, update

from devices.types import Equipment, Terminal, TerminalState, TokenRecord
from identity.schema import provisioning_tokens, revoked_serials, terminals


class Terminals:
    """The rows behind :class:`devices.ports.TerminalStore`, within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, terminal_id: str) -> Terminal | None:
        row = self._connection.execute(
            select(terminals).where(terminals.c.terminal_id == terminal_id)
        ).one_or_none()
        return None if row is None else _terminal(row)

    def page(self, after: str, limit: int) -> list[Terminal]:
        rows = self._connection.execute(
            select(terminals)
            .where(terminals.c.terminal_id > after)
            .order_by(terminals.c.terminal_id)
            .limit(limit)
        )
        return [_terminal(row) for row in rows]

    def put(self, terminal: Terminal) -> bool:
        """False, with nothing changed, unless the stored version is one below."""
        values = asdict(replace(terminal, serials=()))
        values["serials"] = list(terminal.serials)
        del values["last_contact"], values["equipment"]
        if self.get(terminal.terminal_id) is None:
            if terminal.version != 1:
                return False
            self._connection.execute(insert(terminals).values(**values))
            return True
        done = self._connection.execute(
            update(terminals)
            .where(
                terminals.c.terminal_id == terminal.terminal_id,
                terminals.c.version == terminal.version - 1,
            )
            .values(**values)
        )
        return done.rowcount == 1

    def touch(self, terminal_id: str, at: datetime) -> None:
        self._connection.execute(
            update(terminals).where(terminals.c.terminal_id == terminal_id).values(last_contact=at)
        )

    def report(self, terminal_id: str, equipment: Equipment) -> None:
        self._connection.execute(
            update(terminals)
            .where(terminals.c.terminal_id == terminal_id)
            .values(equipment=asdict(equipment))
        )

    def counted(self) -> dict[TerminalState, int]:
        """How many terminals there are in each state."""
        rows = self._connection.execute(
            select(terminals.c.state, func.count().label("terminals")).group_by(terminals.c.state)
        )
        found = {row.state: row.terminals for row in rows}
        return {state: found.get(state.value, 0) for state in TerminalState}

    def expiring(self, before: datetime) -> int:
        """How many active terminals have a certificate that ends before then."""
        return self._active(terminals.c.certificate_not_after < before)

    def silent(self, since: datetime) -> int:
        """How many active terminals have called, and not again since then."""
        return self._active(terminals.c.last_contact < since)

    def _active(self, which: ColumnElement[bool]) -> int:
        return self._connection.execute(
            select(func.count()).where(terminals.c.state == TerminalState.ACTIVE.value, which)
        ).scalar_one()

    def token(self, token_hash: bytes) -> TokenRecord | None:
        row = self._connection.execute(
            select(provisioning_tokens).where(provisioning_tokens.c.token_hash == token_hash)
        ).one_or_none()
        return None if row is None else TokenRecord(**row._mapping)

    def put_token(self, record: TokenRecord) -> None:
        self._connection.execute(insert(provisioning_tokens).values(**asdict(record)))

    def redeem(self, record: TokenRecord) -> bool:
        """False, with nothing changed, when the token is already redeemed."""
        done = self._connection.execute(
            update(provisioning_tokens)
            .where(
                provisioning_tokens.c.token_hash == record.token_hash,
                provisioning_tokens.c.key_hash == b"",
            )
            .values(key_hash=record.key_hash, certificate=record.certificate)
        )
        return done.rowcount == 1

    def revoke_serial(self, serial: str, reason: str, at: datetime) -> None:
        if not self.serial_revoked(serial):
            self._connection.execute(
                insert(revoked_serials).values(serial=serial, reason=reason, at=at)
            )

    def serial_revoked(self, serial: str) -> bool:
        return (
            self._connection.execute(
                select(revoked_serials.c.serial).where(revoked_serials.c.serial == serial)
            ).one_or_none()
            is not None
        )


def _terminal(row: Row[Any]) -> Terminal:
    values = dict(row._mapping)
    values["state"] = TerminalState(values["state"])
    values["serials"] = tuple(values["serials"])
    reported = values["equipment"]
    if reported is not None:
        formats = tuple(reported["template_formats"])
        values["equipment"] = Equipment(**{**reported, "template_formats": formats})
    return Terminal(**values)
