"""The nouns of matching: templates, candidates and decisions (terms of ISO/IEC 2382-37)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class FingerPosition(IntEnum):
    """Finger position codes of ISO/IEC 19794-2:2005 table 5 (and ISO/IEC 19794-1)."""

    UNKNOWN = 0
    RIGHT_THUMB = 1
    RIGHT_INDEX = 2
    RIGHT_MIDDLE = 3
    RIGHT_RING = 4
    RIGHT_LITTLE = 5
    LEFT_THUMB = 6
    LEFT_INDEX = 7
    LEFT_MIDDLE = 8
    LEFT_RING = 9
    LEFT_LITTLE = 10


class MinutiaKind(IntEnum):
    """Minutia types of ISO/IEC 19794-2:2005 clause 7.5.2.2."""

    OTHER = 0
    ENDING = 1
    BIFURCATION = 2


@dataclass(frozen=True, eq=False)
class Template:
    """One finger view: the minutiae of one impression of one finger.

    Coordinates are brought to 500 ppi when a record is decoded, whatever the record declares.

    Attributes:
        x, y: (M,) float32, pixels at 500 ppi, y down, as recorded.
        angle: (M,) float32, radians in [0, 2*pi), counter-clockwise from the x axis as seen on the
            image (so the direction vector is (cos, -sin) with y down).
        kind: (M,) uint8, :class:`MinutiaKind`.
        quality: (M,) uint8, 1-100, or 0 where the extractor does not report it.
        width, height: image size in pixels at 500 ppi.
        position: which finger.
        finger_quality: 0-100 for the whole view, as reported by the extractor.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    angle: NDArray[np.float32]
    kind: NDArray[np.uint8]
    quality: NDArray[np.uint8]
    width: int
    height: int
    position: FingerPosition = FingerPosition.UNKNOWN
    finger_quality: int = 0

    def __len__(self) -> int:
        return int(self.x.shape[0])


@dataclass(frozen=True)
class Candidate:
    """One ranked subject of a candidate list.

    Attributes:
        subject_id: the opaque id it was added under.
        similarity: fused over fingers, calibrated: ``-log10`` of the false match rate at which a
            comparison of this strength would be accepted. Higher is more alike.
        finger_similarities: per probe, in the order of the probes, the best comparison with this
            subject on the same scale; ``-inf`` where there was nothing to compare.
    """

    subject_id: str
    similarity: float
    finger_similarities: tuple[float, ...] = ()


@dataclass(frozen=True)
class CandidateList:
    """The ranked answer of a search, best first; equal similarities rank by subject id.

    Attributes:
        candidates: best first.
        complete: whether every enrolled reference was considered. An incomplete search must never
            be read as "this person is new".
        searched: number of references that were in the index.
        sequence: the last change of the register the search has seen.
    """

    candidates: tuple[Candidate, ...]
    complete: bool
    searched: int
    sequence: int


@dataclass(frozen=True)
class MinutiaPair:
    """A probe minutia and the reference minutia it was paired with, by their row numbers."""

    probe: int
    reference: int


@dataclass(frozen=True)
class Comparison:
    """The outcome of comparing one probe template with one reference template, with its reasons.

    Attributes:
        similarity: calibrated, as in :class:`Candidate`.
        pairs: matched minutiae, for the picture in adjudication.
        rotation_rad, shift_px: rigid motion that lays the probe on the reference (500 ppi).
    """

    similarity: float
    pairs: tuple[MinutiaPair, ...] = ()
    rotation_rad: float = 0.0
    shift_px: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Decision:
    """A 1:1 verification: a similarity against a threshold. A non-match is an answer, no error."""

    similarity: float
    threshold: float
    finger_similarities: tuple[float, ...] = field(default=())

    @property
    def is_match(self) -> bool:
        return self.similarity >= self.threshold


@dataclass(frozen=True)
class Thresholds:
    """-log10 FMR: from ``grey`` people look, from ``same`` two records are taken for one person."""

    grey: float
    same: float
