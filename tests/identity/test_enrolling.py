"""From an application to a registrant, a recognition or a case, on real parts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from devices.types import Principal, Role
from identity.config import DecisionPolicy
from identity.enrolment import EnrolCommand
from identity.errors import (
    DeadlineError,
    IdempotencyConflictError,
    InvalidRequestError,
    NotFoundError,
)
from identity.example_population import real_fingers
from identity.lookups import search_thresholds
from identity.references import ReferenceFollower
from identity.types import (
    ApplicationState,
    CapturedSample,
    CaseReason,
    PermitState,
    RegistrantState,
)
from matcher.codec import decode, encode
from matcher.errors import FailureToEnrolError
from matcher.matcher import Matcher
from matcher.types import Candidate, CandidateList, FingerPosition, Template
from tests.identity.kit import (
    DATA,
    ELSEWHERE,
    START,
    TERMINAL,
    Templates,
    World,
    build_world,
    command,
    once,
    particulars,
    samples,
    templates,
)

KEY = "the-terminals-own-key"


# -- somebody new ----


def test_somebody_new_becomes_a_registrant_with_a_permit(world: World) -> None:
    answer = world.enrol(1, permit=True)
    application = answer.application
    assert application.state is ApplicationState.ENROLLED
    assert application.registrant_id is not None
    assert application.registrant_id in world.comparer
    assert application.case_id is None
    assert application.station_id == "east-gate"
    assert answer.permit is not None
    assert answer.permit.state is PermitState.VALID
    assert answer.permit.permit.expires_at - START <= timedelta(days=365)
    with world.database.read() as tx:
        registrant = tx.people.registrant(application.registrant_id)
    assert registrant.state is RegistrantState.RESIDENT
    assert registrant.particulars == particulars(1)
    assert registrant.fingers == (FingerPosition.RIGHT_INDEX, FingerPosition.LEFT_INDEX)


def test_registration_alone_needs_no_permit(world: World) -> None:
    assert world.enrol(1, permit=False).permit is None


def test_different_people_become_different_registrants(world: World) -> None:
    assert len({world.registrant(index) for index in range(12)}) == 12
    assert world.registrants() == 12


def test_what_an_answered_application_no_longer_needs_is_forgotten(world: World) -> None:
    application = world.enrol(1).application
    with world.database.read() as tx:
        assert tx.people.application_particulars(application.application_id) is None
        assert tx.people.application_records(application.application_id) == []


def test_late_registration_is_recorded_and_not_refused(world: World) -> None:
    late = replace(
        command(1),
        particulars=replace(
            particulars(1),
            residence=replace(
                particulars(1).residence, arrival_date=(START - timedelta(days=9)).date()
            ),
        ),
    )
    application = world.reception.enrol(late, once(), TERMINAL, lambda: None).application
    assert application.state is ApplicationState.ENROLLED
    assert application.late


# -- once ----


def test_a_retry_gets_the_same_answer_and_enrols_nobody_twice(world: World) -> None:
    first = world.enrol(1, permit=True, key=KEY)
    again = [world.enrol(1, permit=True, key=KEY) for _ in range(3)]
    assert all(answer == first for answer in again)
    assert world.registrants() == 1
    assert len(world.comparer) == 2


def test_the_same_key_for_another_person_is_a_conflict_and_changes_nothing(world: World) -> None:
    world.enrol(1, key=KEY)
    before = world.dump()
    with pytest.raises(IdempotencyConflictError):
        world.enrol(2, key=KEY)
    assert world.dump() == before


def test_two_terminals_may_choose_the_same_key(world: World) -> None:
    first = world.enrol(1, key=KEY)
    second = world.enrol(2, key=KEY, caller=ELSEWHERE)
    assert first.application.application_id != second.application.application_id
    assert second.application.station_id == "west-gate"


def test_after_a_deadline_the_same_key_continues_where_it_stopped(world: World) -> None:
    def late() -> None:
        raise DeadlineError

    change = once(key=KEY, content="1")
    with pytest.raises(DeadlineError):
        world.reception.enrol(command(1), change, TERMINAL, late)
    assert world.registrants() == 0
    answer = world.reception.enrol(command(1), change, TERMINAL, lambda: None)
    assert answer.application.state is ApplicationState.ENROLLED
    assert world.registrants() == 1


def test_simultaneous_retries_of_one_application_enrol_once(world: World) -> None:
    for number in range(5):
        barrier = threading.Barrier(4)

        def send(number: int = number, barrier: threading.Barrier = barrier) -> str:
            barrier.wait()
            application = world.enrol(number, permit=True, key=f"{KEY}-{number}").application
            return f"{application.application_id} {application.registrant_id}"

        with ThreadPoolExecutor(4) as pool:
            answers = {future.result() for future in [pool.submit(send) for _ in range(4)]}
        assert len(answers) == 1
    assert world.registrants() == 5


# -- who comes back ----


def test_who_comes_back_under_the_same_document_is_recognised(world: World) -> None:
    registrant_id = world.registrant(1)
    world.registrant(2)
    answer = world.enrol(1, impression=1)
    assert answer.application.state is ApplicationState.RECOGNISED
    assert answer.application.registrant_id == registrant_id
    assert world.registrants() == 2


def test_recognition_renews_the_residence_and_lets_the_details_stand(world: World) -> None:
    registrant_id = world.registrant(1)
    stated = particulars(1)
    moved = replace(stated.residence, address="示例区新路9号")
    married = replace(stated.details, full_name="另一个名字")
    answer = world.reception.enrol(
        replace(command(1, impression=1), particulars=replace(stated, details=married)),
        once(),
        TERMINAL,
        lambda: None,
    )
    assert answer.application.state is ApplicationState.RECOGNISED
    world.reception.enrol(
        replace(command(1, impression=2), particulars=replace(stated, residence=moved)),
        once(),
        TERMINAL,
        lambda: None,
    )
    with world.database.read() as tx:
        kept = tx.people.registrant(registrant_id).particulars
    assert kept is not None
    assert kept.details == stated.details
    assert kept.residence == moved


def test_a_permit_that_is_still_valid_is_shown_again(world: World) -> None:
    first = world.enrol(1, permit=True).permit
    world.clock.advance(timedelta(days=100))
    again = world.enrol(1, impression=1, permit=True).permit
    assert first is not None
    assert again == first


def test_a_permit_that_has_expired_is_issued_anew(world: World) -> None:
    first = world.enrol(1, permit=True).permit
    world.clock.advance(timedelta(days=366))
    world.port.refresh()
    again = world.enrol(1, impression=1, permit=True).permit
    assert first is not None
    assert again is not None
    assert again.permit.permit_number != first.permit.permit_number
    assert again.state is PermitState.VALID
    assert (
        world.desk.show(first.permit.permit_number, "operator:anna", "test").state
        is PermitState.EXPIRED
    )


def test_a_suspended_permit_is_not_replaced_by_coming_back(world: World) -> None:
    first = world.enrol(1, permit=True).permit
    assert first is not None
    number = first.permit.permit_number
    world.desk.change_status(number, PermitState.SUSPENDED, "lost", once("operator:anna"))
    again = world.enrol(1, impression=1, permit=True).permit
    assert again is not None
    assert again.permit.permit_number == number
    assert again.state is PermitState.SUSPENDED


def test_asking_after_an_old_application_never_issues_a_second_permit(world: World) -> None:
    """Neither once the permit it was shown has expired, nor once that was revoked."""
    first = world.enrol(1, permit=True)
    again = world.enrol(1, impression=1, permit=True)
    assert first.permit is not None
    number = first.permit.permit.permit_number
    world.desk.change_status(number, PermitState.REVOKED, "lost", once("operator:anna"))
    for application in (first.application, again.application):
        asked = world.reception.application(application.application_id, TERMINAL)
        assert asked.permit is not None
        assert asked.permit.permit.permit_number == number
        assert asked.permit.state is PermitState.REVOKED


def test_who_left_and_comes_back_is_recognised_and_resident_again(world: World) -> None:
    registrant_id = world.registrant(1, permit=True)
    world.register.record_departure(registrant_id, START.date(), once("operator:anna"))
    answer = world.enrol(1, impression=1, permit=True)
    assert answer.application.registrant_id == registrant_id
    assert answer.application.state is ApplicationState.RECOGNISED
    assert answer.permit is not None
    assert answer.permit.state is PermitState.VALID
    with world.database.read() as tx:
        assert tx.people.registrant(registrant_id).state is RegistrantState.RESIDENT


# -- what people have to look at ----


def test_the_same_fingers_under_another_name_open_a_case(world: World) -> None:
    registrant_id = world.registrant(1)
    world.registrant(2)
    answer = world.enrol(1, name=50, impression=1, permit=True)
    assert answer.application.state is ApplicationState.IN_ADJUDICATION
    assert answer.permit is None
    assert answer.application.registrant_id is None
    case = world.case(answer.application.case_id or "")
    assert case.reason is CaseReason.SAME_FINGERS_OTHER_PARTICULARS
    assert case.candidates[0].registrant_id == registrant_id
    assert case.candidates[0].similarity > 4
    assert len(case.candidates[0].finger_similarities) == 2
    assert world.registrants() == 2


def test_a_known_document_with_other_fingers_opens_a_case(world: World) -> None:
    registrant_id = world.registrant(1)
    answer = world.enrol(2, name=1, permit=True)
    assert answer.application.state is ApplicationState.IN_ADJUDICATION
    assert answer.permit is None
    case = world.case(answer.application.case_id or "")
    assert case.reason is CaseReason.SAME_DOCUMENT_OTHER_FINGERS
    assert [candidate.registrant_id for candidate in case.candidates] == [registrant_id]
    assert world.registrants() == 1


def test_a_similarity_between_the_thresholds_opens_a_case(made: Templates, tmp_path: Path) -> None:
    world = build_world(made, tmp_path, FakeComparer())
    comparer = world.comparer
    assert isinstance(comparer, FakeComparer)
    first = world.registrant(1)
    thresholds = search_thresholds(comparer, DecisionPolicy(), references=2)
    comparer.similarity = (thresholds.grey + thresholds.same) / 2
    answer = world.enrol(2)
    assert answer.application.state is ApplicationState.IN_ADJUDICATION
    case = world.case(answer.application.case_id or "")
    assert case.reason is CaseReason.GREY_ZONE
    assert [candidate.registrant_id for candidate in case.candidates] == [first]
    close(world)


# -- the same instant ----


def test_two_stations_capturing_one_person_in_the_same_instant_enrol_one(world: World) -> None:
    rounds = 25
    with ThreadPoolExecutor(2) as pool:
        for number in range(rounds):
            barrier = threading.Barrier(2)

            def capture(
                caller: Principal, number: int = number, barrier: threading.Barrier = barrier
            ) -> ApplicationState:
                impression = 0 if caller is TERMINAL else 1
                barrier.wait()
                return world.enrol(number, impression=impression, caller=caller).application.state

            states = sorted(pool.map(capture, (TERMINAL, ELSEWHERE)))
            assert states == [ApplicationState.ENROLLED, ApplicationState.RECOGNISED]
    assert world.registrants() == rounds


def test_one_person_under_two_names_in_the_same_instant_is_one_registrant_and_a_case(
    world: World,
) -> None:
    rounds = 15
    with ThreadPoolExecutor(3) as pool:
        for number in range(rounds):
            barrier = threading.Barrier(3)

            def capture(
                which: int, number: int = number, barrier: threading.Barrier = barrier
            ) -> ApplicationState:
                barrier.wait()
                name = 1_000 + 10 * number + which
                return world.enrol(number, name=name, impression=which).application.state

            states = sorted(pool.map(capture, range(3)))
            assert states == [
                ApplicationState.ENROLLED,
                ApplicationState.IN_ADJUDICATION,
                ApplicationState.IN_ADJUDICATION,
            ]
    assert world.registrants() == rounds


# -- an index that does not answer as it should ----


@dataclass
class FakeComparer:
    """Everybody's fingers are this similar to everybody's; searches may be incomplete."""

    similarity: float = float("-inf")
    complete: bool = True
    fail_once: bool = False

    def __post_init__(self) -> None:
        self._real = Matcher.open(None)
        self._subjects: list[str] = []

    @property
    def sequence(self) -> int:
        return self._real.sequence

    def __len__(self) -> int:
        return len(self._subjects)

    def __contains__(self, subject_id: str) -> bool:
        return subject_id in self._subjects

    def check(self, templates: Sequence[Template]) -> None:
        self._real.check(templates)

    def add_many(self, additions: Sequence[tuple[str, Sequence[Template], int]]) -> None:
        if self.fail_once and additions:
            self.fail_once = False
            raise MemoryError
        self._real.add_many(additions)
        self._subjects += [subject_id for subject_id, _, _ in additions]

    def withdraw(self, subject_id: str, sequence: int) -> None:
        self._real.withdraw(subject_id, sequence)
        self._subjects.remove(subject_id)

    def identify(
        self, probes: Sequence[Template], *, limit: int = 10, added_after: int | None = None
    ) -> CandidateList:
        found = self._real.identify(probes, limit=limit, added_after=added_after)
        if self.similarity > 0 and added_after is None:
            everybody = tuple(
                Candidate(subject, self.similarity) for subject in self._subjects[:limit]
            )
            found = replace(found, candidates=everybody)
        return replace(found, complete=self.complete)

    def verify(self, subject_id: str, probes: Sequence[Template], *, fmr: float) -> Any:
        return self._real.verify(subject_id, probes, fmr=fmr)

    def threshold_for_fmr(self, fmr: float) -> float:
        return self._real.threshold_for_fmr(fmr)

    def threshold_for_fpir(self, fpir: float, gallery: int) -> float:
        return self._real.threshold_for_fpir(fpir, gallery)

    def snapshot(self) -> None:
        return None


def close(world: World) -> None:
    world.database.close()
    world.issuer.close()


@pytest.fixture
def fake(made: Templates, tmp_path: Path) -> Iterator[tuple[World, FakeComparer]]:
    comparer = FakeComparer()
    world = build_world(made, tmp_path, comparer)
    yield world, comparer
    close(world)


def test_an_incomplete_search_never_says_that_somebody_is_new(
    fake: tuple[World, FakeComparer],
) -> None:
    world, comparer = fake
    comparer.complete = False
    answer = world.enrol(1, permit=True, key=KEY)
    assert answer.application.state is ApplicationState.ACCEPTED
    assert answer.application.registrant_id is None
    assert answer.permit is None
    assert world.registrants() == 0
    # Nor on a retry, nor at a start, while it stays incomplete.
    assert world.enrol(1, permit=True, key=KEY) == answer
    world.enrolment.settle_waiting()
    assert world.registrants() == 0


def test_what_waits_for_a_search_is_settled_later(fake: tuple[World, FakeComparer]) -> None:
    world, comparer = fake
    comparer.complete = False
    waiting = [world.enrol(index, permit=True, key=f"{KEY}-{index}") for index in (1, 2)]
    comparer.complete = True
    assert world.enrolment.settle_waiting() == 2
    for index, answer in zip((1, 2), waiting, strict=True):
        settled = world.enrol(index, permit=True, key=f"{KEY}-{index}")
        assert settled.application.application_id == answer.application.application_id
        assert settled.application.state is ApplicationState.ENROLLED
        assert settled.permit is not None
    assert world.enrolment.settle_waiting() == 0
    assert world.registrants() == 2


def test_an_index_that_fell_behind_catches_up_before_the_next_decision(
    fake: tuple[World, FakeComparer],
) -> None:
    """The register committed an enrolment, then the index failed to follow."""
    world, comparer = fake
    comparer.fail_once = True
    with pytest.raises(MemoryError):
        world.enrol(1)
    assert world.registrants() == 1
    assert len(comparer) == 0
    answer = world.enrol(1, name=50, impression=1)
    assert answer.application.state is ApplicationState.IN_ADJUDICATION
    assert world.registrants() == 1


def test_one_application_that_cannot_be_settled_does_not_stop_the_others(world: World) -> None:
    accepted = [
        world.enrolment.accept(command(index), once(), TERMINAL.station_id) for index in (1, 2, 3)
    ]
    with world.database.write() as tx:
        tx.connection.exec_driver_sql(
            "UPDATE application_samples SET sealed_record = x'00' WHERE application_id = ?",
            (accepted[1],),
        )
    world.enrolment.settle_waiting()
    states = [world.application_state(application_id) for application_id in accepted]
    assert states == [
        ApplicationState.ENROLLED,
        ApplicationState.ACCEPTED,
        ApplicationState.ENROLLED,
    ]


# -- what is refused ----


def position(sample: CapturedSample, where: FingerPosition) -> CapturedSample:
    template = replace(sample.template, position=where)
    return CapturedSample(encode([template]), template)


def repeated(finger: FingerPosition) -> tuple[CapturedSample, ...]:
    return tuple(position(sample, finger) for sample in samples(1))


REFUSED: list[tuple[str, Callable[[], EnrolCommand], str]] = [
    ("no fingers", lambda: replace(command(1), samples=()), "SAMPLES_MISSING"),
    ("eleven fingers", lambda: replace(command(1), samples=samples(1) * 6), "SAMPLES_MISSING"),
    (
        "one finger twice",
        lambda: replace(command(1), samples=repeated(FingerPosition.LEFT_THUMB)),
        "SAMPLES_REPEATED",
    ),
    (
        "no name",
        lambda: replace(
            command(1),
            particulars=replace(
                particulars(1), details=replace(particulars(1).details, full_name="")
            ),
        ),
        "DETAILS_INVALID",
    ),
]


@pytest.mark.parametrize(("what", "make", "reason"), REFUSED)
def test_a_wrong_application_is_refused_and_leaves_nothing(
    world: World, what: str, make: Callable[[], EnrolCommand], reason: str
) -> None:
    before = world.dump()
    with pytest.raises(InvalidRequestError) as caught:
        world.reception.enrol(make(), once(), TERMINAL, lambda: None)
    assert caught.value.reason == reason, what
    assert world.dump() == before


def test_unknown_fingers_may_repeat(world: World) -> None:
    unknown = replace(command(1), samples=repeated(FingerPosition.UNKNOWN))
    answer = world.reception.enrol(unknown, once(), TERMINAL, lambda: None)
    assert answer.application.state is ApplicationState.ENROLLED


def poor(sample: CapturedSample) -> CapturedSample:
    view = sample.template
    few = replace(
        view,
        x=view.x[:2],
        y=view.y[:2],
        angle=view.angle[:2],
        kind=view.kind[:2],
        quality=view.quality[:2],
    )
    return CapturedSample(encode([few]), few)


def test_fingers_too_poor_to_be_a_reference_are_to_be_captured_again(world: World) -> None:
    before = world.dump()
    all_poor = replace(command(1), samples=tuple(poor(sample) for sample in samples(1)))
    with pytest.raises(FailureToEnrolError):
        world.reception.enrol(all_poor, once(), TERMINAL, lambda: None)
    assert world.dump() == before


def test_one_good_finger_is_enough(world: World) -> None:
    first, second = samples(1)
    mixed = replace(command(1), samples=(poor(first), second))
    answer = world.reception.enrol(mixed, once(), TERMINAL, lambda: None)
    assert answer.application.state is ApplicationState.ENROLLED
    assert world.enrol(1, impression=1).application.state is ApplicationState.RECOGNISED


# -- who may ask ----


def test_a_terminal_sees_its_own_stations_applications_only(world: World) -> None:
    application_id = world.enrol(1).application.application_id
    colleague = Principal(Role.TERMINAL, "hall-9", "east-gate")
    operator = Principal(Role.OPERATOR, "anna")
    for caller in (TERMINAL, colleague, operator):
        found = world.reception.application(application_id, caller)
        assert found.application.application_id == application_id
    with pytest.raises(NotFoundError) as caught:
        world.reception.application(application_id, ELSEWHERE)
    with pytest.raises(NotFoundError) as unknown:
        world.reception.application("A-0", ELSEWHERE)
    assert caught.value.reason == unknown.value.reason == "APPLICATION_UNKNOWN"


# -- real fingers ----


@pytest.mark.skipif(
    not (DATA / "leader").is_dir(), reason="no real impressions beside the checkout"
)
def test_real_people_are_told_apart_and_recognised(world: World) -> None:
    real = real_fingers(DATA / "leader", 1).real[:6]

    def captured(index: int, impression: int) -> EnrolCommand:
        made = tuple(CapturedSample(r, decode(r)[0]) for r in real[index][impression])
        return replace(command(index), samples=made)

    for index in range(len(real)):
        answer = world.reception.enrol(captured(index, 0), once(), TERMINAL, lambda: None)
        assert answer.application.state is ApplicationState.ENROLLED
    states = [
        world.reception.enrol(captured(index, 1), once(), TERMINAL, lambda: None).application.state
        for index in range(len(real))
    ]
    assert states.count(ApplicationState.RECOGNISED) >= len(real) - 1
    assert ApplicationState.ENROLLED not in states


# -- the index follows ----


def test_an_index_made_from_nothing_knows_everybody(world: World) -> None:
    expected = {world.registrant(index): index for index in range(8)}
    erased = next(iter(expected))
    world.register.record_departure(erased, START.date(), once("operator:anna"))
    world.register.erase(erased, once("operator:anna"))
    fresh = Matcher.open(None)
    seen: list[tuple[int, int]] = []
    follower = ReferenceFollower(world.database, fresh)
    assert follower.catch_up(lambda done, total: seen.append((done, total))) == 9
    assert seen[-1] == (9, 9)
    assert follower.catch_up() == 0
    assert erased not in fresh
    for registrant_id, index in expected.items():
        if registrant_id != erased:
            best = fresh.identify(templates(index, 1)).candidates[0]
            assert best.subject_id == registrant_id
    assert fresh.sequence == world.comparer.sequence


def test_a_damaged_reference_keeps_nobody_else_from_being_found(world: World) -> None:
    ids = [world.registrant(index) for index in range(4)]
    with world.database.write() as tx:
        tx.connection.exec_driver_sql(
            "UPDATE reference_samples SET sealed_record = x'00' WHERE registrant_id = ?", (ids[1],)
        )
    fresh = Matcher.open(None)
    ReferenceFollower(world.database, fresh).catch_up()
    assert [registrant_id in fresh for registrant_id in ids] == [True, False, True, True]
