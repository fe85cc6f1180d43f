"""The synthetic population: any finger of any person, any impression of it, by its number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from matcher.synthetic.kernels import (
    MAX_MASTER_MINUTIAE,
    Profile,
    draw_batch,
    draw_finger,
    stream,
)
from matcher.synthetic.profiles import POOLED
from matcher.types import FingerPosition, Template

_SEED_MASK = (1 << 63) - 1


class PatternClass(IntEnum):
    """The five classes of Henry's system and the double loop, counted among whorls there."""

    ARCH = 0
    TENTED_ARCH = 1
    LEFT_LOOP = 2
    RIGHT_LOOP = 3
    WHORL = 4
    DOUBLE_LOOP = 5


@dataclass(frozen=True, eq=False)
class Master:
    """A finger as it is, before any impression of it.

    Attributes:
        x, y: (M,) float64, pixels at 500 ppi from the middle of the pad, y down.
        angle: (M,) float64, radians in [0, 2*pi), counter-clockwise as in a template.
        kind: (M,) uint8, ending or bifurcation.
        visibility: (M,) float64 in (0, 1], how reliably an extractor finds it.
    """

    pattern: PatternClass
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    angle: NDArray[np.float64]
    kind: NDArray[np.uint8]
    visibility: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Batch:
    """Many impressions packed one behind the other: ``i`` is ``offsets[i]:offsets[i + 1]``.

    Attributes:
        offsets: (N + 1,) int64.
        x, y: (M,) float32, pixels at 500 ppi, y down.
        angle: (M,) float32, radians in [0, 2*pi), counter-clockwise.
        kind, quality: (M,) uint8.
        master_row: (M,) int16, which minutia of the master this is, -1 for a spurious one. Two
            impressions of one finger are mated minutia by minutia where these agree.
        position: (N,) uint8 finger positions.
        finger_quality: (N,) uint8.
        region: (N, 8) float32: the contact ellipse on the finger (middle x, y, half width, half
            height) and the placement (rotation in radians, shift x, y), then the finger quality.
        width, height: image size of every impression.
    """

    offsets: NDArray[np.int64]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    angle: NDArray[np.float32]
    kind: NDArray[np.uint8]
    quality: NDArray[np.uint8]
    master_row: NDArray[np.int16]
    position: NDArray[np.uint8]
    finger_quality: NDArray[np.uint8]
    region: NDArray[np.float32]
    width: int
    height: int

    def __len__(self) -> int:
        return int(self.offsets.shape[0]) - 1

    def template(self, i: int) -> Template:
        """Impression ``i`` as a template; its arrays are views into the batch."""
        part = slice(int(self.offsets[i]), int(self.offsets[i + 1]))
        return Template(
            x=self.x[part],
            y=self.y[part],
            angle=self.angle[part],
            kind=self.kind[part],
            quality=self.quality[part],
            width=self.width,
            height=self.height,
            position=FingerPosition(int(self.position[i])),
            finger_quality=int(self.finger_quality[i]),
        )

    def templates(self) -> list[Template]:
        """Every impression as a template, in order."""
        return [self.template(i) for i in range(len(self))]


@dataclass(frozen=True)
class Population:
    """People who never lived, each with ten fingers, each finger with endless impressions.

    What comes back depends on the seed, the profile and the numbers asked for, never on what was
    asked before. No real fingerprint went into it, only statistics.

    Attributes:
        seed: any integer; its low 63 bits are used.
        profile: the sensor's parameters.
    """

    seed: int
    profile: Profile = POOLED

    def master(self, index: int, position: FingerPosition = FingerPosition.UNKNOWN) -> Master:
        """The finger itself: person ``index`` (from 0), finger ``position``."""
        rows = np.empty((5, MAX_MASTER_MINUTIAE))
        state = stream(self.seed & _SEED_MASK, index, int(position), -1)
        pattern, count, _ = draw_finger(state, self.profile, int(position), rows)
        return Master(
            pattern=PatternClass(pattern),
            x=rows[0, :count].copy(),
            y=rows[1, :count].copy(),
            angle=rows[2, :count].copy(),
            kind=rows[3, :count].astype(np.uint8),
            visibility=rows[4, :count].copy(),
        )

    def impression(
        self,
        index: int,
        position: FingerPosition = FingerPosition.UNKNOWN,
        impression_number: int = 0,
    ) -> Template:
        """Impression ``impression_number`` (from 0) of a finger, with the sensor's image size."""
        return self.batch([index], [position], [impression_number]).template(0)

    def templates_of_person(
        self,
        index: int,
        positions: Sequence[FingerPosition],
        impression_number: int = 0,
    ) -> list[Template]:
        """One impression of each of a person's ``positions``, in their order."""
        count = len(positions)
        return self.batch([index] * count, positions, [impression_number] * count).templates()

    def batch(
        self,
        indices: Sequence[int] | NDArray[np.int64],
        positions: Sequence[int] | NDArray[np.int64],
        impression_numbers: Sequence[int] | NDArray[np.int64],
    ) -> Batch:
        """Many impressions at once, one per entry of three sequences of the same length.

        Consecutive entries of one finger share the work of making its master. Releases the GIL, so
        threads help.

        Raises:
            ValueError: the sequences differ in length, or a number is negative.
        """
        index = np.asarray(indices, dtype=np.int64)
        position = np.asarray(positions, dtype=np.int64)
        number = np.asarray(impression_numbers, dtype=np.int64)
        if not index.shape == position.shape == number.shape or index.ndim != 1:
            raise ValueError(
                f"got {index.size} indices, {position.size} positions and {number.size} impression "
                "numbers: they must be sequences of one length"
            )
        if index.size and (
            min(index.min(), position.min(), number.min()) < 0 or position.max() > 10
        ):
            raise ValueError("indices and impression numbers start at 0, positions are 0 to 10")
        offsets, columns, rows, region = draw_batch(
            self.seed & _SEED_MASK, self.profile, index, position, number
        )
        return Batch(
            offsets=offsets,
            x=columns[0],
            y=columns[1],
            angle=columns[2],
            kind=rows[0].astype(np.uint8),
            quality=rows[1].astype(np.uint8),
            master_row=rows[2],
            position=position.astype(np.uint8),
            finger_quality=region[:, 7].astype(np.uint8),
            region=region,
            width=int(self.profile.image_width),
            height=int(self.profile.image_height),
        )

    def batches(
        self,
        count: int,
        position: FingerPosition = FingerPosition.UNKNOWN,
        impression_number: int = 0,
        start: int = 0,
        size: int = 1024,
    ) -> Iterator[Batch]:
        """One impression of each of the people ``start`` to ``start + count``, ``size`` at a time.

        Holds one batch at a time (about 1 MB at the default size), so galleries of any length can
        be streamed.
        """
        for first in range(start, start + count, size):
            index = np.arange(first, min(first + size, start + count), dtype=np.int64)
            yield self.batch(
                index, np.full_like(index, int(position)), np.full_like(index, impression_number)
            )
