"""The error rates of ``benchmarks.accuracy`` by hand, and its behaviour on broken input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import accuracy
from matcher.codec import encode
from matcher.synthetic import Population


def test_fnmr_takes_the_lowest_threshold_that_keeps_the_fmr() -> None:
    mated = np.array([1.0, 2.0, 3.0, 4.0])
    non_mated = np.linspace(0.0, 1.99, 200)
    assert accuracy.fnmr_at(mated, non_mated, 0.01) == 0.25  # two strangers of 200 may pass
    assert accuracy.fnmr_at(np.array([5.0]), non_mated, 0.01) == 0.0
    assert accuracy.fnmr_at(mated, non_mated, 1e-3) is None  # not observable with 200


def test_ties_with_too_many_strangers_count_as_not_matched() -> None:
    assert accuracy.fnmr_at(np.array([1.0, 2.0]), np.ones(100), 0.01) == 0.5


@pytest.mark.parametrize(
    ("mated", "non_mated", "expected"),
    [([2.0, 3.0], [0.0, 1.0], 0.0), ([0.0, 2.0], [1.0, 3.0], 0.5), ([0.0], [1.0], 1.0)],
)
def test_equal_error_rates(mated: list[float], non_mated: list[float], expected: float) -> None:
    rate = accuracy.equal_error_rate(np.array(mated), np.array(non_mated))
    assert rate == pytest.approx(expected, abs=0.26 if expected == 1.0 else 1e-9)


def test_no_pairs_give_no_rates() -> None:
    assert accuracy.equal_error_rate(np.empty(0), np.ones(3)) is None
    assert accuracy.fnmr_at(np.empty(0), np.ones(1000), 0.01) is None


@pytest.mark.parametrize("flat", [False, True])
def test_a_run_counts_names_and_survives_broken_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flat: bool
) -> None:
    folder = tmp_path / "prints" if flat else tmp_path / "prints" / "set_a"
    folder.mkdir(parents=True)
    population = Population(seed=3)
    for finger in range(4):
        for impression in range(3):
            template = population.impression(finger, impression_number=impression)
            (folder / f"f_{finger}_{impression + 1}.iso").write_bytes(encode([template]))
    (folder / "f_0_9.iso").write_bytes(b"not a record")
    (folder / "f_1_1.iso").write_bytes(b"")  # finger f_1's gallery is its second impression
    report = tmp_path / "report.json"
    arguments = ["accuracy", str(tmp_path / "prints"), "--json", str(report)]
    monkeypatch.setattr(sys, "argv", arguments)
    accuracy.main()
    found = json.loads(report.read_text())
    assert found["counts"] == {
        "samples": 13,
        "fingers": 4,
        "mated": 3 * 3 + 1,
        "non_mated": 11 * 10 // 2 - 10,
        "failures_to_enrol": 2,
        "probes": 7,
    }
    assert [line.split(":")[0].split("/")[-1] for line in found["failures_to_enrol"]] == [
        "f_0_9.iso",
        "f_1_1.iso",
    ]
    assert found["pooled"]["rank10"] == 1.0
    assert found["pooled"]["fnmr_at_fmr_1e-4"] is None
    assert list(found["sets"]) == ["prints" if flat else "set_a"]
    assert found["comparisons_per_s"]["median"] > 0
