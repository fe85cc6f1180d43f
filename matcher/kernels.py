"""What the fast kernels must compute, in plain NumPy: the specification of the comparison.

Theory of operation. A minutia is described by where its neighbours lie and which way they point,
seen from its own position and direction (:func:`neighbourhoods`); a small network
(:mod:`matcher.descriptor`) turns that into a short vector. Comparing two templates is then

1. *alike*: how alike every probe minutia is to every reference minutia, and from that how likely
   each is the other's mate when all its rivals are taken into account (:func:`mate_weights`);
2. *aligned*: each of the likeliest pairs proposes a rigid motion, the others vote for it where they
   agree, with a tolerance that grows with their distance because skin stretches;
3. *paired*: from the best motions, minutiae are paired one to one where place, direction and
   descriptor together speak for it; motion and a smooth distortion field are fitted to the pairs
   and the pairing is repeated;
4. *measured*: the pairing is summed up in a few figures (:data:`FEATURES`) which
   :mod:`matcher.calibration` turns into evidence.

Coordinates are pixels at 500 ppi with y *up*, angles radians counter-clockwise. All functions are
pure. The constants are lengths and angles of fingers, not of data sets; where a value was chosen by
experiment, ``benchmarks/RESULTS.md`` has the figures.

Sources: neighbourhoods in the manner of local-structure matching (Jiang and Yau 2000; Cappelli,
Ferrara and Maltoni 2010 for densities over a local grid, which here is polar with a blur that grows
outwards, takes directions as a third axis, and feeds a learned metric); voting for motions after
Ratha et al. 1996; the distortion field is a kernel regression in place of the thin-plate spline of
Bazen and Gerez 2003.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[Any]
"""Of float32 or float64; the docstrings say which shape."""
IndexArray = NDArray[np.int64]

REACH_PX = 144
"""How far a neighbour may lie, in x and in y and in all."""
RINGS = 24
SECTORS = 32
TURNS = 16
"""Cells of a neighbour: rings of 6 px, its bearing and its direction as the minutia sees them.
The network learned with these very cells, so their coarseness is no error to it."""
CELLS = RINGS * SECTORS * TURNS
PLACE_RADII_PX = (14.0, 30.0, 50.0, 74.0, 104.0)
PLACES_A_RING = 10
PLACES = len(PLACE_RADII_PX) * PLACES_A_RING
"""Places around a minutia of which the network is told whether minutiae could be seen there."""
HULL_MARGIN_PX = 12.0
HULL_SOFTNESS_PX = 6.0
"""A place further outside the minutiae's convex hull than this is unseen rather than empty."""

DIMENSION = 48
"""Of a descriptor. A constant, so that inner products are unrolled."""
DESCRIPTOR_LENGTH = 220.0
"""Of a descriptor before rounding: components of 48-d vectors of this length stay inside int8."""
MAX_SPAN_PX = 1023
"""Of a template's minutiae in x and in y: 52 mm, more than the pad of any finger."""
MAX_MINUTIAE = 128
"""More than a whole finger shows: extractors that report more report noise. The best are kept."""
MAX_CANDIDATES = 3
"""Reference minutiae kept per probe minutia when motions are proposed."""


VOTE_CUT = 4.0
PAIR_CUT = 16.0
"""Squared deviations, in standard deviations, beyond which pairs neither agree nor are paired."""
BETTER = 1e-4
"""Nats by which a later motion must beat an earlier one: several often lead to the same pairing."""
BUMP_REACH = 3.0
"""Standard deviations at which :func:`bump` ends."""
VOTE_UNITS = 1 << 20
"""A whole vote of a probe minutia in the search."""


class Parameters(NamedTuple):
    """Lengths, angles and weights of the comparison. Pixels at 500 ppi, radians.

    Attributes:
        no_mate: log weight of the alternative that a minutia has no mate in the other template.
        proposals: how many of the likeliest pairs propose a motion.
        max_rotation: proposals beyond it are not tried.
        vote_px, vote_slope, vote_angle: two pairs agree within ``hypot(vote_px, slope * distance)``
            and ``vote_angle`` (one standard deviation).
        angle_lever_px2: how much a minutia's direction weighs in the rotation, as a squared lever.
        field_prior, field_px: weight of "no distortion" and reach of the distortion field.
        coarse_px, fine_px, pair_angle: standard deviations of a pair's place before and after the
            distortion field is known, and of its direction.
        pair_bias, geometry_weight, descriptor_weight: a pair's evidence is
            ``bias - weight / 2 * squared deviation + weight * descriptor evidence``.
        unpaired_cost: what an unpaired minutia inside the overlap takes off when motions compete.
        overlap_px: softness of the overlap's border.
        support_px, support_prior: reach of the neighbourhood in which a pair finds support, and the
            weight of unpaired minutiae assumed there beforehand.
        motions: how many of the proposed motions are refined.
        rounds: pairings after the first.
        rival_votes: a motion with less than this share of the best one's votes is not refined.
        rank_rounds, rank_coarse_px, rank_fine_px, rank_angle: refinements, tolerances of place in
            them and after them, and of direction, when the shortlist is put in order.
        steady: from this round on, a pairing that comes again is final.
    """

    no_mate: float = 6.0
    proposals: int = 24
    max_rotation: float = math.radians(75)
    vote_px: float = 9.0
    vote_slope: float = 0.16
    vote_angle: float = math.radians(16)
    angle_lever_px2: float = 400.0
    field_prior: float = 1.0
    field_px: float = 60.0
    coarse_px: float = 7.0
    fine_px: float = 4.5
    pair_angle: float = math.radians(9)
    pair_bias: float = 1.0
    geometry_weight: float = 0.6
    descriptor_weight: float = 0.35
    unpaired_cost: float = 0.25
    overlap_px: float = 8.0
    support_px: float = 45.0
    support_prior: float = 1.0
    motions: int = 2
    rounds: int = 4
    rival_votes: float = 0.7
    steady: int = 2
    rank_rounds: int = 2
    rank_coarse_px: float = 9.0
    rank_fine_px: float = 6.0
    rank_angle: float = 0.2


FEATURES = (
    "total",
    "pairs",
    "evidence",
    "likeness",
    "residual_px",
    "residual_angle",
    "same_kind",
    "overlap_probe",
    "overlap_reference",
    "rotation",
    "votes",
    "unpaired_probe",
    "unpaired_reference",
    "mate_weight",
    "minutiae_probe",
    "minutiae_reference",
    "spread_px",
    "distortion_px",
    "support",
    "supported_evidence",
    "chance_pairs",
)
"""What a comparison measures, in the order of the features array.

total: evidence less the cost of unpaired minutiae in the overlap; pairs: how many; evidence: summed
over pairs; likeness: mean descriptor evidence of the pairs; residual_px, residual_angle: root mean
squares after distortion; same_kind: fraction of pairs of one kind; overlap_*: minutiae inside the
common area; rotation: radians, unsigned; votes: agreement on the proposed motion; unpaired_*: those
of the overlap without a mate; mate_weight: summed over pairs; minutiae_*: of the whole template;
spread_px: root mean square distance of pairs from their centre; distortion_px: root mean square of
the field at the pairs; support: mean over pairs of the paired share of their neighbours inside the
overlap; supported_evidence: evidence weighted by that share; chance_pairs: how many pairs two
unrelated templates of these densities would show in this overlap.
"""


# --- from minutiae to descriptors ---


def wrapped(angle: FloatArray) -> FloatArray:
    """The same angles within [-pi, pi)."""
    return angle - 2.0 * math.pi * np.floor(angle / (2.0 * math.pi) + 0.5)


def bump(d2: FloatArray, sigma: float) -> FloatArray:
    """A weight that falls from 1 to 0 with squared distance, like a normal density that ends."""
    u = np.maximum(1.0 - d2 / (BUMP_REACH * sigma) ** 2, 0.0)
    return u**4


def convex_hull(x: FloatArray, y: FloatArray) -> IndexArray:
    """Rows of the corners of the convex hull, counter-clockwise from the leftmost (lowest) point.

    Points on an edge are no corners. Andrew's monotone chain (1979).

    Args:
        x, y: (M,) float32, at least one point.
    """
    order = np.lexsort((y, x))

    def turn(a: int, b: int, c: int) -> float:
        return float((x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a]))

    def chain(rows: list[int]) -> list[int]:
        corners: list[int] = []
        for row in rows:
            while len(corners) >= 2 and turn(corners[-2], corners[-1], row) <= 0.0:
                corners.pop()
            corners.append(row)
        return corners[:-1]

    forth = [int(row) for row in order]
    hull = chain(forth) + chain(forth[::-1])
    return np.asarray(hull or forth[:1], dtype=np.int64)


def hull_area(x: FloatArray, y: FloatArray, hull: IndexArray) -> float:
    """Area inside a convex hull, px^2."""
    hx, hy = x[hull].astype(np.float64), y[hull].astype(np.float64)
    return float(0.5 * np.sum(hx * np.roll(hy, -1) - np.roll(hx, -1) * hy))


def outside(px: FloatArray, py: FloatArray, hx: FloatArray, hy: FloatArray) -> FloatArray:
    """How far points lie outside a convex polygon, negative inside; px.

    The largest signed distance to an edge's line, so slightly short of the distance to a corner.

    Args:
        px, py: (N,) points.
        hx, hy: (H,) corners, counter-clockwise.
    """
    ex, ey = np.roll(hx, -1) - hx, np.roll(hy, -1) - hy
    length = np.hypot(ex, ey)
    edges = length >= 1e-6
    if not edges.any():
        from_point: FloatArray = np.hypot(px - hx[0], py - hy[0])
        return from_point
    across = ey[edges] * (px[:, None] - hx[edges]) - ex[edges] * (py[:, None] - hy[edges])
    distance: FloatArray = (across / length[edges]).max(axis=1)
    return distance


class Network(NamedTuple):
    """The network that describes a minutia, in whole numbers: every sum is exact in float32.

    Attributes:
        cells: (CELLS, U) int8, what a neighbour in each cell adds to the units, in 256ths.
        places: (U, PLACES) int16, weights of the places that are seen; bias: (U,) int32.
        gain: a unit is ``max(sum, 0) * gain >> 24``, at most 255.
        last: (DIMENSION, U) int8, last_bias: (DIMENSION,) int32, from units to descriptor.
    """

    cells: NDArray[np.int8]
    places: NDArray[np.int16]
    bias: NDArray[np.int32]
    gain: int
    last: NDArray[np.int8]
    last_bias: NDArray[np.int32]


def polar_table() -> NDArray[np.int32]:
    """Ring and bearing of every whole offset: (2 REACH + 1, 2 REACH + 1) by dy, then dx.

    256 times the ring plus the bearing in 256 units a turn; -1 at the middle and out of reach.
    """
    offsets = np.arange(-REACH_PX, REACH_PX + 1)
    dx, dy = np.meshgrid(offsets, offsets)
    distance = np.hypot(dx, dy)
    ring = np.floor(distance * (RINGS / REACH_PX)).astype(np.int64)
    bearing = np.rint(np.arctan2(dy, dx) * (128.0 / math.pi)).astype(np.int64) % 256
    inside = (distance > 0.0) & (ring < RINGS)
    return np.where(inside, ring << 8 | bearing, -1).astype(np.int32)


def neighbour_cells(
    x: NDArray[np.int16], y: NDArray[np.int16], angle: NDArray[np.uint8]
) -> list[IndexArray]:
    """For each minutia the cells in which it sees the others, each once for every neighbour.

    Args:
        x, y: (M,) whole pixels, y up.
        angle: (M,) 256 units a turn.
    """
    table = polar_table()
    xi, yi, ai = (np.asarray(values, dtype=np.int64) for values in (x, y, angle))
    found = []
    for i in range(xi.shape[0]):
        dx, dy = xi - xi[i], yi - yi[i]
        near = np.flatnonzero((np.abs(dx) <= REACH_PX) & (np.abs(dy) <= REACH_PX))
        polar = table[dy[near] + REACH_PX, dx[near] + REACH_PX]
        near, polar = near[polar >= 0], polar[polar >= 0]
        sector = ((polar - ai[i] + 128 // SECTORS) & 255) * SECTORS >> 8
        turn = ((ai[near] - ai[i] + 128 // TURNS) & 255) * TURNS >> 8
        found.append((((polar >> 8) * SECTORS + sector) * TURNS + turn).astype(np.int64))
    return found


def seen_places(x: FloatArray, y: FloatArray, angle: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How far each minutia's places lie where minutiae could be seen, (M, PLACES), 255 for surely.

    Args:
        x, y: (M,) float32.
        angle: (M,) 256 units a turn.
    """
    xf, yf = x.astype(np.float64), y.astype(np.float64)
    around = 2.0 * math.pi * np.arange(PLACES_A_RING) / PLACES_A_RING
    at = angle[:, None, None] * (2.0 * math.pi / 256.0) + around
    radii = np.asarray(PLACE_RADII_PX)[:, None]
    cx = xf[:, None, None] + radii * np.cos(at)
    cy = yf[:, None, None] + radii * np.sin(at)
    hull = convex_hull(x, y)
    d = outside(cx.ravel(), cy.ravel(), xf[hull], yf[hull])
    seen = 1.0 / (1.0 + np.exp((d - HULL_MARGIN_PX) / HULL_SOFTNESS_PX))
    return np.rint(255.0 * seen).astype(np.uint8).reshape(x.shape[0], PLACES)


def describe(
    cells: list[IndexArray], seen: NDArray[np.uint8], network: Network
) -> NDArray[np.int8]:
    """Descriptors, (M, DIMENSION), scaled to :data:`DESCRIPTOR_LENGTH` and rounded.

    Args:
        cells, seen: of :func:`neighbour_cells` and :func:`seen_places`.
    """
    summed = np.stack([network.cells[own].astype(np.int64).sum(axis=0) for own in cells])
    total = 256 * summed + seen.astype(np.int64) @ network.places.astype(np.int64).T + network.bias
    units = np.minimum(np.maximum(total, 0) * network.gain >> 24, 255)
    vector = units @ network.last.astype(np.int64).T + network.last_bias
    length = np.sqrt(np.maximum((vector * vector).sum(axis=1, keepdims=True), 1))
    rounded = np.clip(np.rint(vector * (DESCRIPTOR_LENGTH / length)), -127, 127)
    described: NDArray[np.int8] = rounded.astype(np.int8)
    return described


# --- the comparison ---


class Minutiae(NamedTuple):
    """One side of a comparison: M minutiae with D-d descriptors and an H-cornered hull."""

    x: FloatArray
    y: FloatArray
    angle: FloatArray
    kind: NDArray[np.uint8]
    descriptors: NDArray[np.int8]
    hull: IndexArray


class Outcome(NamedTuple):
    """A comparison: (len(FEATURES),) features, (M,) mates or -1, rotation and shift."""

    features: FloatArray
    mates: IndexArray
    motion: tuple[float, float, float]


def mate_weights(
    probe: NDArray[np.int8], reference: NDArray[np.int8], scale: float, no_mate: float
) -> tuple[FloatArray, FloatArray]:
    """How alike minutiae are, and how likely mates, given all rivals in row and column.

    The weight is the geometric mean of two softmax probabilities, each with the alternative that
    there is no mate.

    Args:
        probe, reference: (M, D), (N, D) int8.
        scale: nats of a unit of the inner product.
        no_mate: log weight of having no mate.

    Returns:
        (M, N) float32 evidence in nats up to a constant, and (M, N) float32 weights in [0, 1].
    """
    alike = (probe.astype(np.int64) @ reference.astype(np.int64).T).astype(np.float32)
    alike *= np.float32(scale)
    e = np.exp(alike.astype(np.float64))
    rows = 1.0 / np.sqrt(math.exp(no_mate) + e.sum(axis=1, keepdims=True))
    columns = 1.0 / np.sqrt(math.exp(no_mate) + e.sum(axis=0, keepdims=True))
    return alike, (e * rows * columns).astype(np.float32)


def candidate_pairs(weight: FloatArray) -> tuple[IndexArray, IndexArray]:
    """The best :data:`MAX_CANDIDATES` reference minutiae of each probe minutia, row by row.

    Equal weights rank by lower reference row.
    """
    keep = min(MAX_CANDIDATES, weight.shape[1])
    best = np.argsort(-weight, axis=1, kind="stable")[:, :keep]
    return np.repeat(np.arange(weight.shape[0]), keep), best.ravel()


def agreement(
    probe: Minutiae,
    reference: Minutiae,
    ci: IndexArray,
    cj: IndexArray,
    turn: FloatArray,
    proposal: int,
    P: Parameters,
) -> FloatArray:
    """How well each candidate pair agrees with the motion one of them proposes, (C,) in [0, 1].

    ``(1 - v / VOTE_CUT)^2`` of the squared deviation ``v``, 0 beyond: near a normal density.
    """
    rotation = turn[proposal]
    co, si = math.cos(rotation), math.sin(rotation)
    dx, dy = probe.x[ci] - probe.x[ci[proposal]], probe.y[ci] - probe.y[ci[proposal]]
    ex = reference.x[cj] - reference.x[cj[proposal]] - (co * dx - si * dy)
    ey = reference.y[cj] - reference.y[cj[proposal]] - (si * dx + co * dy)
    slack = P.vote_px**2 + P.vote_slope**2 * (dx * dx + dy * dy)
    v = (ex * ex + ey * ey) / slack + (wrapped(turn - rotation) / P.vote_angle) ** 2
    fits: FloatArray = np.maximum(1.0 - v / VOTE_CUT, 0.0) ** 2
    return fits


def propose_motions(
    probe: Minutiae,
    reference: Minutiae,
    ci: IndexArray,
    cj: IndexArray,
    weight: FloatArray,
    turn: FloatArray,
    P: Parameters,
) -> list[tuple[float, int]]:
    """The ``P.motions`` best supported motions as (votes, candidate that proposes it), best first.

    Each probe minutia gives its best agreeing candidate's weight. Equal votes keep the order of
    the proposals, which is by falling weight, then candidate number. A motion with less than
    ``P.rival_votes`` of the best one's votes is no rival.
    """
    proposals = []
    for c in np.argsort(-weight, kind="stable")[: P.proposals]:
        if abs(turn[c]) > P.max_rotation:
            continue
        voice = weight * agreement(probe, reference, ci, cj, turn, int(c), P)
        votes = np.zeros(probe.x.shape[0])
        np.maximum.at(votes, ci, voice)
        proposals.append((float(votes.sum()), int(c)))
    proposals = [proposal for proposal in proposals if proposal[0] > 0.0]
    best = sorted(proposals, key=lambda proposal: -proposal[0])[: P.motions]
    return [proposal for proposal in best if proposal[0] >= P.rival_votes * best[0][0]]


def fit_motion(
    probe: Minutiae,
    reference: Minutiae,
    i: IndexArray,
    j: IndexArray,
    weight: FloatArray,
    turn: FloatArray,
    lever: float,
) -> tuple[float, float, float]:
    """Rotation and shift that lay the probe's minutiae on their mates, weighted least squares.

    A pair's directions count like a second point ``sqrt(lever)`` px away. Closed form of Umeyama
    1991 in two dimensions without scale.
    """
    w = weight / weight.sum()
    ax, ay = probe.x[i] - w @ probe.x[i], probe.y[i] - w @ probe.y[i]
    bx, by = reference.x[j] - w @ reference.x[j], reference.y[j] - w @ reference.y[j]
    dot = float(w @ (ax * bx + ay * by + lever * np.cos(turn)))
    cross = float(w @ (ax * by - ay * bx + lever * np.sin(turn)))
    rotation = math.atan2(cross, dot)
    co, si = math.cos(rotation), math.sin(rotation)
    px, py = float(w @ probe.x[i]), float(w @ probe.y[i])
    tx = float(w @ reference.x[j]) - (co * px - si * py)
    ty = float(w @ reference.y[j]) - (si * px + co * py)
    return rotation, tx, ty


def pair_up(
    px: FloatArray,
    py: FloatArray,
    pa: FloatArray,
    reference: Minutiae,
    alike: FloatArray,
    sigma: float,
    P: Parameters,
) -> tuple[IndexArray, FloatArray]:
    """Pair moved probe minutiae with reference minutiae, one to one, by falling evidence.

    Equal evidence goes to the lower probe row, then the lower reference row.

    Returns:
        (M,) reference rows or -1, and (M,) evidence, 0 where unpaired.
    """
    d2 = (reference.x[None, :] - px[:, None]) ** 2 + (reference.y[None, :] - py[:, None]) ** 2
    a = wrapped(reference.angle[None, :] - pa[:, None]) / P.pair_angle
    v = d2 / sigma**2 + a * a
    evidence = P.pair_bias - 0.5 * P.geometry_weight * v + P.descriptor_weight * alike
    rows, columns = np.nonzero((v < PAIR_CUT) & (evidence > 0.0))
    order = np.argsort(-evidence[rows, columns], kind="stable")
    mates = np.full(px.shape[0], -1, dtype=np.int64)
    gained = np.zeros(px.shape[0])
    taken = np.zeros(reference.x.shape[0], dtype=np.bool_)
    for i, j in zip(rows[order], columns[order], strict=True):
        if mates[i] < 0 and not taken[j]:
            mates[i], taken[j], gained[i] = j, True, evidence[i, j]
    return mates, gained


def compare(probe: Minutiae, reference: Minutiae, scale: float, P: Parameters) -> Outcome:
    """Compare two templates; see the theory of operation above.

    Args:
        probe, reference: at least one minutia each; the result is symmetric only if the caller
            settles which goes first, which :mod:`matcher.compare` does.
        scale: nats of a unit of the descriptors' inner product.
    """
    best = Outcome(np.zeros(len(FEATURES)), np.full(probe.x.shape[0], -1), (0.0, 0.0, 0.0))
    best.features[FEATURES.index("minutiae_probe")] = probe.x.shape[0]
    best.features[FEATURES.index("minutiae_reference")] = reference.x.shape[0]
    alike, weight = mate_weights(probe.descriptors, reference.descriptors, scale, P.no_mate)
    ci, cj = candidate_pairs(weight)
    cw = weight[ci, cj]
    turn = wrapped(reference.angle[cj].astype(np.float64) - probe.angle[ci])
    highest = -1e30
    for votes, proposal in propose_motions(probe, reference, ci, cj, cw, turn, P):
        agreed = agreement(probe, reference, ci, cj, turn, proposal, P)
        outcome = refined(
            probe, reference, alike, weight, best_voices(ci, cj, cw * agreed), votes, P
        )
        if outcome is not None and outcome.features[0] > highest + BETTER:
            highest = outcome.features[0]
            best = outcome
    return best


def best_voices(
    ci: IndexArray, cj: IndexArray, voice: FloatArray
) -> tuple[IndexArray, IndexArray, FloatArray]:
    """The loudest candidate of each probe minutia that has a voice at all."""
    loudest = np.lexsort((np.arange(ci.shape[0]), -voice, ci))
    _, first = np.unique(ci[loudest], return_index=True)
    chosen = loudest[first]
    chosen = chosen[voice[chosen] > 0.0]
    return ci[chosen], cj[chosen], voice[chosen]


def refined(
    probe: Minutiae,
    reference: Minutiae,
    alike: FloatArray,
    weight: FloatArray,
    pairs: tuple[IndexArray, IndexArray, FloatArray],
    votes: float,
    P: Parameters,
) -> Outcome | None:
    """Fit, distort and pair in turns from weighted first pairs; ``None`` when nothing pairs."""
    i, j, w = pairs
    motion = (0.0, 0.0, 0.0)
    px = py = fx = fy = np.zeros(0)
    mates, evidence = np.zeros(0, dtype=np.int64), np.zeros(0)
    for round_number in range(P.rounds + 1):
        turn = reference.angle[j].astype(np.float64) - probe.angle[i]
        motion = fit_motion(probe, reference, i, j, w, turn, P.angle_lever_px2)
        rotation, tx, ty = motion
        co, si = math.cos(rotation), math.sin(rotation)
        px = co * probe.x - si * probe.y + tx
        py = si * probe.x + co * probe.y + ty
        fx = fy = np.zeros_like(px)
        sigma = P.coarse_px
        if round_number >= 2:
            sigma = P.fine_px
            fx, fy = distortion(px, py, reference, i, j, w, P)
        px, py = px + fx, py + fy
        pa = probe.angle + rotation
        before = mates
        mates, evidence = pair_up(px, py, pa, reference, alike, sigma, P)
        i = np.flatnonzero(mates >= 0)
        if i.shape[0] == 0:
            return None
        if round_number >= P.steady and np.array_equal(mates, before):
            break
        j = mates[i]
        w = 1.0 / (1.0 + np.exp(-evidence[i]))
    j = mates[i]
    features = measured(probe, reference, alike, weight, mates, evidence, motion, px, py, P)
    features[FEATURES.index("votes")] = votes
    features[FEATURES.index("distortion_px")] = math.sqrt(np.mean(fx[i] ** 2 + fy[i] ** 2))
    return Outcome(features, mates, motion)


def distortion(
    px: FloatArray,
    py: FloatArray,
    reference: Minutiae,
    i: IndexArray,
    j: IndexArray,
    w: FloatArray,
    P: Parameters,
) -> tuple[FloatArray, FloatArray]:
    """How far the skin has moved at each moved probe minutia: what the pairs around it miss by.

    A kernel average of the other pairs' residuals, drawn towards zero by ``P.field_prior``; a
    minutia's own residual has no say in where it is expected.
    """
    d2 = (px[i][None, :] - px[:, None]) ** 2 + (py[i][None, :] - py[:, None]) ** 2
    k = bump(d2, P.field_px) * w
    k[np.arange(px.shape[0])[:, None] == i[None, :]] = 0.0
    total = P.field_prior + k.sum(axis=1)
    return k @ (reference.x[j] - px[i]) / total, k @ (reference.y[j] - py[i]) / total


def measured(
    probe: Minutiae,
    reference: Minutiae,
    alike: FloatArray,
    weight: FloatArray,
    mates: IndexArray,
    evidence: FloatArray,
    motion: tuple[float, float, float],
    px: FloatArray,
    py: FloatArray,
    P: Parameters,
) -> FloatArray:
    """The features of a pairing; ``votes`` and ``distortion_px`` are the caller's."""
    rotation, tx, ty = motion
    i = np.flatnonzero(mates >= 0)
    j = mates[i]
    count = i.shape[0]
    qx, qy = reference.x[j].astype(np.float64), reference.y[j].astype(np.float64)
    residual = (qx - px[i]) ** 2 + (qy - py[i]) ** 2
    turn = wrapped(reference.angle[j] - probe.angle[i] - rotation)
    co, si = math.cos(rotation), math.sin(rotation)

    def inside(x: FloatArray, y: FloatArray, of: Minutiae) -> FloatArray:
        d = outside(x, y, of.x[of.hull], of.y[of.hull])
        return 1.0 / (1.0 + np.exp(d / P.overlap_px))

    free = np.setdiff1d(np.arange(reference.x.shape[0]), j)
    bx, by = reference.x[free] - tx, reference.y[free] - ty
    probe_inside = np.where(mates >= 0, 1.0, inside(px, py, reference))
    reference_inside = inside(co * bx + si * by, co * by - si * bx, probe)
    up, ur = float(probe_inside[mates < 0].sum()), float(reference_inside.sum())

    # The paired share around each pair, in both templates.
    near_probe = bump((px - px[i, None]) ** 2 + (py - py[i, None]) ** 2, P.support_px)
    near_probe = near_probe * probe_inside
    near_probe[np.arange(count), i] = 0.0
    near_free = bump(
        (reference.x[free] - px[i, None]) ** 2 + (reference.y[free] - py[i, None]) ** 2,
        P.support_px,
    )
    paired = near_probe[:, mates >= 0].sum(axis=1)
    around = near_probe.sum(axis=1) + paired + near_free @ reference_inside
    share = 2.0 * paired / (around + 1e-9 + P.support_prior)

    dense_probe = probe.x.shape[0] / max(hull_area(probe.x, probe.y, probe.hull), 1.0)
    dense_reference = reference.x.shape[0] / max(
        hull_area(reference.x, reference.y, reference.hull), 1.0
    )
    common = min((count + up) / dense_probe, (count + ur) / dense_reference)
    values = {
        "total": evidence.sum() - P.unpaired_cost * (up + ur),
        "pairs": count,
        "evidence": evidence.sum(),
        "likeness": alike[i, j].mean(),
        "residual_px": math.sqrt(residual.mean()),
        "residual_angle": math.sqrt((turn**2).mean()),
        "same_kind": np.mean(probe.kind[i] == reference.kind[j]),
        "overlap_probe": count + up,
        "overlap_reference": count + ur,
        "rotation": abs(math.remainder(rotation, math.tau)),
        "unpaired_probe": up,
        "unpaired_reference": ur,
        "mate_weight": weight[i, j].sum(),
        "minutiae_probe": probe.x.shape[0],
        "minutiae_reference": reference.x.shape[0],
        "spread_px": math.sqrt(((qx - qx.mean()) ** 2 + (qy - qy.mean()) ** 2).mean()),
        "support": share.mean(),
        "supported_evidence": share @ evidence[i],
        "chance_pairs": common
        * dense_probe
        * dense_reference
        * (math.pi * 4.0 * P.fine_px**2 * P.pair_angle),
    }
    return np.array([float(values.get(name, 0.0)) for name in FEATURES])


# --- the search ---


class Hits(NamedTuple):
    """What the probe's minutiae found in the index, one entry a find, K altogether.

    Attributes:
        row: (K,) int64, whose minutia was found; rising.
        probe: (K,) int64, which minutia of the probe found it.
        x, y: (K,) float32, pixels, where it lies in its template.
        turn: (K,) float64, its direction less that of the probe's minutia.
        share: (K,) float64, :func:`shares`.
    """

    row: IndexArray
    probe: IndexArray
    x: FloatArray
    y: FloatArray
    turn: FloatArray
    share: FloatArray


def shares(distances: FloatArray, half_scale: float) -> FloatArray:
    """How each probe minutia divides its one vote among the minutiae it found.

    A share falls off exponentially with squared distance, like the likelihood the descriptors were
    trained for: a minutia that resembles many gives each of them little.

    Args:
        distances: (M, K) float32 squared distances, infinite where nothing was found.
        half_scale: nats of a unit of squared distance.

    Returns:
        (M, K) float64; rows sum to 1, or to 0 where nothing was found.
    """
    found = np.isfinite(distances)
    nearest = np.where(found.any(axis=1), np.where(found, distances, np.inf).min(axis=1), 0.0)
    e = np.where(found, np.exp(half_scale * (nearest[:, None] - distances.astype(np.float64))), 0.0)
    # Summed from small to large: equals may change places in what FAISS returns.
    total = np.sort(e, axis=1).sum(axis=1, keepdims=True)
    shared: FloatArray = np.divide(e, total, out=np.zeros_like(e), where=total > 0.0)
    return shared


def vote(
    hits: Hits, px: FloatArray, py: FloatArray, P: Parameters
) -> tuple[IndexArray, IndexArray, FloatArray]:
    """The strongest agreement on one motion among each row's hits.

    Every hit of a row proposes a motion, as in :func:`propose_motions`; a probe minutia gives the
    best of its agreeing hits. In whole millionths (2^-20), rounded down.

    Args:
        px, py: (M,) float32, the probe's minutiae.

    Returns:
        (V,) rows with votes, rising; (V,) int64 votes; and (V, 3) float64 motions: rotation and
        shift that lay the probe on the row's template, of the first best proposal.
    """
    rows, votes, motions = [], [], []
    for row in np.unique(hits.row):
        own = hits.row == row
        i, x, y, turn, share = (values[own] for values in hits[1:])
        best, motion = 0.0, (0.0, 0.0, 0.0)
        for proposal in range(i.shape[0]):
            rotation = float(wrapped(turn[proposal]))
            if abs(rotation) > P.max_rotation:
                continue
            co, si = math.cos(rotation), math.sin(rotation)
            dx, dy = px[i] - px[i[proposal]], py[i] - py[i[proposal]]
            ex = x - x[proposal] - (co * dx - si * dy)
            ey = y - y[proposal] - (si * dx + co * dy)
            slack = P.vote_px**2 + P.vote_slope**2 * (dx * dx + dy * dy)
            v = (ex * ex + ey * ey) / slack + (wrapped(turn - rotation) / P.vote_angle) ** 2
            voice = np.zeros(px.shape[0])
            np.maximum.at(voice, i, share * np.maximum(1.0 - v / VOTE_CUT, 0.0) ** 2)
            if voice.sum() > best:
                at_x, at_y = float(px[i[proposal]]), float(py[i[proposal]])
                best = float(voice.sum())
                motion = (
                    rotation,
                    float(x[proposal]) - (co * at_x - si * at_y),
                    float(y[proposal]) - (si * at_x + co * at_y),
                )
        if best > 0.0:
            rows.append(int(row))
            votes.append(int(best * VOTE_UNITS))
            motions.append(motion)
    return (
        np.asarray(rows, dtype=np.int64),
        np.asarray(votes, dtype=np.int64),
        np.asarray(motions, dtype=np.float64).reshape(-1, 3),
    )


def _placed(x: FloatArray, y: FloatArray, angle: FloatArray) -> Minutiae:
    nothing: Any = np.empty(0)
    x, y, angle = (values.astype(np.float64) for values in (x, y, angle))
    return Minutiae(x, y, angle, nothing, nothing, nothing)


def rank_score(
    probe: tuple[FloatArray, FloatArray, FloatArray],
    reference: tuple[FloatArray, FloatArray, FloatArray],
    motion: tuple[float, float, float],
    P: Parameters,
) -> float:
    """How many minutiae fall on one another under a motion that is refined on the way.

    Places and directions only: this orders the shortlist, a hundred thousand references a second,
    before the best are compared. Every probe minutia takes the reference minutia it fits best, the
    motion is fitted to these pairs, and so on; in the end a reference minutia counts once, for the
    best that took it, as ``(1 - squared deviation)^2``.

    Args:
        probe, reference: x, y, angle, each (M,) or (N,) float32; the reference by rising x.
        motion: rotation, shift that lay the probe on the reference.
    """
    (xp, yp, ap), (x, y, a) = probe, reference
    rotation, tx, ty = motion
    for r in range(P.rank_rounds + 1):
        reach = BUMP_REACH * (P.rank_coarse_px if r < P.rank_rounds else P.rank_fine_px)
        co, si = math.cos(rotation), math.sin(rotation)
        px, py = co * xp - si * yp + tx, si * xp + co * yp + ty
        d2 = (x[None, :] - px[:, None]) ** 2 + (y[None, :] - py[:, None]) ** 2
        t = wrapped(a[None, :] - (ap + rotation)[:, None]) / (BUMP_REACH * P.rank_angle)
        fits = 1.0 - d2 / reach**2 - t * t
        j = fits.argmax(axis=1)
        fit = fits[np.arange(xp.shape[0]), j]
        i = np.flatnonzero(fit > 0.0)
        w, j = fit[i] ** 2, j[i]
        if i.shape[0] == 0 or r == P.rank_rounds:
            taken = np.zeros(x.shape[0])
            np.maximum.at(taken, j, w)
            return float(taken.sum())
        sides = [_placed(*side) for side in (probe, reference)]
        turn = sides[1].angle[j] - sides[0].angle[i]
        rotation, tx, ty = fit_motion(sides[0], sides[1], i, j, w, turn, P.angle_lever_px2)
    return 0.0


# --- minutiae in four bytes ---


def packed_geometry(
    x: NDArray[np.int16], y: NDArray[np.int16], angle: NDArray[np.uint8], kind: NDArray[np.uint8]
) -> NDArray[np.uint32]:
    """Minutiae in four bytes each: 10 bits of x, 10 of y, 8 of angle, 4 of kind."""
    xi, yi, ai, ki = (values.astype(np.uint32) for values in (x, y, angle, kind))
    packed = (xi << 22) | (yi << 12) | (ai << 4) | (ki & np.uint32(15))
    return packed.astype(np.uint32)
