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
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matcher import kernels_fast
from matcher.calibration import EVERYBODY, Calibration
from matcher.compare import PARAMETERS, PackedTemplate
from matcher.descriptor import DescriptorModel
from matcher.index import ReferenceIndex
from matcher.kernels import FEATURES, VOTE_UNITS
from matcher.types import Candidate, FingerPosition

_CHUNK_ROWS = 8
_ROWS_A_SUBJECT = 4
_FEWEST_NEIGHBOURS = 32
_TYPICAL_MINUTIAE = 40
_WIDEST = 4
_DECIDED_VOTES = 0.08
_DECIDED_RIVAL = 0.4
"""Votes of the best subject, and of the next one beside it, from which a narrow look is enough.
Among a million, 84 % of the mates of LEADER probes stand out so, and of 96 strangers none: their
best had 0.04 votes at most, and a rival with 0.59 of it at least."""


@dataclass(frozen=True)
class SearchSettings:
    """How wide a search looks before it compares.

    Most mates stand out after a narrow look; whoever does not is looked for again, widely.

    Attributes:
        exhaustive_references: up to this many references everything is compared.
        shortlist_subjects: subjects put in order after voting, and all that tie with the last.
        compared_subjects: of these, subjects compared in full, and all that tie with the last.
        neighbours: nearest enrolled minutiae a probe minutia votes for, at most, narrowly and
            widely.
        lists: inverted lists a probe minutia visits, narrowly and widely.
        scanned: enrolled minutiae a probe minutia is compared with on average, at most, unless a
            narrow look holds more: in a large index wide looks are less wide.
        neighbour_share: neighbours of a small index, as a share of all its minutiae, but
            :data:`_FEWEST_NEIGHBOURS` at least.
        votes_share, order_share: subjects with less than this share of the best one's votes are
            not put in order, and with less of its order not compared.

    ``shortlist_subjects`` and the wide ``neighbours`` and ``lists`` are for a probe of typical
    size: see :func:`_width`.
    """

    exhaustive_references: int = EVERYBODY
    shortlist_subjects: int = 300
    compared_subjects: int = 8
    neighbours: tuple[int, int] = (150, 600)
    neighbour_share: float = 5e-4
    lists: tuple[int, int] = (8, 32)
    scanned: int = 1_200_000
    votes_share: float = 0.2
    order_share: float = 0.4


Probes = Sequence[PackedTemplate | None]
"""One person's fingers, ``None`` for one too poor to compare."""


Nearest = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Squared distances and ids of one probe's minutiae, (M, K) each."""


def _width(probe: PackedTemplate) -> int:
    """How often a probe's search is doubled, 0 to :data:`_WIDEST`.

    Few minutiae are cheap to look up widely, and each must find what many would between them.
    """
    return min(max(round(2.0 * math.log2(_TYPICAL_MINUTIAE / len(probe))), 0), _WIDEST)


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
        probes: Probes,
        limit: int,
        rows: NDArray[np.int64],
    ) -> tuple[Candidate, ...]:
        """The best ``limit`` subjects among some rows, best first, equals by subject id.

        A probe that is ``None`` has the similarity ``-inf``.
        """
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

    def look_up(
        self,
        index: ReferenceIndex,
        people: Sequence[Probes],
        *,
        widely: bool,
        parallel: bool = False,
    ) -> list[Found]:
        """What the minutiae of these people's fingers find; the only step that must be guarded.

        Args:
            parallel: whether other threads may help.
        """
        geometry, starts = index.geometry
        moment = (index.alive, index.rows, geometry, starts)
        if len(index) <= self._settings.exhaustive_references:
            return [Found(None, *moment)] * len(people)
        fingers = [probe for probes in people for probe in probes if probe is not None]
        share = int(self._settings.neighbour_share * index.minutiae)
        most = self._settings.neighbours[widely]
        neighbours = min(most, max(share, _FEWEST_NEIGHBOURS))
        narrow, wide = self._settings.lists
        affordable = self._settings.scanned * index.lists // max(index.minutiae, 1)
        lists = min(wide, max(affordable, narrow)) if widely else narrow

        def nearest(width: int, part: NDArray[np.int8]) -> Nearest:
            return index.nearest(part, neighbours << width, round(lists * 2.0 ** (0.75 * width)))

        parts: dict[int, Nearest] = {}
        for width in range(_WIDEST + 1 if widely else 1):
            alike = [finger for finger in fingers if not widely or _width(finger) == width]
            if not alike:
                continue
            descriptors = np.concatenate([finger.descriptors for finger in alike])
            if parallel and self._executor is not None:
                halves = np.array_split(descriptors, 2)
                found = list(self._executor.map(partial(nearest, width), halves))
                distances, ids = (np.concatenate(both) for both in zip(*found, strict=True))
            else:
                distances, ids = nearest(width, descriptors)
            end = 0
            for finger in alike:
                begin, end = end, end + len(finger)
                parts[id(finger)] = (distances[begin:end], ids[begin:end])
        return [
            Found(tuple(None if p is None else parts[id(p)] for p in probes), *moment)
            for probes in people
        ]

    def shortlist(self, index: ReferenceIndex, probes: Probes, found: Found) -> Shortlist:
        """The subjects with most votes, and what the rows of each probe got."""
        if found.parts is None:
            return Shortlist(None, (), True)
        voted = [
            self._votes(index, probe, *part, found) if probe is not None and part else None
            for probe, part in zip(probes, found.parts, strict=True)
        ]
        subjects, total = _summed(
            [(index.subject_numbers[v.rows], v.votes) for v in voted if v is not None]
        )
        wanted = self._shortlisted(*(probe for probe in probes if probe is not None))
        best = _best(subjects, total, wanted, self._settings.votes_share)
        first, second = np.sort(np.append(total, (0, 0)))[:-3:-1].tolist()
        decided = first >= _DECIDED_VOTES * VOTE_UNITS and second <= _DECIDED_RIVAL * first
        return Shortlist(np.sort(best), tuple(voted), decided)

    def chosen(
        self, index: ReferenceIndex, probes: Probes, found: Found, shortlist: Shortlist
    ) -> NDArray[np.int64]:
        """The living rows of the subjects worth comparing with, rising."""
        if shortlist.subjects is None:
            return np.flatnonzero(found.alive[: found.rows])
        subjects, order = self._in_order(index, probes, shortlist, found)
        best = _best(subjects, order, self._settings.compared_subjects, self._settings.order_share)
        return index.rows_of_numbers(best, found.rows)

    def _shortlisted(self, *probes: PackedTemplate) -> int:
        """Subjects on the shortlist of these probes."""
        width = max(_width(probe) for probe in probes)
        return round(self._settings.shortlist_subjects * math.sqrt(1 << width))

    def _votes(
        self,
        index: ReferenceIndex,
        probe: PackedTemplate,
        distances: NDArray[np.float32],
        ids: NDArray[np.int64],
        found: Found,
    ) -> Votes:
        keys, share = kernels_fast.ballots(
            distances, ids, found.alive, found.rows, 0.5 * self._model.scale
        )
        order = np.argsort(keys)
        px, py = probe.x.astype(np.float32), probe.y.astype(np.float32)
        rows, votes, motions = kernels_fast.vote(
            keys[order], share[order], probe.angle, px, py, PARAMETERS
        )
        fits = compatible(int(probe.position), index.positions[rows])
        # Most rows have one hit by chance: what cannot reach the shortlist goes early.
        most = _ROWS_A_SUBJECT * self._shortlisted(probe)
        if rows.shape[0] > most:
            fits &= votes >= np.partition(np.where(fits, votes, 0), -most)[-most]
        return Votes(rows[fits], votes[fits], motions[fits])

    def _in_order(
        self, index: ReferenceIndex, probes: Probes, shortlist: Shortlist, found: Found
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Subjects of the shortlist and how well they fit, in whole millionths of a minutia."""
        ranked, listed_subjects = [], shortlist.subjects
        for probe, voted in zip(probes, shortlist.votes, strict=True):
            if probe is None or voted is None or listed_subjects is None:
                continue
            owners = index.subject_numbers[voted.rows]
            place = np.searchsorted(listed_subjects, owners)
            place = np.minimum(place, listed_subjects.shape[0] - 1)
            listed = listed_subjects[place] == owners
            rows = voted.rows[listed]
            unit = np.float32(math.tau / 256.0)
            scores = kernels_fast.rank_rows(
                probe.x.astype(np.float32),
                probe.y.astype(np.float32),
                probe.angle.astype(np.float32) * unit,
                found.geometry,
                found.starts,
                rows,
                voted.motions[listed],
                PARAMETERS,
            )
            whole = (scores * VOTE_UNITS).astype(np.int64) + voted.votes[listed]
            ranked.append((owners[listed], whole))
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
class Found:
    """What one person's fingers found, and the index as it was then.

    Attributes:
        parts: squared distances and ids of each probe's minutiae; see
            :meth:`matcher.index.ReferenceIndex.nearest`. ``None`` where all are compared instead,
            or for a probe too poor to compare.
        alive: (R,) bool, which rows live. A withdrawal during the search may still show here; it
            does in :meth:`matcher.index.ReferenceIndex.rows_of_numbers` in any case.
        rows: how many there were.
        geometry, starts: of these rows, which never changes.
    """

    parts: tuple[Nearest | None, ...] | None
    alive: NDArray[np.bool_]
    rows: int
    geometry: NDArray[np.uint32]
    starts: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Votes:
    """What one probe's minutiae voted for.

    Attributes:
        rows: (V,), rising; votes: (V,), in 2^-20 of a minutia's vote.
        motions: (V, 3), rotation (radians) and shift (px) that lay the probe on each row.
    """

    rows: NDArray[np.int64]
    votes: NDArray[np.int64]
    motions: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shortlist:
    """The outcome of the votes.

    Attributes:
        subjects: numbers of those with most votes, rising; ``None`` for everybody.
        votes: of each probe.
        decided: whether looking more widely could not change who is first.
    """

    subjects: NDArray[np.int64] | None
    votes: tuple[Votes | None, ...]
    decided: bool


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
    if len(parts) == 1:
        return subjects[1], values[1]
    everything, place = np.unique(np.concatenate(subjects), return_inverse=True)
    total = np.zeros(everything.shape[0], dtype=np.int64)
    np.add.at(total, place, np.concatenate(values))
    return everything, total


def _best(
    subjects: NDArray[np.int64], values: NDArray[np.int64], wanted: int, share: float
) -> NDArray[np.int64]:
    """The ``wanted`` subjects of highest value, and all that tie with the last.

    Those with less than ``share`` of the highest value are left out.
    """
    if subjects.shape[0] == 0:
        return subjects
    least = int(share * float(values.max()))
    if subjects.shape[0] > wanted:
        least = max(least, int(np.partition(values, -wanted)[-wanted]))
    best: NDArray[np.int64] = subjects[values >= least]
    return best
