"""Minutiae -> descriptors: short integer vectors that are close for the same minutia of a finger.

The neighbourhood of a minutia (:func:`matcher.kernels.neighbourhoods`) goes through a two-layer
network whose weights ship with the package. They were learned from mated minutiae of the synthetic
population, never from people (``matcher/train_descriptor.py`` is the command). Descriptors are
rounded to whole numbers, so that every sum over them is exact and a comparison does not depend on
the order in which a machine adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from matcher import kernels_fast

DESCRIPTOR_VERSION = "descriptor-1"
_QUANTUM = np.float32(254.0)
"""Length of a descriptor before rounding: components of 64-d unit vectors stay inside int8."""


LIKENESS_NATS = 8.0
"""Evidence between a descriptor and its equal. Training ends near 20, which real prints do not bear
out: 6 to 8 did best on them, 11 and 14 worse (``benchmarks/RESULTS.md``)."""


@dataclass(frozen=True, eq=False)
class DescriptorModel:
    """The weights of the network, read once.

    Attributes:
        w1, b1: (H, F), (H,) float32, neighbourhood to hidden layer.
        w2, b2: (D, H), (D,) float32, hidden layer to descriptor.
        scale: evidence (nats, up to a constant) of one unit of the integer inner product.
    """

    w1: NDArray[np.float32]
    b1: NDArray[np.float32]
    w2: NDArray[np.float32]
    b2: NDArray[np.float32]
    scale: float

    @property
    def dimension(self) -> int:
        return int(self.w2.shape[0])

    @property
    def weights(self) -> tuple[NDArray[np.float32], ...]:
        """w1, b1, w2, b2 and the length of a descriptor, as the compiled kernels take them."""
        return (self.w1, self.b1, self.w2, self.b2, _QUANTUM)  # type: ignore[return-value]

    def describe(
        self, x: NDArray[np.float32], y: NDArray[np.float32], angle: NDArray[np.uint8]
    ) -> NDArray[np.int8]:
        """Descriptors of one template's minutiae, (M, D) int8.

        Args:
            x, y: (M,) float32, pixels at 500 ppi, y up.
            angle: (M,) uint8, 256 units a turn.
        """
        neighbours = kernels_fast.neighbourhoods(x, y, angle)
        described: NDArray[np.int8] = kernels_fast.describe(neighbours, *self.weights)
        return described


@lru_cache(maxsize=1)
def shipped_model() -> DescriptorModel:
    """The model that comes with the package."""
    source = resources.files("matcher") / "data" / f"{DESCRIPTOR_VERSION}.npz"
    with source.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return DescriptorModel(
            w1=_contiguous(arrays["w1"].T),
            b1=_contiguous(arrays["b1"]),
            w2=_contiguous(arrays["w2"].T),
            b2=_contiguous(arrays["b2"]),
            scale=LIKENESS_NATS / float(_QUANTUM) ** 2,
        )


def _contiguous(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(array, dtype=np.float32)
