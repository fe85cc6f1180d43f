"""Minutiae -> descriptors: short integer vectors that are close for the same minutia of a finger.

What a minutia sees around it (:func:`matcher.kernels.neighbour_cells`) goes through a two-layer
network whose weights ship with the package. They were learned from mated minutiae of the synthetic
population, never from people (``matcher/train_descriptor.py`` is the command). The network computes
in whole numbers, so a descriptor depends on nothing but the minutiae: not on the machine, not on
the order in which it adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matcher import kernels_fast
from matcher.kernels import DESCRIPTOR_LENGTH, Network

DESCRIPTOR_VERSION = "descriptor-2"

LIKENESS_NATS = 8.0
"""Evidence between a descriptor and its equal. Training ends near 20, which real prints do not bear
out: 6 to 8 did best on them, 11 and 14 worse (``benchmarks/RESULTS.md``)."""


@dataclass(frozen=True, eq=False)
class DescriptorModel:
    """The network, read once.

    Attributes:
        network: in whole numbers.
        scale: evidence (nats, up to a constant) of one unit of the integer inner product.
    """

    network: Network
    scale: float

    @cached_property
    def weights(self) -> tuple[Any, ...]:
        """The network as the compiled kernels take it."""
        n = self.network
        return (
            n.cells,
            n.places.astype(np.float32),
            n.bias.astype(np.float32),
            n.gain,
            n.last.astype(np.float32),
            n.last_bias.astype(np.float32),
        )

    def describe(
        self, x: NDArray[np.float32], y: NDArray[np.float32], angle: NDArray[np.uint8]
    ) -> NDArray[np.int8]:
        """Descriptors of one template's minutiae, (M, DIMENSION) int8.

        Args:
            x, y: (M,) float32, whole pixels at 500 ppi, y up.
            angle: (M,) uint8, 256 units a turn.
        """
        hull = kernels_fast.convex_hull(x, y).astype(np.uint8)
        described: NDArray[np.int8] = kernels_fast.describe(x, y, angle, hull, *self.weights)
        return described


@lru_cache(maxsize=1)
def shipped_model() -> DescriptorModel:
    """The model that comes with the package."""
    source = resources.files("matcher") / "data" / f"{DESCRIPTOR_VERSION}.npz"
    with source.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        network = Network(
            cells=arrays["cells"],
            places=arrays["places"],
            bias=arrays["bias"],
            gain=int(arrays["gain"]),
            last=arrays["last"],
            last_bias=arrays["last_bias"],
        )
    return DescriptorModel(network, LIKENESS_NATS / DESCRIPTOR_LENGTH**2)
