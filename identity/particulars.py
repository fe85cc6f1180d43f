"""Are these particulars plausible? Says which field is wrong and why, never repeats its content.

GB 11643-1999: a citizen ID number is 6 digits of division, 8 of birth date, 3 of order and a
check character by ISO 7064 MOD 11-2.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from identity.errors import InvalidRequestError
from identity.types import Gender, Particulars, PersonalDetails, Residence

SHANGHAI = ZoneInfo("Asia/Shanghai")
REGISTRATION_DUE = timedelta(days=3)

CITIZEN_ID = re.compile(r"[0-9]{17}[0-9X]")
OTHER_DOCUMENT = re.compile(r"[A-Z0-9]{5,17}")
DIVISION = re.compile(r"[0-9]{6}")
CHECK_CHARACTERS = "10X98765432"

MAX_NAME_CHARS = 100
MAX_ADDRESS_CHARS = 200
EARLIEST_BIRTH = date(1900, 1, 1)


def check_particulars(particulars: Particulars, now: datetime) -> None:
    """Raises InvalidRequestError (``DETAILS_INVALID``) naming the first field that is wrong."""
    today = now.astimezone(SHANGHAI).date()
    _check_details(particulars.details, today)
    check_residence(particulars.residence, today)


def is_late(residence: Residence, now: datetime) -> bool:
    """Whether the registration comes more than 3 days after arrival (Asia/Shanghai dates)."""
    return now.astimezone(SHANGHAI).date() > residence.arrival_date + REGISTRATION_DUE


def citizen_id_check_character(first_17: str) -> str:
    """The 18th character of a citizen ID number (GB 11643, ISO 7064 MOD 11-2)."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(digit) * weight for digit, weight in zip(first_17, weights, strict=True))
    return CHECK_CHARACTERS[total % 11]


def _check_details(details: PersonalDetails, today: date) -> None:
    _check_text("details.full_name", details.full_name, MAX_NAME_CHARS)
    if details.gender is Gender.UNSPECIFIED:
        raise _invalid("details.gender", "must be given")
    if not EARLIEST_BIRTH <= details.birth_date <= today:
        raise _invalid("details.birth_date", "must be between 1900 and today")
    if DIVISION.fullmatch(details.household_division_code) is None:
        raise _invalid("details.household_division_code", "must be 6 digits (GB/T 2260)")
    if details.ethnicity:
        _check_text("details.ethnicity", details.ethnicity, 20)
    _check_document(details)


def _check_document(details: PersonalDetails) -> None:
    number = details.document_number
    if CITIZEN_ID.fullmatch(number):
        if citizen_id_check_character(number[:17]) != number[17]:
            raise _invalid("details.document_number", "has a wrong check character (GB 11643)")
        if number[6:14] != details.birth_date.strftime("%Y%m%d"):
            raise _invalid("details.document_number", "does not agree with the birth date")
    elif OTHER_DOCUMENT.fullmatch(number) is None:
        raise _invalid(
            "details.document_number",
            "must be an 18-character citizen ID number or a passport number of 5 to 17 "
            "capital letters and digits",
        )


def check_residence(residence: Residence, today: date) -> None:
    """Raises InvalidRequestError (``DETAILS_INVALID``)."""
    if DIVISION.fullmatch(residence.division_code) is None:
        raise _invalid("residence.division_code", "must be 6 digits (GB/T 2260)")
    _check_text("residence.address", residence.address, MAX_ADDRESS_CHARS)
    if not EARLIEST_BIRTH <= residence.arrival_date <= today:
        raise _invalid("residence.arrival_date", "must not be in the future")


def _check_text(field: str, text: str, max_chars: int) -> None:
    if not text.strip() or len(text) > max_chars:
        raise _invalid(field, f"must have 1 to {max_chars} characters")
    if text != text.strip():  # the permit's profile refuses them too
        raise _invalid(field, "must not begin or end with a space")
    if not text.isprintable():
        raise _invalid(field, "must not hold control characters")


def _invalid(field: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError("DETAILS_INVALID", f"{field} {problem}")
