from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.errors import InvalidRequestError
from identity.particulars import (
    check_particulars,
    check_residence,
    citizen_id_check_character,
    is_late,
)
from identity.types import Gender, Particulars
from tests.identity.kit import START, particulars

GOOD = particulars(1)

first_17 = st.text("0123456789", min_size=17, max_size=17)


def with_details(**changes: Any) -> Particulars:
    return replace(GOOD, details=replace(GOOD.details, **changes))


def with_residence(**changes: Any) -> Particulars:
    return replace(GOOD, residence=replace(GOOD.residence, **changes))


def refusal(stated: Particulars, now: datetime = START) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        check_particulars(stated, now)
    assert caught.value.reason == "DETAILS_INVALID"
    return str(caught.value)


def test_the_check_character_of_the_standards_own_examples() -> None:
    # GB 11643-1999, annex A: 11010519491231002X and 440524188001010014.
    assert citizen_id_check_character("11010519491231002") == "X"
    assert citizen_id_check_character("44052418800101001") == "4"


@given(first_17, st.integers(0, 16), st.integers(1, 9))
def test_every_single_digit_error_changes_the_check_character(
    digits: str, place: int, by: int
) -> None:
    wrong = digits[:place] + str((int(digits[place]) + by) % 10) + digits[place + 1 :]
    assert citizen_id_check_character(wrong) != citizen_id_check_character(digits)


@given(first_17, st.integers(0, 15))
def test_every_swap_of_neighbouring_digits_changes_the_check_character(
    digits: str, place: int
) -> None:
    swapped = digits[:place] + digits[place + 1] + digits[place] + digits[place + 2 :]
    same = citizen_id_check_character(swapped) == citizen_id_check_character(digits)
    assert same is (swapped == digits)


@given(
    st.dates(date(1900, 1, 1), START.date() - timedelta(days=1)),
    st.integers(0, 999),
    st.sampled_from("0123456789X"),
)
def test_exactly_one_check_character_is_accepted(birth: date, order: int, check: str) -> None:
    digits = f"999999{birth:%Y%m%d}{order:03}"
    stated = with_details(document_number=digits + check, birth_date=birth)
    if check == citizen_id_check_character(digits):
        check_particulars(stated, START)
    else:
        assert "check character" in refusal(stated)


def test_good_particulars_are_accepted() -> None:
    for index in range(200):
        check_particulars(particulars(index), START)


@pytest.mark.parametrize(
    ("stated", "field"),
    [
        (with_details(full_name=""), "details.full_name"),
        (with_details(full_name="   "), "details.full_name"),
        (with_details(full_name="甲" * 101), "details.full_name"),
        (with_details(full_name="甲\n乙"), "details.full_name"),
        (with_details(full_name="甲\u202e乙"), "details.full_name"),
        (with_details(full_name=" 甲乙"), "details.full_name"),
        (with_details(full_name="甲乙 "), "details.full_name"),
        (with_details(gender=Gender.UNSPECIFIED), "details.gender"),
        (with_details(birth_date=date(1899, 12, 31)), "details.birth_date"),
        (with_details(birth_date=date(2026, 11, 25)), "details.birth_date"),
        (with_details(birth_date=date(1990, 1, 1)), "details.document_number"),
        (with_details(document_number=""), "details.document_number"),
        (with_details(document_number="E123"), "details.document_number"),
        (with_details(document_number="e1234567"), "details.document_number"),
        (with_details(document_number="E" * 18), "details.document_number"),
        (with_details(document_number="E123 4567"), "details.document_number"),
        (with_details(document_number="１２３４５６"), "details.document_number"),
        (with_details(household_division_code="99999"), "details.household_division_code"),
        (with_details(household_division_code="九九九九九九"), "details.household_division_code"),
        (with_details(ethnicity="汉" * 21), "details.ethnicity"),
        (with_details(ethnicity="\t"), "details.ethnicity"),
        (with_residence(division_code="9999999"), "residence.division_code"),
        (with_residence(address=""), "residence.address"),
        (with_residence(address="路" * 201), "residence.address"),
        (with_residence(address="样板路1号\0"), "residence.address"),
        (with_residence(address="样板路1号 "), "residence.address"),
        (with_residence(arrival_date=date(2026, 11, 25)), "residence.arrival_date"),
        (with_residence(arrival_date=date(1800, 1, 1)), "residence.arrival_date"),
    ],
)
def test_a_wrong_field_is_named_and_its_content_is_not_repeated(
    stated: Particulars, field: str
) -> None:
    message = refusal(stated)
    assert message.startswith(field + " ")
    for secret in (stated.details.full_name, stated.residence.address):
        assert not secret.strip() or secret not in message


@pytest.mark.parametrize(
    "changes",
    [
        {"document_number": "E12345678"},
        {"document_number": "AB123"},
        {"full_name": "阿依古丽·买买提"},
        {"full_name": "Anna Maria Ek"},
        {"ethnicity": "汉"},
        {"gender": Gender.OTHER},
    ],
)
def test_other_documents_and_names_are_accepted(changes: dict[str, Any]) -> None:
    check_particulars(with_details(**changes), START)


def test_today_is_the_day_in_shanghai() -> None:
    # 16:30 UTC on the 24th is half past midnight on the 25th in Shanghai.
    late_evening = datetime(2026, 11, 24, 16, 30, tzinfo=UTC)
    tomorrow = with_residence(arrival_date=date(2026, 11, 25))
    check_particulars(tomorrow, late_evening)
    refusal(tomorrow, late_evening - timedelta(hours=1))


def test_a_residence_is_checked_on_its_own_when_it_changes() -> None:
    with pytest.raises(InvalidRequestError, match=r"residence\.address"):
        check_residence(replace(GOOD.residence, address=" "), START.date())


@pytest.mark.parametrize(("days", "late"), [(0, False), (3, False), (4, True), (400, True)])
def test_registration_is_late_after_three_days(days: int, late: bool) -> None:
    home = replace(GOOD.residence, arrival_date=date(2026, 11, 24) - timedelta(days=days))
    assert is_late(home, START) is late
