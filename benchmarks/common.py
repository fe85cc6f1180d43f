"""What every benchmark shares: the data on disk, the machine it ran on, the spread of its timings.

Benchmarks report medians with their spread and carry :func:`environment` in their JSON, so that a
figure in ``RESULTS.md`` can be traced to a machine and a commit.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.console import Console

from matcher.codec import decode
from matcher.types import Template

REPOSITORY = Path(__file__).resolve().parent.parent

_DISTRIBUTIONS = ("numpy", "numba", "faiss-cpu", "grpcio", "cryptography", "sqlalchemy")


@dataclass(frozen=True)
class Impression:
    """One captured impression: ``<set>/<finger>_<impression>.iso``.

    Attributes:
        set_name: the folder, one sensor or data set.
        finger: unique over all sets: ``<set>/<finger>``.
        number: the impression's number within its finger.
    """

    set_name: str
    finger: str
    number: int
    template: Template


def load_sets(directory: Path) -> list[Impression]:
    """Every ``<set>/<finger>_<impression>.iso`` below ``directory``, by set, finger and impression.

    The finger is everything before the last underscore of the file's name; the impression numbers
    sort as numbers. The first view of each record is taken.

    Raises:
        FileNotFoundError: there is no such file below the directory.
        ValueError: a file's name has no underscore and number.
        DecodeError: a file is not a minutiae record; a note names the file.
    """
    impressions = []
    for path in sorted(directory.glob("*/*.iso")):
        finger, separator, number = path.stem.rpartition("_")
        if not separator or not number.isdigit():
            raise ValueError(f"{path.name}: expected <finger>_<impression number>.iso")
        try:
            template = decode(path.read_bytes())[0]
        except Exception as error:
            error.add_note(f"while reading {path}")
            raise
        set_name = path.parent.name
        impressions.append(Impression(set_name, f"{set_name}/{finger}", int(number), template))
    if not impressions:
        raise FileNotFoundError(f"no <set>/<finger>_<impression>.iso below {directory}")
    return sorted(impressions, key=lambda i: (i.set_name, i.finger, i.number))


def by_finger(impressions: Sequence[Impression]) -> dict[str, list[Impression]]:
    """The impressions of each finger, in the order given."""
    fingers: dict[str, list[Impression]] = {}
    for impression in impressions:
        fingers.setdefault(impression.finger, []).append(impression)
    return fingers


def environment() -> dict[str, object]:
    """The machine, the versions and the commit a figure belongs to."""
    versions = {}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "load_1m": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": _commit(),
    }


def write_json(path: Path, obj: Mapping[str, object]) -> None:
    """Write ``obj`` beside ``path`` and rename it there, so that a reader never sees half a file.

    NumPy scalars and arrays and paths are written as their plain counterparts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(json.dumps(obj, indent=2, default=_plain) + "\n")
    beside.replace(path)


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and range of timings, with their count.

    Raises:
        ValueError: there is no sample.
    """
    if not samples:
        raise ValueError("no samples to summarise")
    values = np.asarray(samples, dtype=np.float64)
    p25, median, p75 = np.quantile(values, [0.25, 0.5, 0.75])
    return {
        "median": float(median),
        "p25": float(p25),
        "p75": float(p75),
        "min": float(values.min()),
        "max": float(values.max()),
        "n": len(samples),
    }


def timed(function: Callable[[], object], repeats: int, warm_up: int = 1) -> list[float]:
    """Seconds each of ``repeats`` calls took, after ``warm_up`` calls that are not counted."""
    for _ in range(warm_up):
        function()
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        function()
        seconds.append(perf_counter() - start)
    return seconds


def wide_console() -> Console:
    """Where figures are printed: as wide as the terminal, or as a whole row in a file."""
    found = Console()
    return found if found.is_terminal else Console(width=140)


def resident_bytes() -> int:
    """Memory of this process that is resident now, from ``/proc``; 0 where there is none."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson (1927) score interval of a proportion; (0, 1) of no trials."""
    if trials == 0:
        return (0.0, 1.0)
    p = successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * np.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return (max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _commit() -> str:
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        dirty = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("-dirty" if dirty else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
