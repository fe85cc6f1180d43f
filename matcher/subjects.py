"""Subject ids <-> subject numbers, in some twenty bytes beside the id itself.

Millions of Python strings in a dictionary would take a third of the memory of their fingers. Ids
lie one after the other in one array; they are found by a 64-bit hash in a sorted array, and
compared in full. The latest ones wait in a dictionary until there are enough to be sorted in.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matcher.growing import Growing

_FOLDED_AT = 65536


class SubjectTable:
    """Numbers ids in the order they came, from 0. Nothing is forgotten."""

    ARRAYS = ("names", "name_ends", "hashes", "hash_numbers")
    """What :meth:`saved` gives, in its order."""

    def __init__(self) -> None:
        self._names = Growing(np.uint8)
        self._ends = Growing(np.int64)
        # One attribute, so that who reads while ids are sorted in sees both old or both new.
        self._sorted: tuple[NDArray[np.uint64], NDArray[np.uint32]] = (
            np.empty(0, dtype=np.uint64),
            np.empty(0, dtype=np.uint32),
        )
        self._recent: dict[str, int] = {}

    def __len__(self) -> int:
        return int(self._ends.view.shape[0])

    def number(self, subject_id: str) -> int:
        """The number of an id, -1 when it has none."""
        recent = self._recent.get(subject_id)
        if recent is not None:
            return recent
        hashes, numbers = self._sorted
        key = np.uint64(_hash(subject_id))
        place = int(np.searchsorted(hashes, key))
        while place < hashes.shape[0] and hashes[place] == key:
            number = int(numbers[place])
            if self.name(number) == subject_id:
                return number
            place += 1
        return -1

    def name(self, number: int) -> str:
        ends = self._ends.view
        start = int(ends[number - 1]) if number else 0
        return bytes(self._names.view[start : int(ends[number])]).decode("utf-8", "surrogatepass")

    def append(self, subject_id: str) -> int:
        """Give an id that has no number the next one."""
        encoded = subject_id.encode("utf-8", "surrogatepass")
        self._names.extend(np.frombuffer(encoded, dtype=np.uint8))
        self._ends.extend(np.array([self._names.view.shape[0]]))
        number = len(self) - 1
        self._recent[subject_id] = number
        if len(self._recent) >= _FOLDED_AT:
            self._fold()
        return number

    def saved(self, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Arrays from which :meth:`restored` makes a table of these numbers, in their order."""
        ends = self._ends.view
        starts = np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1]))
        lengths = (ends - starts)[numbers] if len(self) else np.empty(0, dtype=np.int64)
        offset = np.repeat(starts[numbers] - np.cumsum(lengths) + lengths, lengths)
        names = self._names.view[offset + np.arange(offset.shape[0])]
        new = np.full(len(self), -1, dtype=np.int64)
        new[numbers] = np.arange(numbers.shape[0])
        self._fold()
        hashes, old = self._sorted
        known = new[old]
        return {
            "names": names,
            "name_ends": np.cumsum(lengths),
            "hashes": hashes[known >= 0],
            "hash_numbers": known[known >= 0].astype(np.uint32),
        }

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[Any]]) -> SubjectTable:
        """The table that :meth:`saved` these.

        Raises:
            KeyError, ValueError: the arrays do not belong together.
        """
        table = cls()
        table._names.extend(arrays["names"])
        table._ends.extend(arrays["name_ends"])
        hashes = arrays["hashes"].astype(np.uint64)
        numbers = arrays["hash_numbers"].astype(np.uint32)
        table._sorted = hashes, numbers
        if not hashes.shape == numbers.shape == table._ends.view.shape:
            raise ValueError("as many hashes as names are expected")
        return table

    def _fold(self) -> None:
        """Sort the recent ids in."""
        if not self._recent:
            return
        hashes = np.array([_hash(name) for name in self._recent], dtype=np.uint64)
        numbers = np.array(list(self._recent.values()), dtype=np.uint32)
        hashes = np.concatenate((self._sorted[0], hashes))
        numbers = np.concatenate((self._sorted[1], numbers))
        order = np.lexsort((numbers, hashes))
        self._sorted = hashes[order], numbers[order]
        self._recent = {}


def _hash(subject_id: str) -> int:
    digest = blake2b(subject_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
