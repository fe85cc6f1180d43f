"""The nouns of this package: who calls, and what a terminal's registration looks like."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum


class Role(Enum):
    """What a client certificate entitles to; the value is the host part of its URI."""

    TERMINAL = "terminal"
    OPERATOR = "operator"
    DEPARTMENT = "department"


@dataclass(frozen=True)
class Principal:
    """The caller named by a client certificate.

    Two principals are equal when they name the same caller, whichever certificate they came with.

    Attributes:
        station_id: where a terminal stands; empty for operators and departments.
        serial: serial number of the certificate, lower-case hexadecimal without leading zeros.
        not_after: when the certificate expires, UTC; ``None`` for a caller without one (tests).
    """

    role: Role
    id: str
    station_id: str = ""
    serial: str = field(default="", compare=False)
    not_after: datetime | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """The name used in the audit log, e.g. ``terminal:hall-1``."""
        return f"{self.role.value}:{self.id}"


class TerminalState(IntEnum):
    """Numbers as in anju.v1."""

    EXPECTED = 1  # token made, not yet used
    ACTIVE = 2
    REVOKED = 3


@dataclass(frozen=True)
class Terminal:
    """One capture terminal as the register knows it.

    Attributes:
        version: 1 when first stored, one more at every change; see
            :class:`devices.ports.TerminalStore`.
        serials: certificates that are accepted, as in :attr:`Principal.serial`. Two after a renewal
            (the one it was asked with, and the new one, in case the answer was lost), else one.
        certificate_not_after: when the newest of them expires; ``None`` before the first.
        last_contact: newest call seen, to within a minute; ``None`` before the first.
        token_hash: of the one token that may still be redeemed; empty when there is none.
        revocation_reason: what the operator wrote; empty unless revoked.
    """

    terminal_id: str
    station_id: str
    state: TerminalState
    version: int
    serials: tuple[str, ...] = ()
    certificate_not_after: datetime | None = None
    last_contact: datetime | None = None
    token_hash: bytes = b""
    revocation_reason: str = ""


@dataclass(frozen=True)
class TokenRecord:
    """What is kept of a provisioning token: never the token itself.

    Attributes:
        token_hash: 32 bytes, see :func:`devices.token.secret_hash`.
        key_hash: 32 bytes, SHA-256 of the public key it was redeemed with; empty while unused.
        certificate: X.509, DER, what it was redeemed for; empty while unused.
    """

    token_hash: bytes
    terminal_id: str
    station_id: str
    expires_at: datetime
    key_hash: bytes = b""
    certificate: bytes = b""


@dataclass(frozen=True)
class IssuedToken:
    """A new token, to be shown once."""

    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True)
class Provisioned:
    """What a terminal receives for its token. Certificates are X.509, DER."""

    certificate: bytes
    ca_certificate: bytes
    terminal_id: str
    station_id: str


@dataclass(frozen=True)
class TerminalPage:
    """Part of the list of terminals, by id; ``next_after`` is empty on the last page."""

    terminals: tuple[Terminal, ...]
    next_after: str
