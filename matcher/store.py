"""Packed templates in full, for comparing many with many: calibration and benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from matcher.compare import PackedTemplate
from matcher.growing import Growing


class TemplateStore:
    """Packed templates one after the other, in the layout the compiled kernels read."""

    def __init__(self, dimension: int) -> None:
        self._x = Growing(np.int16)
        self._y = Growing(np.int16)
        self._angle = Growing(np.uint8)
        self._kind = Growing(np.uint8)
        self._descriptors = Growing(np.int8, dimension)
        self._hull = Growing(np.uint8)
        self._starts = Growing(np.int64)
        self._hull_starts = Growing(np.int64)
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
