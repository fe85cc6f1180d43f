"""Probes + index -> candidate list.

A small index is compared with exhaustively. In a larger one every probe minutia looks up its
nearest enrolled minutiae and divides one vote among them, so a minutia that looks like many says
little; the votes for a reference count as far as they agree on one motion of the finger. The
subjects with most are compared. Votes are counted in whole numbers and a cut through equals keeps
them all: the shortlist does not depend on the order in which references were added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matcher import kernels_fast
from matcher.calibration import Calibration
from matcher.compare import PARAMETERS, PackedTemplate
from matcher.descriptor import DescriptorModel
from matcher.index import ReferenceIndex
from matcher.kernels import FEATURES, shares
from matcher.types import Candidate, FingerPosition

_CHUNK_ROWS = 256


@dataclass(frozen=True)
class SearchSettings:
    """How wide a search looks before it compares.

    Attributes:
        exhaustive_references: up to this many references everything is compared.
        shortlist_subjects: subjects compared after voting, and all that tie with the last.
        neighbours: nearest enrolled minutiae a probe minutia votes for.
        lists: inverted lists a probe minutia visits.
    """

    exhaustive_references: int = 1000
    shortlist_subjects: int = 300
    neighbours: int = 400
    lists: int = 48


def compatible(probe: int, references: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether a probe of a finger position can show the same finger as each reference."""
    unknown = int(FingerPosition.UNKNOWN)
    if probe == unknown:
        return np.ones(references.shape[0], dtype=np.bool_)
    matching: NDArray[np.bool_] = (references == probe) | (references == unknown)
    return matching


class Searcher:
    """Runs comparisons of probes against rows of an index, on a pool of threads."""

    def __init__(
        self,
        model: DescriptorModel,
        calibration: Calibration,
        settings: SearchSettings,
        executor: Executor | None = None,
    ) -> None:
        self._model = model
        self._calibration = calibration
        self._settings = settings
        self._executor = executor

    def rank(
        self,
        index: ReferenceIndex,
        probes: Sequence[PackedTemplate | None],
        limit: int,
        rows: NDArray[np.int64] | None = None,
    ) -> tuple[Candidate, ...]:
        """The best ``limit`` subjects, best first, equals by subject id.

        Args:
            probes: ``None`` for one too poor to compare; its similarity is ``-inf``.
            rows: compare with these living rows, all of them, instead of searching.
        """
        if rows is None:
            rows = self._shortlist(index, probes)
        if rows.shape[0] == 0 or limit < 1:
            return ()
        similarities = np.stack([self._compare(index, probe, rows) for probe in probes])
        candidates = []
        subjects = index.subject_numbers[rows]
        order = np.argsort(subjects, kind="stable")
        bounds = np.flatnonzero(np.diff(subjects[order])) + 1
        for group in np.split(order, bounds):
            fused, fingers = self.fuse(
                similarities[:, group],
                [None if p is None else int(p.position) for p in probes],
                index.positions[rows[group]],
            )
            if fused > -math.inf:
                subject_id = index.subject_id(int(rows[group[0]]))
                candidates.append(Candidate(subject_id, fused, fingers))
        candidates.sort(key=lambda candidate: (-candidate.similarity, candidate.subject_id))
        return tuple(candidates[:limit])

    def fuse(
        self,
        similarities: NDArray[np.float64],
        probe_positions: Sequence[int | None],
        reference_positions: NDArray[np.uint8],
    ) -> tuple[float, tuple[float, ...]]:
        """One subject's fused similarity, and the best of each probe.

        A probe compared with several references had as many chances: its best similarity is
        lowered by the logarithm of their number. Then probes and references are assigned to each
        other one to one, best first, where all impressions of one known finger count as one: two
        captures of a finger are not two fingers.

        Args:
            similarities: (P, R), ``-inf`` where not compared.
        """
        chances = np.maximum((similarities > -np.inf).sum(axis=1), 1)
        corrected = similarities - np.log10(chances)[:, None]
        corrected = np.where(similarities > -np.inf, np.maximum(corrected, 0.0), -np.inf)
        pairs = sorted(
            (-float(corrected[p, r]), p, r)
            for p, r in zip(*np.nonzero(corrected > -np.inf), strict=True)
        )
        used_probes: set[tuple[str, int]] = set()
        used_references: set[tuple[str, int]] = set()
        chosen = []
        for negative, p, r in pairs:
            probe_key = _finger(probe_positions[p], p)
            reference_key = _finger(int(reference_positions[r]), r)
            if probe_key not in used_probes and reference_key not in used_references:
                used_probes.add(probe_key)
                used_references.add(reference_key)
                chosen.append(-negative)
        return self._calibration.fuse(chosen), tuple(float(v) for v in corrected.max(axis=1))

    def _compare(
        self, index: ReferenceIndex, probe: PackedTemplate | None, rows: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Similarity of one probe with each row, (R,), ``-inf`` where fingers are incompatible."""
        similarities = np.full(rows.shape[0], -np.inf)
        if probe is None:
            return similarities
        chosen = np.flatnonzero(compatible(int(probe.position), index.positions[rows]))
        features = np.zeros((chosen.shape[0], len(FEATURES)))
        store = index.store.arrays()

        def run(start: int) -> None:
            part = slice(start, start + _CHUNK_ROWS)
            kernels_fast.compare_rows(
                *probe.arrays(),
                *store,
                rows[chosen[part]],
                self._model.scale,
                PARAMETERS,
                features[part],
            )

        self._each(run, range(0, chosen.shape[0], _CHUNK_ROWS))
        similarities[chosen] = self._calibration.similarity(self._calibration.evidence(features))
        # Nothing paired is an answer too: as unlike as two fingers can be.
        similarities[chosen] = np.maximum(similarities[chosen], 0.0)
        return similarities

    def _shortlist(
        self, index: ReferenceIndex, probes: Sequence[PackedTemplate | None]
    ) -> NDArray[np.int64]:
        alive = np.flatnonzero(index.alive)
        if alive.shape[0] <= self._settings.exhaustive_references:
            return alive
        subjects = index.subject_numbers
        total = np.zeros(int(subjects[-1]) + 1, dtype=np.int64)
        for probe in probes:
            if probe is None:
                continue
            votes = self._votes(index, probe)
            votes[~compatible(int(probe.position), index.positions)] = 0
            best = np.zeros_like(total)
            voted = np.flatnonzero(votes)
            np.maximum.at(best, subjects[voted], votes[voted])
            total += best
        wanted = min(self._settings.shortlist_subjects, total.shape[0])
        cut = max(int(np.partition(total, -wanted)[-wanted]), 1)
        return alive[total[subjects[alive]] >= cut]

    def _votes(self, index: ReferenceIndex, probe: PackedTemplate) -> NDArray[np.int64]:
        distances, minutiae = index.nearest(
            probe.descriptors, self._settings.neighbours, self._settings.lists
        )
        divided = shares(distances, 0.5 * self._model.scale)
        hits = index.hits(minutiae, divided, probe)
        px, py = probe.x.astype(np.float32), probe.y.astype(np.float32)
        votes: NDArray[np.int64] = kernels_fast.vote(
            *hits, px, py, index.alive.shape[0], PARAMETERS
        )
        return votes

    def _each(self, run: Callable[[int], None], starts: Sequence[int]) -> None:
        if self._executor is None or len(starts) < 2:
            for start in starts:
                run(start)
        else:
            list(self._executor.map(run, starts))


def _finger(position: int | None, number: int) -> tuple[str, int]:
    """What counts as one finger: a known position, or a single view of an unknown one."""
    if position is None or position == int(FingerPosition.UNKNOWN):
        return ("view", number)
    return ("position", position)
