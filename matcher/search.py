"""Probes + index -> candidate list.

Every probe minutia looks up its nearest enrolled minutiae and divides one vote among them, so a
minutia that looks like many says little; the votes for a reference count as far as they agree on
one motion of the finger. The subjects with most are the shortlist. It is put in order by how many
minutiae fall on one another under that motion, which needs places and directions only; the best
are compared in full. Votes and orders are whole numbers, and a cut through equals keeps them all:
whom a search compares with does not depend on the order in which references were added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matcher import kernels_fast
from matcher.calibration import Calibration
from matcher.compare import PARAMETERS, PackedTemplate
from matcher.descriptor import DescriptorModel
from matcher.index import ReferenceIndex
from matcher.kernels import FEATURES, VOTE_UNITS, shares
from matcher.types import Candidate, FingerPosition

_CHUNK_ROWS = 8


@dataclass(frozen=True)
class SearchSettings:
    """How wide a search looks before it compares.

    Attributes:
        exhaustive_references: up to this many references everything is compared.
        shortlist_subjects: subjects put in order after voting, and all that tie with the last.
        compared_subjects: of these, subjects compared in full, and all that tie with the last.
        neighbours: nearest enrolled minutiae a probe minutia votes for.
        lists: inverted lists a probe minutia visits, at least.
        scanned: enrolled minutiae a probe minutia is compared with on average, at least, while an
            eighth of the lists holds as many: in a small index the visits cost little.
    """

    exhaustive_references: int = 64
    shortlist_subjects: int = 200
    compared_subjects: int = 8
    neighbours: int = 600
    lists: int = 48
    scanned: int = 100_000


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
            rows: compare with these rows, all of them, instead of those of :meth:`found`.
        """
        if rows is None:
            rows = self.found(index, probes)
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
        geometry, starts = index.geometry

        def run(start: int) -> None:
            part = slice(start, start + _CHUNK_ROWS)
            kernels_fast.compare_references(
                *probe.arrays(),
                geometry,
                starts,
                rows[chosen[part]],
                self._model.weights,
                self._model.scale,
                PARAMETERS,
                features[part],
            )

        self._each(run, range(0, chosen.shape[0], _CHUNK_ROWS))
        similarities[chosen] = self._calibration.similarity(self._calibration.evidence(features))
        # Nothing paired is an answer too: as unlike as two fingers can be.
        similarities[chosen] = np.maximum(similarities[chosen], 0.0)
        return similarities

    def found(
        self, index: ReferenceIndex, probes: Sequence[PackedTemplate | None]
    ) -> NDArray[np.int64]:
        """The living rows of the subjects worth comparing with, rising."""
        if len(index) <= self._settings.exhaustive_references:
            return np.flatnonzero(index.alive)
        subjects, order = self._in_order(index, probes, self.shortlist(index, probes))
        return index.rows_of_numbers(_best(subjects, order, self._settings.compared_subjects))

    def shortlist(
        self, index: ReferenceIndex, probes: Sequence[PackedTemplate | None]
    ) -> Shortlist:
        """The subjects with most votes, and what the rows of each probe got."""
        voted = [self._votes(index, probe) if probe is not None else None for probe in probes]
        subjects, total = _summed(
            [(index.subject_numbers[v.rows], v.votes) for v in voted if v is not None]
        )
        return Shortlist(
            np.sort(_best(subjects, total, self._settings.shortlist_subjects)), tuple(voted)
        )

    def _votes(self, index: ReferenceIndex, probe: PackedTemplate) -> Votes:
        lists = max(self._settings.lists, index.lists_holding(self._settings.scanned))
        distances, ids = index.nearest(probe.descriptors, self._settings.neighbours, lists)
        hits = index.hits(ids, shares(distances, 0.5 * self._model.scale), probe)
        px, py = probe.x.astype(np.float32), probe.y.astype(np.float32)
        rows, votes, motions = kernels_fast.vote(*hits, px, py, PARAMETERS)
        fits = compatible(int(probe.position), index.positions[rows])
        return Votes(rows[fits], votes[fits], motions[fits])

    def _in_order(
        self,
        index: ReferenceIndex,
        probes: Sequence[PackedTemplate | None],
        shortlist: Shortlist,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Subjects of the shortlist and how well they fit, in whole millionths of a minutia."""
        ranked = []
        for probe, voted in zip(probes, shortlist.votes, strict=True):
            if probe is None or voted is None:
                continue
            listed = np.isin(index.subject_numbers[voted.rows], shortlist.subjects)
            rows = voted.rows[listed]
            unit = np.float32(math.tau / 256.0)
            scores = kernels_fast.rank_rows(
                probe.x.astype(np.float32),
                probe.y.astype(np.float32),
                probe.angle.astype(np.float32) * unit,
                *index.geometry,
                rows,
                voted.motions[listed],
                PARAMETERS,
            )
            whole = (scores * VOTE_UNITS).astype(np.int64) + voted.votes[listed]
            ranked.append((index.subject_numbers[rows], whole))
        return _summed(ranked)

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


@dataclass(frozen=True, eq=False)
class Votes:
    """What one probe's minutiae voted for: rows, their votes and motions."""

    rows: NDArray[np.int64]
    votes: NDArray[np.int64]
    motions: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shortlist:
    """Numbers of the subjects with most votes, rising, and the votes of each probe."""

    subjects: NDArray[np.int64]
    votes: tuple[Votes | None, ...]


def _summed(
    parts: Sequence[tuple[NDArray[np.integer[Any]], NDArray[np.int64]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Subjects, rising, and the sum over the parts of the best each has in a part."""
    subjects, values = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for part_subjects, part_values in parts:
        order = np.lexsort((-part_values, part_subjects))
        own, first = np.unique(part_subjects[order], return_index=True)
        subjects.append(own.astype(np.int64))
        values.append(part_values[order][first])
    everything, place = np.unique(np.concatenate(subjects), return_inverse=True)
    total = np.zeros(everything.shape[0], dtype=np.int64)
    np.add.at(total, place, np.concatenate(values))
    return everything, total


def _best(subjects: NDArray[np.int64], values: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """The ``wanted`` subjects of highest value, and all that tie with the last."""
    if subjects.shape[0] <= wanted:
        return subjects
    best: NDArray[np.int64] = subjects[values >= np.partition(values, -wanted)[-wanted]]
    return best
