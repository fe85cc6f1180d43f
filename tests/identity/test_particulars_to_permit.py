"""Whoever the register accepts gets a permit: the two sides' rules agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from identity.errors import InvalidRequestError
from identity.particulars import check_particulars
from identity.types import Gender
from issuance import verifier
from issuance.types import Reason
from tests.identity.kit import START, Templates, World, build_world, particulars

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=220)
anything = {
    "name": st.one_of(texts, st.text("甲乙丙丁·ABC -", min_size=1, max_size=100)),
    "address": st.one_of(texts, st.text("样板路0123456789号室 ", min_size=1, max_size=200)),
    "ethnicity": st.one_of(st.just(""), st.text("汉壮满回苗维", min_size=1, max_size=20), texts),
    "gender": st.sampled_from(Gender),
    "birth": st.dates(date(1899, 1, 1), date(2026, 12, 31)),
    "division": st.from_regex(r"[0-9]{5,7}", fullmatch=True),
}


@pytest.fixture(scope="module")
def issuing(tmp_path_factory: pytest.TempPathFactory, made: Templates) -> Iterator[World]:
    world = build_world(made, tmp_path_factory.mktemp("issuing"))
    yield world
    world.database.close()
    world.issuer.close()


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(data=st.fixed_dictionaries(anything))
def test_what_the_register_accepts_can_be_issued_and_verified(
    issuing: World, data: dict[str, Any]
) -> None:
    usual = particulars(1)
    stated = replace(
        usual,
        details=replace(
            usual.details,
            full_name=data["name"],
            gender=data["gender"],
            birth_date=data["birth"],
            document_number="E12345678",
            household_division_code=data["division"],
            ethnicity=data["ethnicity"],
        ),
        residence=replace(usual.residence, address=data["address"]),
    )
    try:
        check_particulars(stated, START)
    except InvalidRequestError:
        assume(False)
    permit = issuing.port.issue("R-1", stated, START)
    told = verifier.verify(permit.qr_text, issuing.trust(), START)
    assert told.reason is Reason.VALID
    assert told.shown["full_name"] == stated.details.full_name


def test_a_child_born_today_in_shanghai_gets_a_permit(issuing: World) -> None:
    """Half past midnight in Shanghai: in UTC it is the day before the birth."""
    midnight = datetime(2026, 11, 24, 16, 30, tzinfo=UTC)
    usual = particulars(1)
    newborn = replace(
        usual,
        details=replace(usual.details, birth_date=date(2026, 11, 25), document_number="E12345678"),
    )
    check_particulars(newborn, midnight)
    issuing.clock.time = midnight
    try:
        permit = issuing.port.issue("R-1", newborn, midnight)
    finally:
        issuing.clock.time = START
    assert permit.permit_number
