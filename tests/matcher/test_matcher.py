"""Enrol, withdraw, identify, verify and snapshot, on a synthetic population."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matcher.errors import FailureToEnrolError, IndexStateError, UnknownSubjectError
from matcher.matcher import SNAPSHOT_NAME, Matcher, MatcherSettings
from matcher.search import SearchSettings
from matcher.synthetic import Population
from matcher.types import CandidateList, FingerPosition, Template

POPULATION = Population(seed=20240501)
THUMBS = (FingerPosition.RIGHT_THUMB, FingerPosition.LEFT_THUMB)
INDEX = (FingerPosition.RIGHT_INDEX,)
KEY = bytes(range(32))
SUBJECTS = 40
VOTING = MatcherSettings(
    search=SearchSettings(exhaustive_references=0, shortlist_subjects=20, compared_subjects=10),
    threads=2,
)
EXHAUSTIVE = MatcherSettings(search=SearchSettings(exhaustive_references=1000), threads=1)


def person(
    number: int, impression: int = 0, positions: Sequence[FingerPosition] = THUMBS
) -> list[Template]:
    return POPULATION.templates_of_person(number, positions, impression)


def empty_template(minutiae: int) -> Template:
    rng = np.random.default_rng(minutiae)
    return Template(
        x=rng.uniform(20, 280, minutiae).astype(np.float32),
        y=rng.uniform(20, 380, minutiae).astype(np.float32),
        angle=rng.uniform(0, 6.2, minutiae).astype(np.float32),
        kind=np.ones(minutiae, dtype=np.uint8),
        quality=np.full(minutiae, 60, dtype=np.uint8),
        width=300,
        height=400,
    )


def enrolled(settings: MatcherSettings, order: Sequence[int] = range(SUBJECTS)) -> Matcher:
    matcher = Matcher.open(None, settings=settings)
    for change, number in enumerate(order, start=1):
        matcher.add(f"s{number:03d}", person(number), change)
    return matcher


@pytest.fixture(scope="module")
def exhaustive() -> Matcher:
    return enrolled(EXHAUSTIVE)


@pytest.fixture(scope="module")
def voting() -> Matcher:
    return enrolled(VOTING)


def test_enrolled_people_are_found_first(exhaustive: Matcher) -> None:
    found = [exhaustive.identify(person(n, 1)).candidates[0].subject_id for n in range(20)]
    assert sum(subject == f"s{n:03d}" for n, subject in enumerate(found)) >= 19


def test_a_stranger_stays_below_a_strict_threshold(exhaustive: Matcher) -> None:
    threshold = exhaustive.threshold_for_fpir(1e-3, SUBJECTS)
    for number in range(SUBJECTS, SUBJECTS + 20):
        best = exhaustive.identify(person(number)).candidates[0]
        assert best.similarity < threshold


def test_candidates_are_ranked_and_limited(exhaustive: Matcher) -> None:
    answer = exhaustive.identify(person(3, 1), limit=5)
    similarities = [candidate.similarity for candidate in answer.candidates]
    assert len(similarities) == 5
    assert similarities == sorted(similarities, reverse=True)
    assert answer.complete
    assert answer.searched == len(exhaustive) == SUBJECTS * len(THUMBS)
    assert answer.sequence == SUBJECTS
    assert exhaustive.identify(person(3, 1), limit=0).candidates == ()


def test_voting_finds_whom_the_exhaustive_search_finds(
    exhaustive: Matcher, voting: Matcher
) -> None:
    for number in range(20):
        best = exhaustive.identify(person(number, 1), limit=1)
        assert voting.identify(person(number, 1), limit=1).candidates == best.candidates


def test_the_answer_depends_neither_on_order_nor_threads_nor_batch(voting: Matcher) -> None:
    shuffled = np.random.default_rng(5).permutation(SUBJECTS).tolist()
    other = enrolled(dataclasses.replace(VOTING, threads=1), shuffled)
    batch = [person(number, 2) for number in range(10)]
    alone = [voting.identify(probes) for probes in batch]
    assert voting.identify_many(batch) == alone
    assert other.identify_many(batch) == alone


def test_the_order_of_minutiae_and_probes_does_not_matter(exhaustive: Matcher) -> None:
    first, second = person(4, 1)
    order = np.random.default_rng(1).permutation(len(first))
    shuffled = dataclasses.replace(
        first,
        **{name: getattr(first, name)[order] for name in ("x", "y", "angle", "kind", "quality")},
    )
    straight = exhaustive.identify([first, second]).candidates
    turned = exhaustive.identify([second, shuffled]).candidates
    assert [c.similarity for c in straight] == [c.similarity for c in turned]
    assert [c.subject_id for c in straight] == [c.subject_id for c in turned]
    assert straight[0].finger_similarities == turned[0].finger_similarities[::-1]


def test_equal_similarities_rank_by_subject_id() -> None:
    matcher = Matcher.open(None)
    for change, subject in enumerate(("c", "a", "b"), start=1):
        matcher.add(subject, person(0), change)
    assert [c.subject_id for c in matcher.identify(person(0, 1)).candidates] == ["a", "b", "c"]


@pytest.mark.parametrize("settings", [EXHAUSTIVE, VOTING])
def test_a_withdrawn_reference_never_appears_again(settings: MatcherSettings) -> None:
    matcher = enrolled(settings, range(12))
    matcher.withdraw("s005", 13)
    assert "s005" not in matcher
    assert len(matcher) == 22
    assert all(c.subject_id != "s005" for c in matcher.identify(person(5, 1)).candidates)
    with pytest.raises(UnknownSubjectError):
        matcher.verify("s005", person(5, 1))
    matcher.add("s005", person(5), 14)
    assert matcher.identify(person(5, 1)).candidates[0].subject_id == "s005"


def test_withdrawing_most_of_an_index_clears_its_lists() -> None:
    matcher = enrolled(VOTING, range(12))
    before = matcher.identify(person(7, 1), limit=1).candidates
    for change, number in enumerate(range(5), start=13):
        matcher.withdraw(f"s{number:03d}", change)
    entries = matcher._index._minutiae.ntotal
    assert matcher._clearing.acquire(blocking=False)
    matcher._clear()
    assert matcher._index.uncleared == 0
    assert matcher._index._minutiae.ntotal == matcher._index.minutiae < entries
    assert len(matcher) == 14
    assert matcher.identify(person(7, 1), limit=1).candidates == before
    matcher.add("s000", person(0), 18)
    assert matcher.identify(person(0, 1), limit=1).candidates[0].subject_id == "s000"


def test_clearing_starts_by_itself_once_a_quarter_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    matcher = enrolled(VOTING, range(12))
    monkeypatch.setattr("matcher.matcher._FEWEST_CLEARED", 4)
    for change, number in enumerate(range(8), start=13):
        matcher.withdraw(f"s{number:03d}", change)
    deadline = time.monotonic() + 20.0
    while matcher._index.uncleared > 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(matcher) == 8


def test_many_changes_at_once_are_the_same_changes() -> None:
    one_by_one = enrolled(VOTING, range(12))
    at_once = Matcher.open(None, settings=VOTING)
    at_once.add_many([(f"s{n:03d}", person(n), n + 1) for n in range(12)])
    assert at_once.sequence == one_by_one.sequence == 12
    for number in range(12):
        probes = person(number, 1)
        assert at_once.identify(probes) == one_by_one.identify(probes)
    with pytest.raises(ValueError, match="applied in order"):
        at_once.add_many([("x", person(1), 13), ("y", person(2), 12)])
    with pytest.raises(FailureToEnrolError):
        at_once.add_many([("x", person(1), 13), ("y", [empty_template(3)], 14)])
    assert (len(at_once), at_once.sequence, "x" in at_once) == (24, 12, False)


def test_searches_that_come_together_are_looked_up_together(
    voting: Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [voting.identify(person(n, 1)) for n in range(24)]
    sizes: list[int] = []
    gate = threading.Barrier(24)
    look_up = voting._together._look_up

    def counted(people: Any, parallel: bool) -> Any:
        sizes.append(len(people))
        time.sleep(0.02)
        return look_up(people, parallel)

    monkeypatch.setattr(voting._together, "_look_up", counted)

    def search(number: int) -> CandidateList:
        gate.wait()
        return voting.identify(person(number, 1))

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(search, range(24))) == alone
    assert sum(sizes) == 24
    assert max(sizes) > 4


def test_an_error_while_looking_up_reaches_everybody_who_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matcher = enrolled(VOTING, range(4))

    def broken(people: Any, parallel: bool) -> Any:
        time.sleep(0.02)
        raise MemoryError("no room")

    monkeypatch.setattr(matcher._together, "_look_up", broken)

    def search(number: int) -> str:
        try:
            matcher.identify(person(number, 1))
        except MemoryError as error:
            return str(error)
        return "answered"

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(search, [n % 4 for n in range(8)])) == {"no room"}
    monkeypatch.undo()
    assert matcher.identify(person(1, 1)).candidates[0].subject_id == "s001"


def test_changes_are_applied_in_order() -> None:
    matcher = Matcher.open(None)
    matcher.add("a", person(0), 5)
    with pytest.raises(ValueError, match="applied in order"):
        matcher.add("b", person(1), 4)
    with pytest.raises(ValueError, match="applied in order"):
        matcher.withdraw("a", 4)
    assert matcher.sequence == 5
    assert "b" not in matcher
    assert "a" in matcher


def test_only_references_added_after_a_change_are_considered(voting: Matcher) -> None:
    answer = voting.identify(person(3, 1), added_after=SUBJECTS - 4)
    assert answer.searched == 8
    assert {c.subject_id for c in answer.candidates} == {f"s{n:03d}" for n in range(36, 40)}
    assert voting.identify(person(3, 1), added_after=SUBJECTS).candidates == ()


def test_positions_keep_fingers_apart() -> None:
    matcher = Matcher.open(None)
    matcher.add("a", person(0, 0, INDEX), 1)
    assert matcher.identify(person(0, 1, THUMBS)).candidates == ()
    decision = matcher.verify("a", person(0, 1, THUMBS))
    assert not decision.is_match
    assert decision.similarity == -math.inf
    unknown = dataclasses.replace(person(0, 1, INDEX)[0], position=FingerPosition.UNKNOWN)
    assert matcher.verify("a", [unknown]).is_match


def test_a_second_capture_of_the_same_finger_is_not_a_second_finger() -> None:
    matcher = Matcher.open(None)
    matcher.add("a", person(0, 0, INDEX), 1)
    once = matcher.verify("a", person(0, 1, INDEX))
    twice = matcher.verify("a", person(0, 1, INDEX) * 2)
    assert twice.similarity == once.similarity


def test_a_foreign_finger_does_not_undo_a_strong_one(exhaustive: Matcher) -> None:
    right, _ = person(6, 1)
    _, foreign = person(77, 1)
    alone = exhaustive.verify("s006", [right])
    together = exhaustive.verify("s006", [right, foreign])
    assert alone.is_match
    assert together.is_match
    assert alone.similarity - 2.0 < together.similarity


def test_two_fingers_say_more_than_one(exhaustive: Matcher) -> None:
    both = exhaustive.verify("s008", person(8, 1))
    assert both.similarity > max(both.finger_similarities)


@pytest.mark.parametrize("minutiae", [0, 1, 2, 5])
def test_too_few_minutiae_cannot_be_enrolled_nor_searched(minutiae: int) -> None:
    matcher = Matcher.open(None)
    with pytest.raises(FailureToEnrolError) as failure:
        matcher.check([empty_template(minutiae)])
    assert failure.value.reason == "TOO_FEW_MINUTIAE"
    with pytest.raises(FailureToEnrolError):
        matcher.add("a", [empty_template(minutiae)], 1)
    with pytest.raises(FailureToEnrolError):
        matcher.identify([empty_template(minutiae)])
    assert len(matcher) == 0
    assert matcher.sequence == 0


def test_minutiae_on_a_line_or_a_point_are_degenerate() -> None:
    line = dataclasses.replace(empty_template(40), x=np.full(40, 100.0, dtype=np.float32))
    with pytest.raises(FailureToEnrolError) as failure:
        Matcher.open(None).check([line])
    assert failure.value.reason == "DEGENERATE"
    point = dataclasses.replace(line, y=np.full(40, 100.0, dtype=np.float32))
    with pytest.raises(FailureToEnrolError) as failure:
        Matcher.open(None).check([point])
    assert failure.value.reason == "TOO_FEW_MINUTIAE"


def test_no_templates_at_all_are_refused() -> None:
    with pytest.raises(FailureToEnrolError) as failure:
        Matcher.open(None).identify([])
    assert failure.value.reason == "NO_TEMPLATES"


def test_coordinates_that_are_no_numbers_are_refused() -> None:
    broken = empty_template(30)
    broken.x[3] = np.nan
    with pytest.raises(FailureToEnrolError) as failure:
        Matcher.open(None).check([broken])
    assert failure.value.reason == "OUT_OF_RANGE"


def test_a_poor_probe_leaves_the_others_to_speak(exhaustive: Matcher) -> None:
    good = person(9, 1)[0]
    poor = dataclasses.replace(empty_template(3), position=FingerPosition.LEFT_THUMB)
    best = exhaustive.identify([good, poor]).candidates[0]
    assert best.subject_id == "s009"
    assert best.finger_similarities[1] == -math.inf
    assert best.similarity == exhaustive.identify([good]).candidates[0].similarity


def test_a_template_full_of_noise_resembles_nobody(exhaustive: Matcher) -> None:
    assert exhaustive.identify([empty_template(90)]).candidates[0].similarity < 3.0
    with pytest.raises(FailureToEnrolError, match=r"more than a finger|all look alike"):
        exhaustive.identify([empty_template(255)])


def grid(pitch_x: float, pitch_y: float, directions: int = 1, noise_px: float = 0.0) -> Template:
    rng = np.random.default_rng(7)
    x, y = (
        g.ravel() for g in np.meshgrid(np.arange(20, 280, pitch_x), np.arange(20, 300, pitch_y))
    )
    angle = 1.6 + math.pi * rng.integers(0, directions, x.size) + rng.normal(0, 0.1, x.size)
    return dataclasses.replace(
        empty_template(x.size),
        x=(x + rng.normal(0, noise_px, x.size)).astype(np.float32),
        y=(y + rng.normal(0, noise_px, x.size)).astype(np.float32),
        angle=np.mod(angle, math.tau).astype(np.float32),
    )


@pytest.mark.parametrize(
    "wolf",
    [grid(16, 20), grid(12, 12), grid(24, 24), grid(18, 18, noise_px=2), grid(14, 20, 2, 1.5)],
)
def test_a_template_built_to_resemble_many_is_refused(exhaustive: Matcher, wolf: Template) -> None:
    with pytest.raises(FailureToEnrolError) as failure:
        exhaustive.identify([wolf])
    assert failure.value.reason in ("REPETITIVE", "CROWDED")


@pytest.mark.parametrize("first", [0, 8, 16, 24])
def test_several_fingers_laid_on_one_another_are_refused(first: int) -> None:
    """Such a template would match each of those it was made of."""
    parts = [person(number)[0] for number in range(first, first + 8)]
    bred = dataclasses.replace(
        parts[0],
        x=np.concatenate([part.x for part in parts]),
        y=np.concatenate([part.y for part in parts]),
        angle=np.concatenate([part.angle for part in parts]),
        kind=np.concatenate([part.kind for part in parts]),
        quality=np.concatenate([part.quality for part in parts]),
    )
    with pytest.raises(FailureToEnrolError) as failure:
        Matcher.open(None).check([bred])
    assert failure.value.reason == "CROWDED"


def test_minutiae_wider_apart_than_a_finger_are_refused() -> None:
    wide = empty_template(30)
    wide.x[0] = 3000.0
    with pytest.raises(FailureToEnrolError) as failure:
        Matcher.open(None).check([wide])
    assert failure.value.reason == "OUT_OF_RANGE"


def test_a_comparison_is_symmetric_and_explains_itself() -> None:
    matcher = Matcher.open(None)
    probe, reference = person(2, 0)[0], person(2, 1)[0]
    there, back = matcher.compare(probe, reference), matcher.compare(reference, probe)
    assert there.similarity == back.similarity == matcher.similarity([probe], [reference])
    assert {(p.probe, p.reference) for p in there.pairs} == {
        (p.reference, p.probe) for p in back.pairs
    }
    for comparison, a, b in ((there, probe, reference), (back, reference, probe)):
        assert len({p.probe for p in comparison.pairs}) == len(comparison.pairs) >= 8
        rows = np.array([(p.probe, p.reference) for p in comparison.pairs])
        co, si = math.cos(comparison.rotation_rad), math.sin(comparison.rotation_rad)
        x, y = a.x[rows[:, 0]], a.y[rows[:, 0]]
        off_x = co * x + si * y + comparison.shift_px[0] - b.x[rows[:, 1]]
        off_y = -si * x + co * y + comparison.shift_px[1] - b.y[rows[:, 1]]
        assert float(np.median(np.hypot(off_x, off_y))) < 8.0


def test_thresholds_are_logarithms_of_rates() -> None:
    matcher = Matcher.open(None)
    assert matcher.threshold_for_fmr(1e-4) == 4.0
    assert matcher.threshold_for_fpir(0.01, 10) == pytest.approx(3.0)
    rising = [matcher.threshold_for_fpir(0.01, n) for n in (1, 64, 65, 10_000, 1_000_000)]
    assert rising == sorted(rising)
    # Of a million a stranger meets only those most alike: as if there were some hundreds.
    assert 4.0 < rising[-1] < 5.0
    for wrong in (0.0, -1.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="not within"):
            matcher.threshold_for_fmr(wrong)
        with pytest.raises(ValueError, match="not within"):
            matcher.threshold_for_fpir(wrong, 10)


# --- snapshots ---


def test_a_snapshot_gives_back_the_same_answers(tmp_path: Path) -> None:
    matcher = Matcher.open(tmp_path, key=KEY, settings=VOTING)
    assert matcher.sequence == 0
    for number in range(15):
        matcher.add(f"s{number}", person(number), number + 1)
    matcher.withdraw("s3", 16)
    matcher.snapshot()
    again = Matcher.open(tmp_path, key=KEY, settings=VOTING)
    assert again.sequence == 16
    assert len(again) == len(matcher) == 28
    assert "s3" not in again
    for number in range(15):
        assert again.identify(person(number, 1)) == matcher.identify(person(number, 1))
    again.add("s3", person(3), 17)
    assert again.identify(person(3, 1)).candidates[0].subject_id == "s3"


def test_an_empty_matcher_can_be_saved_and_searched(tmp_path: Path) -> None:
    matcher = Matcher.open(tmp_path, key=KEY)
    matcher.snapshot()
    again = Matcher.open(tmp_path, key=KEY)
    assert len(again) == 0
    assert again.identify(person(0)).candidates == ()


def test_a_snapshot_needs_a_key_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="key of 32 bytes"):
        Matcher.open(tmp_path)
    with pytest.raises(ValueError, match="key of 32 bytes"):
        Matcher.open(tmp_path, key=b"short")
    with pytest.raises(IndexStateError):
        Matcher.open(None).snapshot()


def test_a_snapshot_shows_nothing_without_its_key(tmp_path: Path) -> None:
    matcher = Matcher.open(tmp_path, key=KEY)
    matcher.add("subject-name", person(0), 1)
    matcher.snapshot()
    sealed = (tmp_path / SNAPSHOT_NAME).read_bytes()
    assert b"subject-name" not in sealed
    assert (tmp_path / SNAPSHOT_NAME).stat().st_mode & 0o077 == 0
    with pytest.raises(IndexStateError):
        Matcher.open(tmp_path, key=bytes(32))


@pytest.mark.parametrize("where", ["magic", "header", "content", "tag", "cut", "longer", "empty"])
def test_a_changed_snapshot_is_refused(tmp_path: Path, where: str) -> None:
    matcher = Matcher.open(tmp_path, key=KEY)
    matcher.add("a", person(0), 1)
    matcher.snapshot()
    path = tmp_path / SNAPSHOT_NAME
    sealed = bytearray(path.read_bytes())
    flip = {"magic": 2, "header": 40, "content": len(sealed) // 2, "tag": len(sealed) - 1}
    if where in flip:
        sealed[flip[where]] ^= 1
    elif where == "cut":
        del sealed[-40:]
    elif where == "longer":
        sealed += b"\0"
    else:
        sealed.clear()
    path.write_bytes(sealed)
    with pytest.raises(IndexStateError):
        Matcher.open(tmp_path, key=KEY)


def test_a_snapshot_of_another_descriptor_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Matcher.open(tmp_path, key=KEY).snapshot()
    monkeypatch.setattr("matcher.matcher.DESCRIPTOR_VERSION", "descriptor-of-tomorrow")
    with pytest.raises(IndexStateError, match="descriptor-of-tomorrow"):
        Matcher.open(tmp_path, key=KEY)


def test_one_hopeless_entry_fails_its_batch(voting: Matcher) -> None:
    with pytest.raises(FailureToEnrolError):
        voting.identify_many([person(1, 1), [empty_template(2)]])


def test_searches_go_on_while_people_are_enrolled() -> None:
    matcher = enrolled(VOTING, range(10))
    failures: list[BaseException] = []

    def search() -> None:
        try:
            for number in range(10):
                assert matcher.identify(person(number, 1)).candidates[0].subject_id
        except BaseException as error:
            failures.append(error)

    searching = [threading.Thread(target=search) for _ in range(2)]
    for thread in searching:
        thread.start()
    for number in range(10, 20):
        matcher.add(f"s{number:03d}", person(number), number + 1)
        assert (
            matcher.identify(person(number), limit=1).candidates[0].subject_id == f"s{number:03d}"
        )
    for thread in searching:
        thread.join()
    assert not failures
