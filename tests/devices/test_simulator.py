from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from devices.authority import Authority
from devices.errors import RemoteError, UnreachableError
from devices.operators import Operators
from devices.provisioning import Provisioning
from devices.simulator import Progress, Report, Visit, fleet, simulate
from devices.terminal import Application, ApplicationState, Person, connect
from devices.terminal.retry import RetryPolicy
from devices.types import Role
from tests.devices.fakes import FakeClock, MemoryOperatorStore
from tests.devices.loopback import Enrolments, Register, register
from tests.devices.test_loopback_client import person

QUICK = RetryPolicy(attempt_s=5.0, first_wait_s=0.02, longest_wait_s=0.05)


def visit(who: int, document: str | None = None) -> Visit:
    return Visit(person(document or f"doc-{who}"), (b"finger of %d" % who,), f"truth-{who}")


def mixed_population() -> list[Visit]:
    """60 people; 20 of them return once, 10 others come again under another document."""
    visits = [visit(who) for who in range(60)]
    visits += [visit(who) for who in range(20)]
    visits += [visit(who, f"other-{who}") for who in range(20, 30)]
    random.Random(1).shuffle(visits)
    return visits


@pytest.fixture
def running(
    authority: Authority, provisioning: Provisioning, enrolments: Enrolments, clock: FakeClock
) -> Iterator[Register]:
    operators = Operators(MemoryOperatorStore(), clock)
    with register(authority, provisioning, enrolments, operators) as running:
        yield running


def run(
    running: Register, authority: Authority, directory: Path, population: Sequence[Visit]
) -> tuple[Report, list[Progress]]:
    authority.write_client(directory / "op", Role.OPERATOR, "op-1", running.main)
    seen: list[Progress] = []
    with connect(directory / "op") as operator:
        terminals = fleet(
            directory / "fleet", operator, "hall", 4, running.provisioning, policy=QUICK
        )
    try:
        report = simulate(terminals, population, seen.append, resend_fraction=0.3, deadline_s=5.0)
    finally:
        for terminal in terminals:
            terminal.close()
    return report, seen


def test_a_run_against_a_good_register_holds_the_truth(
    running: Register, authority: Authority, tmp_path: Path
) -> None:
    report, seen = run(running, authority, tmp_path, mixed_population())
    assert (report.visits, report.enrolled, report.recognised) == (90, 60, 20)
    assert report.in_adjudication == 10
    assert (report.duplicates_found, report.duplicates_missed) == (30, 0)
    assert (report.lost, report.doubled, report.unanswered, report.refused) == (0, 0, 0, {})
    assert (report.false_alarms, report.wrongly_recognised) == (0, 0)
    assert report.resent > 10
    assert len(report.latencies_s) == 90 + report.resent
    assert 0 < report.p50_s <= report.p99_s <= report.latencies_s[-1]
    assert report.elapsed_s > 0
    assert [one.done for one in seen] == list(range(1, 91))


def test_the_fleet_is_used_again(
    running: Register, authority: Authority, tmp_path: Path, provisioning: Provisioning
) -> None:
    authority.write_client(tmp_path / "op", Role.OPERATOR, "op-1", running.main)
    with connect(tmp_path / "op") as operator:
        for _ in range(2):
            for terminal in fleet(tmp_path, operator, "hall", 2, running.provisioning):
                terminal.close()
    names = [one.terminal_id for one in provisioning.list().terminals]
    assert names == ["sim-0001", "sim-0002"]


def test_a_register_that_forgets_is_found_out(
    running: Register, enrolments: Enrolments, authority: Authority, tmp_path: Path
) -> None:
    enrolments.forgetful = True
    report, _ = run(running, authority, tmp_path, mixed_population())
    assert report.lost == 90


def test_a_register_that_ignores_idempotency_keys_is_found_out(
    running: Register, enrolments: Enrolments, authority: Authority, tmp_path: Path
) -> None:
    enrolments.careless = True
    report, _ = run(running, authority, tmp_path, mixed_population())
    assert report.doubled == report.resent > 0


def test_a_register_that_recognises_nobody_is_found_out(
    running: Register, enrolments: Enrolments, authority: Authority, tmp_path: Path
) -> None:
    enrolments.blind = True
    report, _ = run(running, authority, tmp_path, mixed_population())
    assert (report.duplicates_found, report.duplicates_missed) == (0, 30)


class Scripted:
    """A terminal that answers by document number, without a server."""

    def __init__(self, answers: dict[str, Application | Exception]) -> None:
        self._answers = answers

    def enrol(
        self,
        person: Person,
        samples: Sequence[bytes],
        *,
        idempotency_key: str | None = None,
        deadline_s: float = 60.0,
    ) -> Application:
        answer = self._answers[person.document_number]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def application(self, application_id: str, deadline_s: float = 30.0) -> Application:
        [found] = [
            one
            for one in self._answers.values()
            if isinstance(one, Application) and one.application_id == application_id
        ]
        return found


def answer(id: str, state: ApplicationState, registrant_id: str = "") -> Application:
    return Application(id, state, registrant_id, "", None, False)


def test_wrong_outcomes_are_held_against_the_truth() -> None:
    state = ApplicationState
    terminal = Scripted(
        {
            "doc-1": answer("a-1", state.ENROLLED, "r-1"),
            "doc-2": answer("a-2", state.RECOGNISED, "r-1"),  # somebody else's record
            "doc-3": answer("a-3", state.IN_ADJUDICATION),  # a stranger held back
            "doc-4": RemoteError("INVALID_ARGUMENT", "FAILURE_TO_ENROL", "again"),
            "doc-5": UnreachableError("UNAVAILABLE", "", "away"),
            "doc-6": answer("a-6", state.ACCEPTED),
            "doc-7": answer("a-7", state.REJECTED),
        }
    )
    report = simulate([terminal], [visit(who) for who in range(1, 8)], resend_fraction=0)
    assert report.wrongly_recognised == 1
    assert report.false_alarms == 2
    assert report.refused == {"FAILURE_TO_ENROL": 1}
    assert (report.unanswered, report.accepted, report.rejected) == (1, 1, 1)
    assert report.lost == 0
    assert (report.duplicates_found, report.duplicates_missed) == (0, 0)


def test_an_outcome_that_settles_later_is_counted_as_settled() -> None:
    accepted = answer("a-1", ApplicationState.ACCEPTED)
    terminal = Scripted({"doc-1": accepted})
    settled = replace(accepted, state=ApplicationState.ENROLLED, registrant_id="r-1")
    terminal.application = lambda application_id, deadline_s=30.0: settled  # type: ignore[method-assign]
    report = simulate([terminal], [visit(1)], resend_fraction=0)
    assert (report.enrolled, report.accepted) == (1, 0)


def test_a_failing_population_stops_the_run() -> None:
    def population() -> Iterator[Visit]:
        yield visit(1)
        raise OSError("the file of templates is gone")

    terminal = Scripted({"doc-1": answer("a-1", ApplicationState.ENROLLED, "r-1")})
    with pytest.raises(OSError, match="gone"):
        simulate([terminal, terminal], population())


def test_a_simulation_needs_a_terminal() -> None:
    with pytest.raises(ValueError, match="at least one"):
        simulate([], [])
