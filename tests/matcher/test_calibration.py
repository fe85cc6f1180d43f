"""Evidence, similarity, fusion, thresholds, and the fit behind them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcher.calibrate import fit_logistic, no_fingers, null_distribution
from matcher.calibration import SUMMARY, Calibration, shipped_calibration, summary
from matcher.kernels import FEATURES

CALIBRATION = shipped_calibration()
similarities = st.floats(0.0, 30.0)


def random_evidence(count: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Evidence of strangers, drawn from the calibration's own distribution."""
    uniform = np.random.default_rng(seed).random(count)
    return np.array([CALIBRATION.evidence_at(-math.log10(u)) for u in uniform])


def test_nothing_paired_is_no_evidence() -> None:
    evidence = CALIBRATION.evidence(np.zeros((2, len(FEATURES))))
    assert np.isneginf(evidence).all()
    assert np.isneginf(CALIBRATION.similarity(evidence)).all()


def test_the_summary_has_its_columns_and_stays_finite() -> None:
    features = np.zeros((3, len(FEATURES)))
    assert summary(features).shape == (3, len(SUMMARY))
    assert np.isfinite(summary(features)).all()


def test_evidence_does_not_depend_on_the_batch() -> None:
    features = np.random.default_rng(2).uniform(0, 20, (300, len(FEATURES)))
    together = CALIBRATION.evidence(features)
    for row in (0, 7, 299):
        assert CALIBRATION.evidence(features[row : row + 1])[0] == together[row]


def test_more_evidence_is_never_less_similar() -> None:
    similarity = CALIBRATION.similarity(np.linspace(-40, 80, 5000))
    assert (np.diff(similarity) >= 0).all()
    assert similarity[0] == 0.0
    assert similarity[-1] > 10.0


@given(similarities)
def test_evidence_and_similarity_are_each_other_s_inverse(similarity: float) -> None:
    evidence = CALIBRATION.evidence_at(similarity)
    assert CALIBRATION.similarity(np.array([evidence]))[0] == pytest.approx(similarity, abs=1e-6)


@given(similarities)
def test_one_finger_fuses_to_itself(similarity: float) -> None:
    assert CALIBRATION.fuse([similarity]) == similarity
    assert CALIBRATION.fuse([-math.inf, similarity]) == similarity


def test_no_finger_fuses_to_nothing() -> None:
    assert CALIBRATION.fuse([]) == -math.inf
    assert CALIBRATION.fuse([-math.inf]) == -math.inf


@given(st.lists(similarities, min_size=2, max_size=10), st.randoms())
def test_fusion_does_not_depend_on_the_order_and_rises(values: list[float], random: object) -> None:
    fused = CALIBRATION.fuse(values)
    assert CALIBRATION.fuse(values[::-1]) == fused
    assert CALIBRATION.fuse([values[0] + 1.0, *values[1:]]) >= fused - 1e-9


@pytest.mark.parametrize("fingers", [2, 4, 10])
def test_fused_strangers_reach_a_similarity_as_often_as_it_says(fingers: int) -> None:
    evidence = random_evidence(20000 * fingers, fingers).reshape(-1, fingers)
    fused = np.array([CALIBRATION.fuse(row) for row in CALIBRATION.similarity(evidence)])
    for target in (2.0, 2.5):
        observed = float(np.mean(fused >= target))
        # Rounding leans to the safe side; beyond it, three standard errors. Below 1.5 the floor
        # makes one lump of most strangers, and their similarity too low.
        limit = 10**-target + 3 * math.sqrt(10**-target / len(fused))
        assert 0.5 * 10**-target < observed < limit


def test_weak_fingers_cost_a_strong_one_little() -> None:
    for others in range(1, 10):
        fused = CALIBRATION.fuse([8.0] + [0.0] * others)
        assert 5.5 < fused < 8.0


def test_two_fingers_beat_one() -> None:
    assert CALIBRATION.fuse([3.0, 3.0]) > 4.0
    assert CALIBRATION.fuse([3.0, 3.0, 3.0]) > CALIBRATION.fuse([3.0, 3.0])


def test_the_logistic_fit_finds_a_known_likelihood_ratio() -> None:
    rng = np.random.default_rng(4)
    mated, non_mated = rng.normal(1.0, 1.0, (40000, 1)), rng.normal(-1.0, 1.0, (40000, 1))
    weights, bias = fit_logistic(mated, non_mated)
    assert weights[0] == pytest.approx(2.0, abs=0.05)  # the log ratio of these normals is 2 x
    assert bias == pytest.approx(0.0, abs=0.05)


def test_the_null_distribution_finds_a_known_tail() -> None:
    rng = np.random.default_rng(5)
    knots, log_survivals, slope = null_distribution(rng.exponential(1.0, 200000))
    assert slope == pytest.approx(1.0 / math.log(10.0), rel=0.15)
    fitted = Calibration(np.zeros(1), 0.0, knots, log_survivals, slope)
    assert fitted.similarity(np.array([math.log(100.0)]))[0] == pytest.approx(2.0, abs=0.05)
    assert fitted.similarity(np.array([math.log(1e6)]))[0] == pytest.approx(6.0, abs=0.8)


def test_templates_that_are_no_fingers_are_the_same_each_time() -> None:
    first, again = list(no_fingers(1, 5)), list(no_fingers(1, 5))
    assert all(np.array_equal(a.x, b.x) for a, b in zip(first, again, strict=True))
