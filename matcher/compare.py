"""Template -> packed template, and the comparison of two.

Packing is where a template is checked once: doubled minutiae are merged, too many are cut to the
best, coordinates become small integers with y up, and descriptors are computed. Everything behind
this module works on packed arrays. Minutiae are put in a canonical order, so a comparison
depends on what was recorded and not on the order it was recorded in; and two templates are always
compared in the same order, so ``compare(a, b)`` and ``compare(b, a)`` measure the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matcher import kernels_fast
from matcher.descriptor import DescriptorModel
from matcher.errors import FailureToEnrolError
from matcher.kernels import FEATURES, MAX_MINUTIAE, MAX_SPAN_PX, Parameters
from matcher.types import FingerPosition, MinutiaPair, Template

PARAMETERS = Parameters()

MIN_MINUTIAE = 6
"""Fewer carry no evidence: six pairs by chance are common among non-mated fingers."""
MIN_SPACING_PX = 4.0
"""About half a ridge period (9 px at 500 ppi): closer ones are one minutia seen twice."""
MIN_SPREAD_PX = 10.0
"""Smaller than this (standard deviation across the narrow axis) is a line or a point, no finger."""
MAX_SELF_LIKENESS_NATS = 3.0
"""Mean likeness of a template's minutiae to one another, looked at from :data:`PATTERN_MINUTIAE`
on. Of 1,216 real and 3,000 synthetic templates the highest were 2.67; grids of one direction have
3.4 to 4.6. What is less alike than that is left to the evidence model, which has seen such."""
PATTERN_MINUTIAE = 10
CROWDED_MINUTIAE = 80
MAX_DENSITY_PX2 = 20e-4
"""Minutiae per px^2 of their hull, looked at from :data:`CROWDED_MINUTIAE` on. Real templates have
8e-4, templates that large 13e-4 at most; eight fingers laid on one another 25e-4 to 40e-4."""
MAX_COORDINATE_PX = 8191
"""Fits ISO/IEC 19794-2's 14-bit coordinates at every resolution that is brought to 500 ppi."""


@dataclass(frozen=True, eq=False)
class PackedTemplate:
    """What a comparison needs of a template.

    Attributes:
        x, y: (M,) int16, pixels at 500 ppi from the leftmost and lowest minutia, y up.
        angle: (M,) uint8, 256 units a turn.
        kind: (M,) uint8.
        descriptors: (M, D) int8.
        hull: (H,) uint8, rows of the minutiae on the convex hull, counter-clockwise.
        rows: (M,) int64, which minutia of the template each was.
        position: which finger.
        origin: place of (0, 0) in the template's own coordinates, y up.
    """

    x: NDArray[np.int16]
    y: NDArray[np.int16]
    angle: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    descriptors: NDArray[np.int8]
    hull: NDArray[np.uint8]
    rows: NDArray[np.int64]
    position: FingerPosition
    origin: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """x, y, angle, kind, descriptors, hull: the arguments of the batch kernel."""
        return (self.x, self.y, self.angle, self.kind, self.descriptors, self.hull)


def pack(
    template: Template, model: DescriptorModel, *, refuse_patterns: bool = True
) -> PackedTemplate:
    """Check and pack one template.

    Args:
        refuse_patterns: whether what has enough minutiae, but no finger's, is refused. Calibration
            looks at such templates, so that similarities resist them as well.

    Raises:
        FailureToEnrolError: ``TOO_FEW_MINUTIAE`` when fewer than :data:`MIN_MINUTIAE` distinct ones
            are left, ``DEGENERATE`` when they lie on a point or a line, ``OUT_OF_RANGE`` when a
            coordinate is no number or beyond :data:`MAX_COORDINATE_PX`, or two lie further apart
            than any finger is wide, ``CROWDED`` when there are more than a finger has room
            for, ``REPETITIVE`` when the minutiae look alike: a template made to
            resemble many.
    """
    position = template.position.name
    coordinates = np.concatenate((template.x, template.y, template.angle))
    # Written so that NaN does not pass.
    if len(template) and not np.abs(coordinates).max() <= MAX_COORDINATE_PX:
        raise FailureToEnrolError(
            "OUT_OF_RANGE", f"{position}: a coordinate lies outside 0..{MAX_COORDINATE_PX} px"
        )
    x = np.rint(template.x).astype(np.int16)
    y = -np.rint(template.y).astype(np.int16)
    angle = (np.rint(template.angle * (128.0 / math.pi)).astype(np.int64) % 256).astype(np.uint8)
    rows = _kept(x, y, angle, template.quality)
    if len(rows) < MIN_MINUTIAE:
        raise FailureToEnrolError(
            "TOO_FEW_MINUTIAE",
            f"{position}: {len(rows)} distinct minutiae, at least {MIN_MINUTIAE} are needed",
        )
    xf, yf = x[rows].astype(np.float32), y[rows].astype(np.float32)
    area = kernels_fast.hull_area(xf, yf)
    crowded = len(rows) > max(CROWDED_MINUTIAE, MAX_DENSITY_PX2 * area)
    if refuse_patterns and crowded:
        raise FailureToEnrolError(
            "CROWDED",
            f"{position}: {len(rows)} minutiae on {area:.0f} px^2, more than a finger has",
        )
    rows = rows[:MAX_MINUTIAE]
    rows = kernels_fast.in_canonical_order(rows, x, y, angle)
    x, y, angle = x[rows], y[rows], angle[rows]
    spread = kernels_fast.narrow_spread(x, y)
    if spread < MIN_SPREAD_PX:
        raise FailureToEnrolError(
            "DEGENERATE",
            f"{position}: minutiae spread {spread:.1f} px across, at least {MIN_SPREAD_PX:.0f} px"
            " are needed",
        )
    origin = int(x.min()), int(y.min())
    if int(x.max()) - origin[0] > MAX_SPAN_PX or int(y.max()) - origin[1] > MAX_SPAN_PX:
        raise FailureToEnrolError(
            "OUT_OF_RANGE", f"{position}: minutiae lie more than {MAX_SPAN_PX} px apart"
        )
    kind = np.ascontiguousarray(template.kind[rows])
    packed = packed_from(
        x - np.int16(origin[0]),
        y - np.int16(origin[1]),
        angle,
        kind,
        template.position,
        model.describe,
    )
    alike = kernels_fast.self_likeness(packed.descriptors) * model.scale
    if refuse_patterns and len(rows) >= PATTERN_MINUTIAE and alike > MAX_SELF_LIKENESS_NATS:
        raise FailureToEnrolError(
            "REPETITIVE", f"{position}: the minutiae all look alike, as in no finger"
        )
    return replace(packed, rows=rows, origin=origin)


Describe = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]], NDArray[np.int8]]


def packed_from(
    x: NDArray[np.int16],
    y: NDArray[np.int16],
    angle: NDArray[np.uint8],
    kind: NDArray[np.uint8],
    position: FingerPosition,
    describe: Describe,
) -> PackedTemplate:
    """Minutiae in canonical order, with the descriptors and the hull that follow from them."""
    xf, yf = x.astype(np.float32), y.astype(np.float32)
    return PackedTemplate(
        x=x,
        y=y,
        angle=angle,
        kind=kind,
        descriptors=describe(xf, yf, angle),
        hull=kernels_fast.convex_hull(xf, yf).astype(np.uint8),
        rows=np.arange(x.shape[0]),
        position=position,
    )


def _kept(
    x: NDArray[np.int16],
    y: NDArray[np.int16],
    angle: NDArray[np.uint8],
    quality: NDArray[np.uint8],
) -> NDArray[np.int64]:
    """Rows of the distinct minutiae, best first.

    By quality, then nearest to the middle of them all, then canonical order.
    """
    if x.shape[0] == 0:
        return np.empty(0, dtype=np.int64)
    xi, yi = x.astype(np.int64), y.astype(np.int64)
    best_first = kernels_fast.best_first(xi, yi, angle, quality)
    rows: NDArray[np.int64] = kernels_fast.kept(xi, yi, best_first, MIN_SPACING_PX, 4096)
    return rows


@dataclass(frozen=True, eq=False)
class Measurement:
    """What one comparison measured, before calibration.

    Attributes:
        features: (len(FEATURES),) float64.
        pairs: in rows of the templates as recorded.
        rotation_rad: counter-clockwise as seen on the image, probe onto reference.
        shift_px: after rotating about the image's origin, y down.
    """

    features: NDArray[np.float64]
    pairs: tuple[MinutiaPair, ...]
    rotation_rad: float
    shift_px: tuple[float, float]


def measure(
    probe: PackedTemplate, reference: PackedTemplate, model: DescriptorModel
) -> Measurement:
    """Compare two packed templates and say which minutiae were paired, by which motion."""
    swapped = not kernels_fast._precedes(
        probe.x, probe.y, probe.angle, reference.x, reference.y, reference.angle
    )
    first, second = (reference, probe) if swapped else (probe, reference)
    features = np.zeros(len(FEATURES))
    mates = np.empty(256, dtype=np.int32)
    motion = kernels_fast.compare(
        *_arguments(first), *_arguments(second), model.scale, PARAMETERS, features, mates
    )
    pairs = []
    for row, mate in enumerate(mates[: len(first)]):
        if mate >= 0:
            p, r = (int(mate), row) if swapped else (row, int(mate))
            pairs.append(MinutiaPair(int(probe.rows[p]), int(reference.rows[r])))
    rotation, tx, ty = (float(value) for value in motion)
    if swapped:
        co, si = math.cos(rotation), math.sin(rotation)
        rotation, tx, ty = -rotation, -(co * tx + si * ty), -(co * ty - si * tx)
    # From the packed origins back to the templates' own.
    co, si = math.cos(rotation), math.sin(rotation)
    tx += reference.origin[0] - (co * probe.origin[0] - si * probe.origin[1])
    ty += reference.origin[1] - (si * probe.origin[0] + co * probe.origin[1])
    return Measurement(
        features, tuple(sorted(pairs, key=lambda pair: pair.probe)), rotation, (tx, -ty)
    )


def _arguments(packed: PackedTemplate) -> tuple[NDArray[Any], ...]:
    unit = np.float32(math.tau / 256.0)
    return (
        packed.x.astype(np.float32),
        packed.y.astype(np.float32),
        packed.angle.astype(np.float32) * unit,
        packed.kind,
        packed.descriptors,
        packed.hull,
    )
