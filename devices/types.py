"""The nouns of this package: who calls, and what a terminal's registration looks like."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, IntEnum


class Role(Enum):
    """What a client certificate entitles to; the value is the host part of its URI."""

    TERMINAL = "terminal"
    OPERATOR = "operator"
    DEPARTMENT = "department"


class OperatorRole(IntEnum):
    """What an operator may do. Numbers as in anju.v1."""

    STATION = 1  # captures at terminals, serves at the counter
    ADJUDICATOR = 2
    ADMINISTRATOR = 3


@dataclass(frozen=True)
class Principal:
    """The caller named by a client certificate.

    Two principals are equal when they name the same caller, whichever certificate they came with.

    Attributes:
        station_id: where a terminal stands; empty for operators and departments.
        serial: serial number of the certificate, lower-case hexadecimal without leading zeros.
        not_after: when the certificate expires, UTC; ``None`` for a caller without one (tests).
        key_hash: SHA-256 of the certificate's key (SubjectPublicKeyInfo), which stays the same when
            the certificate is renewed for the same key.
        operator_id: who is logged in at the terminal, where the call shows it; else empty.
        roles: of that operator, or of the operator whose certificate this is.
    """

    role: Role
    id: str
    station_id: str = ""
    serial: str = field(default="", compare=False)
    not_after: datetime | None = field(default=None, compare=False)
    key_hash: bytes = field(default=b"", compare=False, repr=False)
    operator_id: str = field(default="", compare=False)
    roles: frozenset[OperatorRole] = field(default=frozenset(), compare=False)

    def __str__(self) -> str:
        """The certificate's name, e.g. ``terminal:hall-1``; idempotency keys belong to it."""
        return f"{self.role.value}:{self.id}"

    @property
    def who(self) -> str:
        """The name used in the audit log: who did it and where, as far as it is known.

        E.g. ``operator:anna terminal:hall-1 station:east-gate``, ``terminal:hall-1`` or
        ``operator:anna``; at most 123 characters.
        """
        if not self.operator_id:
            return str(self)
        return f"operator:{self.operator_id} {self} station:{self.station_id}"


class TerminalState(IntEnum):
    """Numbers as in anju.v1."""

    EXPECTED = 1  # token made, not yet used
    ACTIVE = 2
    REVOKED = 3


@dataclass(frozen=True)
class Equipment:
    """What a terminal says of itself; each text at most 64 characters."""

    software_version: str = ""
    sensor_vendor: str = ""
    sensor_model: str = ""
    sensor_version: str = ""
    template_formats: tuple[str, ...] = ()


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
        revocation_reason: what the operator wrote; empty unless revoked, or replaced and not yet
            provisioned again.
        equipment: as it last reported; lives beside the version, as ``last_contact`` does.
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
    equipment: Equipment | None = None


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


@dataclass(frozen=True)
class Operator:
    """One of the staff as the register knows them.

    Attributes:
        version: as of :class:`Terminal`.
        password: Argon2id in PHC form; empty where there is none.
        password_change_by: while the password is the first one: until when it is good, UTC.
        login_key: SubjectPublicKeyInfo, DER; empty where there is none.
        revoked_at: UTC; ``None`` unless revoked.
    """

    operator_id: str
    roles: frozenset[OperatorRole]
    version: int
    password: str = field(default="", repr=False)
    password_change_by: datetime | None = None
    login_key: bytes = field(default=b"", repr=False)
    revoked_at: datetime | None = None
    revocation_reason: str = ""


@dataclass(frozen=True)
class EnrolledOperator:
    """An operator just added or changed; ``first_password`` is shown once, or empty."""

    operator: Operator
    first_password: str = field(repr=False)


@dataclass(frozen=True)
class OperatorPage:
    """Part of the list of operators, by id; ``next_after`` is empty on the last page."""

    operators: tuple[Operator, ...]
    next_after: str


class SessionEnd(Enum):
    """Why a session ended before its time."""

    LOGOUT = "logout"
    REPLACED = "replaced"  # somebody else logged in at the terminal
    REVOKED = "revoked"  # the operator or the terminal was


@dataclass(frozen=True)
class Session:
    """One operator at one terminal. What is secret in it is kept as a hash only.

    Attributes:
        token_hash: 32 bytes, SHA-256.
        terminal_key_hash: see :attr:`Principal.key_hash`; the token is good with that key only.
        session_key: what capture proofs are checked with: SubjectPublicKeyInfo, DER.
        expires_at: absolutely, UTC.
        last_used_at: newest call that showed the token, to within a tenth of the idle time.
        ended_at, ended_by: when and why it ended before that; ``None`` while it has not.
    """

    session_id: str
    token_hash: bytes = field(repr=False)
    operator_id: str
    terminal_id: str
    station_id: str
    terminal_key_hash: bytes = field(repr=False)
    session_key: bytes = field(repr=False)
    opened_at: datetime
    expires_at: datetime
    last_used_at: datetime
    ended_at: datetime | None = None
    ended_by: SessionEnd | None = None


@dataclass(frozen=True)
class OpenedSession:
    """What the terminal is told; the token is shown once."""

    session: Session
    token: str = field(repr=False)
    idle_timeout: timedelta


@dataclass(frozen=True)
class CaptureProof:
    """An operator's word for one request; see :mod:`devices.proof`."""

    session_id: str
    signed_at: datetime
    signature: bytes = field(repr=False)
