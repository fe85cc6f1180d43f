"""What each kind of permit carries, how long it lives, and what each department is shown.

The profile minimises by default. A permit must let a department check that the person in front of
it lives in the city and until when the registration stands; it does not need to repeat what the
citizen's own identity card proves. So neither the citizen ID number nor the full
household-registration address is encoded unless a kind names it in `carries`. State Council Decree
663, article 4 lists what the printed permit shows; what the *symbol* holds is decided here.

`DISCLOSURE` limits what our verifier displays, by department. It cannot hide what is in the symbol
from somebody else's reader: only leaving a field out of `carries` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta, timezone
from typing import Any, Final

from issuance.errors import ProfileError

# Decree 663: a temporary permit lives at most one year.
MAX_VALIDITY_DAYS: Final = 365

# Optional fields of `Holder`, in the order in which cards and verdicts show them.
OPTIONAL_FIELDS: Final = (
    "latin_name",
    "ethnicity",
    "residence_address",
    "residence_division",
    "household_division",
    "household_address",
    "citizen_id",
)
# Carried like these where a kind says so, if the holder has one: not every station has a camera.
# Whoever checks a permit that has one is shown it: comparing faces is what it is for.
PHOTO: Final = "photo"
# Everything a verdict can show, in display order.
SHOWABLE_FIELDS: Final = (
    "full_name",
    "latin_name",
    "gender",
    "ethnicity",
    "birth_date",
    "citizen_id",
    "residence_address",
    "residence_division",
    "household_division",
    "household_address",
    "permit_number",
    "kind",
    "authority",
    "issued_on",
    "valid_from",
    "valid_until",
)

# Departments, with the numbers that key 30 ("uses") of a permit holds.
DEPARTMENTS: Final[Mapping[str, int]] = {
    "education": 1,
    "health": 2,
    "social-security": 3,
    "housing": 4,
    "tax": 5,
    "civil-affairs": 6,
}
# Without a stated purpose: who is it, and does the permit stand?
GENERAL: Final = "general"

_ALWAYS_SHOWN: Final = ("full_name", "permit_number", "kind", "valid_until")
DISCLOSURE: Final[Mapping[str, tuple[str, ...]]] = {
    GENERAL: _ALWAYS_SHOWN,
    # School admission depends on the age of the child and on where the family lives.
    "education": (*_ALWAYS_SHOWN, "birth_date", "residence_address", "residence_division"),
    # Vaccination and maternity services depend on age and sex, not on an address.
    "health": (*_ALWAYS_SHOWN, "birth_date", "gender"),
    # Social insurance identifies by citizen ID number, where the city chose to encode it.
    "social-security": (*_ALWAYS_SHOWN, "birth_date", "citizen_id", "residence_division"),
    "housing": (*_ALWAYS_SHOWN, "residence_address", "residence_division", "valid_from"),
    "tax": (*_ALWAYS_SHOWN, "residence_division", "valid_from"),
    "civil-affairs": (
        *_ALWAYS_SHOWN,
        "birth_date",
        "gender",
        "residence_address",
        "residence_division",
        "household_division",
        "household_address",
    ),
}


@dataclass(frozen=True, slots=True)
class PermitKind:
    """One kind of permit.

    Attributes:
        token: stable name, e.g. "temporary-residence".
        code: what claim 169 key 24 holds.
        prefix: first letter of its permit numbers, A to Z.
        max_validity_days: at most 365.
        carries: optional `Holder` fields that are encoded and printed. They must be given at issue,
            but for `PHOTO`, which may.
    """

    token: str
    code: int
    prefix: str
    title_zh: str
    title_en: str
    max_validity_days: int = MAX_VALIDITY_DAYS
    carries: frozenset[str] = frozenset(
        {"residence_address", "residence_division", "household_division"}
    )

    def __post_init__(self) -> None:
        if not 1 <= self.max_validity_days <= MAX_VALIDITY_DAYS:
            raise ProfileError(
                f"validity of {self.token} is {self.max_validity_days} days, allowed are 1 to "
                f"{MAX_VALIDITY_DAYS}"
            )
        if len(self.prefix) != 1 or not ("A" <= self.prefix <= "Z"):
            raise ProfileError(f"prefix of {self.token} is {self.prefix!r}, not a letter A to Z")
        if unknown := self.carries - {*OPTIONAL_FIELDS, PHOTO}:
            raise ProfileError(f"{self.token} carries unknown fields: {sorted(unknown)}")


TEMPORARY_RESIDENCE: Final = PermitKind(
    "temporary-residence", 1, "T", "暂住证", "Temporary Residence Permit"
)
RESIDENCE: Final = PermitKind("residence", 2, "R", "居住证", "Residence Permit")


@dataclass(frozen=True, slots=True)
class TrustLimits:
    """How old a trust bundle may be.

    Synchronised daily, or carried on a stick: two days forgive one missed day without a warning,
    and two weeks forgive a long holiday. A revocation reaches every verifier within `max_age_s`.

    Attributes:
        fresh_s: up to this age no warning, in seconds.
        max_age_s: beyond this age refused, in seconds.
        clock_leeway_s: how far a verifier's clock may run behind the issuer's, in seconds.
    """

    fresh_s: int = 2 * 86_400
    max_age_s: int = 14 * 86_400
    clock_leeway_s: int = 300

    def __post_init__(self) -> None:
        if not 0 < self.fresh_s <= self.max_age_s or not 0 <= self.clock_leeway_s <= 3_600:
            raise ProfileError(
                f"trust limits must satisfy 0 < fresh_s <= max_age_s and clock_leeway_s <= 3600, "
                f"got {self.fresh_s}, {self.max_age_s}, {self.clock_leeway_s}"
            )


@dataclass(frozen=True, slots=True)
class Profile:
    """The rules of one issuing city; published in its trust bundle.

    Attributes:
        issuer: URI of the issuing service, the CWT `iss`.
        authority: default name of the issuing authority.
        disclosure: department or "general" -> fields a checker is shown.
        utc_offset_h: the time zone in which the dates of a permit are meant.
    """

    issuer: str
    authority: str
    kinds: tuple[PermitKind, ...] = (TEMPORARY_RESIDENCE, RESIDENCE)
    disclosure: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(DISCLOSURE))
    limits: TrustLimits = field(default_factory=TrustLimits)
    utc_offset_h: int = 8

    def __post_init__(self) -> None:
        if "://" not in self.issuer or len(self.issuer) > 100:
            raise ProfileError(
                f"issuer must be a full URI of at most 100 characters: {self.issuer}"
            )
        if not 1 <= len(self.authority) <= 60:
            raise ProfileError("authority must have 1 to 60 characters")
        if not -12 <= self.utc_offset_h <= 14:
            raise ProfileError(f"utc_offset_h must be -12 to 14, got {self.utc_offset_h}")
        for values in ("token", "code", "prefix"):
            if len({getattr(kind, values) for kind in self.kinds}) != len(self.kinds):
                raise ProfileError(f"two kinds of permit share a {values}")
        for purpose, fields in self.disclosure.items():
            if purpose != GENERAL and purpose not in DEPARTMENTS:
                raise ProfileError(f"disclosure for unknown department {purpose!r}")
            if unknown := set(fields) - set(SHOWABLE_FIELDS):
                raise ProfileError(f"disclosure for {purpose} names unknown {sorted(unknown)}")

    @property
    def time_zone(self) -> timezone:
        return timezone(timedelta(hours=self.utc_offset_h))

    def kind(self, token: str) -> PermitKind:
        """The kind of that name. Raises `ProfileError` if there is none."""
        for kind in self.kinds:
            if kind.token == token:
                return kind
        raise ProfileError(f"unknown kind of permit {token!r}")

    def kind_of_code(self, code: int) -> PermitKind | None:
        return next((kind for kind in self.kinds if kind.code == code), None)

    def shown_to(self, purpose: str) -> tuple[str, ...]:
        """Fields shown for `purpose`, in display order. Raises `ProfileError` if unknown."""
        fields = self.disclosure.get(purpose)
        if fields is None:
            known = ", ".join(sorted(self.disclosure))
            raise ProfileError(f"unknown purpose {purpose!r}; known are: {known}")
        return tuple(name for name in SHOWABLE_FIELDS if name in fields)

    def status_uri(self, list_number: int) -> str:
        """URI of a status list, as permits name it; verifiers resolve it inside the bundle."""
        return f"{self.issuer}/status/{list_number}"


def to_json(profile: Profile) -> bytes:
    """The profile as published: UTF-8 JSON with sorted keys, the same bytes every time."""
    document = {
        "version": 1,
        "issuer": profile.issuer,
        "authority": profile.authority,
        "utc_offset_h": profile.utc_offset_h,
        "limits": {
            "fresh_s": profile.limits.fresh_s,
            "max_age_s": profile.limits.max_age_s,
            "clock_leeway_s": profile.limits.clock_leeway_s,
        },
        "kinds": [
            {
                "token": kind.token,
                "code": kind.code,
                "prefix": kind.prefix,
                "title_zh": kind.title_zh,
                "title_en": kind.title_en,
                "max_validity_days": kind.max_validity_days,
                "carries": sorted(kind.carries),
            }
            for kind in profile.kinds
        ],
        "disclosure": {name: list(fields) for name, fields in profile.disclosure.items()},
    }
    return json.dumps(document, ensure_ascii=False, sort_keys=True, indent=1).encode()


def from_json(data: bytes) -> Profile:
    """Read a published profile. Raises `ProfileError` for anything `to_json` does not write."""
    try:
        document: dict[str, Any] = json.loads(data)
        if document["version"] != 1:
            raise ProfileError(f"profile version {document['version']!r} is not known, update")
        return Profile(
            issuer=document["issuer"],
            authority=document["authority"],
            utc_offset_h=document["utc_offset_h"],
            limits=TrustLimits(**document["limits"]),
            kinds=tuple(
                PermitKind(**{**kind, "carries": frozenset(kind["carries"])})
                for kind in document["kinds"]
            ),
            disclosure={name: tuple(fields) for name, fields in document["disclosure"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ProfileError(f"not a profile: {type(error).__name__}") from error
