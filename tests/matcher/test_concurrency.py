"""Many threads at once, and random histories, against a model that is a dictionary."""

from __future__ import annotations

import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from matcher.errors import UnknownSubjectError
from matcher.matcher import Matcher, MatcherSettings
from matcher.search import SearchSettings
from matcher.synthetic import Population
from matcher.types import FingerPosition, Template

POPULATION = Population(seed=99)
PEOPLE = 12
KEY = bytes(range(32))
VOTING = MatcherSettings(
    search=SearchSettings(exhaustive_references=0, shortlist_subjects=8, compared_subjects=4),
    threads=1,
)
FINGERS = {
    (number, impression): POPULATION.impression(number, FingerPosition.RIGHT_INDEX, impression)
    for number in range(PEOPLE)
    for impression in range(2)
}


def finger(number: int, impression: int = 0) -> list[Template]:
    return [FINGERS[number, impression]]


class History(RuleBasedStateMachine):
    """Enrol, withdraw, search, clear, save and open again, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.matcher = Matcher.open(Path(self.folder.name), key=KEY, settings=VOTING)
        self.enrolled: dict[int, int] = {}  # references by person
        self.saved: tuple[dict[int, int], int] = ({}, 0)
        self.change = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(number=st.integers(0, PEOPLE - 1))
    def enrol(self, number: int) -> None:
        self.change += 1
        self.matcher.add(f"p{number}", finger(number), self.change)
        self.enrolled[number] = self.enrolled.get(number, 0) + 1

    @rule(number=st.integers(0, PEOPLE - 1))
    def withdraw(self, number: int) -> None:
        self.change += 1
        self.matcher.withdraw(f"p{number}", self.change)
        self.enrolled.pop(number, None)

    @rule(number=st.integers(0, PEOPLE - 1))
    def search(self, number: int) -> None:
        answer = self.matcher.identify(finger(number, 1))
        found = [candidate.subject_id for candidate in answer.candidates]
        assert len(found) == len(set(found))
        assert {int(name[1:]) for name in found} <= set(self.enrolled)
        if number in self.enrolled:
            assert found[0] == f"p{number}"
            assert self.matcher.verify(f"p{number}", finger(number, 1)).is_match
        else:
            with pytest.raises(UnknownSubjectError):
                self.matcher.verify(f"p{number}", finger(number, 1))

    @rule()
    def clear(self) -> None:
        before = self.matcher.identify(finger(0, 1), limit=1)
        assert self.matcher._clearing.acquire(blocking=False)
        self.matcher._clear()
        assert self.matcher._index.uncleared == 0
        assert self.matcher._index._minutiae.ntotal == self.matcher._index.minutiae
        assert self.matcher.identify(finger(0, 1), limit=1) == before

    @rule()
    def snapshot(self) -> None:
        self.matcher.snapshot()
        self.saved = dict(self.enrolled), self.change

    @rule()
    def open_again(self) -> None:
        self.matcher = Matcher.open(Path(self.folder.name), key=KEY, settings=VOTING)
        self.enrolled, self.change = dict(self.saved[0]), self.saved[1]
        assert self.matcher.sequence == self.change

    @invariant()
    def the_counts_are_right(self) -> None:
        assert len(self.matcher) == sum(self.enrolled.values())
        for number in range(PEOPLE):
            assert (f"p{number}" in self.matcher) == (number in self.enrolled)


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def test_everything_at_once_from_many_threads(tmp_path: Path) -> None:
    """Some stay throughout, some come and go; who stays is found in every search."""
    matcher = Matcher.open(tmp_path, key=KEY, settings=VOTING)
    for number in range(6):
        matcher.add(f"p{number}", finger(number), number + 1)
    failures: list[BaseException] = []
    done = threading.Event()

    def repeatedly(work: object) -> None:
        turn = 0
        try:
            while not done.is_set():
                work(turn)  # type: ignore[operator]
                turn += 1
        except BaseException as error:
            failures.append(error)

    def search(turn: int) -> None:
        number = turn % 6
        best = matcher.identify(finger(number, 1), limit=1).candidates[0]
        assert best.subject_id == f"p{number}"

    def save(_: int) -> None:
        matcher.snapshot()
        again = Matcher.open(tmp_path, key=KEY, settings=VOTING)
        assert all(f"p{number}" in again for number in range(6))

    def clear(_: int) -> None:
        if matcher._clearing.acquire(blocking=False):
            matcher._clear()

    threads = [
        threading.Thread(target=repeatedly, args=(work,)) for work in (search, search, save, clear)
    ]
    for thread in threads:
        thread.start()
    change = 6
    for turn in range(60):
        number = 6 + turn % 6
        change += 1
        matcher.add(f"p{number}", finger(number), change)
        assert matcher.identify(finger(number, 1), limit=1).candidates[0].subject_id == f"p{number}"
        change += 1
        matcher.withdraw(f"p{number}", change)
        assert f"p{number}" not in matcher
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(matcher) == 6
    assert matcher.sequence == change
