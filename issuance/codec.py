"""Permit <-> the CWT claims that are signed (RFC 8392, Claim 169 v1.2.2).

Written strictly: deterministic CBOR, integer gender, `YYYYMMDD` dates, only the fields the kind
carries. Read leniently where the Claim 169 specification contradicts itself: claim 169 wrapped in a
byte string, gender as text, dates with dashes. `README.md` beside this file has the table of keys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from issuance import cbor, permit_number, photo
from issuance.errors import DecodeError, ProfileError
from issuance.profile import DEPARTMENTS, OPTIONAL_FIELDS, PHOTO, PermitKind, Profile
from issuance.types import Gender, Holder, Permit, Photo, Reason, Stage, StatusRef

# CWT claims (RFC 8392 section 3.1; 65535 is `status`, IETF Token Status List).
ISS, SUB, EXP, NBF, IAT, CLAIM_169, STATUS = 1, 2, 4, 5, 6, 169, 65535
# Claim 169 attributes.
ID, VERSION, LANGUAGE, FULL_NAME, BIRTH_DATE, GENDER, ADDRESS = 1, 2, 3, 4, 8, 9, 10
SECONDARY_NAME, SECONDARY_LANGUAGE, LOCATION, FACE = 19, 20, 21, 62
# Inside an entry of attribute 62: the bytes, 0 for an image, and which kind of image.
_DATA, _FORMAT, _SUB_FORMAT, _IMAGE = 0, 1, 2, 0
# Ours, from the range left to closed ecosystems (24-49).
KIND, AUTHORITY, ETHNICITY, HOUSEHOLD_DIVISION, HOUSEHOLD_ADDRESS, CITIZEN_ID, USES = range(24, 31)

PROFILE_VERSION: Final = "1"
# With a long address, what still fits the back of a card (version 27 at level M).
MAX_PHOTO_BYTES: Final = 640
_OPTIONAL_KEYS: Final[Mapping[str, int]] = {
    "latin_name": SECONDARY_NAME,
    "ethnicity": ETHNICITY,
    "residence_address": ADDRESS,
    "residence_division": LOCATION,
    "household_division": HOUSEHOLD_DIVISION,
    "household_address": HOUSEHOLD_ADDRESS,
    "citizen_id": CITIZEN_ID,
}
_MAX_LENGTH: Final[Mapping[str, int]] = {
    "full_name": 100,
    "latin_name": 100,
    "ethnicity": 20,
    "residence_address": 200,
    "household_address": 200,
}
_DIVISION: Final = re.compile(r"[0-9]{6}")
_CITIZEN_ID: Final = re.compile(r"[0-9]{17}[0-9X]")
_GENDER_WORDS: Final[Mapping[str, Gender]] = {
    "male": Gender.MALE,
    "m": Gender.MALE,
    "female": Gender.FEMALE,
    "f": Gender.FEMALE,
    "other": Gender.OTHER,
    "others": Gender.OTHER,
}
_TEXT_BY_CODE: Final = {code: name for name, code in DEPARTMENTS.items()}


def encode(permit: Permit, profile: Profile) -> bytes:
    """The CWT claims of `permit`, deterministic: equal permits give equal bytes.

    Fields that the permit's kind does not carry are left out even if the holder has them.

    Raises:
        ProfileError: a carried field is missing or ill-formed, or the validity is not allowed.
    """
    kind = profile.kind(permit.kind)
    check(permit, profile, kind)
    holder = permit.holder
    attributes: dict[int, Any] = {
        ID: permit.number,
        VERSION: PROFILE_VERSION,
        LANGUAGE: "zho",
        FULL_NAME: holder.full_name,
        BIRTH_DATE: f"{holder.birth_date:%Y%m%d}",
        GENDER: int(holder.gender),
        KIND: kind.code,
        AUTHORITY: permit.authority,
    }
    for name in kind.carries - {PHOTO}:
        attributes[_OPTIONAL_KEYS[name]] = getattr(holder, name)
    if PHOTO in kind.carries and holder.photo is not None:
        attributes[FACE] = [{_DATA: holder.photo.data, _FORMAT: _IMAGE, _SUB_FORMAT: photo.WEBP}]
    if "latin_name" in kind.carries:
        attributes[SECONDARY_LANGUAGE] = "zho-Latn"
    if permit.uses:
        attributes[USES] = sorted(DEPARTMENTS[use] for use in permit.uses)
    reference = {"idx": permit.status.index, "uri": profile.status_uri(permit.status.list_number)}
    return cbor.encode(
        {
            ISS: permit.issuer,
            SUB: permit.number,
            EXP: int(permit.expires_at.timestamp()),
            NBF: int(permit.not_before.timestamp()),
            IAT: int(permit.issued_at.timestamp()),
            CLAIM_169: attributes,
            STATUS: {"status_list": reference},
        }
    )


def check(permit: Permit, profile: Profile, kind: PermitKind) -> None:
    """Raise `ProfileError` unless `permit` may be issued under `profile`."""
    if not permit_number.is_valid(permit.number) or permit.number[0] != kind.prefix:
        raise ProfileError(f"{permit.number!r} is not a permit number of kind {kind.token}")
    if permit.issuer != profile.issuer:
        raise ProfileError(f"issuer {permit.issuer} is not the profile's {profile.issuer}")
    for instant in (permit.issued_at, permit.not_before, permit.expires_at):
        if instant.utcoffset() is None or instant.microsecond:
            raise ProfileError("instants must be timezone-aware and at whole seconds")
    validity_s = (permit.expires_at - permit.not_before).total_seconds()
    if not 0 < validity_s <= kind.max_validity_days * 86_400:
        raise ProfileError(
            f"validity is {validity_s / 86_400:.1f} days, {kind.token} allows more than 0 and at "
            f"most {kind.max_validity_days}"
        )
    if permit.not_before < permit.issued_at:
        raise ProfileError("a permit cannot be valid before it is issued")
    if not 1 <= len(permit.authority) <= 60:
        raise ProfileError("authority must have 1 to 60 characters")
    if unknown := set(permit.uses) - set(DEPARTMENTS):
        raise ProfileError(f"unknown departments in uses: {sorted(unknown)}")
    _check_holder(permit, kind, permit.issued_at.astimezone(profile.time_zone).date())


def _check_holder(permit: Permit, kind: PermitKind, today: date) -> None:
    holder = permit.holder
    if PHOTO in kind.carries and holder.photo is not None:
        if holder.photo.media_type != photo.MEDIA_TYPES[photo.WEBP]:
            raise ProfileError("the photograph is no WebP picture; see issuance.photo.make")
        if len(holder.photo.data) > MAX_PHOTO_BYTES:
            raise ProfileError(f"the photograph is larger than {MAX_PHOTO_BYTES} bytes")
    if not date(1850, 1, 1) <= holder.birth_date <= today:
        raise ProfileError("date of birth must lie between 1850 and the day of issue")
    for name in ("full_name", *(name for name in OPTIONAL_FIELDS if name in kind.carries)):
        value: str | None = getattr(holder, name)
        if not value:
            raise ProfileError(f"{kind.token} carries {name}, and the holder has none")
        if name in _MAX_LENGTH and len(value) > _MAX_LENGTH[name]:
            raise ProfileError(f"{name} is longer than {_MAX_LENGTH[name]} characters")
        if any(not c.isprintable() for c in value) or value != value.strip():
            raise ProfileError(f"{name} has control characters or spaces around it")
        if name.endswith("_division") and not _DIVISION.fullmatch(value):
            raise ProfileError(f"{name} is not a 6-digit GB/T 2260 code")
        if name == "citizen_id" and not _CITIZEN_ID.fullmatch(value):
            raise ProfileError("citizen_id is not 17 digits and a digit or X")


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of any Claim 169 credential, ours or not.

    Attributes:
        expires_at, not_before, issued_at: seconds since 1970-01-01 UTC.
        status: URI of the status list and the index in it.
        attributes: claim 169 as read, keys unchecked; unknown keys are kept.
    """

    issuer: str | None
    subject: str | None
    expires_at: int | None
    not_before: int | None
    issued_at: int | None
    status: tuple[str, int] | None
    attributes: Mapping[int, Any]

    def __repr__(self) -> str:
        return f"Claims(issuer={self.issuer!r}, ...)"


def read_claims(payload: bytes) -> Claims:
    """The claims in a signed payload, read leniently.

    Raises `DecodeError` with stage CLAIMS: NOT_A_PERMIT without claim 169, DUPLICATE_KEY, or
    MALFORMED.
    """
    try:
        claims = cbor.decode(payload)
    except cbor.DuplicateKeyError as error:
        raise _refused(Reason.DUPLICATE_KEY, "the claims name a key twice") from error
    except cbor.CborError as error:
        raise _refused(Reason.MALFORMED, f"the claims are not CBOR: {error}") from error
    # A CWT nested in its own tag (RFC 8392 section 6) is met in the wild.
    if isinstance(claims, cbor.Tagged) and claims.tag == 61:
        claims = claims.value
    if not isinstance(claims, dict) or CLAIM_169 not in claims:
        raise _refused(Reason.NOT_A_PERMIT, "there is no claim 169")
    return Claims(
        issuer=_text_or_none(claims, ISS),
        subject=_text_or_none(claims, SUB),
        expires_at=_seconds_or_none(claims, EXP),
        not_before=_seconds_or_none(claims, NBF),
        issued_at=_seconds_or_none(claims, IAT),
        status=_status_or_none(claims.get(STATUS)),
        attributes=_attributes(claims[CLAIM_169]),
    )


def permit_from(claims: Claims, profile: Profile) -> Permit:
    """The permit that `claims` state, checked against `profile`.

    Raises `DecodeError` with stage CLAIMS: NOT_A_PERMIT, MISSING_EXPIRY, WRONG_ISSUER,
    VALIDITY_TOO_LONG or MALFORMED.
    """
    attributes = claims.attributes
    if claims.expires_at is None:
        raise _refused(Reason.MISSING_EXPIRY, "there is no expiry")
    if claims.issuer != profile.issuer:
        raise _refused(Reason.WRONG_ISSUER, "another issuer than the trust bundle's")
    code = attributes.get(KIND)
    kind = profile.kind_of_code(code) if isinstance(code, int) else None
    if kind is None:
        raise _refused(Reason.NOT_A_PERMIT, "no kind of permit that the profile knows")
    number = _required_text(attributes, ID)
    if not permit_number.is_valid(number) or claims.subject not in (None, number):
        raise _refused(Reason.MALFORMED, "permit number is wrong or not the subject")
    if claims.issued_at is None or claims.status is None:
        raise _refused(Reason.MALFORMED, "no time of issue or no status reference")
    not_before = claims.issued_at if claims.not_before is None else claims.not_before
    if claims.expires_at - not_before > kind.max_validity_days * 86_400:
        raise _refused(Reason.VALIDITY_TOO_LONG, f"valid longer than {kind.max_validity_days} days")
    return Permit(
        number=number,
        kind=kind.token,
        issuer=profile.issuer,
        authority=_required_text(attributes, AUTHORITY),
        holder=_holder(attributes),
        issued_at=_instant(claims.issued_at),
        not_before=_instant(not_before),
        expires_at=_instant(claims.expires_at),
        status=_status_ref(claims.status, profile),
        uses=_uses(attributes.get(USES)),
    )


def gender_from(value: object) -> Gender:
    """Gender from an integer or, as the specification's own example has it, a word."""
    try:
        if isinstance(value, str):
            folded = value.strip().lower()
            return _GENDER_WORDS[folded] if folded in _GENDER_WORDS else Gender(int(folded))
        if isinstance(value, int) and not isinstance(value, bool):
            return Gender(value)
    except ValueError:
        pass
    raise _refused(Reason.MALFORMED, "gender is none of 1, 2, 3")


def birth_date_from(value: object) -> date:
    """Date from `YYYYMMDD`, or leniently `YYYY-MM-DD`."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise _refused(Reason.MALFORMED, "date of birth is not YYYYMMDD")


def _refused(reason: Reason, message: str) -> DecodeError:
    return DecodeError(Stage.CLAIMS, reason, message)


def _attributes(value: Any) -> Mapping[int, Any]:
    if isinstance(value, bytes):  # the specification's worked example wraps the map
        try:
            value = cbor.decode(value)
        except cbor.DuplicateKeyError as error:
            raise _refused(Reason.DUPLICATE_KEY, "claim 169 names a key twice") from error
        except cbor.CborError as error:
            raise _refused(Reason.MALFORMED, "claim 169 is not CBOR") from error
    if not isinstance(value, dict):
        raise _refused(Reason.MALFORMED, "claim 169 is not a map")
    return {key: item for key, item in value.items() if isinstance(key, int)}


def _text_or_none(claims: Mapping[Any, Any], key: int) -> str | None:
    value = claims.get(key)
    if value is not None and not isinstance(value, str):
        raise _refused(Reason.MALFORMED, f"key {key} is not text")
    return value


def _required_text(attributes: Mapping[Any, Any], key: int) -> str:
    value = _text_or_none(attributes, key)
    if not value:
        raise _refused(Reason.MALFORMED, f"key {key} is missing")
    return value


def _seconds_or_none(claims: Mapping[Any, Any], key: int) -> int | None:
    value = claims.get(key)
    if isinstance(value, float) and math.isfinite(value):
        value = math.floor(value)
    if value is None:
        return None
    # Year 9999 is the last that datetime can hold.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 253_402_300_800:
        raise _refused(Reason.MALFORMED, f"claim {key} is not a time")
    return value


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _status_or_none(value: Any) -> tuple[str, int] | None:
    if value is None:
        return None
    match value:
        case {"status_list": {"idx": int(index), "uri": str(uri)}} if index >= 0:
            return uri, index
    raise _refused(Reason.MALFORMED, "the status claim names no status list")


def _status_ref(status: tuple[str, int], profile: Profile) -> StatusRef:
    uri, index = status
    head, _, number = uri.rpartition("/")
    if f"{head}/" == profile.status_uri(0)[:-1] and re.fullmatch(r"[1-9][0-9]{0,8}", number):
        return StatusRef(int(number), index)
    raise _refused(Reason.MALFORMED, "the status list is not one of the issuer's")


def _holder(attributes: Mapping[int, Any]) -> Holder:
    optional = {name: _text_or_none(attributes, key) for name, key in _OPTIONAL_KEYS.items()}
    return Holder(
        full_name=_required_text(attributes, FULL_NAME),
        gender=gender_from(attributes.get(GENDER)),
        birth_date=birth_date_from(attributes.get(BIRTH_DATE)),
        photo=photo_from(attributes.get(FACE)),
        **optional,
    )


def photo_from(value: object) -> Photo | None:
    """The photograph in attribute 62: in a list as specified, or as the bare map of its example.

    None for anything that is not shown: a template, another kind of image, more than
    `photo.MAX_BYTES`. A permit stands with or without its picture.
    """
    match value[0] if isinstance(value, list) and value else value:
        case {0: bytes(data), **rest} if 0 < len(data) <= photo.MAX_BYTES:
            kind = rest.get(_SUB_FORMAT)
            if rest.get(_FORMAT, _IMAGE) == _IMAGE and isinstance(kind, int):
                media_type = photo.MEDIA_TYPES.get(kind)
                return Photo(media_type, data) if media_type else None
    return None


def _uses(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(code, int) for code in value):
        raise _refused(Reason.MALFORMED, "uses is not a list of numbers")
    # An unknown department is kept as text, so that it never widens what is allowed.
    return tuple(_TEXT_BY_CODE.get(code, f"department-{code}") for code in value)
