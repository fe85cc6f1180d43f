"""Templates of different extractors compared: ``python -m benchmarks.pairings DIR DIR ...``.

Each DIR holds the same images as seen by one extractor, ``<set>/<finger>_<impression>.iso``. For
every pairing of extractors, all pairs of different impressions: of one finger, mated, and of
different fingers of a set, non-mated. The last columns say whether a similarity keeps its promise
whoever wrote the templates: the false match rate observed at the thresholds for 1e-2 and 1e-3.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from rich.table import Table

from benchmarks.accuracy import Sample, Scores, equal_error_rate, fnmr_at, read_set
from benchmarks.common import environment, wide_console, write_json
from matcher import kernels_fast
from matcher.calibration import shipped_calibration
from matcher.compare import PARAMETERS
from matcher.descriptor import shipped_model
from matcher.kernels import DIMENSION, FEATURES
from matcher.store import TemplateStore

FMRS = (1e-2, 1e-3)


def compared(first: Sequence[Sample], second: Sequence[Sample]) -> tuple[Scores, Scores]:
    """Similarities of mated and of non-mated pairs across two extractors (or within one)."""
    calibration, model = shipped_calibration(), shipped_model()
    store = TemplateStore(DIMENSION)
    for sample in second:
        store.append(sample.packed)
    fingers = np.array([sample.finger for sample in second])
    impressions = np.array([sample.impression for sample in second])
    mated, non_mated = [np.empty(0)], [np.empty(0)]
    for sample in first:
        # Each pair of impressions once within an extractor, both ways across two.
        later = impressions > sample.impression if first is second else True
        same = fingers == sample.finger
        others = np.flatnonzero(
            np.where(same, (impressions != sample.impression) & later, fingers > sample.finger)
        )
        features = np.zeros((others.shape[0], len(FEATURES)))
        kernels_fast.compare_rows(
            *sample.packed.arrays(), *store.arrays(), others, model.scale, PARAMETERS, features
        )
        similarities = np.maximum(calibration.similarity(calibration.evidence(features)), 0.0)
        mated.append(similarities[same[others]])
        non_mated.append(similarities[~same[others]])
    return np.concatenate(mated), np.concatenate(non_mated)


def main() -> None:
    parser = argparse.ArgumentParser(description="Error rates across extractors.")
    parser.add_argument("directories", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, help="write the report here as well")
    arguments = parser.parse_args()
    extractors = {
        directory.name: {folder.name: read_set(folder)[0] for folder in sorted(directory.iterdir())}
        for directory in arguments.directories
    }
    # Sets that every extractor has.
    sets = sorted(set.intersection(*(set(samples) for samples in extractors.values())))
    console = wide_console()
    table = Table(title=f"across extractors, %; sets {', '.join(sets)}")
    headings = ("EER", "FNMR@1e-2", "@1e-3", "FMR at 1e-2", "at 1e-3", "mated", "non-mated")
    table.add_column("probe, reference")
    for heading in headings:
        table.add_column(heading, justify="right")
    report: dict[str, Any] = {}
    pairings = list(itertools.combinations_with_replacement(extractors, 2))
    for one, other in track(pairings, "comparing", console=console, transient=True):
        scores = [compared(extractors[one][name], extractors[other][name]) for name in sets]
        mated, non_mated = (np.concatenate(part) for part in zip(*scores, strict=True))
        observed = [float(np.mean(non_mated >= -math.log10(fmr))) for fmr in FMRS]
        errors = [equal_error_rate(mated, non_mated)]
        errors += [fnmr_at(mated, non_mated, fmr) for fmr in FMRS]
        report[f"{one}, {other}"] = {
            "eer": errors[0],
            **{f"fnmr_at_fmr_{fmr:g}": value for fmr, value in zip(FMRS, errors[1:], strict=True)},
            **{f"fmr_at_threshold_{fmr:g}": v for fmr, v in zip(FMRS, observed, strict=True)},
            "mated": int(mated.shape[0]),
            "non_mated": int(non_mated.shape[0]),
        }
        table.add_row(
            f"{one}, {other}",
            *("-" if value is None else f"{100 * value:.2f}" for value in errors),
            *(f"{100 * value:.3f}" for value in observed),
            str(mated.shape[0]),
            str(non_mated.shape[0]),
        )
    console.print(table)
    if arguments.json:
        write_json(arguments.json, {"environment": environment(), "pairings": report})


if __name__ == "__main__":
    main()
