"""What the workflows need from outside; ``identity`` implements them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from devices.types import Equipment, Operator, Session, SessionEnd, Terminal, TokenRecord


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The present instant, timezone-aware UTC."""
        ...


class TerminalStore(Protocol):
    """Durable state of terminals and their tokens. Each method is one atomic, durable step.

    Changes to a terminal are optimistic: a writer passes the value it wants with ``version`` one
    above the version it read, and is refused when somebody else was faster. On SQL that is an
    ``UPDATE ... WHERE terminal_id = :id AND version = :version - 1`` and a look at the row count.
    """

    def terminal(self, terminal_id: str) -> Terminal | None:
        """The terminal, or ``None``."""
        ...

    def terminals(self, after: str, limit: int) -> Sequence[Terminal]:
        """Up to ``limit`` terminals whose ids sort after ``after``, by id."""
        ...

    def put_terminal(self, terminal: Terminal) -> bool:
        """Store a terminal, all fields but ``last_contact`` and ``equipment``.

        Returns:
            ``False``, with nothing changed, unless the stored version is ``terminal.version - 1``
            (or, for version 1, no such terminal is stored).
        """
        ...

    def touch(self, terminal_id: str, at: datetime) -> None:
        """Set ``last_contact``; leaves the version alone."""
        ...

    def report(self, terminal_id: str, equipment: Equipment) -> None:
        """Set ``equipment``; leaves the version alone."""
        ...

    def token(self, token_hash: bytes) -> TokenRecord | None:
        """The token's record, or ``None``."""
        ...

    def put_token(self, record: TokenRecord) -> None:
        """Store a new, unused token."""
        ...

    def redeem(self, record: TokenRecord, terminal: Terminal) -> bool:
        """Use a token up: store ``record``'s key and certificate, and the terminal, or neither.

        Returns:
            ``False``, with nothing changed, when the stored token is already redeemed, or the
            terminal's version is not ``terminal.version - 1``. Of simultaneous calls exactly one
            gets ``True``.
        """
        ...

    def revoke_serial(self, serial: str, reason: str, at: datetime) -> None:
        """Refuse an operator's or department's certificate from now on; may be repeated."""
        ...

    def serial_revoked(self, serial: str) -> bool:
        """Whether :meth:`revoke_serial` was called for it."""
        ...


class OperatorStore(Protocol):
    """Durable state of operators and their sessions. Each method is one atomic, durable step."""

    def operator(self, operator_id: str) -> Operator | None:
        """The operator, or ``None``."""
        ...

    def operators(self, after: str, limit: int) -> Sequence[Operator]:
        """Up to ``limit`` operators whose ids sort after ``after``, by id."""
        ...

    def put_operator(self, operator: Operator) -> bool:
        """Store an operator.

        Returns:
            As :meth:`TerminalStore.put_terminal`.
        """
        ...

    def open_session(self, session: Session) -> None:
        """Store a new session; end the others of its terminal that have not ended, as replaced."""
        ...

    def session_of_token(self, token_hash: bytes) -> tuple[Session, Operator] | None:
        """The session with that token and its operator, or ``None``."""
        ...

    def session(self, session_id: str) -> tuple[Session, Operator] | None:
        """The session and its operator, or ``None``."""
        ...

    def use_session(self, session_id: str, at: datetime) -> None:
        """Set ``last_used_at``."""
        ...

    def end_session(self, session_id: str, at: datetime, why: SessionEnd) -> None:
        """End a session; one that has ended stays as it is."""
        ...

    def revoke_sessions(self, at: datetime, operator_id: str = "", terminal_id: str = "") -> None:
        """Mark every session of an operator, or of a terminal, as revoked, ended ones too."""
        ...

    def forget_sessions(self, before: datetime) -> int:
        """Delete the sessions that expired before; returns how many."""
        ...
