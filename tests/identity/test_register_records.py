"""Lookups, moves, departures and erasure."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from identity.errors import (
    IdentityError,
    InvalidRequestError,
    NotFoundError,
    SealError,
    StateError,
    UnavailableError,
)
from identity.references import ReferenceFollower
from identity.types import (
    ApplicationState,
    Once,
    PermitState,
    Purpose,
    RegistrantState,
)
from issuance import verifier
from issuance.types import Reason
from matcher.errors import UnknownSubjectError
from matcher.matcher import Matcher
from tests.identity.kit import (
    ANNA,
    COUNTER,
    START,
    TERMINAL,
    World,
    once,
    particulars,
    templates,
)

LOOK = "RegisterService.GetRegistrant"


@pytest.fixture
def somebody(world: World) -> str:
    return world.registrant(1, permit=True)


def depart(world: World, registrant_id: str, day: date = START.date(), key: str = "") -> Any:
    change = once(ANNA, "RegisterService.RecordDeparture", key)
    return world.register.record_departure(registrant_id, day, change)


def erasing(key: str = "") -> Once:
    return once(ANNA, "RegisterService.EraseRegistrant", key)


def refused(world: World, error: type[IdentityError], reason: str, step: Any) -> None:
    before = world.dump()
    with pytest.raises(error) as caught:
        step()
    assert caught.value.reason == reason
    assert world.dump() == before


# -- lookups ----


def test_a_lookup_shows_the_record_and_is_visible_to_the_person(
    world: World, somebody: str
) -> None:
    file = world.register.look_up(somebody, "", COUNTER, ANNA, LOOK)
    assert file.registrant.particulars == particulars(1)
    assert [permit.state for permit in file.permits] == [PermitState.VALID]
    (seen,) = world.register.disclosures(somebody, None, 10)
    assert (seen.who, seen.action, seen.at) == (ANNA, LOOK, START)
    assert Purpose(seen.purpose, seen.case_reference) == COUNTER


def test_a_permit_number_finds_its_holder(world: World, somebody: str) -> None:
    number = world.register.look_up(somebody, "", COUNTER, ANNA, LOOK).permits[0]
    found = world.register.look_up("", number.permit.permit_number, COUNTER, ANNA, LOOK)
    assert found.registrant.registrant_id == somebody
    assert len(world.register.disclosures(somebody, None, 10)) == 2


@pytest.mark.parametrize(
    "purpose",
    [
        Purpose("", ""),
        Purpose("", "case 7"),
        Purpose("curiosity", "case 7"),
        Purpose("counter-service", ""),
        Purpose("counter-service", "x" * 65),
        Purpose("Counter-Service", "case 7"),
    ],
)
def test_without_a_configured_purpose_nothing_is_looked_up(
    world: World, somebody: str, purpose: Purpose
) -> None:
    code, reference = purpose.code, purpose.case_reference
    for step in (
        lambda: world.register.look_up(somebody, "", purpose, ANNA, LOOK),
        lambda: world.lookups.identify(templates(1), 0, code, reference),
        lambda: world.lookups.verify(somebody, templates(1), code, reference),
    ):
        refused(world, InvalidRequestError, "PURPOSE_UNKNOWN", step)


def test_a_lookup_needs_a_name_for_whom(world: World, somebody: str) -> None:
    refused(
        world,
        InvalidRequestError,
        "WHO_MISSING",
        lambda: world.register.look_up("", "", COUNTER, ANNA, LOOK),
    )
    for registrant_id, number, reason in (
        ("R-0", "", "REGISTRANT_UNKNOWN"),
        ("", "T-0", "PERMIT_UNKNOWN"),
    ):
        refused(
            world,
            NotFoundError,
            reason,
            lambda one=registrant_id, other=number: world.register.look_up(
                one, other, COUNTER, ANNA, LOOK
            ),
        )
    refused(
        world,
        NotFoundError,
        "REGISTRANT_UNKNOWN",
        lambda: world.register.disclosures("R-0", None, 10),
    )


# -- biometric questions ----


def test_identify_finds_the_person_and_tells_them(world: World, somebody: str) -> None:
    other = world.registrant(2)
    found, thresholds = world.lookups.identify(templates(1, 1), 0, "identity-check", "case 1")
    assert [candidate.subject_id for candidate in found.candidates] == [somebody]
    assert found.candidates[0].similarity >= thresholds.same > thresholds.grey
    (seen,) = world.register.disclosures(somebody, None, 10)
    assert (seen.who, seen.action) == ("operator:anna", "MatchingService.Identify")
    assert world.register.disclosures(other, None, 10) == []


def test_a_search_that_finds_nobody_is_logged_too(world: World, somebody: str) -> None:
    found, _ = world.lookups.identify(templates(7), 0, "identity-check", "case 1")
    assert found.candidates == ()
    with world.database.read() as tx:
        (entry,) = tx.audit.about([""], None, 10)
    assert entry.action == "MatchingService.Identify"


def test_an_incomplete_search_is_no_answer(
    world: World, somebody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Matcher.identify

    def part(self: Matcher, *arguments: Any, **named: Any) -> Any:
        return replace(whole(self, *arguments, **named), complete=False)

    monkeypatch.setattr(Matcher, "identify", part)
    refused(
        world,
        UnavailableError,
        "SEARCH_INCOMPLETE",
        lambda: world.lookups.identify(templates(1), 0, "identity-check", "case 1"),
    )


@pytest.mark.parametrize("limit", [-1, 51])
def test_a_limit_out_of_range_is_refused(world: World, limit: int) -> None:
    refused(
        world,
        InvalidRequestError,
        "LIMIT_INVALID",
        lambda: world.lookups.identify(templates(1), limit, "identity-check", "case 1"),
    )


@pytest.mark.parametrize("count", [0, 11])
def test_one_to_ten_fingers_are_asked_with(world: World, somebody: str, count: int) -> None:
    probes = (templates(1) * 6)[:count]
    for step in (
        lambda: world.lookups.identify(probes, 0, "identity-check", "case 1"),
        lambda: world.lookups.verify(somebody, probes, "identity-check", "case 1"),
    ):
        refused(world, InvalidRequestError, "SAMPLES_MISSING", step)


def test_a_claim_is_verified_and_a_non_match_is_an_answer(world: World, somebody: str) -> None:
    ask = world.lookups.verify
    assert ask(somebody, templates(1, 1), "identity-check", "case 1").is_match
    assert not ask(somebody, templates(2), "identity-check", "case 2").is_match
    seen = [entry.case_reference for entry in world.register.disclosures(somebody, None, 10)]
    assert seen == ["case 2", "case 1"]
    refused(
        world,
        NotFoundError,
        "REGISTRANT_UNKNOWN",
        lambda: ask("R-0", templates(1), "identity-check", "case 1"),
    )


# -- moving ----


def test_a_new_address_replaces_the_old_one(world: World, somebody: str) -> None:
    home = replace(particulars(1).residence, address="示例区新路9号")
    file = world.register.change_residence(somebody, home, once(ANNA, key="annas-moving-key"))
    assert file.registrant.particulars is not None
    assert file.registrant.particulars.residence == home
    assert file.registrant.particulars.details == particulars(1).details
    later = replace(home, address="示例区旧路1号")
    world.register.change_residence(somebody, later, once(ANNA))
    again = world.register.change_residence(somebody, home, once(ANNA, key="annas-moving-key"))
    assert again.registrant.particulars is not None
    assert again.registrant.particulars.residence == later  # the retry moved nobody back


def test_a_wrong_address_or_an_absent_person_changes_nothing(world: World, somebody: str) -> None:
    home = particulars(1).residence
    refused(
        world,
        InvalidRequestError,
        "DETAILS_INVALID",
        lambda: world.register.change_residence(somebody, replace(home, address=""), once(ANNA)),
    )
    refused(
        world,
        NotFoundError,
        "REGISTRANT_UNKNOWN",
        lambda: world.register.change_residence("R-0", home, once(ANNA)),
    )
    depart(world, somebody)
    refused(
        world,
        StateError,
        "NOT_RESIDENT",
        lambda: world.register.change_residence(somebody, home, once(ANNA)),
    )


# -- leaving ----


def test_departure_ends_the_registration_and_its_permit(world: World, somebody: str) -> None:
    shown = world.register.look_up(somebody, "", COUNTER, ANNA, LOOK).permits[0]
    file = depart(world, somebody)
    assert file.registrant.state is RegistrantState.DEPARTED
    assert [permit.state for permit in file.permits] == [PermitState.REVOKED]
    told = verifier.verify(shown.permit.qr_text, world.trust(), world.clock.now())
    assert told.reason is Reason.REVOKED


def test_departure_is_recorded_once(world: World, somebody: str) -> None:
    key = "annas-departure-key"
    assert depart(world, somebody, key=key) == depart(world, somebody, key=key)
    refused(world, StateError, "ALREADY_DEPARTED", lambda: depart(world, somebody))


def test_nobody_departs_tomorrow_or_unknown(world: World, somebody: str) -> None:
    tomorrow = START.date() + timedelta(days=1)
    refused(
        world,
        InvalidRequestError,
        "DETAILS_INVALID",
        lambda: depart(world, somebody, tomorrow),
    )
    refused(world, NotFoundError, "REGISTRANT_UNKNOWN", lambda: depart(world, "R-0"))


# -- erasure ----


def erased(world: World, registrant_id: str) -> str:
    depart(world, registrant_id)
    world.register.erase(registrant_id, erasing())
    return registrant_id


def test_only_who_has_left_is_erased(world: World, somebody: str) -> None:
    refused(world, StateError, "NOT_DEPARTED", lambda: world.register.erase(somebody, erasing()))
    refused(
        world, NotFoundError, "REGISTRANT_UNKNOWN", lambda: world.register.erase("R-0", erasing())
    )
    erased(world, somebody)
    refused(world, StateError, "NOT_DEPARTED", lambda: world.register.erase(somebody, erasing()))


def test_erasure_is_answered_the_same_again(world: World, somebody: str) -> None:
    depart(world, somebody)
    at = world.register.erase(somebody, erasing("annas-erasing-key"))
    assert at == START
    world.clock.advance(timedelta(hours=1))
    assert world.register.erase(somebody, erasing("annas-erasing-key")) == at


def test_templates_leave_the_index_at_once(world: World, somebody: str) -> None:
    other = world.registrant(2)
    erased(world, somebody)
    assert somebody not in world.comparer
    assert other in world.comparer
    found, _ = world.lookups.identify(templates(1, 1), 0, "identity-check", "case 1")
    assert found.candidates == ()
    with pytest.raises(StateError) as caught:
        world.lookups.verify(somebody, templates(1), "identity-check", "case 1")
    assert caught.value.reason == "NO_REFERENCES"
    with pytest.raises(UnknownSubjectError):
        world.comparer.verify(somebody, templates(1), fmr=1e-4)


def test_nothing_of_the_person_can_be_read_again(world: World, somebody: str) -> None:
    again = world.enrol(1, impression=1).application
    with world.database.read() as tx:
        rows = tx.connection.exec_driver_sql(
            "SELECT key_id, wrapped FROM data_keys WHERE key_id IN "
            "(SELECT key_id FROM applications WHERE registrant_id = ?)",
            (somebody,),
        )
        keys_before: dict[str, bytes] = {row.key_id: row.wrapped for row in rows}
    assert len(keys_before) == 2
    assert again.registrant_id == somebody
    number = world.register.look_up(somebody, "", COUNTER, ANNA, LOOK).permits[0]
    erased(world, somebody)

    file = world.register.look_up(somebody, "", COUNTER, ANNA, LOOK)
    assert file.registrant.state is RegistrantState.ERASED
    assert file.registrant.particulars is None
    assert file.registrant.fingers == ()
    assert file.permits == ()
    with world.database.read() as tx:
        for key_id in keys_before:
            with pytest.raises(SealError) as caught:
                tx.people.data_key(key_id)
            assert caught.value.reason == "ERASED"
        assert tx.people.registrants_with_document(particulars(1).details.document_number) == []
        assert tx.people.reference_records(somebody) == []
    dump = "\n".join(world.dump()).upper()
    for wrapped in keys_before.values():
        assert wrapped.hex().upper() not in dump
    with pytest.raises(NotFoundError) as unknown:
        world.register.look_up("", number.permit.permit_number, COUNTER, ANNA, LOOK)
    assert unknown.value.reason == "PERMIT_UNKNOWN"


def test_who_looked_stays_known_after_erasure(world: World, somebody: str) -> None:
    world.register.look_up(somebody, "", COUNTER, ANNA, LOOK)
    erased(world, somebody)
    assert [entry.who for entry in world.register.disclosures(somebody, None, 10)] == [ANNA]
    with world.database.read() as tx:
        assert tx.audit.verify()[2] == 0


def test_an_erased_persons_application_still_answers(world: World) -> None:
    application = world.enrol(1, permit=True, key="the-terminals-own-key").application
    assert application.registrant_id is not None
    erased(world, application.registrant_id)
    answer = world.reception.application(application.application_id, TERMINAL)
    assert answer.application.state is ApplicationState.ENROLLED
    assert answer.permit is None
    assert world.enrol(1, permit=True, key="the-terminals-own-key") == answer


def test_who_was_erased_may_come_again_as_somebody_new(world: World, somebody: str) -> None:
    erased(world, somebody)
    application = world.enrol(1, impression=1).application
    assert application.state is ApplicationState.ENROLLED
    assert application.registrant_id != somebody


def test_an_erased_person_stays_out_of_an_index_made_anew(world: World, somebody: str) -> None:
    erased(world, somebody)
    fresh = Matcher.open(None)
    with world.database.read() as tx:
        kinds = [change.kind for change in tx.people.changes_after(0, 10)]
    assert kinds == ["add", "withdraw"]
    ReferenceFollower(world.database, fresh).catch_up()
    assert somebody not in fresh
    assert len(fresh) == 0
