"""Owns what is enrolled: packed templates, who they belong to, and the FAISS index over minutiae.

A *row* is one reference (one finger view); rows are numbered in the order they came and never move
until :meth:`ReferenceIndex.compacted`. Withdrawing marks rows dead, which takes effect at once.

FAISS holds every minutia's descriptor in inverted lists around fixed centres that ship with the
package; nothing is trained on the gallery, so an index depends only on what is in it. Descriptors
are whole numbers and so are the centres: distances are exact in float32, in whatever order a CPU
adds them up.

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

from matcher.compare import PackedTemplate
from matcher.kernels import Hits
from matcher.types import FingerPosition

CENTRES_VERSION = "centres-1"
DESCRIPTOR_OFFSET = 128
"""Descriptors are int8, FAISS's direct 8-bit codes are unsigned."""
_FILED_AT_ONCE = 65536

# FAISS switches to BLAS only for large products; one probe's 40 minutiae against 1024 centres gain
# already (0.27 -> 0.12 ms with OPENBLAS_CORETYPE set, see README.md), and whole numbers come out
# the same either way.
# FAISS's threads spin while they wait: with them an enrolment cost 15 ms of CPU, without 2.
# Searches run in parallel with one another instead.
faiss.omp_set_num_threads(1)
faiss.cvar.distance_compute_blas_threshold = min(faiss.cvar.distance_compute_blas_threshold, 1000)


class _Growing:
    """An array that grows at its end by doubling; ``view`` is what is filled."""

    def __init__(self, dtype: type[np.generic], width: int | None = None) -> None:
        self._array: NDArray[Any] = np.empty((16,) if width is None else (16, width), dtype=dtype)
        self._length = 0

    def extend(self, values: NDArray[Any]) -> None:
        needed = self._length + values.shape[0]
        if needed > self._array.shape[0]:
            shape = (max(needed, 2 * self._array.shape[0]), *self._array.shape[1:])
            grown = np.empty(shape, dtype=self._array.dtype)
            grown[: self._length] = self._array[: self._length]
            self._array = grown
        self._array[self._length : needed] = values
        self._length = needed

    @property
    def view(self) -> NDArray[Any]:
        return self._array[: self._length]


class TemplateStore:
    """Packed templates one after the other, in the layout the compiled kernels read."""

    def __init__(self, dimension: int) -> None:
        self._x = _Growing(np.int16)
        self._y = _Growing(np.int16)
        self._angle = _Growing(np.uint8)
        self._kind = _Growing(np.uint8)
        self._descriptors = _Growing(np.int8, dimension)
        self._hull = _Growing(np.uint8)
        self._starts = _Growing(np.int64)
        self._hull_starts = _Growing(np.int64)
        self._starts.extend(np.zeros(1, dtype=np.int64))
        self._hull_starts.extend(np.zeros(1, dtype=np.int64))

    def __len__(self) -> int:
        return int(self._starts.view.shape[0]) - 1

    def append(self, template: PackedTemplate) -> int:
        """Add one template and return its row."""
        self._x.extend(template.x)
        self._y.extend(template.y)
        self._angle.extend(template.angle)
        self._kind.extend(template.kind)
        self._descriptors.extend(template.descriptors)
        self._hull.extend(template.hull)
        self._starts.extend(np.array([self._starts.view[-1] + len(template)]))
        self._hull_starts.extend(np.array([self._hull_starts.view[-1] + template.hull.shape[0]]))
        return len(self) - 1

    def extend(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add many templates at once, as :meth:`ReferenceIndex.saved` writes them."""
        minutiae, corners = int(arrays["lengths"].sum()), int(arrays["hull_lengths"].sum())
        for name in ("x", "y", "angle", "kind", "descriptors", "hull"):
            expected = corners if name == "hull" else minutiae
            if arrays[name].shape[0] != expected:
                raise ValueError(f"{arrays[name].shape[0]} entries in {name}, expected {expected}")
        self._starts.extend(self._starts.view[-1] + np.cumsum(arrays["lengths"]))
        self._hull_starts.extend(self._hull_starts.view[-1] + np.cumsum(arrays["hull_lengths"]))
        self._x.extend(arrays["x"])
        self._y.extend(arrays["y"])
        self._angle.extend(arrays["angle"])
        self._kind.extend(arrays["kind"])
        self._descriptors.extend(arrays["descriptors"])
        self._hull.extend(arrays["hull"])

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """x, y, angle, kind, descriptors, hull, starts, hull starts: views, not to be modified."""
        return (
            self._x.view,
            self._y.view,
            self._angle.view,
            self._kind.view,
            self._descriptors.view,
            self._hull.view,
            self._starts.view,
            self._hull_starts.view,
        )

    def template(self, row: int) -> PackedTemplate:
        """One row as it was appended, with minutiae numbered in canonical order."""
        x, y, angle, kind, descriptors, hull, starts, hull_starts = self.arrays()
        own = slice(int(starts[row]), int(starts[row + 1]))
        return PackedTemplate(
            x=x[own],
            y=y[own],
            angle=angle[own],
            kind=kind[own],
            descriptors=descriptors[own],
            hull=hull[int(hull_starts[row]) : int(hull_starts[row + 1])],
            rows=np.arange(own.stop - own.start),
            position=FingerPosition.UNKNOWN,
        )


@lru_cache(maxsize=1)
def shipped_centres() -> NDArray[np.uint8]:
    """Centres of the inverted lists, (L, D) uint8, offset like the codes."""
    source = resources.files("matcher") / "data" / f"{CENTRES_VERSION}.npz"
    with source.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return np.ascontiguousarray(arrays["centres"], dtype=np.uint8)


class ReferenceIndex:
    """Rows, their owners, and the minutia index over them."""

    def __init__(self, dimension: int) -> None:
        self.store = TemplateStore(dimension)
        self._dimension = dimension
        self._owner_row = _Growing(np.int32)  # of each minutia
        self._list = _Growing(np.uint16)  # of each minutia
        self._subject_of = _Growing(np.int64)
        self._position = _Growing(np.uint8)
        self._sequence = _Growing(np.int64)
        self._alive = _Growing(np.bool_)
        self._subject_ids: list[str] = []
        self._rows: dict[str, list[int]] = {}
        self._dead = 0
        centres = shipped_centres()
        quantizer = faiss.IndexFlatL2(dimension)
        quantizer.add(centres.astype(np.float32))
        self._quantizer = quantizer  # FAISS does not own it: keep it alive
        self._minutiae = faiss.IndexIVFScalarQuantizer(
            quantizer,
            dimension,
            centres.shape[0],
            faiss.ScalarQuantizer.QT_8bit_direct,
            faiss.METRIC_L2,
            False,
        )
        self._minutiae.is_trained = True

    def __len__(self) -> int:
        """Number of living references."""
        return len(self.store) - self._dead

    def __contains__(self, subject_id: str) -> bool:
        return subject_id in self._rows

    @property
    def dead(self) -> int:
        return self._dead

    @property
    def subjects(self) -> int:
        return len(self._rows)

    def rows_of(self, subject_id: str) -> Sequence[int]:
        """The living rows of a subject, none if there is no such subject."""
        return self._rows.get(subject_id, ())

    def subject_id(self, row: int) -> str:
        return self._subject_ids[int(self._subject_of.view[row])]

    @property
    def subject_numbers(self) -> NDArray[np.int64]:
        """(R,) int64: rows with equal numbers belong to one enrolment of a subject."""
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

    def added_after(self, sequence: int) -> NDArray[np.int64]:
        """Living rows that later changes than this brought."""
        # Rows come in the order of their changes.
        first = int(np.searchsorted(self.sequences, sequence, side="right"))
        return first + np.flatnonzero(self.alive[first:])

    def add(self, subject_id: str, templates: Sequence[PackedTemplate], sequence: int) -> None:
        """Append the references of one subject; those it already has stay."""
        rows = self._rows.get(subject_id)
        if rows is None:
            rows = self._rows[subject_id] = []
            self._subject_ids.append(subject_id)
            number = len(self._subject_ids) - 1
        else:
            number = int(self._subject_of.view[rows[0]])
        for template in templates:
            row = self.store.append(template)
            rows.append(row)
            self._subject_of.extend(np.array([number]))
            self._position.extend(np.array([int(template.position)], dtype=np.uint8))
            self._sequence.extend(np.array([sequence]))
            self._alive.extend(np.ones(1, dtype=np.bool_))
            self._owner_row.extend(np.full(len(template), row, dtype=np.int32))
            codes = _codes(template.descriptors)
            lists = self._quantizer.search(codes, 1)[1][:, 0]
            self._list.extend(lists.astype(np.uint16))
            self._file(codes, lists)

    def _file(self, codes: NDArray[np.float32], lists: NDArray[np.int64]) -> None:
        """Append minutiae to the inverted lists they belong to."""
        lists = np.ascontiguousarray(lists, dtype=np.int64)
        self._minutiae.add_core(codes.shape[0], faiss.swig_ptr(codes), None, faiss.swig_ptr(lists))

    def withdraw(self, subject_id: str) -> int:
        """Mark the subject's rows dead; how many there were."""
        rows = self._rows.pop(subject_id, [])
        for row in rows:
            self._alive.view[row] = False
        self._dead += len(rows)
        return len(rows)

    def nearest(
        self, descriptors: NDArray[np.int8], k: int, lists: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The nearest minutiae of each probe minutia.

        Args:
            descriptors: (M, D) int8.
            k: how many at most.
            lists: inverted lists visited per minutia.

        Returns:
            Squared distances, (M, k) float32, whole numbers, infinite where there are fewer or
            their row is dead; and the minutiae's numbers, (M, k) int64, -1 at the same places.
            Entries as far as the k-th are left out, since which of equals is kept would depend on
            the order they were added in.
        """
        k = min(k, int(self._minutiae.ntotal))
        parameters = faiss.SearchParametersIVF()
        parameters.nprobe = lists
        distances, ids = self._minutiae.search(_codes(descriptors), k, params=parameters)
        full = ids[:, -1] >= 0
        cut = full[:, None] & (distances == distances[:, -1:]) & (k < self._minutiae.ntotal)
        ids[cut] = -1
        ids[(ids >= 0) & ~self._alive.view[self._owner_row.view[ids]]] = -1
        return np.where(ids >= 0, distances, np.inf).astype(np.float32), ids

    def hits(
        self, minutiae: NDArray[np.int64], shares: NDArray[np.float64], probe: PackedTemplate
    ) -> Hits:
        """What :meth:`nearest` found, by row and in an order that depends on nothing but content.

        Args:
            minutiae, shares: (M, k), by probe minutia.
        """
        finder, place = np.nonzero(minutiae >= 0)
        found = minutiae[finder, place]
        order = np.argsort(found * 256 + finder)  # a template has fewer than 256 minutiae
        finder, found = finder[order], found[order]
        x, y, angle = self.store.arrays()[:3]
        turn = angle[found].astype(np.float64) - probe.angle[finder].astype(np.float64)
        return Hits(
            row=self._owner_row.view[found].astype(np.int64),
            probe=finder,
            x=x[found].astype(np.float32),
            y=y[found].astype(np.float32),
            turn=turn * (math.pi / 128.0),
            share=shares[finder, place[order]],
        )

    def packed_of(self, row: int) -> PackedTemplate:
        """One row as a packed template with its position."""
        template = self.store.template(row)
        return PackedTemplate(
            x=template.x,
            y=template.y,
            angle=template.angle,
            kind=template.kind,
            descriptors=template.descriptors,
            hull=template.hull,
            rows=template.rows,
            position=FingerPosition(int(self._position.view[row])),
        )

    def compacted(self) -> ReferenceIndex:
        """The same living references in the same order, without the dead."""
        return ReferenceIndex.restored(self._dimension, *self.saved())

    def saved(self) -> tuple[list[str], dict[str, NDArray[Any]]]:
        """Subject ids and arrays from which :meth:`restored` builds the living references."""
        alive = self._alive.view
        x, y, angle, kind, descriptors, hull, starts, hull_starts = self.store.arrays()
        minutiae = np.repeat(alive, np.diff(starts))
        hulls = np.repeat(alive, np.diff(hull_starts))
        numbers, subject = np.unique(self._subject_of.view[alive], return_inverse=True)
        return [self._subject_ids[number] for number in numbers], {
            "x": x[minutiae],
            "y": y[minutiae],
            "angle": angle[minutiae],
            "kind": kind[minutiae],
            "descriptors": descriptors[minutiae],
            "list": self._list.view[minutiae],
            "hull": hull[hulls],
            "lengths": np.diff(starts)[alive],
            "hull_lengths": np.diff(hull_starts)[alive],
            "subject": subject.astype(np.int64),
            "position": self._position.view[alive],
            "sequence": self._sequence.view[alive],
        }

    @classmethod
    def restored(
        cls, dimension: int, subject_ids: Sequence[str], arrays: Mapping[str, NDArray[Any]]
    ) -> ReferenceIndex:
        """The index that :meth:`saved` these.

        Raises:
            KeyError, ValueError, IndexError: the arrays do not belong together.
        """
        index = cls(dimension)
        index.store.extend(arrays)
        index._subject_ids = list(subject_ids)
        index._subject_of.extend(arrays["subject"])
        index._position.extend(arrays["position"])
        index._sequence.extend(arrays["sequence"])
        index._list.extend(arrays["list"])
        rows = len(index.store)
        index._alive.extend(np.ones(rows, dtype=np.bool_))
        index._owner_row.extend(np.repeat(np.arange(rows, dtype=np.int32), arrays["lengths"]))
        if not (len(index._subject_of.view) == len(index._position.view) == rows):
            raise ValueError("the arrays differ in their number of references")
        for row, number in enumerate(arrays["subject"]):
            index._rows.setdefault(index._subject_ids[int(number)], []).append(row)
        for start in range(0, arrays["descriptors"].shape[0], _FILED_AT_ONCE):
            part = slice(start, start + _FILED_AT_ONCE)
            index._file(_codes(arrays["descriptors"][part]), arrays["list"][part])
        return index


def _codes(descriptors: NDArray[np.int8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(descriptors, dtype=np.float32) + np.float32(DESCRIPTOR_OFFSET)
