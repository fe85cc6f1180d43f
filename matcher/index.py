"""Owns what is enrolled: minutiae, who they belong to, and the FAISS index over them.

A *row* is one reference (one finger view); rows are numbered in the order they came and never move
until :meth:`ReferenceIndex.compacted`. Withdrawing marks rows dead, which takes effect at once.

Of a minutia 28 bytes are kept: place, direction and kind in four (:func:`kernels.packed_geometry`),
once more with the row in the eight-byte number FAISS keeps of it, so that what a search finds needs
no look elsewhere, and a 16-byte code of its descriptor in FAISS. Descriptors themselves are made
again from the minutiae for the few references a search compares with.

FAISS files codes in inverted lists around fixed centres; centres and codebook ship with the
package. Nothing is trained on the gallery, so an index depends only on what is in it. Descriptors,
centres and codebook are whole numbers, and FAISS scans with tables of bytes: distances are exact,
in whatever order a CPU adds them up, and depend on nothing but the two minutiae.

This module is not thread-safe by itself; :class:`matcher.matcher.Matcher` guards it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from matcher import kernels_fast
from matcher.compare import Describe, PackedTemplate, packed_from
from matcher.growing import Growing
from matcher.kernels import DIMENSION, Hits, packed_geometry
from matcher.subjects import SubjectTable
from matcher.types import FingerPosition

CENTRES_VERSION = "centres-2"
CODE_HALVES = 32
"""Sub-quantizers of four bits each."""
_BLOCK = 32
_ROW_SHIFT = 28

# FAISS's threads spin while they wait: with them an enrolment cost 15 ms of CPU, without 2.
# Searches run in parallel with one another instead.
faiss.omp_set_num_threads(1)
# Always the same path through FAISS, whatever the number of probe minutiae: equals are then cut
# alike. (Besides, BLAS gains already for one probe's 40 minutiae.)
faiss.cvar.distance_compute_blas_threshold = 1


@lru_cache(maxsize=1)
def shipped_centres() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Centres of the inverted lists, (L, D), and the codebook, (CODE_HALVES, 16, D / CODE_HALVES).

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
        self._dead = 0
        self._living_minutiae = 0
        self._subjects = 0
        centres, codebook = shipped_centres()
        quantizer = faiss.IndexFlatL2(DIMENSION)
        quantizer.add(centres)
        self._quantizer = quantizer  # FAISS does not own it: keep it alive
        self._minutiae = faiss.IndexIVFPQFastScan(
            quantizer, DIMENSION, centres.shape[0], CODE_HALVES, 4, faiss.METRIC_L2, _BLOCK
        )
        # One table of distances a probe minutia instead of one for each list it visits.
        self._minutiae.by_residual = False
        faiss.copy_array_to_vector(codebook.ravel(), self._minutiae.pq.centroids)
        self._minutiae.is_trained = True

    def __len__(self) -> int:
        """Number of living references."""
        return self.rows - self._dead

    def __contains__(self, subject_id: str) -> bool:
        return bool(self.rows_of(subject_id))

    @property
    def rows(self) -> int:
        """Number of rows, dead ones included."""
        return int(self._starts.view.shape[0]) - 1

    @property
    def dead(self) -> int:
        return self._dead

    @property
    def subjects(self) -> int:
        return self._subjects

    @property
    def minutiae(self) -> int:
        return int(self._starts.view[-1])

    def rows_of(self, subject_id: str) -> Sequence[int]:
        """The living rows of a subject in their order, none if there is no such subject."""
        number = self._names.number(subject_id)
        found: list[int] = []
        row = int(self._latest.view[number]) if number >= 0 else -1
        while row >= 0:
            found.append(row)
            row = int(self._earlier.view[row])
        return found[::-1]

    def rows_of_numbers(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The living rows of subjects by their numbers, rising."""
        rows = []
        for number in numbers.tolist():
            row = int(self._latest.view[number])
            while row >= 0:
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

    def add(self, subject_id: str, templates: Sequence[PackedTemplate], sequence: int) -> None:
        """Append the references of one subject; those it already has stay."""
        number = self._names.number(subject_id)
        if number < 0:
            number = self._names.append(subject_id)
            self._latest.extend(np.full(1, -1))
        if self._latest.view[number] < 0:
            self._subjects += 1
        for template in templates:
            row = self.rows
            geometry = packed_geometry(template.x, template.y, template.angle, template.kind)
            ids = (np.int64(row) << _ROW_SHIFT) | (geometry >> 4).astype(np.int64)
            self._minutiae.add_with_ids(template.descriptors.astype(np.float32), ids)
            self._geometry.extend(geometry)
            self._subject_of.extend(np.array([number]))
            self._position.extend(np.array([int(template.position)], dtype=np.uint8))
            self._sequence.extend(np.array([sequence]))
            self._alive.extend(np.ones(1, dtype=np.bool_))
            self._earlier.extend(np.array([self._latest.view[number]]))
            self._latest.view[number] = row
            self._starts.extend(np.array([self._starts.view[-1] + len(template)]))
            self._living_minutiae += len(template)

    def withdraw(self, subject_id: str) -> int:
        """Mark the subject's rows dead; how many there were."""
        rows = self.rows_of(subject_id)
        if rows:
            self._alive.view[rows] = False
            starts = self._starts.view
            self._living_minutiae -= sum(int(starts[row + 1] - starts[row]) for row in rows)
            self._latest.view[self._names.number(subject_id)] = -1
            self._dead += len(rows)
            self._subjects -= 1
        return len(rows)

    def lists_holding(self, minutiae: int) -> int:
        """How many inverted lists hold so many living minutiae on average, an eighth at most."""
        lists = int(self._minutiae.nlist)
        return min(-(-minutiae * lists // max(self._living_minutiae, 1)), lists // 8)

    def nearest(
        self, descriptors: NDArray[np.int8], k: int, lists: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The nearest minutiae of each probe minutia.

        Args:
            descriptors: (M, D) int8.
            k: how many at most.
            lists: inverted lists visited per minutia.

        Returns:
            Squared distances to their codes, (M, k) float32, infinite where there are fewer or
            their row is dead; and the minutiae's ids for :meth:`hits`, (M, k) int64, -1 at the same
            places. Entries as far as the k-th are left out, since which of equals is kept would
            depend on the order they were added in.
        """
        k = min(k, int(self._minutiae.ntotal))
        parameters = faiss.SearchParametersIVF()
        parameters.nprobe = lists
        distances, ids = self._minutiae.search(descriptors.astype(np.float32), k, params=parameters)
        full = ids[:, -1] >= 0
        cut = full[:, None] & (distances >= distances[:, -1:]) & (k < self._minutiae.ntotal)
        ids[cut] = -1
        ids[(ids >= 0) & ~self._alive.view[ids >> _ROW_SHIFT]] = -1
        return np.where(ids >= 0, distances, np.inf).astype(np.float32), ids

    def hits(
        self, ids: NDArray[np.int64], shares: NDArray[np.float64], probe: PackedTemplate
    ) -> Hits:
        """What :meth:`nearest` found, by row and in an order that depends on nothing but content.

        Args:
            ids, shares: (M, k), by probe minutia.
        """
        finder, place = np.nonzero(ids >= 0)
        keys = (ids[finder, place] << 7) | finder  # a template has at most 128 minutiae
        order = np.argsort(keys)
        found, finder = keys[order] >> 7, finder[order]
        angle = found & 255
        turn = angle.astype(np.float64) - probe.angle[finder].astype(np.float64)
        return Hits(
            row=found >> _ROW_SHIFT,
            probe=finder,
            x=((found >> 18) & 1023).astype(np.float32),
            y=((found >> 8) & 1023).astype(np.float32),
            turn=turn * (math.pi / 128.0),
            share=shares[finder, place[order]],
        )

    def packed_of(self, row: int, describe: Describe) -> PackedTemplate:
        """One row as it was added."""
        geometry, starts = self.geometry
        part = geometry[int(starts[row]) : int(starts[row + 1])]
        x, y = (np.empty(part.shape[0], dtype=np.int16) for _ in range(2))
        angle, kind = (np.empty(part.shape[0], dtype=np.uint8) for _ in range(2))
        kernels_fast.unpacked(part, x, y, angle, kind)
        return packed_from(x, y, angle, kind, FingerPosition(int(self.positions[row])), describe)

    # --- as arrays -----------------------------------------------------------------------------

    def compacted(self) -> ReferenceIndex:
        """The same living references in the same order, without the dead."""
        return ReferenceIndex.restored(self.saved())

    def catch_up(
        self, before: ReferenceIndex, rows: int, living: NDArray[np.bool_], describe: Describe
    ) -> None:
        """Repeat what happened to ``before`` since it was saved with ``rows`` rows.

        Args:
            living: (rows,) which of them lived then.
        """
        for row in np.flatnonzero(living & ~before.alive[:rows]).tolist():
            self.withdraw(before.subject_id(row))
        for row in (rows + np.flatnonzero(before.alive[rows:])).tolist():
            template = before.packed_of(row, describe)
            self.add(before.subject_id(row), [template], int(before.sequences[row]))

    def saved(self) -> dict[str, NDArray[Any]]:
        """Arrays from which :meth:`restored` builds the living references."""
        alive = self._alive.view
        new_rows = np.where(alive, np.cumsum(alive) - 1, -1)
        numbers, subject = np.unique(self._subject_of.view[alive], return_inverse=True)
        lengths = np.diff(self._starts.view)
        lists, codes, ids = self._living_lists(new_rows)
        return {
            "geometry": self._geometry.view[np.repeat(alive, lengths)],
            "lengths": lengths[alive].astype(np.uint8),
            "subject": subject.astype(np.int32),
            "position": self._position.view[alive],
            "sequence": self._sequence.view[alive],
            "list_lengths": lists,
            "codes": codes,
            "ids": ids,
            **self._names.saved(numbers.astype(np.int64)),
        }

    def _living_lists(
        self, new_rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
        """Lengths, packed codes and ids of all inverted lists, without the dead."""
        inverted: Any = self._minutiae.invlists
        sizes = [inverted.list_size(name) for name in range(inverted.nlist)]
        lengths = np.asarray(sizes, dtype=np.int64)
        blocks = -(-lengths // _BLOCK)
        codes = np.zeros((int(blocks.sum()), CODE_HALVES, 16), dtype=np.uint8)
        ids = np.empty(int(lengths.sum()), dtype=np.int64)
        block = entry = 0
        for name, size in enumerate(sizes):
            if size == 0:
                continue
            own_codes, own_ids = self._list(name, size)
            own_codes = own_codes.reshape(-1, CODE_HALVES, 16)
            if self._dead == 0:
                count = size
                codes[block : block + own_codes.shape[0]] = own_codes
                ids[entry : entry + count] = own_ids
            else:
                count = kernels_fast.living_codes(
                    own_codes, own_ids, new_rows, codes[block:], ids[entry:]
                )
            lengths[name] = count
            block, entry = block - (-count // _BLOCK), entry + count
        return lengths, codes[:block], ids[:entry]

    def _list(self, name: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """FAISS's own memory of one inverted list: packed codes, flat, and ids."""
        inverted: Any = self._minutiae.invlists
        code_bytes = -(-size // _BLOCK) * CODE_HALVES * 16
        codes: NDArray[np.uint8] = faiss.rev_swig_ptr(inverted.get_codes(name), code_bytes)
        ids: NDArray[np.int64] = faiss.rev_swig_ptr(inverted.get_ids(name), size)
        return codes, ids

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[Any]]) -> ReferenceIndex:
        """The index that :meth:`saved` these.

        Raises:
            KeyError, ValueError, IndexError: the arrays do not belong together.
        """
        index = cls()
        rows, subject = int(arrays["lengths"].shape[0]), arrays["subject"]
        index._names = SubjectTable.restored(arrays)
        index._subjects = len(index._names)
        minutiae = int(arrays["lengths"].sum(dtype=np.int64))
        if not (
            subject.shape[0] == arrays["position"].shape[0] == arrays["sequence"].shape[0] == rows
            and arrays["geometry"].shape[0] == arrays["ids"].shape[0] == minutiae
            and int(arrays["list_lengths"].sum()) == minutiae
        ):
            raise ValueError("the arrays differ in their number of references or minutiae")
        index._living_minutiae = minutiae
        index._geometry.extend(arrays["geometry"])
        index._starts.extend(np.cumsum(arrays["lengths"], dtype=np.int64))
        index._subject_of.extend(subject)
        index._position.extend(arrays["position"])
        index._sequence.extend(arrays["sequence"])
        index._alive.extend(np.ones(rows, dtype=np.bool_))
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
        index._fill(arrays["list_lengths"], arrays["codes"], arrays["ids"])
        return index

    def _fill(
        self, lengths: NDArray[np.int64], codes: NDArray[np.uint8], ids: NDArray[np.int64]
    ) -> None:
        inverted: Any = self._minutiae.invlists
        if lengths.shape[0] != inverted.nlist:
            raise ValueError(f"{lengths.shape[0]} inverted lists, expected {inverted.nlist}")
        block = entry = 0
        for name, size in enumerate(lengths.tolist()):
            if size:
                inverted.resize(name, size)
                own_codes, own_ids = self._list(name, size)
                count = -(-size // _BLOCK)
                own_codes[:] = codes[block : block + count].reshape(-1)
                own_ids[:] = ids[entry : entry + size]
                block, entry = block + count, entry + size
        self._minutiae.ntotal = entry
