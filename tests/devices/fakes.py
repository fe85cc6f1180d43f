"""A clock that is set by hand and a store in memory: the ports of ``devices``, for tests."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from devices.types import Terminal, TokenRecord


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
        contact = stored.last_contact if stored else None
        self._terminals[terminal.terminal_id] = replace(terminal, last_contact=contact)
        return True

    def touch(self, terminal_id: str, at: datetime) -> None:
        with self._lock:
            stored = self._terminals[terminal_id]
            self._terminals[terminal_id] = replace(stored, last_contact=at)

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
