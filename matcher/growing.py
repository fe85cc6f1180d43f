"""Arrays that grow at their end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Growing:
    """An array that grows at its end by an eighth or more; ``view`` is what is filled.

    A view stays valid, and as it was, when the array grows.
    """

    def __init__(self, dtype: type[np.generic], width: int | None = None) -> None:
        self._array: NDArray[Any] = np.empty((16,) if width is None else (16, width), dtype=dtype)
        self._length = 0

    def extend(self, values: NDArray[Any]) -> None:
        needed = self._length + values.shape[0]
        if needed > self._array.shape[0]:
            length = self._array.shape[0]
            self.reserve(max(needed, length + max(length // 8, 1024) if self._length else needed))
        self._array[self._length : needed] = values
        self._length = needed

    def reserve(self, length: int) -> None:
        """Make room for so many entries in all, and no more."""
        if length > self._array.shape[0]:
            grown = np.empty((length, *self._array.shape[1:]), dtype=self._array.dtype)
            grown[: self._length] = self._array[: self._length]
            self._array = grown

    @property
    def view(self) -> NDArray[Any]:
        return self._array[: self._length]
