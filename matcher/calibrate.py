"""Make ``data/calibration-*.json``: ``python -m matcher.calibrate DIR... --out FILE``.

Each DIR holds ``<set>/<finger>_<impression>.iso``. All mated and all cross-finger pairs within a
set are compared; the logistic model is fitted to both with equal weight, the quantiles and the
tail of the non-mated evidence are taken out of fold (each set is scored by a model fitted to the
others), so that the file does not flatter itself. Comparisons with templates that are no fingers
(random minutiae, rows, grids) join the fit as non-mated, so that nobody gains by presenting one.
Only figures about populations are written.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matcher import kernels_fast
from matcher.calibration import CALIBRATION_VERSION, SUMMARY, summary
from matcher.codec import decode
from matcher.compare import PARAMETERS, PackedTemplate, pack
from matcher.descriptor import shipped_model
from matcher.errors import MatcherError
from matcher.kernels import DIMENSION, FEATURES
from matcher.store import TemplateStore
from matcher.types import Template

RIDGE = 1e-3
TAIL_SHARE = 3e-3
"""The tail is fitted to the strongest non-mated comparisons, this share of them."""
KNOTS = 64
NO_FINGERS = 60

Summaries = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""(pairs, len(SUMMARY)) of mated, non-mated and no-finger comparisons of one set."""


def measured_sets(
    directory: Path,
) -> Iterator[tuple[str, *Summaries]]:
    """Name and summaries of each set's mated, non-mated and no-finger pairs."""
    model = shipped_model()
    fakes = [pack(fake, model, refuse_patterns=False) for fake in no_fingers(1, NO_FINGERS)]
    for folder in sorted({path.parent for path in directory.glob("**/*.iso")}):
        fingers: list[str] = []
        packed: list[PackedTemplate] = []
        for path in sorted(folder.glob("*.iso")):
            try:
                packed.append(pack(decode(path.read_bytes())[0], model))
            except MatcherError:
                continue
            fingers.append(path.stem.rpartition("_")[0])
        store = TemplateStore(DIMENSION)
        for template in packed:
            store.append(template)
        mated, non_mated = [], []
        for row, template in enumerate(packed):
            others = np.arange(row + 1, len(packed))
            features = measure_rows(template, store, others)
            same = np.array([fingers[other] == fingers[row] for other in others], dtype=np.bool_)
            mated.append(summary(features[same]))
            non_mated.append(summary(features[~same]))
        some = np.arange(0, len(packed), 4)
        fake = [summary(measure_rows(template, store, some)) for template in fakes]
        yield folder.name, np.concatenate(mated), np.concatenate(non_mated), np.concatenate(fake)


def no_fingers(seed: int, count: int) -> Iterator[Template]:
    """Templates no finger could have: random, aligned or gridded minutiae of any density."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        if number % 3 == 0:
            pitch = rng.uniform(11.0, 28.0, 2)
            x, y = (g.ravel() for g in np.meshgrid(*(np.arange(20.0, 300.0, p) for p in pitch)))
            x, y = x + rng.normal(0, 1.5, x.shape), y + rng.normal(0, 1.5, x.shape)
        else:
            x, y = rng.uniform((20.0, 20.0), (290.0, 350.0), (int(rng.integers(15, 250)), 2)).T
        angle = rng.uniform(0.0, math.tau, x.shape)
        if number % 2 == 0:  # one direction everywhere, give or take
            angle = angle[0] + rng.normal(0.0, 0.15, x.shape)
            angle += math.pi * (rng.random(x.shape) < rng.choice([0.0, 0.5]))
        yield Template(
            x=x.astype(np.float32),
            y=y.astype(np.float32),
            angle=np.mod(angle, math.tau).astype(np.float32),
            kind=np.full(x.shape, rng.integers(1, 3), dtype=np.uint8),
            quality=np.full(x.shape, 60, dtype=np.uint8),
            width=310,
            height=370,
        )


def measure_rows(
    probe: PackedTemplate, store: TemplateStore, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    features = np.zeros((rows.shape[0], len(FEATURES)))
    kernels_fast.compare_rows(
        *probe.arrays(), *store.arrays(), rows, shipped_model().scale, PARAMETERS, features
    )
    return features


def fit_logistic(
    mated: NDArray[np.float64], non_mated: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Weights and bias of the log-likelihood ratio, by Newton's method with a small ridge."""
    inputs = np.concatenate((mated, non_mated))
    centre, spread = inputs.mean(axis=0), inputs.std(axis=0) + 1e-9
    design = np.column_stack((np.ones(len(inputs)), (inputs - centre) / spread))
    target = np.concatenate((np.ones(len(mated)), np.zeros(len(non_mated))))
    weight = np.concatenate(
        (np.full(len(mated), 1.0 / len(mated)), np.full(len(non_mated), 1.0 / len(non_mated)))
    )
    ridge = np.full(design.shape[1], RIDGE)
    ridge[0] = 0.0
    solution = np.zeros(design.shape[1])

    def loss(at: NDArray[np.float64]) -> float:
        z = design @ at
        return float(weight @ (np.logaddexp(0.0, z) - target * z) + 0.5 * ridge @ (at * at))

    for _ in range(100):
        z = design @ solution
        p = 1.0 / (1.0 + np.exp(-np.clip(z, -500, 500)))
        gradient = design.T @ (weight * (p - target)) + ridge * solution
        curvature = (design * (weight * np.maximum(p * (1 - p), 1e-9))[:, None]).T @ design
        step = np.linalg.solve(curvature + np.diag(ridge + 1e-9), gradient)
        length, before = 1.0, loss(solution)
        while loss(solution - length * step) > before and length > 1e-4:
            length /= 2
        solution = solution - length * step
        if float(np.abs(step).max()) * length < 1e-6:
            break
    weights = solution[1:] / spread
    return weights, float(solution[0] - weights @ centre)


def fitted(sets: Sequence[Summaries]) -> tuple[NDArray[np.float64], float]:
    """:func:`fit_logistic` on several sets, what is no finger counting as non-mated."""
    return fit_logistic(
        np.concatenate([mated for mated, _, _ in sets]),
        np.concatenate([part for _, non_mated, fake in sets for part in (non_mated, fake)]),
    )


def null_distribution(
    evidence: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Knots of the non-mated evidence, their ``-log10`` survival, and the slope beyond."""
    rising = np.sort(evidence)
    count = len(rising)
    tail = max(int(count * TAIL_SHARE), 20)
    threshold = rising[-tail]
    slope = 1.0 / float(np.mean(rising[-tail:] - threshold)) / math.log(10.0)
    survivals = np.geomspace(1.0, tail / count, KNOTS)
    places = np.clip(np.round(count * (1.0 - survivals)).astype(np.int64), 0, count - tail)
    knots, first = np.unique(rising[places], return_index=True)
    return knots, -np.log10(survivals[first]), slope


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("directories", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    sets: dict[str, list[Summaries]] = {}
    for directory in arguments.directories:
        for name, mated, non_mated, fake in measured_sets(directory):
            print(f"{directory.name}/{name}: {len(mated)} mated, {len(non_mated)} non-mated")
            sets.setdefault(name, []).append((mated, non_mated, fake))
    everything = list(itertools.chain.from_iterable(sets.values()))
    weights, bias = fitted(everything)
    held_out = []
    for name, own in sets.items():
        others = [entry for other, entries in sets.items() if other != name for entry in entries]
        fold_weights, fold_bias = fitted(others or own)
        held_out += [non_mated @ fold_weights + fold_bias for _, non_mated, _ in own]
    knots, similarities, slope = null_distribution(np.concatenate(held_out))
    content = {
        "version": CALIBRATION_VERSION,
        "made_by": "python -m matcher.calibrate "
        + " ".join(directory.name for directory in arguments.directories),
        "mated": sum(len(mated) for mated, _, _ in everything),
        "non_mated": sum(len(non_mated) for _, non_mated, _ in everything),
        "summary": list(SUMMARY),
        "weights": [float(f"{weight:.9g}") for weight in weights],
        "bias": float(f"{bias:.9g}"),
        "evidence_knots": [round(float(value), 5) for value in knots],
        "similarity_knots": [round(float(value), 6) for value in similarities],
        "tail_slope": round(slope, 6),
    }
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    print(f"tail slope {slope:.3f} per nat (1/ln 10 = 0.434 for a perfect likelihood ratio)")


if __name__ == "__main__":
    main()
