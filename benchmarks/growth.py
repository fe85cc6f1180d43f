"""What a search costs and finds as the register grows: ``python -m benchmarks.growth DIR``.

DIR holds ``<set>/<finger>_<impression>.iso``. The lowest impression of every finger is enrolled,
then synthetic references up to each of ``--sizes``, where a snapshot is saved; each snapshot is
opened in a process of its own, and the other impressions are searched for in it.

The population is generated in chunks, so memory holds the index and little else. What takes long
can be kept for another run: ``--keep FOLDER`` the generated minutiae (160 MB a million),
``--snapshots FOLDER`` the snapshots (1 GB a million). Two real fingers that are suspected to be one
count as one (see ``benchmarks.identification``).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from benchmarks.common import environment, load_sets, resident_bytes, timed, write_json
from benchmarks.identification import (
    BATCH,
    LIMIT,
    SEED,
    Inside,
    Person,
    Probes,
    judged,
    make_people,
    mark_same_fingers,
    synthetic_people,
    usable,
)
from matcher import kernels_fast
from matcher.compare import pack, packed_from
from matcher.descriptor import shipped_model
from matcher.errors import FailureToEnrolError
from matcher.kernels import packed_geometry
from matcher.matcher import SNAPSHOT_NAME, Matcher, MatcherSettings
from matcher.search import SearchSettings
from matcher.synthetic import Population
from matcher.types import FingerPosition

CHUNK = 100_000
PART = 1000
SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
STRANGERS = 1000
SINGLE = 300
"""Searches timed one at a time."""
ROUNDS = 3
"""Of timed batches."""


def generated(chunk: int, keep: Path | None) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Packed minutiae of a chunk of the population, and how many each reference has."""
    path = keep / f"{chunk:03d}.npz" if keep is not None else None
    if path is not None and path.exists():
        with np.load(path) as arrays:
            return arrays["g"], arrays["n"].astype(np.int64)
    model, minutiae, lengths = shipped_model(), [], []
    for batch in Population(SEED).batches(CHUNK, start=chunk * CHUNK):
        for template in batch.templates():
            try:
                packed = pack(template, model)
            except FailureToEnrolError:
                continue
            minutiae.append(packed_geometry(packed.x, packed.y, packed.angle, packed.kind))
            lengths.append(len(packed))
    geometry, counts = np.concatenate(minutiae), np.asarray(lengths, dtype=np.int64)
    if path is not None:
        np.savez(path.with_suffix(".part.npz"), g=geometry, n=counts.astype(np.uint8))
        path.with_suffix(".part.npz").rename(path)
    return geometry, counts


def described(
    chunk: int, keep: Path | None
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int8]]:
    """A chunk with its descriptors; runs in a process of its own."""
    geometry, lengths = generated(chunk, keep)
    model, descriptors, end = shipped_model(), [], 0
    for count in lengths.tolist():
        begin, end = end, end + count
        x, y, angle, _ = _unpacked(geometry[begin:end])
        descriptors.append(model.describe(x.astype(np.float32), y.astype(np.float32), angle))
    return geometry, lengths, np.concatenate(descriptors)


def _unpacked(
    part: NDArray[np.uint32],
) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.uint8], NDArray[np.uint8]]:
    x, y = (np.empty(part.shape[0], dtype=np.int16) for _ in range(2))
    angle, kind = (np.empty(part.shape[0], dtype=np.uint8) for _ in range(2))
    kernels_fast.unpacked(part, x, y, angle, kind)
    return x, y, angle, kind


def additions(workers: Executor, keep: Path | None, chunks: int) -> Iterator[list[Any]]:
    """Synthetic references, packed, in parts; the next chunk is made meanwhile."""
    number = 0
    waiting = [workers.submit(described, chunk, keep) for chunk in range(min(2, chunks))]
    for chunk in range(chunks):
        geometry, lengths, descriptors = waiting.pop(0).result()
        if chunk + 2 < chunks:
            waiting.append(workers.submit(described, chunk + 2, keep))
        ends = np.cumsum(lengths)
        part: list[Any] = []
        for end, count in zip(ends.tolist(), lengths.tolist(), strict=True):
            number += 1
            own = descriptors[end - count : end]
            x, y, angle, kind = _unpacked(geometry[end - count : end])
            template = packed_from(
                x, y, angle, kind, FingerPosition.UNKNOWN, lambda *_, own=own: own
            )
            part.append((f"synthetic-{number}", [template], number))
            if len(part) == PART:
                yield part
                part = []
        if part:
            yield part


def measured(
    matcher: Matcher, people: Sequence[Person], strangers: Sequence[Probes]
) -> dict[str, Any]:
    """Speed and recall at one size."""
    inside = Inside(matcher)
    searches = [(person, probes) for person in people for probes in person.probes]
    able = [(person, probes) for person, probes in searches if usable(matcher, probes)]
    listed = first = 0
    mates: list[float] = []
    answers = []
    for start in range(0, len(able), BATCH):
        part = [probes for _, probes in able[start : start + BATCH]]
        answers += matcher.identify_many(part, limit=LIMIT)
    for (person, probes), answer in zip(able, answers, strict=True):
        listed += person.subject_id in inside.shortlisted(probes)
        search = judged(answer, person)
        first += search.rank == 1
        mates.append(search.mate)
    found = matcher.identify_many(strangers, limit=1)
    others = np.sort([answer.candidates[0].similarity for answer in found if answer.candidates])
    report: dict[str, Any] = {
        "searches": len(searches),
        "shortlist_recall": listed / len(searches),
        "rank1": first / len(searches),
        "stranger_similarity_median_max": [float(np.median(others)), float(others[-1])],
    }
    for fpir in (1e-1, 3e-2, 1e-2, 1e-3):
        threshold = matcher.threshold_for_fpir(fpir, len(matcher))
        report[f"fnir_at_configured_fpir_{fpir:g}"] = 1.0 - float(
            np.sum(np.asarray(mates) >= threshold)
        ) / len(searches)
        report[f"fpir_at_configured_fpir_{fpir:g}"] = float(np.mean(others >= threshold))
    probes_of: dict[str, list[Probes]] = {
        "mated": [probes for _, probes in able],
        "non_mated": list(strangers),
    }
    for kind, asked in probes_of.items():
        batches = [asked[i : i + BATCH] for i in range(0, len(asked) - BATCH + 1, BATCH)]
        rates, cpu = [], []
        for k in range(ROUNDS):
            batch, began = batches[k % len(batches)], process_time()
            (seconds,) = timed(partial(matcher.identify_many, batch, limit=LIMIT), 1, 0)
            cpu.append(1e3 * (process_time() - began) / len(batch))
            rates.append(len(batch) / seconds)
        single = []
        for one in asked[:SINGLE]:
            (seconds,) = timed(partial(matcher.identify, one, limit=LIMIT), 1, 0)
            single.append(1e3 * seconds)
        report[kind] = {
            "searches_per_s": float(np.median(rates)),
            "cpu_ms_a_search": float(np.median(cpu)),
            "p50_ms": float(np.percentile(single, 50)),
            "p99_ms": float(np.percentile(single, 99)),
        }
    return report


def people_of(directory: Path, matcher: Matcher) -> list[Person]:
    """The people to enrol and search for; fingers too poor to enrol are left out."""
    impressions = load_sets(directory)
    people = make_people(impressions, 1)
    mark_same_fingers(people, impressions)
    return [person for person in people if usable(matcher, person.references)]


def built(arguments: argparse.Namespace, folder: Path) -> dict[int, dict[str, float]]:
    """Save a snapshot at each size that has none yet; how fast and large the index grew."""
    missing = [s for s in arguments.sizes if not (folder / str(s) / SNAPSHOT_NAME).exists()]
    if not missing:
        return {}
    key, sizes = bytes(range(32)), list(arguments.sizes)
    matcher = Matcher.open(None)
    people = people_of(arguments.directory, matcher)
    before = resident_bytes()
    matcher.add_many([(p.subject_id, p.references, 0) for p in people])
    reports: dict[int, dict[str, float]] = {}
    adding = 0.0
    with ProcessPoolExecutor(1) as workers:
        for part in track(
            # One chunk more: a few of the population are too poor to enrol.
            additions(workers, arguments.keep, missing[-1] // CHUNK + 1),
            "enrolling, thousands",
            total=missing[-1] // PART,
        ):
            start = perf_counter()
            matcher._index.add(part)
            matcher._sequence = part[-1][2]
            adding += perf_counter() - start
            while sizes and len(matcher) >= sizes[0]:
                size = sizes.pop(0)
                if size not in missing:
                    continue
                matcher._directory, matcher._key = folder / str(size), key
                (seconds,) = timed(matcher.snapshot, 1, 0)
                reports[size] = {
                    "references_added_per_s": len(matcher) / adding,
                    "bytes_per_reference_while_growing": (resident_bytes() - before) / len(matcher),
                    "snapshot_s": seconds,
                }
            if not sizes:
                break
    return reports


def reopened(directory: Path, folder: Path) -> dict[str, Any]:
    """Open a snapshot, here and now, and measure; runs in a process of its own."""
    # Compiled code is loaded before the clock runs and memory is counted.
    small = Matcher.open(
        None, settings=MatcherSettings(search=SearchSettings(exhaustive_references=0))
    )
    people = people_of(directory, small)
    strangers = [
        probes for probes in synthetic_people(SEED + 2, STRANGERS, 1, 1) if usable(small, probes)
    ]
    small.add_many([(p.subject_id, p.references, 0) for p in people])
    small.identify_many(strangers[:4])
    before, start = resident_bytes(), perf_counter()
    matcher = Matcher.open(folder, key=bytes(range(32)))
    opened = perf_counter() - start
    matcher.identify(people[0].probes[0])
    answered = perf_counter() - start
    return {
        "references": len(matcher),
        "minutiae": matcher._index.minutiae,
        "open_s": opened,
        "open_and_answer_s": answered,
        "bytes_per_reference": (resident_bytes() - before) / len(matcher),
        "snapshot_bytes_per_reference": (folder / SNAPSHOT_NAME).stat().st_size / len(matcher),
        **measured(matcher, people, strangers),
    }


def drawn(reports: Sequence[dict[str, Any]], path: Path) -> None:
    """The four curves as one picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    references = [report["references"] for report in reports]
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), sharex=True)
    latency, throughput, memory, recall = axes.ravel()
    for kind, colour in (("mated", "tab:blue"), ("non_mated", "tab:orange")):
        name = kind.replace("_", "-")
        latency.plot(references, [r[kind]["p50_ms"] for r in reports], "o-", color=colour,
                     label=f"{name}, p50")  # fmt: skip
        latency.plot(references, [r[kind]["p99_ms"] for r in reports], "o:", color=colour,
                     label=f"{name}, p99")  # fmt: skip
        throughput.plot(references, [r[kind]["searches_per_s"] for r in reports], "o-",
                        color=colour, label=name)  # fmt: skip
    for name, style in (("bytes_per_reference", "o-"), ("snapshot_bytes_per_reference", "o:")):
        label = "resident" if style == "o-" else "on disk"
        memory.plot(references, [r[name] for r in reports], style, color="tab:red", label=label)
    recall.plot(references, [100 * r["shortlist_recall"] for r in reports], "o-",
                color="tab:green", label="mate on the shortlist")  # fmt: skip
    recall.plot(references, [100 * r["rank1"] for r in reports], "o:", color="tab:green",
                label="mate first")  # fmt: skip
    latency.set(ylabel="one search, ms", yscale="log")
    throughput.set(ylabel="searches a second, batches of 64", yscale="log")
    memory.set(ylabel="bytes a reference", ylim=(0, None), xlabel="references")
    recall.set(ylabel="% of real probes", ylim=(85, 100), xlabel="references")
    for axis in (latency, throughput):
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
    for axis in axes.ravel():
        axis.set_xscale("log")
        axis.grid(visible=True, which="both", alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Search cost and recall by register size.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--keep", type=Path, help="store the generated population here")
    parser.add_argument("--snapshots", type=Path, help="keep the snapshots here")
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument("--plot", type=Path, help="draw the curves here (PNG)")
    arguments = parser.parse_args()
    arguments.sizes.sort()
    console = Console()
    with TemporaryDirectory() as temporary:
        folder = arguments.snapshots or Path(temporary)
        growth = built(arguments, folder)
        reports = []
        for size in arguments.sizes:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
                report = fresh.submit(reopened, arguments.directory, folder / str(size)).result()
            reports.append(report | growth.get(size, {}))
            console.print(reports[-1])
            if arguments.json is not None:
                write_json(arguments.json, {"environment": environment(), "sizes": reports})
    if arguments.plot is not None:
        drawn(reports, arguments.plot)


if __name__ == "__main__":
    main()
