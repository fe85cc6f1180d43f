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
from typing import NamedTuple

RING_RADII_PX = (14.0, 30.0, 50.0, 74.0, 104.0)
RING_SIGMAS_PX = (7.0, 9.0, 11.0, 13.0, 16.0)
"""Rings around a minutia and their blur: distortion displaces far neighbours more."""
SECTORS = 10
DIRECTIONS = 6
SECTOR_SIGMA = 2.0 * math.pi / SECTORS * 0.6
DIRECTION_SIGMA = 2.0 * math.pi / DIRECTIONS * 0.6
HULL_MARGIN_PX = 12.0
HULL_SOFTNESS_PX = 6.0
"""A cell further outside the minutiae's convex hull than this is unseen rather than empty."""

MAX_CANDIDATES = 3
"""Reference minutiae kept per probe minutia when motions are proposed."""


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
        motions: how many of the proposed motions are refined.
        rounds: pairings after the first.
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
    motions: int = 3
    rounds: int = 4


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
)
"""What a comparison measures, in the order of the features array.

total: evidence less the cost of unpaired minutiae in the overlap; pairs: how many; evidence: summed
over pairs; likeness: mean descriptor evidence of the pairs; residual_px, residual_angle: root mean
squares after distortion; same_kind: fraction of pairs of one kind; overlap_*: minutiae inside the
common area; rotation: radians, unsigned; votes: agreement on the proposed motion; unpaired_*: those
of the overlap without a mate; mate_weight: summed over pairs; minutiae_*: of the whole template;
spread_px: root mean square distance of pairs from their centre; distortion_px: root mean square of
the field at the pairs.
"""
