"""A look at what was captured, before it is kept and while the person is still there.

The comparison itself is not part of this library: it comes in as an :class:`Examiner`, which the
service's package has (``identity.capture_check``, extra ``[recheck]``) or a vendor's own. Without
one, images are still judged by what they look like, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from devices.errors import CaptureDoubtfulError, FingersUnexplainedError
from devices.terminal.extract import extract
from devices.terminal.feedback import Finding, Problem
from devices.terminal.image import read_image
from devices.terminal.types import MissingFinger, Sample, SampleFormat

MIN_MINUTIAE = 12
MIN_AREA_MM2 = 35.0
"""Of the minutiae's hull. The lowest few per cent of 768 real templates (FVC2002 DB1 and DB3,
FVC2004 DB2 and DB3, UPEK; two extractors) have fewer minutiae, or lie on less."""
SAME_AT = 3.0
"""-log10 FMR from which two captures are of one finger: it sends back 0.3 % of good pairs (LEADER)
to 4 % (a vendor's extractor; ``benchmarks.accuracy``), and takes one in a thousand wrong ones."""
TWICE_AT = 5.0
"""... and from which two positions are: with the 45 pairs of ten fingers, one person in 2,000 is
asked again for nothing."""


@dataclass(frozen=True)
class Look:
    """What a template shows of itself.

    Attributes:
        position: which finger, of the sample or else its record; 0 unknown.
        area_mm2: of the convex hull of its minutiae.
        usable: whether somebody could be recognised by it.
    """

    position: int
    minutiae: int
    area_mm2: float
    usable: bool


class Examiner(Protocol):
    """Reads and compares templates."""

    def look(self, sample: Sample) -> Look:
        """Raises SubmissionInvalidError if the record cannot be read."""

    def similarity(self, one: Sample, other: Sample) -> float:
        """-log10 of a false match rate; both samples are usable."""


@dataclass(frozen=True, repr=False)
class Finger:
    """A finger as captured once.

    Attributes:
        quality: 0 to 100 (:mod:`devices.terminal.extract`); -1 for a record that came as one.
        problem: what the image suffers from, if its quality is poor.
    """

    sample: Sample
    quality: int = -1
    problem: Problem | None = None


@dataclass(frozen=True, repr=False)
class Capture:
    """A finger as it will be sent, and a second capture of it to hold against the first."""

    finger: Finger
    again: Finger | None = None


def finger_from(
    content: bytes,
    position: int = 0,
    sample_format: SampleFormat | None = None,
    resolution_ppi: int | None = None,
) -> Finger:
    """A finger from a file: a minutiae record as it is, an image by extraction.

    Args:
        sample_format: of a record; ISO/IEC 19794-2:2005 if left out.
        resolution_ppi: of an image; what the file says if left out.

    Raises:
        ImageInvalidError: it is neither, or the image cannot be used.
        ExtractorMissingError: the extra ``[extract]`` is not installed.
    """
    if sample_format is not None or content.startswith(b"FMR"):
        return Finger(Sample(content, position, sample_format or SampleFormat.ISO_19794_2_2005))
    found = extract(read_image(content, resolution_ppi), position)
    return Finger(Sample(found.record, position), found.quality, found.problem)


def findings(captures: Sequence[Capture], examiner: Examiner | None = None) -> list[Finding]:
    """What should be put right, in the order of the fingers; empty when all is well.

    Raises:
        SubmissionInvalidError: a record cannot be read.
    """
    found: list[Finding] = []
    seen: list[tuple[int, Sample]] = []
    for capture in captures:
        finger = capture.finger
        if finger.problem is not None:
            found.append(Finding(finger.sample.position, finger.problem))
        if examiner is None:
            continue
        look = examiner.look(finger.sample)
        found += _findings_of(look, bool(finger.problem))
        if not look.usable:
            continue
        seen.append((look.position, finger.sample))
        if capture.again is not None and not _same(examiner, finger, capture.again):
            found.append(Finding(look.position, Problem.CAPTURES_DIFFER))
    if examiner is not None:
        for (first, one), (second, other) in combinations(seen, 2):
            if first == second and first:
                found.append(Finding(second, Problem.NAMED_TWICE))
            elif examiner.similarity(one, other) >= TWICE_AT:
                found.append(Finding(second, Problem.SAME_FINGER, first))
    return found


def require_undoubted(found: Iterable[Finding]) -> None:
    """Raises CaptureDoubtfulError if there is anything among the findings to insist on."""
    doubtful = [one for one in found if one.doubtful]
    if doubtful:
        raise CaptureDoubtfulError("; ".join(one.text() for one in doubtful))


def require_explained(captured: int, missing: Sequence[MissingFinger], asked: int) -> None:
    """Raises FingersUnexplainedError unless each finger asked for is captured or has a reason."""
    if captured + len(missing) < max(1, asked):
        raise FingersUnexplainedError(
            f"{max(1, asked)} fingers are asked for and {captured} were captured; capture the "
            "others, or give a reason for each"
        )


def _findings_of(look: Look, told: bool) -> list[Finding]:
    if not look.usable:
        return [Finding(look.position, Problem.UNUSABLE)]
    if told:  # the image itself says more than its template
        return []
    if look.minutiae < MIN_MINUTIAE:
        return [Finding(look.position, Problem.FEW_MINUTIAE)]
    if look.area_mm2 < MIN_AREA_MM2:
        return [Finding(look.position, Problem.SMALL_AREA)]
    return []


def _same(examiner: Examiner, one: Finger, other: Finger) -> bool:
    return (
        examiner.look(other.sample).usable
        and examiner.similarity(one.sample, other.sample) >= SAME_AT
    )
