"""The compiled kernels against their plain NumPy specification."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from matcher import kernels, kernels_fast
from matcher.compare import PackedTemplate, pack
from matcher.descriptor import shipped_model
from matcher.kernels import FEATURES, Hits, Minutiae, Parameters
from matcher.synthetic import Population

POPULATION = Population(seed=11)
P = Parameters()


def packed(finger: int, impression: int) -> PackedTemplate:
    return pack(POPULATION.impression(finger, impression_number=impression), shipped_model())


def minutiae(template: PackedTemplate) -> Minutiae:
    return Minutiae(
        template.x.astype(np.float32),
        template.y.astype(np.float32),
        template.angle.astype(np.float32) * np.float32(math.tau / 256),
        template.kind,
        template.descriptors,
        template.hull.astype(np.int64),
    )


def fast(probe: Minutiae, reference: Minutiae) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    features = np.zeros(len(FEATURES))
    mates = np.empty(256, dtype=np.int32)
    motion = kernels_fast.compare(*probe, *reference, shipped_model().scale, P, features, mates)
    return features, mates[: probe.x.shape[0]], motion


def random_minutiae(seed: int, count: int) -> Minutiae:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 250, count).astype(np.float32)
    y = rng.integers(-350, 0, count).astype(np.float32)
    return Minutiae(
        x,
        y,
        rng.uniform(0, math.tau, count).astype(np.float32),
        rng.integers(1, 3, count).astype(np.uint8),
        rng.integers(-60, 61, (count, shipped_model().dimension)).astype(np.int8),
        kernels.convex_hull(x, y),
    )


@pytest.mark.parametrize("count", [1, 2, 3, 12, 80, 200])
def test_hulls_agree(count: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.integers(0, 30, count).astype(np.float32)
        y = rng.integers(0, 30, count).astype(np.float32)
        hull = kernels.convex_hull(x, y)
        np.testing.assert_array_equal(kernels_fast.convex_hull(x, y), hull)
        inside = kernels.outside(x, y, x[hull], y[hull])
        assert (inside < 1e-3).all()


def test_a_square_has_four_corners_and_its_area() -> None:
    x = np.array([0, 10, 10, 0, 5, 5], dtype=np.float32)
    y = np.array([0, 0, 10, 10, 5, 0], dtype=np.float32)
    hull = kernels.convex_hull(x, y)
    np.testing.assert_array_equal(hull, [0, 1, 2, 3])
    assert kernels.hull_area(x, y, hull) == 100.0
    distance = kernels.outside(np.array([5.0, 13.0]), np.array([5.0, 5.0]), x[hull], y[hull])
    np.testing.assert_allclose(distance, [-5.0, 3.0])


@pytest.mark.parametrize("count", [1, 2, 7, 40, 128])
def test_neighbourhoods_agree(count: int) -> None:
    m = random_minutiae(count, count)
    byte = np.random.default_rng(count).integers(0, 256, count).astype(np.uint8)
    expected = kernels.neighbourhoods(m.x, m.y, byte * (math.tau / 256.0))
    np.testing.assert_allclose(
        kernels_fast.neighbourhoods(m.x, m.y, byte), expected, rtol=1e-4, atol=2e-4
    )
    assert expected.shape == (count, shipped_model().w1.shape[1])


def test_a_neighbourhood_turns_and_moves_with_the_finger() -> None:
    m = random_minutiae(3, 30)
    turn = 0.7
    co, si = math.cos(turn), math.sin(turn)
    x = (co * m.x - si * m.y + 40).astype(np.float32)
    y = (si * m.x + co * m.y - 9).astype(np.float32)
    angle = (m.angle + np.float32(turn)).astype(np.float32)
    np.testing.assert_allclose(
        kernels.neighbourhoods(x, y, angle),
        kernels.neighbourhoods(m.x, m.y, m.angle),
        atol=2e-3,
    )


def test_descriptors_agree_but_for_rounding() -> None:
    model = shipped_model()
    m = random_minutiae(5, 60)
    neighbours = kernels.neighbourhoods(m.x, m.y, m.angle)
    weights = (model.w1, model.b1, model.w2, model.b2)
    expected = kernels.describe(neighbours, model.w1.T, model.b1, model.w2.T, model.b2, 254.0)
    found = kernels_fast.describe(neighbours, *weights, np.float32(254))
    difference = found.astype(int) - expected.astype(int)
    assert np.abs(difference).max() <= 1
    assert np.mean(difference != 0) < 0.01


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 40), (33, 2), (40, 57), (128, 128)])
def test_mate_weights_and_candidates_agree(m: int, n: int) -> None:
    rng = np.random.default_rng(m * n)
    probe = rng.integers(-60, 61, (m, 64)).astype(np.int8)
    reference = rng.integers(-60, 61, (n, 64)).astype(np.int8)
    scale = 8.0 / 254**2
    alike, weight = kernels.mate_weights(probe, reference, scale, 4.0)
    fast_alike, fast_weight = kernels_fast.mate_weights(probe, reference, scale, 4.0)
    np.testing.assert_array_equal(fast_alike, alike)
    np.testing.assert_allclose(fast_weight, weight, rtol=1e-5)
    ci, cj = kernels.candidate_pairs(weight)
    columns, best = kernels_fast.candidate_pairs(weight)
    keep = min(kernels.MAX_CANDIDATES, n)
    np.testing.assert_array_equal(columns[:keep].T.ravel(), cj)
    np.testing.assert_array_equal(best[:keep].T.ravel(), weight[ci, cj])
    np.testing.assert_array_equal(best[keep:], 0.0)


def test_equal_weights_keep_the_lower_rows() -> None:
    weight = np.full((2, 6), 0.25, dtype=np.float32)
    ci, cj = kernels.candidate_pairs(weight)
    np.testing.assert_array_equal(ci, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(cj, [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(kernels_fast.candidate_pairs(weight)[0].T, [[0, 1, 2]] * 2)


def test_comparisons_of_fingers_agree() -> None:
    """Mates, motion and features; a tie broken the other way by rounding is rare, not an error."""
    same = total = 0
    for finger in range(12):
        for other in (finger, finger + 1):
            probe, reference = minutiae(packed(finger, 0)), minutiae(packed(other, 1))
            outcome = kernels.compare(probe, reference, shipped_model().scale, P)
            features, mates, motion = fast(probe, reference)
            total += 1
            if np.array_equal(mates, outcome.mates):
                same += 1
                np.testing.assert_allclose(features, outcome.features, rtol=1e-3, atol=1e-3)
                np.testing.assert_allclose(motion, outcome.motion, rtol=1e-3, atol=2e-2)
    assert same >= total - 1


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 1), (1, 9), (6, 6), (30, 128), (128, 128)])
def test_comparisons_of_any_size_agree(m: int, n: int) -> None:
    probe, reference = random_minutiae(m, m), random_minutiae(1000 + n, n)
    outcome = kernels.compare(probe, reference, shipped_model().scale, P)
    features, mates, _ = fast(probe, reference)
    assert np.isfinite(features).all()
    assert features[FEATURES.index("minutiae_probe")] == m
    assert features[FEATURES.index("minutiae_reference")] == n
    if np.array_equal(mates, outcome.mates):
        np.testing.assert_allclose(features, outcome.features, rtol=1e-3, atol=1e-3)


def test_minutiae_on_one_point_compare_to_finite_features() -> None:
    m = random_minutiae(9, 20)
    zero = np.zeros(20, dtype=np.float32)
    point = m._replace(x=zero, y=zero, hull=kernels.convex_hull(zero, zero))
    for probe, reference in ((point, m), (m, point), (point, point)):
        assert np.isfinite(fast(probe, reference)[0]).all()
        assert np.isfinite(kernels.compare(probe, reference, shipped_model().scale, P)[0]).all()


def test_a_finger_compared_with_itself_pairs_every_minutia() -> None:
    itself = minutiae(packed(3, 0))
    outcome = kernels.compare(itself, itself, shipped_model().scale, P)
    np.testing.assert_array_equal(outcome.mates, np.arange(itself.x.shape[0]))
    np.testing.assert_allclose(outcome.motion, (0.0, 0.0, 0.0), atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 40, 400])
def test_votes_agree(count: int) -> None:
    rng = np.random.default_rng(count)
    probe = random_minutiae(8, 30)
    finder = rng.integers(0, 30, count)
    moved = rng.random(count) < 0.5  # half of the hits agree on a shift of (50, -20)
    hits = Hits(
        row=np.sort(rng.integers(0, 12, count)),
        probe=finder,
        x=np.where(moved, probe.x[finder] + 50, rng.uniform(0, 300, count)).astype(np.float32),
        y=np.where(moved, probe.y[finder] - 20, rng.uniform(-300, 0, count)).astype(np.float32),
        turn=np.where(moved, rng.normal(0, 0.1, count), rng.uniform(-6, 6, count)),
        share=rng.uniform(0, 1, count),
    )
    rows, votes, motions = kernels.vote(hits, probe.x, probe.y, P)
    fast_rows, fast_votes, fast_motions = kernels_fast.vote(*hits, probe.x, probe.y, P)
    np.testing.assert_array_equal(fast_rows, rows)
    np.testing.assert_allclose(fast_votes, votes, rtol=1e-4, atol=2)
    np.testing.assert_allclose(fast_motions, motions, atol=1e-3)


@pytest.mark.parametrize("moved", [0.0, 0.1])
def test_orders_of_a_shortlist_agree(moved: float) -> None:
    for finger in range(6):
        probe = packed(finger, 0)
        others = [packed(finger, 1), packed(finger + 1, 0)]
        geometry = [kernels.packed_geometry(o.x, o.y, o.angle, o.kind) for o in others]
        starts = np.cumsum([0, *(len(o) for o in others)])
        motions = np.tile([moved, 60 * moved, -30 * moved], (2, 1))
        a, b = (minutiae(template)[:3] for template in (probe, others[0]))
        scores = kernels_fast.rank_rows(
            *a, np.concatenate(geometry), starts, np.arange(2), motions, P
        )
        expected = [
            kernels.rank_score(a, minutiae(other)[:3], tuple(motion), P)
            for other, motion in zip(others, motions, strict=True)
        ]
        np.testing.assert_allclose(scores, expected, atol=2e-2)
        itself = kernels.rank_score(b, b, (0.0, 0.0, 0.0), P)
        assert itself == pytest.approx(len(others[0]), abs=1e-3)


def test_minutiae_in_four_bytes_come_back() -> None:
    rng = np.random.default_rng(4)
    x, y = (rng.integers(0, 1024, 50).astype(np.int16) for _ in range(2))
    angle = rng.integers(0, 256, 50).astype(np.uint8)
    kind = rng.integers(0, 3, 50).astype(np.uint8)
    found = [np.empty_like(values) for values in (x, y, angle, kind)]
    kernels_fast.unpacked(kernels.packed_geometry(x, y, angle, kind), *found)
    for value, expected in zip(found, (x, y, angle, kind), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_hits_that_agree_on_a_motion_count_more_than_scattered_ones() -> None:
    probe = random_minutiae(8, 10)
    rng = np.random.default_rng(1)
    finder = np.tile(np.arange(10), 2)
    x = np.concatenate((probe.x + 30, rng.uniform(0, 300, 10))).astype(np.float32)
    y = np.concatenate((probe.y, rng.uniform(-300, 0, 10))).astype(np.float32)
    turn = np.concatenate((np.zeros(10), rng.uniform(-3, 3, 10)))
    hits = Hits(np.repeat([0, 1], 10), finder, x, y, turn, np.full(20, 0.5))
    _, (agreed, scattered), motions = kernels_fast.vote(*hits, probe.x, probe.y, P)
    np.testing.assert_allclose(motions[0], (0.0, 30.0, 0.0), atol=1e-4)
    assert agreed == 5 * kernels.VOTE_UNITS
    assert scattered < agreed / 2


def test_a_minutia_divides_one_vote() -> None:
    distances = np.array([[5, 5, 5, 5], [0, 1e5, np.inf, np.inf], [np.inf] * 4], dtype=np.float32)
    shared = kernels.shares(distances, 1e-3)
    np.testing.assert_allclose(shared[0], 0.25)
    np.testing.assert_allclose(shared.sum(axis=1), [1.0, 1.0, 0.0])
    assert shared[1, 0] > 0.999
    np.testing.assert_array_equal(shared[2], 0.0)
