"""What `issuance` talks about: permits, their holders, their status, and verdicts on them.

Frozen values without I/O. Instants are timezone-aware UTC at whole seconds; dates are calendar
dates in the permit's own time zone (China Standard Time, UTC+8, unless the profile says otherwise).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime


class Gender(enum.IntEnum):
    """Claim 169 key 9."""

    MALE = 1
    FEMALE = 2
    OTHER = 3


class PermitStatus(enum.IntEnum):
    """Does the permit stand? Numbers of the IETF Token Status List, section "Status Types"."""

    VALID = 0
    REVOKED = 1
    SUSPENDED = 2


@dataclass(frozen=True, slots=True, order=True)
class StatusRef:
    """Where a permit's status is published.

    Attributes:
        list_number: which status list, from 1.
        index: the entry within it, from 0.
    """

    list_number: int
    index: int


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph as it is in a symbol.

    Attributes:
        media_type: "image/webp" as issued here; "image/png" and "image/jpeg" are read too.
    """

    media_type: str
    data: bytes

    def __repr__(self) -> str:
        # A face is personal data: tracebacks and logs must not have it.
        return f"Photo({self.media_type}, {len(self.data)} bytes)"


@dataclass(frozen=True, slots=True)
class Holder:
    """The person a permit is issued to.

    Only name, gender and date of birth are always encoded. Each optional field reaches the permit
    only if the permit's kind carries it; see `issuance.profile`.

    Attributes:
        full_name: as on the identity document, 1 to 100 characters.
        birth_date: calendar date.
        residence_address: where the person lives now, below the division; 1 to 200 characters.
        residence_division: GB/T 2260 division code of the residence, 6 digits.
        household_division: GB/T 2260 division code of the household registration, 6 digits.
        household_address: the full household-registration address.
        citizen_id: the citizen ID number (GB 11643).
        ethnicity: as the permit decree names it.
        latin_name: the name in pinyin.
        photo: see `issuance.photo`.
    """

    full_name: str
    gender: Gender
    birth_date: date
    residence_address: str | None = None
    residence_division: str | None = None
    household_division: str | None = None
    household_address: str | None = None
    citizen_id: str | None = None
    ethnicity: str | None = None
    latin_name: str | None = None
    photo: Photo | None = None

    def __repr__(self) -> str:
        # Values of this type end up in tracebacks and logs; personal data must not.
        return "Holder(...)"


@dataclass(frozen=True, slots=True)
class Permit:
    """What is signed.

    Attributes:
        number: canonical permit number, see `issuance.permit_number`.
        kind: token of the permit kind, e.g. "temporary-residence".
        issuer: URI of the issuing service (CWT iss).
        authority: name of the issuing authority.
        issued_at: when it was signed (CWT iat).
        not_before: first instant at which it is valid (CWT nbf).
        expires_at: first instant at which it is no longer valid (CWT exp).
        status: where its status is published.
        uses: departments it may be shown to; empty means any.
    """

    number: str
    kind: str
    issuer: str
    authority: str
    holder: Holder
    issued_at: datetime
    not_before: datetime
    expires_at: datetime
    status: StatusRef
    uses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reservation:
    """A permit number and status entry that are on disk as taken, and never given out again.

    Attributes:
        serial: position in the journal's sequence, from 0.
    """

    serial: int
    permit_number: str
    status: StatusRef


@dataclass(frozen=True, slots=True)
class IssuedPermit:
    """A signed permit.

    Attributes:
        kid: identifier of the key that signed it.
        cose: the COSE_Sign1 bytes (tag 18).
        qr_text: what the QR symbol holds, base45 of the compressed `cose`.
        digest: SHA-256 of `cose`, hexadecimal; the journal holds the same.
    """

    permit: Permit
    kid: str
    cose: bytes = field(repr=False)
    qr_text: str = field(repr=False)
    digest: str

    @property
    def permit_number(self) -> str:
        return self.permit.number

    @property
    def status(self) -> StatusRef:
        return self.permit.status


class Stage(enum.StrEnum):
    """The step of verification that decided, in the order they run."""

    READ = "read"  # text, base45, decompression
    PARSE = "parse"  # CBOR and COSE structure
    TRUST = "trust"  # the verifier's clock and the age of its trust bundle
    KEY = "key"  # is the signer known, of the right use, unharmed?
    SIGNATURE = "signature"
    CLAIMS = "claims"  # is what was signed a permit of the profile?
    TIME = "time"
    STATUS = "status"
    PURPOSE = "purpose"


class Reason(enum.StrEnum):
    """Stable tokens: programs may rely on them, texts may change."""

    VALID = "VALID"
    NOT_A_PERMIT = "NOT_A_PERMIT"
    TOO_LARGE = "TOO_LARGE"
    MALFORMED = "MALFORMED"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    UNSUPPORTED_CRITICAL = "UNSUPPORTED_CRITICAL"
    UNSUPPORTED_ALGORITHM = "UNSUPPORTED_ALGORITHM"
    CLOCK_BEFORE_TRUST = "CLOCK_BEFORE_TRUST"
    TRUST_TOO_OLD = "TRUST_TOO_OLD"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    ALGORITHM_MISMATCH = "ALGORITHM_MISMATCH"
    WRONG_KEY_USE = "WRONG_KEY_USE"
    KEY_COMPROMISED = "KEY_COMPROMISED"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    MISSING_EXPIRY = "MISSING_EXPIRY"
    WRONG_ISSUER = "WRONG_ISSUER"
    VALIDITY_TOO_LONG = "VALIDITY_TOO_LONG"
    KEY_OUT_OF_PERIOD = "KEY_OUT_OF_PERIOD"
    NOT_YET_VALID = "NOT_YET_VALID"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    SUSPENDED = "SUSPENDED"
    STATUS_UNKNOWN = "STATUS_UNKNOWN"
    PURPOSE_NOT_ALLOWED = "PURPOSE_NOT_ALLOWED"
    INTERNAL = "INTERNAL"


class Freshness(enum.StrEnum):
    """How far the trust bundle can be relied on, by its age."""

    FRESH = "fresh"
    STALE = "stale"  # still accepted, with a warning
    TOO_OLD = "too-old"  # refused


@dataclass(frozen=True, slots=True)
class TrustAge:
    """Age of the trust bundle at the time of a verdict.

    Attributes:
        age_s: seconds since it was published; negative if the clock is behind.
    """

    freshness: Freshness
    published_at: datetime
    age_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a verifier.

    Attributes:
        reason: `Reason.VALID`, or why the permit is refused.
        stage: the step that refused it; None for a valid permit.
        message_en, message_zh: one sentence for the person at the counter.
        shown: what the checker may see, field name to text, in display order. Empty when refused.
        photo: the holder's face, to compare; None when refused, or where the permit has none.
        trust: age of the trust bundle; None if the verifier's clock is wrong.
        warnings: stable tokens, e.g. "TRUST_STALE".
    """

    reason: Reason
    stage: Stage | None
    message_en: str
    message_zh: str
    shown: Mapping[str, str] = field(default_factory=dict)
    trust: TrustAge | None = None
    warnings: tuple[str, ...] = ()
    photo: Photo | None = None

    @property
    def valid(self) -> bool:
        return self.reason is Reason.VALID
