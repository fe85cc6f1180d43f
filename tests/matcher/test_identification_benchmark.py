"""The benchmark itself: its statistics on hand-made answers, and one small run of the whole."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.common import load_sets, spread, wilson_interval, write_json
from benchmarks.identification import Person, judged, make_people, run, show, threshold_at
from matcher import codec
from matcher.synthetic import UPEK, Population
from matcher.types import Candidate, CandidateList, FingerPosition


def candidates(*pairs: tuple[str, float]) -> CandidateList:
    return CandidateList(tuple(Candidate(name, value) for name, value in pairs), True, 9, 1)


def person(name: str, same: set[str] | None = None) -> Person:
    return Person(name, (name,), [], [], same or set())


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of three synthetic fingers with three impressions each, as files."""
    folder = tmp_path_factory.mktemp("captures")
    for number, name in enumerate(("one", "two")):
        (folder / name).mkdir()
        population = Population(40 + number, UPEK)
        for finger in range(3):
            for impression in (1, 2, 10):
                record = codec.encode([population.impression(finger, impression_number=impression)])
                (folder / name / f"f_{finger}_{impression}.iso").write_bytes(record)
    return folder


def test_files_are_loaded_by_set_finger_and_number(captures: Path, tmp_path: Path) -> None:
    loaded = load_sets(captures)
    assert [(i.finger, i.number) for i in loaded[:4]] == [
        ("one/f_0", 1),
        ("one/f_0", 2),
        ("one/f_0", 10),
        ("one/f_1", 1),
    ]
    with pytest.raises(FileNotFoundError):
        load_sets(tmp_path)


def test_people_of_two_fingers_are_neighbours_captured_together(captures: Path) -> None:
    people = make_people(load_sets(captures), fingers=2)
    assert [p.fingers for p in people[:3]] == [
        ("one/f_0", "one/f_1"),
        ("one/f_1", "one/f_2"),
        ("one/f_2", "one/f_0"),
    ]
    assert [t.position for t in people[0].references] == [
        FingerPosition.RIGHT_INDEX,
        FingerPosition.LEFT_INDEX,
    ]
    assert all(len(p.probes) == 2 for p in people)


def test_a_search_is_judged_by_its_mate_and_by_the_best_stranger() -> None:
    answer = candidates(("twin", 9.0), ("a", 8.0), ("b", 3.0))
    mine = judged(answer, person("a", same={"twin"}))
    assert (mine.rank, mine.mate, mine.stranger) == (2, 8.0, 3.0)
    nobody = judged(answer, None)
    assert (nobody.rank, nobody.mate, nobody.stranger) == (0, -math.inf, 9.0)


def test_the_threshold_for_a_rate_lets_no_more_strangers_through() -> None:
    strangers = [float(value % 97) for value in range(1000)]
    threshold = threshold_at(strangers, 0.01)
    assert threshold is not None
    assert sum(value >= threshold for value in strangers) <= 10
    assert threshold_at(strangers[:99], 0.01) is None
    ties = threshold_at([5.0] * 500, 0.01)
    assert ties is not None
    assert ties > 5.0


def test_statistics() -> None:
    assert spread([3.0, 1.0, 2.0])["median"] == 2.0
    low, high = wilson_interval(0, 100)
    assert low == 0.0
    assert high == pytest.approx(0.037, abs=0.001)
    with pytest.raises(ValueError, match="no samples"):
        spread([])


def test_a_small_run_reports_every_figure(captures: Path, tmp_path: Path) -> None:
    report = run(captures, gallery=40, fingers=2, non_mated_count=12, console=Console(quiet=True))
    for name in (
        "shortlist_recall",
        "rank1",
        "searches_per_s",
        "p50_ms",
        "p99_ms",
        "bytes_per_reference",
        "build_s",
        "open_s",
        "comparisons_per_s",
    ):
        assert report[name] >= 0.0, name
    assert report["fnir_at_fpir_1e-3"] is None  # 24 searches cannot show one in a thousand
    assert report["rank1"] > 0.9
    assert report["counts"]["mated_searches"] == 12
    assert report["gallery_references"] == 40 + 6 * 2
    assert report["baselines"]["flat_faiss"]["shortlist_recall"] == 1.0
    show(report, Console(quiet=True))
    write_json(tmp_path / "report.json", report)
    assert (tmp_path / "report.json").stat().st_size > 1000
