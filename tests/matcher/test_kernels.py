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
        rng.integers(-60, 61, (count, kernels.DIMENSION)).astype(np.int8),
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
def test_descriptors_are_the_same_to_the_last_unit(count: int) -> None:
    model, m = shipped_model(), random_minutiae(count, count)
    angle = np.random.default_rng(count).integers(0, 256, count).astype(np.uint8)
    x, y = m.x.astype(np.int16), m.y.astype(np.int16)
    cells = kernels.neighbour_cells(x, y, angle)
    fast_cells, starts, seen = kernels_fast.surroundings(m.x, m.y, angle)
    for own, begin, end in zip(cells, starts, starts[1:], strict=False):
        np.testing.assert_array_equal(fast_cells[begin:end], own)
    # Places are computed in single precision: a unit of 255 may round the other way.
    assert np.abs(seen - kernels.seen_places(m.x, m.y, angle)).max() <= 1.0
    expected = kernels.describe(cells, seen.astype(np.uint8), model.network)
    np.testing.assert_array_equal(model.describe(m.x, m.y, angle), expected)


def test_a_neighbour_is_seen_in_the_same_cell_wherever_the_finger_lies() -> None:
    m = random_minutiae(3, 30)
    byte = np.random.default_rng(3).integers(0, 256, 30).astype(np.uint8)
    x, y = m.x.astype(np.int16), m.y.astype(np.int16)
    before = kernels.neighbour_cells(x, y, byte)
    # A quarter turn keeps whole pixels whole: x becomes -y, y becomes x.
    after = kernels.neighbour_cells(40 - y, x - 9, byte + np.uint8(64))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(np.sort(one), np.sort(other))


def test_sums_of_the_network_stay_exact() -> None:
    """Within float32's whole numbers, whatever a finger shows: 127 neighbours at the most."""
    network = shipped_model().network
    assert np.abs(network.cells.astype(int)).max() * 127 < 2**15
    places = 255 * np.abs(network.places.astype(int)).sum(axis=1) + np.abs(network.bias)
    assert places.max() < 2**24
    last = 255 * np.abs(network.last.astype(int)).sum(axis=1) + np.abs(network.last_bias)
    assert last.max() < 2**24


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 40), (33, 2), (40, 57), (128, 128)])
def test_mate_weights_and_candidates_agree(m: int, n: int) -> None:
    rng = np.random.default_rng(m * n)
    probe = rng.integers(-60, 61, (m, kernels.DIMENSION)).astype(np.int8)
    reference = rng.integers(-60, 61, (n, kernels.DIMENSION)).astype(np.int8)
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


def keys_of(
    row: NDArray[Any], probe: NDArray[Any], x: NDArray[Any], y: NDArray[Any], angle: NDArray[Any]
) -> NDArray[np.int64]:
    """Hits as :func:`kernels_fast.ballots` names them."""
    named = (row.astype(np.int64) << 28) | (x << 18) | (y << 8) | angle
    keys: NDArray[np.int64] = named << 7 | probe
    return keys


@pytest.mark.parametrize("count", [0, 1, 2, 40, 400])
def test_votes_agree(count: int) -> None:
    rng = np.random.default_rng(count)
    probe = random_minutiae(8, 30)
    own = rng.integers(0, 256, 30).astype(np.uint8)
    finder = rng.integers(0, 30, count)
    moved = rng.random(count) < 0.5  # half of the hits agree on a shift of (50, 400)
    x = np.where(moved, probe.x[finder] + 50, rng.integers(0, 300, count)).astype(np.int64)
    y = np.where(moved, probe.y[finder] + 400, rng.integers(0, 300, count)).astype(np.int64)
    angle = np.where(moved, own[finder], rng.integers(0, 256, count)).astype(np.int64)
    keys = np.sort(keys_of(rng.integers(0, 12, count), finder, x, y, angle))
    share, name, finder = rng.uniform(0, 1, count), keys >> 7, keys & 127
    hits = Hits(
        row=name >> 28,
        probe=finder,
        x=((name >> 18) & 1023).astype(np.float32),
        y=((name >> 8) & 1023).astype(np.float32),
        turn=((name & 255) - own[finder].astype(np.float64)) * (math.pi / 128.0),
        share=share,
    )
    rows, votes, motions = kernels.vote(hits, probe.x, probe.y, P)
    fast_rows, fast_votes, fast_motions = kernels_fast.vote(keys, share, own, probe.x, probe.y, P)
    np.testing.assert_array_equal(fast_rows, rows)
    np.testing.assert_allclose(fast_votes, votes, rtol=1e-4, atol=2)
    np.testing.assert_allclose(fast_motions, motions, atol=1e-3)


def test_ballots_divide_votes_and_leave_out_the_dead_the_late_and_equals_at_the_end() -> None:
    distances = np.array([[5, 9, 9, 20], [0, 1, 2, 3], [4, 6, 8, np.inf]], dtype=np.float32)
    rows = np.array([[0, 1, 2, 3], [0, 5, 2, 4], [3, 2, 1, -1]], dtype=np.int64)
    ids = np.where(rows >= 0, rows << 28 | 77, -1)
    alive = np.array([True, True, False, True, True, True])
    keys, share = kernels_fast.ballots(distances, ids, alive, 5, 0.1)
    # Row 2 is dead, row 5 came later; a full list's last entry, and its equals, may have rivals.
    found = [(int(key >> 35), int(key & 127)) for key in keys]
    assert found == [(0, 0), (1, 0), (0, 1), (3, 2), (1, 2)]
    expected = kernels.shares(np.array([[5, 9], [0, np.inf], [4, 8]], dtype=np.float32), 0.1)
    np.testing.assert_allclose(share, expected[expected > 0.0])
    same = np.array([[5, 7, 7, 7]], dtype=np.float32)
    keys, _ = kernels_fast.ballots(same, ids[:1], alive, 5, 0.1)
    assert [int(key >> 35) for key in keys] == [0]


def test_living_codes_move_up_within_their_blocks() -> None:
    rng = np.random.default_rng(9)
    size, width = 77, 24
    halves = rng.integers(0, 16, (size, width)).astype(np.uint8)
    rows = np.arange(size, dtype=np.int64)

    def packed_halves(entries: NDArray[np.uint8]) -> NDArray[np.uint8]:
        blocks = np.zeros((-(-entries.shape[0] // 32), width, 16), dtype=np.uint8)
        for e in range(entries.shape[0]):
            a = e & 15
            place = 2 * a if a < 8 else 2 * (a - 8) + 1
            blocks[e >> 5, :, place] |= entries[e] << (4 if e & 16 else 0)
        return blocks

    codes, ids = packed_halves(halves), rows << 28 | 5
    alive = rng.random(size) < 0.6
    count = kernels_fast.living_codes(codes, ids, alive, np.empty(0, np.int64), codes, ids)
    assert count == alive.sum()
    np.testing.assert_array_equal(ids[:count] >> 28, rows[alive])
    expected = packed_halves(halves[alive])
    full = count // 32
    np.testing.assert_array_equal(codes[:full], expected[:full])


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
    x = np.concatenate((probe.x + 30, rng.integers(0, 300, 10))).astype(np.int64)
    y = np.concatenate((probe.y + 400, rng.integers(0, 300, 10))).astype(np.int64)
    own = rng.integers(0, 256, 10).astype(np.uint8)
    angle = np.concatenate((own, rng.integers(0, 256, 10))).astype(np.int64)
    keys = np.sort(keys_of(np.repeat([0, 1], 10), finder, x, y, angle))
    _, (agreed, scattered), motions = kernels_fast.vote(
        keys, np.full(20, 0.5), own, probe.x, probe.y, P
    )
    np.testing.assert_allclose(motions[0], (0.0, 30.0, 400.0), atol=1e-4)
    assert agreed == 5 * kernels.VOTE_UNITS
    assert scattered < agreed / 2


def test_a_minutia_divides_one_vote() -> None:
    distances = np.array([[5, 5, 5, 5], [0, 1e5, np.inf, np.inf], [np.inf] * 4], dtype=np.float32)
    shared = kernels.shares(distances, 1e-3)
    np.testing.assert_allclose(shared[0], 0.25)
    np.testing.assert_allclose(shared.sum(axis=1), [1.0, 1.0, 0.0])
    assert shared[1, 0] > 0.999
    np.testing.assert_array_equal(shared[2], 0.0)
