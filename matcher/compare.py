"""Template -> packed template, and the comparison of two.

Packing is where a template is checked once: doubled minutiae are merged, too many are cut to the
best, coordinates become small integers with y up, and descriptors are computed. Everything behind
this module works on packed arrays. Minutiae are put in a canonical order, so a comparison
depends on what was recorded and not on the order it was recorded in; and two templates are always
compared in the same order, so ``compare(a, b)`` and ``compare(b, a)`` measure the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matcher import kernels_fast
from matcher.descriptor import DescriptorModel
from matcher.errors import FailureToEnrolError
from matcher.kernels import FEATURES, MAX_MINUTIAE, Parameters
from matcher.types import FingerPosition, MinutiaPair, Template

PARAMETERS = Parameters()

MIN_MINUTIAE = 6
"""Fewer carry no evidence: six pairs by chance are common among non-mated fingers."""
MIN_SPACING_PX = 4.0
"""About half a ridge period (9 px at 500 ppi): closer ones are one minutia seen twice."""
MIN_SPREAD_PX = 10.0
"""Smaller than this (standard deviation across the narrow axis) is a line or a point, no finger."""
MAX_COORDINATE_PX = 8191
"""Fits ISO/IEC 19794-2's 14-bit coordinates at every resolution that is brought to 500 ppi."""


@dataclass(frozen=True, eq=False)
class PackedTemplate:
    """What is kept of a template for comparison, 70 bytes a minutia.

    Attributes:
        x, y: (M,) int16, pixels at 500 ppi, y up.
        angle: (M,) uint8, 256 units a turn.
        kind: (M,) uint8.
        descriptors: (M, D) int8.
        hull: (H,) uint8, rows of the minutiae on the convex hull, counter-clockwise.
        rows: (M,) int64, which minutia of the template each was.
        position: which finger.
    """

    x: NDArray[np.int16]
    y: NDArray[np.int16]
    angle: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    descriptors: NDArray[np.int8]
    hull: NDArray[np.uint8]
    rows: NDArray[np.int64]
    position: FingerPosition

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """x, y, angle, kind, descriptors, hull: the arguments of the batch kernel."""
        return (self.x, self.y, self.angle, self.kind, self.descriptors, self.hull)


def pack(template: Template, model: DescriptorModel) -> PackedTemplate:
    """Check and pack one template.

    Raises:
        FailureToEnrolError: ``TOO_FEW_MINUTIAE`` when fewer than :data:`MIN_MINUTIAE` distinct ones
            are left, ``DEGENERATE`` when they lie on a point or a line, ``OUT_OF_RANGE`` when a
            coordinate is no number or beyond :data:`MAX_COORDINATE_PX`.
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
    x, y, angle = x[rows], y[rows], angle[rows]
    spread = kernels_fast.narrow_spread(x, y)
    if spread < MIN_SPREAD_PX:
        raise FailureToEnrolError(
            "DEGENERATE",
            f"{position}: minutiae spread {spread:.1f} px across, at least {MIN_SPREAD_PX:.0f} px"
            " are needed",
        )
    xf, yf = x.astype(np.float32), y.astype(np.float32)
    return PackedTemplate(
        x=x,
        y=y,
        angle=angle,
        kind=np.ascontiguousarray(template.kind[rows]),
        descriptors=model.describe(xf, yf, angle),
        hull=kernels_fast.convex_hull(xf, yf).astype(np.uint8),
        rows=rows,
        position=template.position,
    )


def _kept(
    x: NDArray[np.int16],
    y: NDArray[np.int16],
    angle: NDArray[np.uint8],
    quality: NDArray[np.uint8],
) -> NDArray[np.int64]:
    """Rows of the minutiae to keep, in canonical order (x, y, angle).

    The best are kept: by quality, then nearest to the middle of them all, then canonical order.
    """
    if x.shape[0] == 0:
        return np.empty(0, dtype=np.int64)
    xi, yi = x.astype(np.int64), y.astype(np.int64)
    middle = (xi.shape[0] - 1) // 2
    off_centre = (xi - np.sort(xi)[middle]) ** 2 + (yi - np.sort(yi)[middle]) ** 2
    best_first = np.lexsort((angle, yi, xi, off_centre, -quality.astype(np.int64)))
    rows = kernels_fast.kept(xi, yi, best_first, MIN_SPACING_PX, MAX_MINUTIAE)
    order: NDArray[np.int64] = rows[np.lexsort((angle[rows], yi[rows], xi[rows]))]
    return order


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
