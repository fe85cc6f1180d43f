"""Measured comparison -> evidence -> similarity: how often would a stranger look this alike?

Three steps, all fixed data of ``data/calibration-*.json`` and none of them learned from a gallery:

* *evidence* is a log-likelihood ratio in nats, a logistic model of what :mod:`matcher.kernels`
  measured (:func:`summary`);
* *similarity* is ``-log10`` of the false match rate (FMR) at that evidence: the share of non-mated
  comparisons with at least as much. Within the data it is read from their quantiles; beyond them
  the logarithm of the survival function goes on as a straight line, which is how log-likelihood
  ratios of non-mates fall off (their expected likelihood ratio is one);
* *fusion* adds the evidence of several fingers and calibrates the sum again, by convolving the
  non-mated distribution with itself, once per finger. Evidence against a match is cut at a floor:
  one bad capture is weak evidence that two persons differ, since genuine comparisons fail too.

References: Neyman-Pearson fusion of likelihood ratios after Nandakumar, Chen, Dass and Jain 2008;
exponential tail after Pickands 1975 with shape 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matcher.kernels import FEATURES

CALIBRATION_VERSION = "calibration-3"
EVIDENCE_FLOOR = -1.0
"""Nats. Floors from -3 to 0 decide pairs of real fingers alike (RESULTS.md); lower ones let a few
failed captures outweigh a certain finger: with nine of ten failed, 8.0 becomes 5.0 at -2."""
_GRID_NATS = 0.05
_GRID_TOP = 80.0
_LN10 = math.log(10.0)

_COLUMN = {name: column for column, name in enumerate(FEATURES)}
SUMMARY = (
    "evidence",
    "evidence_log",
    "supported_log",
    "likeness",
    "residual_px",
    "residual_angle",
    "same_kind",
    "rotation",
    "overlap_root",
    "paired_share",
    "paired_share_other",
    "support",
    "votes_share",
    "weight_share",
)
"""What the logistic model sees, in order; see :func:`summary`."""


def summary(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inputs of the logistic model, (R, len(SUMMARY)) float64, from (R, len(FEATURES))."""

    def column(name: str) -> NDArray[np.float64]:
        values: NDArray[np.float64] = features[:, _COLUMN[name]]
        return values

    pairs = column("pairs")
    overlaps = column("overlap_probe"), column("overlap_reference")
    minutiae = np.maximum(np.minimum(column("minutiae_probe"), column("minutiae_reference")), 1.0)
    return np.stack(
        (
            column("evidence"),
            np.log1p(column("evidence")),
            np.log1p(column("supported_evidence")),
            column("likeness"),
            column("residual_px"),
            column("residual_angle"),
            column("same_kind"),
            column("rotation"),
            np.sqrt(np.minimum(*overlaps)),
            pairs / np.maximum(np.minimum(*overlaps), 3.0),
            pairs / np.maximum(np.maximum(*overlaps), 3.0),
            column("support"),
            column("votes") / minutiae,
            column("mate_weight") / minutiae,
        ),
        axis=1,
    )


@dataclass(frozen=True, eq=False)
class Calibration:
    """Evidence and its meaning. Build it with :func:`shipped_calibration`.

    Attributes:
        weights, bias: the logistic model over :func:`summary`.
        evidence_knots: (K,) float64, rising, nats.
        similarity_knots: (K,) float64, not falling: -log10 FMR at the knots; the first is 0.
        tail_slope: rise of similarity per nat beyond the last knot.
        version: name of the file this came from.
    """

    weights: NDArray[np.float64]
    bias: float
    evidence_knots: NDArray[np.float64]
    similarity_knots: NDArray[np.float64]
    tail_slope: float
    version: str = CALIBRATION_VERSION
    _fused: dict[int, NDArray[np.float64]] = field(default_factory=dict, repr=False)

    def evidence(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evidence in nats, (R,) float64, of (R, len(FEATURES)) measurements.

        Without a single pair there is nothing in favour of a match: ``-inf``.
        """
        # Row by row and in a fixed order: a product with BLAS would depend on the batch.
        values = np.full(features.shape[0], self.bias)
        inputs = summary(features)
        for column, weight in enumerate(self.weights):
            values += weight * inputs[:, column]
        return np.where(features[:, _COLUMN["pairs"]] > 0, values, -np.inf)

    def similarity(self, evidence: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """``-log10`` FMR of one comparison; ``-inf`` stays ``-inf``."""
        last = self.evidence_knots[-1]
        inside = np.interp(evidence, self.evidence_knots, self.similarity_knots)
        beyond = np.maximum(evidence - last, 0.0) * self.tail_slope
        return np.where(np.isneginf(evidence), -np.inf, inside + beyond)

    def evidence_at(self, similarity: float) -> float:
        """The evidence at which a single comparison has this similarity."""
        last = float(self.similarity_knots[-1])
        if similarity > last:
            return float(self.evidence_knots[-1]) + (similarity - last) / self.tail_slope
        return float(np.interp(similarity, self.similarity_knots, self.evidence_knots))

    def fuse(self, similarities: Iterable[float]) -> float:
        """The similarity of several fingers together; ``-inf`` entries were not compared.

        One finger fuses to itself. Adding a finger that speaks neither way costs a little, since
        with more fingers chance has more to try; it never undoes a strong one.
        """
        compared = sorted(value for value in similarities if value != -math.inf)
        if not compared:
            return -math.inf
        if len(compared) == 1:
            return float(compared[0])
        total = math.fsum(max(self.evidence_at(value), EVIDENCE_FLOOR) for value in compared)
        table = self._fused_table(len(compared))
        place: float = (total - EVIDENCE_FLOOR * len(compared)) / _GRID_NATS
        if place >= table.shape[0] - 1:
            beyond = (place - (table.shape[0] - 1)) * _GRID_NATS
            return float(table[-1] + beyond * self.tail_slope)
        return float(np.interp(place, np.arange(table.shape[0]), table))

    def _fused_table(self, fingers: int) -> NDArray[np.float64]:
        """-log10 survival of the sum over fingers, from ``fingers * EVIDENCE_FLOOR`` upwards."""
        table = self._fused.get(fingers)
        if table is None:
            edges = EVIDENCE_FLOOR + _GRID_NATS * np.arange(int(_GRID_TOP / _GRID_NATS) + 1)
            survival = 10.0 ** -self.similarity(edges)
            survival[0] = 1.0
            # Mass lies at the upper edge of its bin: rounding never makes a stranger rarer.
            mass = np.concatenate(([0.0], survival[:-1] - survival[1:]))
            total = mass
            for _ in range(fingers - 1):
                total = np.convolve(total, mass)
            reach = int(_GRID_TOP / _GRID_NATS)
            tail = np.cumsum(total[::-1])[::-1][: reach + 1]
            table = -np.log10(np.minimum(tail, 1.0))
            self._fused[fingers] = table
        return table


def threshold_for_fmr(fmr: float) -> float:
    """The similarity at which non-mated comparisons are accepted with rate ``fmr``.

    Raises:
        ValueError: not within (0, 1].
    """
    if not 0.0 < fmr <= 1.0:
        raise ValueError(f"FMR {fmr} is not within (0, 1]")
    return -math.log10(fmr)


EVERYBODY = 64
"""Among so few everybody is compared: as many chances as subjects."""
SEARCH_CHANCES, SEARCH_POWER = 2.0, 0.37
"""A stranger has as many chances in a search as in ``2 n ** 0.37`` comparisons drawn at random."""


def threshold_for_fpir(fpir: float, gallery_subjects: int) -> float:
    """The similarity at which a search among strangers returns anybody with rate ``fpir``.

    A search compares in full only with those who got most votes, so a stranger's best similarity
    grows far slower than with one chance for each subject: by 0.36 from one size to ten times that.
    :data:`SEARCH_CHANCES` and :data:`SEARCH_POWER` describe the median best similarity of 300
    synthetic strangers among 2,000 to 3,000,000 within a tenth; ``benchmarks.growth`` shows what
    becomes of the rate with other strangers. Among :data:`EVERYBODY` the union bound holds.

    Raises:
        ValueError: ``fpir`` not within (0, 1], or a negative gallery.
    """
    if not 0.0 < fpir <= 1.0:
        raise ValueError(f"FPIR {fpir} is not within (0, 1]")
    if gallery_subjects < 0:
        raise ValueError(f"a gallery of {gallery_subjects} subjects")
    subjects = max(gallery_subjects, 1)
    chances = subjects
    if subjects > EVERYBODY:
        chances = max(EVERYBODY, SEARCH_CHANCES * subjects**SEARCH_POWER)
    return -math.log10(fpir / chances)


@lru_cache(maxsize=1)
def shipped_calibration() -> Calibration:
    """The calibration that comes with the package."""
    source = resources.files("matcher") / "data" / f"{CALIBRATION_VERSION}.json"
    content = json.loads(source.read_text())
    if content["summary"] != list(SUMMARY):
        raise ValueError(f"{CALIBRATION_VERSION} was made for other inputs than this code measures")
    return Calibration(
        weights=np.asarray(content["weights"], dtype=np.float64),
        bias=float(content["bias"]),
        evidence_knots=np.asarray(content["evidence_knots"], dtype=np.float64),
        similarity_knots=np.asarray(content["similarity_knots"], dtype=np.float64),
        tail_slope=float(content["tail_slope"]),
        version=content["version"],
    )
