"""Owns what is enrolled: minutiae, who they belong to, and the FAISS index over them.

A *row* is one reference (one finger view); rows are numbered in the order they came and never move.
Withdrawing marks rows dead, which takes effect at once; :meth:`ReferenceIndex.clear` takes what
they had in FAISS's lists away, a few lists at a time, and a snapshot leaves them out altogether.

Of a minutia 24 bytes are kept: place, direction and kind in four (:func:`kernels.packed_geometry`),
once more with the row in the eight-byte number FAISS keeps of it, so that what a search finds needs
no look elsewhere, and a 12-byte code of its descriptor in FAISS. Descriptors themselves are made
again from the minutiae for the few references a search compares with.

FAISS files codes in inverted lists around fixed centres; centres and codebook ship with the
package. Nothing is trained on the gallery, so an index depends only on what is in it. Descriptors,
centres and codebook are whole numbers, and FAISS scans with tables of bytes: distances are exact,
in whatever order a CPU adds them up, and depend on nothing but the two minutiae. The centres look
at the components of a descriptor that vary most (:data:`COARSE`): filing costs a third, and finds
as much.

This module is not thread-safe by itself; :class:`matcher.matcher.Matcher` guards it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from matcher import kernels_fast
from matcher.compare import Describe, PackedTemplate, packed_from
from matcher.growing import Growing
from matcher.kernels import DIMENSION, packed_geometry
from matcher.subjects import SubjectTable
from matcher.types import FingerPosition

CENTRES_VERSION = "centres-3"
CODE_HALVES = 24
"""Sub-quantizers of four bits each."""
COARSE = np.arange(0, 32, 2, dtype=np.int32)
"""The components of a descriptor that vary most: they say which list it is filed in."""
_BLOCK = 32
_ROW_SHIFT = 28
_ROWS_A_PART = 100_000

# FAISS's threads spin while they wait: with them an enrolment cost 15 ms of CPU, without 2.
# Searches run in parallel with one another instead.
faiss.omp_set_num_threads(1)
# Always the same path through FAISS, whatever the number of probe minutiae: equals are then cut
# alike. (Besides, BLAS gains already for one probe's 40 minutiae.)
faiss.cvar.distance_compute_blas_threshold = 1


@lru_cache(maxsize=1)
def shipped_centres() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Centres of the inverted lists, (L, len(COARSE)), and the codebook, (CODE_HALVES, 16,
    D / CODE_HALVES).

    Whole numbers.
    """
    source = resources.files("matcher") / "data" / f"{CENTRES_VERSION}.npz"
    with source.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return arrays["centres"].astype(np.float32), arrays["codebook"].astype(np.float32)


class ReferenceIndex:
    """Rows, their owners, and the minutia index over them."""

    def __init__(self) -> None:
        self._geometry = Growing(np.uint32)
        self._starts = Growing(np.int64)
        self._starts.extend(np.zeros(1, dtype=np.int64))
        self._subject_of = Growing(np.int32)
        self._position = Growing(np.uint8)
        self._sequence = Growing(np.int64)
        self._alive = Growing(np.bool_)
        self._earlier = Growing(np.int32)  # the row its subject had before, or -1
        self._latest = Growing(np.int32)  # of each subject, or -1
        self._names = SubjectTable()
        self._living = 0
        self._uncleared = 0
        self._living_minutiae = 0
        self._subjects = 0
        centres, codebook = shipped_centres()
        flat = faiss.IndexFlatL2(len(COARSE))
        flat.add(centres)
        chosen = faiss.RemapDimensionsTransform(DIMENSION, len(COARSE), faiss.swig_ptr(COARSE))
        quantizer = faiss.IndexPreTransform(chosen, flat)
        self._quantizer = (quantizer, chosen, flat)  # FAISS does not own them: keep them alive
        self._minutiae = faiss.IndexIVFPQFastScan(
            quantizer, DIMENSION, centres.shape[0], CODE_HALVES, 4, faiss.METRIC_L2, _BLOCK
        )
        # One table of distances a probe minutia instead of one for each list it visits.
        self._minutiae.by_residual = False
        faiss.copy_array_to_vector(codebook.ravel(), self._minutiae.pq.centroids)
        self._minutiae.is_trained = True

    def __len__(self) -> int:
        """Number of living references."""
        return self._living

    def __contains__(self, subject_id: str) -> bool:
        return bool(self.rows_of(subject_id))

    @property
    def rows(self) -> int:
        """Number of rows, dead ones included."""
        return int(self._starts.view.shape[0]) - 1

    @property
    def uncleared(self) -> int:
        """Number of dead rows that FAISS's lists still hold."""
        return self._uncleared

    @property
    def subjects(self) -> int:
        return self._subjects

    @property
    def minutiae(self) -> int:
        """Of living references."""
        return self._living_minutiae

    @property
    def lists(self) -> int:
        """Number of FAISS's inverted lists."""
        return int(self._minutiae.nlist)

    def rows_of(self, subject_id: str) -> Sequence[int]:
        """The living rows of a subject in their order, none if there is no such subject."""
        number = self._names.number(subject_id)
        found: list[int] = []
        row = int(self._latest.view[number]) if number >= 0 else -1
        while row >= 0:
            found.append(row)
            row = int(self._earlier.view[row])
        return found[::-1]

    def rows_of_numbers(self, numbers: NDArray[np.int64], before: int) -> NDArray[np.int64]:
        """The living rows of subjects by their numbers, rising, among the first ``before``."""
        rows = []
        for number in numbers.tolist():
            row = int(self._latest.view[number])
            while row >= 0:
                if row < before:
                    rows.append(row)
                row = int(self._earlier.view[row])
        return np.sort(np.asarray(rows, dtype=np.int64))

    def subject_id(self, row: int) -> str:
        return self._names.name(int(self._subject_of.view[row]))

    @property
    def subject_numbers(self) -> NDArray[np.int32]:
        """(R,): rows with equal numbers belong to one subject."""
        return self._subject_of.view

    @property
    def positions(self) -> NDArray[np.uint8]:
        return self._position.view

    @property
    def alive(self) -> NDArray[np.bool_]:
        return self._alive.view

    @property
    def sequences(self) -> NDArray[np.int64]:
        """(R,) int64: the change that brought each row."""
        return self._sequence.view

    @property
    def geometry(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Packed minutiae of all rows, and where each row's start, one more than rows."""
        return self._geometry.view, self._starts.view

    def added_after(self, sequence: int) -> NDArray[np.int64]:
        """Living rows that later changes than this brought."""
        # Rows come in the order of their changes.
        first = int(np.searchsorted(self.sequences, sequence, side="right"))
        return first + np.flatnonzero(self.alive[first:])

    def add(self, additions: Sequence[tuple[str, Sequence[PackedTemplate], int]]) -> None:
        """Append references: of whom, which, and the change that brings them, in their order.

        References a subject already has stay.
        """
        rows = self.rows + np.cumsum([0] + [len(templates) for _, templates, _ in additions])
        flat = [template for _, templates, _ in additions for template in templates]
        if not flat:
            return
        packed = [packed_geometry(t.x, t.y, t.angle, t.kind) for t in flat]
        lengths = np.asarray([len(template) for template in flat], dtype=np.int64)
        geometry = np.concatenate(packed)
        owners = np.repeat(np.arange(self.rows, int(rows[-1]), dtype=np.int64), lengths)
        ids = (owners << _ROW_SHIFT) | (geometry >> 4).astype(np.int64)
        descriptors = np.concatenate([template.descriptors for template in flat])
        self._minutiae.add_with_ids(descriptors.astype(np.float32), ids)
        self._geometry.extend(geometry)
        for first, (subject_id, templates, sequence) in zip(rows, additions, strict=False):
            self._own(subject_id, int(first), len(templates), sequence)
        self._position.extend(np.asarray([int(t.position) for t in flat], dtype=np.uint8))
        self._alive.extend(np.ones(len(flat), dtype=np.bool_))
        self._starts.extend(self._starts.view[-1] + np.cumsum(lengths))
        self._living += len(flat)
        self._living_minutiae += int(lengths.sum())

    def _own(self, subject_id: str, first: int, count: int, sequence: int) -> None:
        """Note whose the next rows are."""
        number = self._names.number(subject_id)
        if number < 0:
            number = self._names.append(subject_id)
            self._latest.extend(np.full(1, -1))
        if count and self._latest.view[number] < 0:
            self._subjects += 1
        for row in range(first, first + count):
            self._earlier.extend(self._latest.view[number : number + 1])
            self._latest.view[number] = row
        self._subject_of.extend(np.full(count, number))
        self._sequence.extend(np.full(count, sequence))

    def withdraw(self, subject_id: str) -> int:
        """Mark the subject's rows dead; how many there were."""
        rows = self.rows_of(subject_id)
        if rows:
            self._alive.view[rows] = False
            starts = self._starts.view
            self._living_minutiae -= sum(int(starts[row + 1] - starts[row]) for row in rows)
            self._latest.view[self._names.number(subject_id)] = -1
            self._living -= len(rows)
            self._uncleared += len(rows)
            self._subjects -= 1
        return len(rows)

    def nearest(
        self, descriptors: NDArray[np.int8], k: int, lists: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The nearest minutiae of each probe minutia, dead ones included.

        Args:
            descriptors: (M, D) int8.
            k: how many at most.
            lists: inverted lists visited per minutia.

        Returns:
            Squared distances to their codes, (M, k) float32, rising, and ids, (M, k) int64: the row
            times 2^28 and the minutia without its kind; -1 where there are fewer.
        """
        parameters = faiss.SearchParametersIVF()
        parameters.nprobe = lists
        distances, ids = self._minutiae.search(descriptors.astype(np.float32), k, params=parameters)
        return distances, ids

    def packed_of(self, row: int, describe: Describe) -> PackedTemplate:
        """One row as it was added."""
        geometry, starts = self.geometry
        part = geometry[int(starts[row]) : int(starts[row + 1])]
        x, y = (np.empty(part.shape[0], dtype=np.int16) for _ in range(2))
        angle, kind = (np.empty(part.shape[0], dtype=np.uint8) for _ in range(2))
        kernels_fast.unpacked(part, x, y, angle, kind)
        return packed_from(x, y, angle, kind, FingerPosition(int(self.positions[row])), describe)

    # --- clearing, saving, restoring -----------------------------------------------------------

    def clear(self, names: range) -> None:
        """Take what is dead out of some of FAISS's inverted lists."""
        alive, as_they_are = self._alive.view, np.empty(0, dtype=np.int64)
        inverted: Any = self._minutiae.invlists
        for name in names:
            size = inverted.list_size(name)
            if size:
                codes, ids = self._list(name, size)
                count = kernels_fast.living_codes(codes, ids, alive, as_they_are, codes, ids)
                inverted.resize(name, count)
                self._minutiae.ntotal -= size - count

    def cleared(self, rows: int) -> None:
        """Note that so many dead rows have been taken out of all lists."""
        self._uncleared -= rows

    def saved(self) -> Saved:
        """What a snapshot of this moment needs to know; what it reads later does not change."""
        alive = self._alive.view.copy()
        numbers, subject = np.unique(self._subject_of.view[alive], return_inverse=True)
        return Saved(
            self,
            alive,
            self._starts.view,
            self._geometry.view,
            subject.astype(np.int32),
            self._names.saved(numbers.astype(np.int64)),
        )

    def _list(self, name: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """FAISS's own memory of one inverted list: (blocks, CODE_HALVES, 16) codes, and ids."""
        inverted: Any = self._minutiae.invlists
        code_bytes = -(-size // _BLOCK) * CODE_HALVES * 16
        codes: NDArray[np.uint8] = faiss.rev_swig_ptr(inverted.get_codes(name), code_bytes)
        ids: NDArray[np.int64] = faiss.rev_swig_ptr(inverted.get_ids(name), size)
        return codes.reshape(-1, CODE_HALVES, 16), ids

    @classmethod
    def restored(cls, array: Callable[[str], NDArray[Any]]) -> ReferenceIndex:
        """The index whose :class:`Saved` parts these are, asked for in their order.

        Raises:
            ValueError, IndexError: the arrays do not belong together.
        """
        index = cls()
        names = {name: array(name) for name in SubjectTable.ARRAYS}
        index._names = SubjectTable.restored(names)
        index._subjects = len(index._names)
        lengths, subject = array("lengths"), array("subject")
        index._position.extend(array("position"))
        index._sequence.extend(array("sequence"))
        rows = int(lengths.shape[0])
        if not subject.shape[0] == index.positions.shape[0] == index.sequences.shape[0] == rows:
            raise ValueError("the arrays differ in their number of references")
        index._starts.extend(np.cumsum(lengths, dtype=np.int64))
        index._subject_of.extend(subject)
        index._alive.extend(np.ones(rows, dtype=np.bool_))
        index._living = rows
        index._living_minutiae = int(index._starts.view[-1])
        # Rows of a subject, each with the one before it.
        order = np.argsort(subject, kind="stable")
        first = np.ones(rows, dtype=np.bool_)
        first[1:] = subject[order][1:] != subject[order][:-1]
        earlier = np.full(rows, -1, dtype=np.int32)
        earlier[order[1:]] = np.where(first[1:], -1, order[:-1])
        index._earlier.extend(earlier)
        latest = np.full(len(index._names), -1, dtype=np.int32)
        latest[subject[order]] = order
        index._latest.extend(latest)
        index._geometry.reserve(index._living_minutiae)
        while index._geometry.view.shape[0] < index._living_minutiae:
            index._geometry.extend(array("geometry"))
        index._fill(array)
        if not index._geometry.view.shape[0] == index._minutiae.ntotal == index._living_minutiae:
            raise ValueError("the arrays differ in their number of minutiae")
        return index

    def _fill(self, array: Callable[[str], NDArray[Any]]) -> None:
        inverted: Any = self._minutiae.invlists
        if int(array("lists")[0]) != self.lists:
            raise ValueError(f"{self.lists} inverted lists are expected")
        for name in range(self.lists):
            ids = array("ids")
            codes = array("codes")
            if ids.shape[0]:
                inverted.resize(name, ids.shape[0])
                own_codes, own_ids = self._list(name, ids.shape[0])
                own_codes[:] = codes
                own_ids[:] = ids
                self._minutiae.ntotal += ids.shape[0]


@dataclass(frozen=True, eq=False)
class Saved:
    """One moment of an index, written out while later changes go on.

    Attributes:
        alive: (R,) bool, which rows lived.
        starts, geometry: of the index; rows that came later are not looked at.
        subject: whose each living row is, by the number of the name in ``names``.
    """

    index: ReferenceIndex
    alive: NDArray[np.bool_]
    starts: NDArray[np.int64]
    geometry: NDArray[np.uint32]
    subject: NDArray[np.int32]
    names: dict[str, NDArray[Any]]

    def rows(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Everything but FAISS's lists, as names and arrays."""
        alive, index = self.alive, self.index
        rows = alive.shape[0]
        yield from self.names.items()
        lengths = np.diff(self.starts)
        yield "lengths", lengths[alive].astype(np.uint8)
        yield "subject", self.subject
        yield "position", index.positions[:rows][alive]
        yield "sequence", index.sequences[:rows][alive]
        for first in range(0, rows, _ROWS_A_PART):
            part = slice(first, first + _ROWS_A_PART)
            minutiae = self.geometry[
                int(self.starts[first]) : int(self.starts[min(first + _ROWS_A_PART, rows)])
            ]
            kept = minutiae[np.repeat(alive[part], lengths[part])]
            if kept.shape[0]:
                yield "geometry", kept
        yield "lists", np.asarray([index.lists])

    def living_list(
        self, name: int, new_rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Ids and codes of one of FAISS's lists, without what was dead or came later."""
        inverted: Any = self.index._minutiae.invlists
        size = inverted.list_size(name)
        ids = np.empty(size, dtype=np.int64)
        codes = np.zeros((-(-size // _BLOCK), CODE_HALVES, 16), dtype=np.uint8)
        count = 0
        if size:
            own_codes, own_ids = self.index._list(name, size)
            count = kernels_fast.living_codes(own_codes, own_ids, self.alive, new_rows, codes, ids)
        return ids[:count], codes[: -(-count // _BLOCK)]

    def new_rows(self) -> NDArray[np.int64]:
        """The number each living row gets in the snapshot."""
        return np.cumsum(self.alive) - 1
