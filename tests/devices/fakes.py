"""A clock that is set by hand and a store in memory: the ports of ``devices``, for tests."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from devices.types import Equipment, Operator, Session, SessionEnd, Terminal, TokenRecord


class FakeClock:
    """Starts at the real time, because TLS looks at the real one, and moves only when told."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        self._now += by


class MemoryTerminalStore:
    """:class:`devices.ports.TerminalStore` in dictionaries, behind one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._terminals: dict[str, Terminal] = {}
        self._tokens: dict[bytes, TokenRecord] = {}
        self._revoked: set[str] = set()

    def terminal(self, terminal_id: str) -> Terminal | None:
        with self._lock:
            return self._terminals.get(terminal_id)

    def terminals(self, after: str, limit: int) -> Sequence[Terminal]:
        with self._lock:
            ids = sorted(id for id in self._terminals if id > after)
            return [self._terminals[id] for id in ids[:limit]]

    def put_terminal(self, terminal: Terminal) -> bool:
        with self._lock:
            return self._put(terminal)

    def _put(self, terminal: Terminal) -> bool:
        stored = self._terminals.get(terminal.terminal_id)
        if terminal.version != (stored.version if stored else 0) + 1:
            return False
        self._terminals[terminal.terminal_id] = replace(
            terminal,
            last_contact=stored.last_contact if stored else None,
            equipment=stored.equipment if stored else None,
        )
        return True

    def touch(self, terminal_id: str, at: datetime) -> None:
        with self._lock:
            stored = self._terminals[terminal_id]
            self._terminals[terminal_id] = replace(stored, last_contact=at)

    def report(self, terminal_id: str, equipment: Equipment) -> None:
        with self._lock:
            stored = self._terminals[terminal_id]
            self._terminals[terminal_id] = replace(stored, equipment=equipment)

    def token(self, token_hash: bytes) -> TokenRecord | None:
        with self._lock:
            return self._tokens.get(token_hash)

    def put_token(self, record: TokenRecord) -> None:
        with self._lock:
            self._tokens[record.token_hash] = record

    def redeem(self, record: TokenRecord, terminal: Terminal) -> bool:
        with self._lock:
            if self._tokens[record.token_hash].certificate or not self._put(terminal):
                return False
            self._tokens[record.token_hash] = record
            return True

    def revoke_serial(self, serial: str, reason: str, at: datetime) -> None:
        with self._lock:
            self._revoked.add(serial)

    def serial_revoked(self, serial: str) -> bool:
        with self._lock:
            return serial in self._revoked

    def dump(self) -> str:
        """Everything that is kept, for looking for what must not be."""
        return repr((self._terminals, self._tokens, self._revoked))


class MemoryOperatorStore:
    """:class:`devices.ports.OperatorStore` in dictionaries, behind one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._operators: dict[str, Operator] = {}
        self._sessions: dict[str, Session] = {}

    def operator(self, operator_id: str) -> Operator | None:
        with self._lock:
            return self._operators.get(operator_id)

    def operators(self, after: str, limit: int) -> Sequence[Operator]:
        with self._lock:
            ids = sorted(id for id in self._operators if id > after)
            return [self._operators[id] for id in ids[:limit]]

    def put_operator(self, operator: Operator) -> bool:
        with self._lock:
            stored = self._operators.get(operator.operator_id)
            if operator.version != (stored.version if stored else 0) + 1:
                return False
            self._operators[operator.operator_id] = operator
            return True

    def open_session(self, session: Session) -> None:
        with self._lock:
            for id, one in self._sessions.items():
                if one.terminal_id == session.terminal_id and one.ended_at is None:
                    self._sessions[id] = replace(
                        one, ended_at=session.opened_at, ended_by=SessionEnd.REPLACED
                    )
            self._sessions[session.session_id] = session

    def session_of_token(self, token_hash: bytes) -> tuple[Session, Operator] | None:
        with self._lock:
            for one in self._sessions.values():
                if one.token_hash == token_hash:
                    return one, self._operators[one.operator_id]
            return None

    def session(self, session_id: str) -> tuple[Session, Operator] | None:
        with self._lock:
            one = self._sessions.get(session_id)
            return None if one is None else (one, self._operators[one.operator_id])

    def use_session(self, session_id: str, at: datetime) -> None:
        with self._lock:
            self._sessions[session_id] = replace(self._sessions[session_id], last_used_at=at)

    def end_session(self, session_id: str, at: datetime, why: SessionEnd) -> None:
        with self._lock:
            one = self._sessions[session_id]
            if one.ended_at is None:
                self._sessions[session_id] = replace(one, ended_at=at, ended_by=why)

    def revoke_sessions(self, at: datetime, operator_id: str = "", terminal_id: str = "") -> None:
        with self._lock:
            for id, one in self._sessions.items():
                if one.operator_id == operator_id or one.terminal_id == terminal_id:
                    self._sessions[id] = replace(
                        one, ended_at=one.ended_at or at, ended_by=SessionEnd.REVOKED
                    )

    def forget_sessions(self, before: datetime) -> int:
        with self._lock:
            old = [id for id, one in self._sessions.items() if one.expires_at < before]
            for id in old:
                del self._sessions[id]
            return len(old)

    def dump(self) -> str:
        """Everything that is kept, for looking for what must not be."""
        fields = [vars(one) for one in (*self._operators.values(), *self._sessions.values())]
        return repr(fields)
