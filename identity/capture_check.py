"""The matcher as a terminal's examiner: what :mod:`devices.terminal.check`, a leaf, cannot have.

Needs the extra ``[recheck]``; :func:`examiner` says whether it is there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devices.errors import SubmissionInvalidError
from devices.terminal.check import Examiner, Look
from devices.terminal.types import Sample

if TYPE_CHECKING:
    from matcher.matcher import Matcher
    from matcher.types import Template

MM_PER_PX = 25.4 / 500.0


def examiner() -> Examiner | None:
    """One that compares here, or none where the matcher's libraries are not installed."""
    try:
        from matcher.matcher import Matcher
    except ModuleNotFoundError:
        return None
    return MatcherExaminer(Matcher.open(None))


class MatcherExaminer:
    """Implements :class:`devices.terminal.check.Examiner`."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher

    def look(self, sample: Sample) -> Look:
        from matcher import kernels_fast
        from matcher.errors import FailureToEnrolError
        from matcher.kernels import hull_area

        template = _template(sample)
        try:
            self._matcher.check([template])
        except FailureToEnrolError:
            return Look(int(template.position), len(template), 0.0, usable=False)
        hull = kernels_fast.convex_hull(template.x, -template.y)
        area = hull_area(template.x, -template.y, hull) * MM_PER_PX**2
        return Look(int(template.position), len(template), area, usable=True)

    def similarity(self, one: Sample, other: Sample) -> float:
        return self._matcher.compare(_template(one), _template(other)).similarity


def _template(sample: Sample) -> Template:
    from matcher.errors import DecodeError
    from matcher.formats import RecordFormat, decode_as
    from matcher.types import FingerPosition

    try:
        views = decode_as(RecordFormat(sample.format), sample.record)
    except DecodeError as error:
        raise SubmissionInvalidError(f"a record cannot be read: {error}") from error
    if len(views) != 1:
        raise SubmissionInvalidError(f"a record holds one finger view, not {len(views)}")
    position = FingerPosition(sample.position)
    return views[0] if position is FingerPosition.UNKNOWN else replace(views[0], position=position)
