"""``devices``' ports on the register's database: each method is one durable transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from devices.types import Equipment, Operator, Session, SessionEnd, Terminal, TokenRecord
from identity.store import Database


class SqlTerminalStore:
    """Implements :class:`devices.ports.TerminalStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def terminal(self, terminal_id: str) -> Terminal | None:
        with self._database.read() as tx:
            return tx.terminals.get(terminal_id)

    def terminals(self, after: str, limit: int) -> Sequence[Terminal]:
        with self._database.read() as tx:
            return tx.terminals.page(after, limit)

    def put_terminal(self, terminal: Terminal) -> bool:
        with self._database.write() as tx:
            return tx.terminals.put(terminal)

    def touch(self, terminal_id: str, at: datetime) -> None:
        with self._database.write() as tx:
            tx.terminals.touch(terminal_id, at)

    def report(self, terminal_id: str, equipment: Equipment) -> None:
        with self._database.write() as tx:
            tx.terminals.report(terminal_id, equipment)

    def token(self, token_hash: bytes) -> TokenRecord | None:
        with self._database.read() as tx:
            return tx.terminals.token(token_hash)

    def put_token(self, record: TokenRecord) -> None:
        with self._database.write() as tx:
            tx.terminals.put_token(record)

    def redeem(self, record: TokenRecord, terminal: Terminal) -> bool:
        # The terminal goes first: if the token then turns out to be used, its version has moved on
        # too and nothing was written. Both are checked under the write lock.
        with self._database.write() as tx:
            stored = tx.terminals.token(record.token_hash)
            if stored is None or stored.key_hash or not tx.terminals.put(terminal):
                return False
            return tx.terminals.redeem(record)

    def revoke_serial(self, serial: str, reason: str, at: datetime) -> None:
        with self._database.write() as tx:
            tx.terminals.revoke_serial(serial, reason, at)

    def serial_revoked(self, serial: str) -> bool:
        with self._database.read() as tx:
            return tx.terminals.serial_revoked(serial)


class SqlOperatorStore:
    """Implements :class:`devices.ports.OperatorStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def operator(self, operator_id: str) -> Operator | None:
        with self._database.read() as tx:
            return tx.operators.get(operator_id)

    def operators(self, after: str, limit: int) -> Sequence[Operator]:
        with self._database.read() as tx:
            return tx.operators.page(after, limit)

    def put_operator(self, operator: Operator) -> bool:
        with self._database.write() as tx:
            return tx.operators.put(operator)

    def open_session(self, session: Session) -> None:
        with self._database.write() as tx:
            tx.operators.open_session(session)

    def session_of_token(self, token_hash: bytes) -> tuple[Session, Operator] | None:
        with self._database.read() as tx:
            return tx.operators.session_of_token(token_hash)

    def session(self, session_id: str) -> tuple[Session, Operator] | None:
        with self._database.read() as tx:
            return tx.operators.session(session_id)

    def use_session(self, session_id: str, at: datetime) -> None:
        with self._database.write() as tx:
            tx.operators.use_session(session_id, at)

    def end_session(self, session_id: str, at: datetime, why: SessionEnd) -> None:
        with self._database.write() as tx:
            tx.operators.end_session(session_id, at, why)

    def revoke_sessions(self, at: datetime, operator_id: str = "", terminal_id: str = "") -> None:
        with self._database.write() as tx:
            tx.operators.revoke_sessions(at, operator_id, terminal_id)

    def forget_sessions(self, before: datetime) -> int:
        with self._database.write() as tx:
            return tx.operators.forget_sessions(before)
