"""Cases as a state machine: each legal step once, each illegal one raises and changes nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from identity.errors import (
    IdempotencyConflictError,
    IdentityError,
    InvalidRequestError,
    NotFoundError,
    StateError,
)
from identity.types import ApplicationState, Case, CaseState, Verdict
from tests.identity.kit import ANNA, BO, CHEN, DAI, START, TERMINAL, World, decision, once

DIFFERENT, SAME, REJECT = Verdict.DIFFERENT_PERSON, Verdict.SAME_PERSON, Verdict.REJECT


@pytest.fixture
def known(world: World) -> str:
    return world.registrant(1)


@pytest.fixture
def case(world: World, known: str) -> Case:
    """Somebody with the fingers of registrant 1 and the name of person 50."""
    return world.open_case(1, name=50)


def appeal(
    world: World, case: Case, statement: str = "I am not that person", key: str = ""
) -> Case:
    change = once(ANNA, "AdjudicationService.AppealCase", key)
    return world.adjudication.appeal(case.case_id, statement, change)


def rejected(world: World, case: Case) -> Case:
    world.decide(case, ANNA, REJECT)
    return world.decide(case, BO, REJECT)


def refused(world: World, error: type[IdentityError], reason: str, step: object) -> None:
    """``step`` raises, and not a byte of the register is different afterwards."""
    before = world.dump()
    with pytest.raises(error) as caught:
        step()  # type: ignore[operator]
    assert caught.value.reason == reason
    assert world.dump() == before


# -- legal steps ----


def test_open_to_decided_by_one_who_finds_a_different_person(world: World, case: Case) -> None:
    decided = world.decide(case, ANNA, DIFFERENT)
    assert decided.state is CaseState.DECIDED
    application = world.enrolment.application(case.application_id)
    assert application.state is ApplicationState.ENROLLED
    assert application.registrant_id not in (None, case.candidates[0].registrant_id)
    assert application.case_id == case.case_id
    assert world.registrants() == 2


@pytest.mark.parametrize("verdict", [SAME, REJECT])
def test_open_to_awaiting_a_second(world: World, case: Case, verdict: Verdict) -> None:
    waiting = world.decide(case, ANNA, verdict)
    assert waiting.state is CaseState.AWAITING_SECOND
    assert [one.operator_id for one in waiting.decisions] == [ANNA]
    assert world.application_state(case.application_id) is ApplicationState.IN_ADJUDICATION


def test_awaiting_to_decided_when_the_second_agrees_on_the_same_person(
    world: World, case: Case, known: str
) -> None:
    world.decide(case, ANNA, SAME)
    decided = world.decide(case, BO, SAME, known)
    assert decided.state is CaseState.DECIDED
    application = world.enrolment.application(case.application_id)
    assert application.state is ApplicationState.RECOGNISED
    assert application.registrant_id == known
    assert world.registrants() == 1


def test_awaiting_to_decided_when_the_second_agrees_to_reject(world: World, case: Case) -> None:
    decided = rejected(world, case)
    assert decided.state is CaseState.DECIDED
    assert world.application_state(case.application_id) is ApplicationState.REJECTED
    assert world.registrants() == 1


def test_awaiting_to_decided_when_the_second_finds_a_different_person(
    world: World, case: Case
) -> None:
    world.decide(case, ANNA, REJECT)
    decided = world.decide(case, BO, DIFFERENT)
    assert decided.state is CaseState.DECIDED
    assert world.application_state(case.application_id) is ApplicationState.ENROLLED


def test_two_who_disagree_on_why_leave_it_to_a_third(world: World, case: Case, known: str) -> None:
    world.decide(case, ANNA, REJECT)
    assert world.decide(case, BO, SAME).state is CaseState.AWAITING_SECOND
    assert world.application_state(case.application_id) is ApplicationState.IN_ADJUDICATION
    decided = world.decide(case, CHEN, SAME)
    assert decided.state is CaseState.DECIDED
    assert world.enrolment.application(case.application_id).registrant_id == known


def test_two_who_name_different_candidates_have_not_agreed(world: World) -> None:
    # Registrants 1 and 2 have the same fingers: people once found them to be two persons.
    first = world.registrant(1)
    double = world.open_case(1, name=50)
    world.decide(double, ANNA, DIFFERENT)
    second = world.enrolment.application(double.application_id).registrant_id
    assert second is not None
    case = world.open_case(1, name=51, impression=2)
    assert {candidate.registrant_id for candidate in case.candidates} == {first, second}
    world.decide(case, ANNA, SAME, first)
    assert world.decide(case, BO, SAME, second).state is CaseState.AWAITING_SECOND
    assert world.decide(case, CHEN, SAME, second).state is CaseState.DECIDED
    assert world.enrolment.application(case.application_id).registrant_id == second


def test_decided_to_appealed_and_decided_again_by_others(world: World, case: Case) -> None:
    appealed = appeal(world, rejected(world, case))
    assert appealed.state is CaseState.APPEALED
    assert appealed.round == 2
    assert world.application_state(case.application_id) is ApplicationState.IN_ADJUDICATION
    decided = world.decide(case, CHEN, DIFFERENT)
    assert decided.state is CaseState.DECIDED
    assert world.application_state(case.application_id) is ApplicationState.ENROLLED


def test_what_was_decided_before_an_appeal_does_not_count_after_it(
    world: World, case: Case
) -> None:
    appeal(world, rejected(world, case))
    assert world.decide(case, CHEN, REJECT).state is CaseState.AWAITING_SECOND
    assert world.decide(case, DAI, REJECT).state is CaseState.DECIDED
    assert world.application_state(case.application_id) is ApplicationState.REJECTED


def test_the_persons_own_words_are_there_for_who_decides_anew(world: World, case: Case) -> None:
    statement = "我不是那个人，这里有我的出生证明"
    appeal(world, rejected(world, case), statement)
    file = world.adjudication.open_file(case.case_id, CHEN, "AdjudicationService.GetCase")
    assert [(one.statement, one.taken_by, one.at) for one in file.case.appeals] == [
        (statement, ANNA, START)
    ]
    world.decide(case, CHEN, REJECT)
    world.decide(case, DAI, REJECT)
    appeal(world, case, "still not me")
    assert [one.statement for one in world.case(case.case_id).appeals] == [
        statement,
        "still not me",
    ]


# -- illegal steps ----


def test_one_operator_cannot_be_the_second_too(world: World, case: Case) -> None:
    world.decide(case, ANNA, REJECT)
    for verdict in Verdict:
        refused(
            world,
            StateError,
            "SECOND_OPERATOR_REQUIRED",
            lambda verdict=verdict: world.decide(case, ANNA, verdict),
        )


def test_who_decided_before_an_appeal_cannot_decide_after_it(world: World, case: Case) -> None:
    appeal(world, rejected(world, case))
    for operator in (ANNA, BO):
        refused(
            world,
            StateError,
            "SECOND_OPERATOR_REQUIRED",
            lambda operator=operator: world.decide(case, operator, DIFFERENT),
        )


@pytest.mark.parametrize("verdict", Verdict)
def test_a_closed_case_cannot_be_decided_again(world: World, case: Case, verdict: Verdict) -> None:
    rejected(world, case)
    refused(world, StateError, "CASE_CLOSED", lambda: world.decide(case, CHEN, verdict))


def test_a_candidate_who_is_not_in_the_case_cannot_be_chosen(world: World, case: Case) -> None:
    other = world.registrant(2)
    for registrant_id in (other, "R-0", "x" * 400):
        refused(
            world,
            InvalidRequestError,
            "CANDIDATE_UNKNOWN",
            lambda one=registrant_id: world.decide(case, ANNA, SAME, one),
        )


def test_with_several_candidates_one_must_be_named(world: World, case: Case) -> None:
    world.decide(case, ANNA, DIFFERENT)
    several = world.open_case(1, name=51, impression=2)
    assert len(several.candidates) == 2
    refused(
        world, InvalidRequestError, "CANDIDATE_UNKNOWN", lambda: world.decide(several, ANNA, SAME)
    )


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_a_decision_needs_a_reason(world: World, case: Case, reason: str) -> None:
    refused(
        world,
        InvalidRequestError,
        "REASON_MISSING",
        lambda: world.adjudication.decide(case.case_id, REJECT, "", reason, decision(ANNA)),
    )


def test_an_unknown_case_can_neither_be_decided_nor_appealed(world: World) -> None:
    for step in (
        lambda: world.adjudication.decide("C-0", REJECT, "", "why", decision(ANNA)),
        lambda: world.adjudication.appeal("C-0", "why", once(ANNA)),
        lambda: world.adjudication.open_file("C-0", ANNA, "AdjudicationService.GetCase"),
    ):
        refused(world, NotFoundError, "CASE_UNKNOWN", step)


def test_an_open_case_cannot_be_appealed(world: World, case: Case) -> None:
    refused(world, StateError, "CASE_OPEN", lambda: appeal(world, case))
    world.decide(case, ANNA, REJECT)
    refused(world, StateError, "CASE_OPEN", lambda: appeal(world, case))
    appeal(world, world.decide(case, BO, REJECT))
    refused(world, StateError, "CASE_OPEN", lambda: appeal(world, case))


def test_only_a_rejection_can_be_appealed(world: World, case: Case) -> None:
    world.decide(case, ANNA, DIFFERENT)
    refused(world, StateError, "NOTHING_TO_APPEAL", lambda: appeal(world, case))


@pytest.mark.parametrize("statement", ["", " ", "x" * 1_001])
def test_an_appeal_needs_the_persons_own_words(world: World, case: Case, statement: str) -> None:
    rejected(world, case)
    refused(world, InvalidRequestError, "REASON_MISSING", lambda: appeal(world, case, statement))


# -- once ----


def test_a_repeated_decision_counts_once(world: World, case: Case) -> None:
    key = "annas-decision-key"
    first = world.decide(case, ANNA, REJECT, key=key)
    assert world.decide(case, ANNA, REJECT, key=key) == first
    assert len(first.decisions) == 1


def test_a_repeated_appeal_counts_once(world: World, case: Case) -> None:
    rejected(world, case)
    key = "the-appeals-own-key"
    assert appeal(world, case, key=key) == appeal(world, case, key=key)
    assert world.case(case.case_id).round == 2


def test_a_decision_key_used_for_another_case_is_a_conflict(world: World, case: Case) -> None:
    world.registrant(2)
    other = world.open_case(2, name=60)
    change = once(ANNA, "AdjudicationService.DecideCase", "annas-decision-key", case.case_id)
    world.adjudication.decide(case.case_id, REJECT, "", "why", change)
    another = once(ANNA, "AdjudicationService.DecideCase", "annas-decision-key", other.case_id)
    refused(
        world,
        IdempotencyConflictError,
        "IDEMPOTENCY_CONFLICT",
        lambda: world.adjudication.decide(other.case_id, REJECT, "", "why", another),
    )


def test_a_decision_whose_search_was_cut_off_is_finished_by_a_retry(
    world: World, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "annas-decision-key"
    with monkeypatch.context() as patch:
        patch.setattr(world.enrolment, "settle", lambda _: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            world.decide(case, ANNA, DIFFERENT, key=key)
    assert world.application_state(case.application_id) is ApplicationState.ACCEPTED
    world.decide(case, ANNA, DIFFERENT, key=key)
    assert world.application_state(case.application_id) is ApplicationState.ENROLLED


# -- who was ruled out stays ruled out ----


def test_somebody_ruled_out_opens_no_second_case_but_somebody_new_does(
    world: World, case: Case, known: str
) -> None:
    """Two applications of one person under two false names; people err on the first."""
    second = world.open_case(1, name=51, impression=2)
    assert [candidate.registrant_id for candidate in second.candidates] == [known]
    world.decide(case, ANNA, DIFFERENT)
    newcomer = world.enrolment.application(case.application_id).registrant_id
    assert newcomer is not None
    # Registrant 1 is ruled out for the second application too, but it now matches the newcomer.
    world.decide(second, ANNA, DIFFERENT)
    application = world.enrolment.application(second.application_id)
    assert application.state is ApplicationState.IN_ADJUDICATION
    assert application.case_id not in (None, second.case_id)
    third = world.case(application.case_id or "")
    assert [candidate.registrant_id for candidate in third.candidates] == [newcomer]
    world.decide(third, ANNA, DIFFERENT)
    assert world.application_state(second.application_id) is ApplicationState.ENROLLED
    assert world.registrants() == 3


def test_two_people_may_turn_out_to_share_a_document_number(world: World, known: str) -> None:
    case = world.open_case(2, name=1, impression=0)
    world.decide(case, ANNA, DIFFERENT)
    assert world.application_state(case.application_id) is ApplicationState.ENROLLED
    for fingers in (1, 2):
        back = world.enrol(fingers, name=1, impression=1).application
        assert back.state is ApplicationState.RECOGNISED
    assert world.registrants() == 2


def test_while_people_decide_no_permit_is_issued_to_anybody_concerned(
    world: World, known: str
) -> None:
    world.open_case(1, name=50)
    with pytest.raises(StateError) as caught:
        world.desk.issue(known, once(ANNA, "PermitService.IssuePermit"))
    assert caught.value.reason == "UNDER_ADJUDICATION"


def test_the_permit_an_application_asked_for_is_issued_after_the_decision(
    world: World, case: Case
) -> None:
    assert world.reception.application(case.application_id, TERMINAL).permit is None
    world.decide(case, ANNA, DIFFERENT)
    assert world.reception.application(case.application_id, TERMINAL).permit is not None


# -- reading cases ----


def test_a_case_file_shows_both_records_and_everyone_in_it_can_see_that(
    world: World, case: Case, known: str
) -> None:
    file = world.adjudication.open_file(case.case_id, ANNA, "AdjudicationService.GetCase")
    assert file.applicant is not None
    assert file.candidates[0] is not None
    assert file.applicant.details.full_name != file.candidates[0].details.full_name
    shown = world.register.disclosures(known, None, 10)
    assert [(entry.who, entry.purpose, entry.case_reference) for entry in shown] == [
        (ANNA, "adjudication", case.case_id)
    ]
    with world.database.read() as tx:
        assert tx.audit.about([case.application_id], None, 10) != []


def test_who_read_a_case_is_seen_by_the_applicant_too_once_they_are_enrolled(
    world: World, case: Case
) -> None:
    world.adjudication.open_file(case.case_id, ANNA, "AdjudicationService.GetCase")
    world.decide(case, ANNA, DIFFERENT)
    newcomer = world.enrolment.application(case.application_id).registrant_id
    assert newcomer is not None
    (seen,) = world.register.disclosures(newcomer, None, 10)
    assert (seen.who, seen.case_reference) == (ANNA, case.case_id)


def test_reasons_come_back_as_they_were_written(world: World, case: Case) -> None:
    reason = "两张照片不是同一个人"
    world.adjudication.decide(case.case_id, REJECT, "", reason, decision(ANNA))
    assert [one.reason for one in world.case(case.case_id).decisions] == [reason]


def test_cases_are_listed_oldest_first_page_by_page(world: World) -> None:
    cases = []
    for index in range(5):
        world.registrant(index)
        world.clock.advance(timedelta(seconds=index % 2))
        cases.append(world.open_case(index, name=100 + index))
    world.decide(cases[1], ANNA, DIFFERENT)
    everything: list[str] = []
    after = ""
    while page := world.adjudication.page(True, after, 2):
        everything += [case.case_id for case in page]
        after = page[-1].case_id
    assert sorted(everything) == sorted(case.case_id for case in cases)
    opened = {case.case_id: case.opened_at for case in cases}
    assert [opened[one] for one in everything] == sorted(opened.values())
    undecided = [case.case_id for case in world.adjudication.page(False, "", 100)]
    assert undecided == [one for one in everything if one != cases[1].case_id]


def test_a_case_about_an_erased_registrant_can_still_be_read_and_decided(
    world: World, case: Case, known: str
) -> None:
    world.register.record_departure(known, START.date(), once(ANNA))
    world.register.erase(known, once(ANNA))
    file = world.adjudication.open_file(case.case_id, ANNA, "AdjudicationService.GetCase")
    assert file.candidates == (None,)
    world.decide(case, ANNA, SAME)
    refused(world, StateError, "REGISTRANT_ERASED", lambda: world.decide(case, BO, SAME))
    assert world.decide(case, CHEN, DIFFERENT).state is CaseState.DECIDED
    assert world.application_state(case.application_id) is ApplicationState.ENROLLED
