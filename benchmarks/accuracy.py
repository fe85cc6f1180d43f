"""How often does one finger look like another? ``python -m benchmarks.accuracy DIR [--json FILE]``.

DIR holds ``<set>/<finger>_<impression>.iso`` (or one set's files directly). Every impression is
compared with every other impression of its finger (mated pairs) and of the other fingers of its set
(non-mated pairs); comparisons are symmetric, so each pair counts once. Error rates follow
ISO/IEC 19795-1: a comparison is accepted when its similarity reaches the threshold; FNMR at an FMR
takes the lowest threshold whose FMR is not above it, and is left out (``null``) where there are too
few non-mated pairs to observe such a rate. A record that cannot be read or is too poor counts as a
failure to enrol (FTE) and takes no part in the rates, which are FMR and FNMR, not FAR and FRR.

Rank-1 and rank-10 take the lowest impression of every finger as the gallery and every other
impression as a probe: within its set for a set's figures, among all sets together for the pooled.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.common import environment, spread, wide_console, write_json
from matcher import kernels_fast
from matcher.calibration import CALIBRATION_VERSION, shipped_calibration
from matcher.codec import decode
from matcher.compare import PARAMETERS, PackedTemplate, pack
from matcher.descriptor import DESCRIPTOR_VERSION, shipped_model
from matcher.errors import MatcherError
from matcher.kernels import DIMENSION, FEATURES
from matcher.matcher import Matcher
from matcher.store import TemplateStore
from matcher.types import Template

FMR_POINTS = (1e-2, 1e-3, 1e-4)
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """One readable impression; ``finger`` is unique within its set."""

    finger: str
    impression: int
    template: Template
    packed: PackedTemplate


@dataclass
class SetResult:
    """What one set, or all of them together, gave."""

    samples: int = 0
    fingers: int = 0
    mated: list[Scores] = field(default_factory=list)
    non_mated: list[Scores] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)


def read_set(folder: Path) -> tuple[list[Sample], list[str]]:
    """The usable impressions of one set by finger and impression, and which failed and why."""
    samples, failures = [], []
    for path in folder.glob("*.iso"):
        finger, _, number = path.stem.rpartition("_")
        try:
            template = decode(path.read_bytes())[0]
            packed = pack(template, shipped_model())
        except MatcherError as error:
            failures.append(f"{folder.name}/{path.name}: {error}")
            continue
        impression = int(number) if number.isdigit() else 0
        samples.append(Sample(finger or path.stem, impression, template, packed))
    samples.sort(key=lambda sample: (sample.finger, sample.impression))
    return samples, sorted(failures)


def compare_set(
    samples: Sequence[Sample], advance: Any, rates: list[float]
) -> tuple[Scores, Scores]:
    """Similarities of all mated and of all cross-finger pairs; notes comparisons per second."""
    calibration, model = shipped_calibration(), shipped_model()
    store = TemplateStore(DIMENSION)
    for sample in samples:
        store.append(sample.packed)
    fingers = np.unique([sample.finger for sample in samples], return_inverse=True)[1]
    mated, non_mated = [], []
    for row, sample in enumerate(samples[:-1]):
        others = np.arange(row + 1, len(samples))
        features = np.zeros((others.shape[0], len(FEATURES)))
        start = perf_counter()
        kernels_fast.compare_rows(
            *sample.packed.arrays(), *store.arrays(), others, model.scale, PARAMETERS, features
        )
        similarities = calibration.similarity(calibration.evidence(features))
        rates.append(others.shape[0] / (perf_counter() - start))
        same = fingers[others] == fingers[row]
        mated.append(similarities[same])
        non_mated.append(similarities[~same])
        advance(others.shape[0])
    return np.concatenate(mated or [np.empty(0)]), np.concatenate(non_mated or [np.empty(0)])


def fnmr_at(mated: Scores, non_mated: Scores, fmr: float) -> float | None:
    """FNMR at the lowest threshold with at most this FMR; ``None`` when it cannot be observed."""
    allowed = math.floor(fmr * non_mated.shape[0] + 1e-9)
    if allowed < 1 or mated.shape[0] == 0:
        return None
    # Everything above the (allowed + 1)-th strongest stranger is accepted.
    bar = (
        np.partition(non_mated, -(allowed + 1))[-(allowed + 1)]
        if (allowed < non_mated.shape[0])
        else -np.inf
    )
    return float(np.mean(mated <= bar))


def equal_error_rate(mated: Scores, non_mated: Scores) -> float | None:
    """The rate where FMR and FNMR meet, halfway between the two nearest steps."""
    if mated.shape[0] == 0 or non_mated.shape[0] == 0:
        return None
    thresholds = np.unique(np.concatenate((mated, non_mated)))
    fnmr = np.searchsorted(np.sort(mated), thresholds, "left") / mated.shape[0]
    fmr = 1.0 - np.searchsorted(np.sort(non_mated), thresholds, "left") / non_mated.shape[0]
    nearest = int(np.argmin(np.abs(fnmr - fmr)))
    return float(fnmr[nearest] + fmr[nearest]) / 2.0


def summarised(result: SetResult) -> dict[str, Any]:
    mated = np.concatenate(result.mated or [np.empty(0)])
    non_mated = np.concatenate(result.non_mated or [np.empty(0)])
    summary: dict[str, Any] = {"eer": equal_error_rate(mated, non_mated)}
    for fmr in FMR_POINTS:
        summary[f"fnmr_at_fmr_1e-{round(-math.log10(fmr))}"] = fnmr_at(mated, non_mated, fmr)
    probes = len(result.ranks)
    for rank in (1, 10):
        found = sum(0 < value <= rank for value in result.ranks)
        summary[f"rank{rank}"] = found / probes if probes else None
    # How far the calibration's promise holds: FMR observed at thresholds for stated FMRs.
    for fmr in (1e-2, 1e-3):
        observed = float(np.mean(non_mated >= -math.log10(fmr))) if non_mated.size else None
        summary[f"fmr_at_threshold_for_1e-{round(-math.log10(fmr))}"] = observed
    summary["counts"] = {
        "samples": result.samples,
        "fingers": result.fingers,
        "mated": int(mated.shape[0]),
        "non_mated": int(non_mated.shape[0]),
        "failures_to_enrol": len(result.failures),
        "probes": probes,
    }
    return summary


def ranks_of_probes(sets: dict[str, list[Sample]], limit: int = 10) -> list[int]:
    """Search every impression but each finger's first among the first; 0 for not in the list."""
    matcher = Matcher.open(None)
    probes: list[tuple[str, Template]] = []
    seen: set[str] = set()
    for name, samples in sets.items():
        for sample in samples:
            subject = f"{name}/{sample.finger}"
            if subject in seen:
                probes.append((subject, sample.template))
            else:
                seen.add(subject)
                matcher.add(subject, [sample.template], len(seen))
    ranks = []
    for subject, template in probes:
        found = [c.subject_id for c in matcher.identify([template], limit=limit).candidates]
        ranks.append(found.index(subject) + 1 if subject in found else 0)
    return ranks


def run(directory: Path, console: Console) -> dict[str, Any]:
    folders = sorted({path.parent for path in directory.glob("*/*.iso")})
    if next(directory.glob("*.iso"), None) is not None:
        folders.insert(0, directory)
    if not folders:
        raise SystemExit(f"no .iso files in {directory} or the folders in it")
    sets: dict[str, list[Sample]] = {}
    results: dict[str, SetResult] = {}
    rates: list[float] = []
    for folder in folders:
        samples, failures = read_set(folder)
        sets[folder.name] = samples
        results[folder.name] = SetResult(
            samples=len(samples) + len(failures),
            fingers=len({sample.finger for sample in samples}),
            failures=failures,
        )
    if any(len(samples) > 1 for samples in sets.values()):  # compile before the clock runs
        first = next(samples for samples in sets.values() if len(samples) > 1)
        compare_set(first[:2], lambda _: None, [])
    with Progress(console=console, transient=True) as progress:
        pairs = sum(len(samples) * (len(samples) - 1) // 2 for samples in sets.values())
        task = progress.add_task("comparing", total=pairs)
        for name, samples in sets.items():
            mated, non_mated = compare_set(
                samples, lambda count: progress.advance(task, count), rates
            )
            results[name].mated.append(mated)
            results[name].non_mated.append(non_mated)
        progress.update(task, description="searching")
        for name, samples in sets.items():
            results[name].ranks = ranks_of_probes({name: samples})
        pooled_ranks = ranks_of_probes(sets)
    pooled = SetResult(
        samples=sum(result.samples for result in results.values()),
        fingers=sum(result.fingers for result in results.values()),
        ranks=pooled_ranks,
    )
    for result in results.values():
        pooled.mated += result.mated
        pooled.non_mated += result.non_mated
        pooled.failures += result.failures
    summary = summarised(pooled)
    return {
        "benchmark": "accuracy",
        "pooled": summary,
        "counts": summary["counts"],
        "sets": {name: summarised(result) for name, result in results.items()},
        "failures_to_enrol": pooled.failures,
        "comparisons_per_s": spread(rates) if rates else None,
        "versions": {"descriptor": DESCRIPTOR_VERSION, "calibration": CALIBRATION_VERSION},
        "environment": environment(),
    }


def show(report: dict[str, Any], console: Console) -> None:
    table = Table(title="accuracy, %")
    columns = ("eer", *(f"fnmr_at_fmr_1e-{e}" for e in (2, 3, 4)), "rank1", "rank10")
    headings = ("set", "EER", "FNMR@1e-2", "@1e-3", "@1e-4", "rank 1", "rank 10", "mated")
    for heading in (*headings, "non-mated", "FTE"):
        table.add_column(heading, justify="left" if heading == "set" else "right")
    for name, summary in (*report["sets"].items(), ("pooled", report["pooled"])):
        counts = summary["counts"]
        table.add_row(
            name,
            *("-" if summary[c] is None else f"{100 * summary[c]:.2f}" for c in columns),
            *(str(counts[c]) for c in ("mated", "non_mated", "failures_to_enrol")),
        )
    console.print(table)
    for failure in report["failures_to_enrol"]:
        console.print(f"failure to enrol: {failure}", markup=False)
    speed = report["comparisons_per_s"]
    if speed:
        console.print(
            f"{speed['median']:,.0f} comparisons/s on one core"
            f" (quartiles {speed['p25']:,.0f} to {speed['p75']:,.0f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Error rates of the matcher on a set of prints.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--json", type=Path, help="write the report here as well")
    arguments = parser.parse_args()
    console = wide_console()
    report = run(arguments.directory, console)
    show(report, console)
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
