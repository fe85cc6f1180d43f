"""What the workflows need from elsewhere, as Protocols: the clock, the comparer and the issuer.

The store is not among them: it is the register itself, and its tests run on the real one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from identity.types import Particulars, PermitRecord, PermitState
from matcher.types import CandidateList, Decision, Template


class Clock(Protocol):
    def now(self) -> datetime:
        """The present instant, timezone-aware UTC."""


class SystemClock:
    """The machine's clock, shifted by a fixed offset in demonstrations and nowhere else."""

    def __init__(self, offset: timedelta = timedelta(0)) -> None:
        self._offset = offset

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset


class Comparer(Protocol):
    """The part of :class:`matcher.matcher.Matcher` that the register uses; see there."""

    @property
    def sequence(self) -> int: ...

    def __len__(self) -> int: ...

    def __contains__(self, subject_id: str) -> bool: ...

    def check(self, templates: Sequence[Template]) -> None: ...

    def add_many(self, additions: Sequence[tuple[str, Sequence[Template], int]]) -> None: ...

    def withdraw(self, subject_id: str, sequence: int) -> None: ...

    def identify(
        self, probes: Sequence[Template], *, limit: int = 10, added_after: int | None = None
    ) -> CandidateList: ...

    def verify(self, subject_id: str, probes: Sequence[Template], *, fmr: float) -> Decision: ...

    def threshold_for_fmr(self, fmr: float) -> float: ...

    def threshold_for_fpir(self, fpir: float, gallery: int) -> float: ...

    def snapshot(self) -> None: ...


class PermitIssuer(Protocol):
    """Signs permits, publishes their status and draws their card."""

    def issue(self, registrant_id: str, particulars: Particulars, now: datetime) -> PermitRecord:
        """A signed permit. The intent is journalled first: no number or index is used twice."""

    def publish(self, status_list: int, status_index: int, state: PermitState) -> None:
        """Make a changed status part of the published trust material."""

    def reconcile(self, statuses: Iterable[tuple[int, int, PermitState]]) -> None:
        """Bring the published lists in line with the register, after a crash for instance."""

    def card(self, permit: PermitRecord, pdf: bool) -> bytes:
        """The printable card, read back and verified before it is released."""
