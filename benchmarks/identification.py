"""Is a person found again among N? ``python -m benchmarks.identification DIR --gallery N``.

DIR holds ``<set>/<finger>_<impression>.iso``. The lowest impression of every finger is enrolled
beside N synthetic references; every other impression is a mated search. Non-mated searches are
synthetic people who are not enrolled, and the real probes with their mate disregarded. Error rates
follow ISO/IEC 19795-1: FNIR is the share of mated searches without the mate in the list at or above
the threshold, FPIR the share of non-mated searches with anybody there.

``--fingers F`` makes one person of each finger and the F - 1 that follow it in its set (the last
with the first), captured together, so that fingers fuse; fingers get positions then, and each real
finger belongs to F people at different positions. N counts references: N / F synthetic people.

Two real fingers of DIR may be the same one: competitions took volunteers for several sensors. Pairs
of fingers whose impressions keep matching are reported and not held against the matcher.

Beside the figures stand two baselines, measured in the same run on some of the probes: comparing
with everybody, and looking minutiae up in a flat FAISS index of the same descriptors.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.common import (
    Impression,
    by_finger,
    environment,
    load_sets,
    resident_bytes,
    spread,
    timed,
    wide_console,
    wilson_interval,
    write_json,
)
from matcher import kernels_fast
from matcher.compare import PARAMETERS, PackedTemplate
from matcher.descriptor import shipped_model
from matcher.errors import FailureToEnrolError
from matcher.kernels import DIMENSION, FEATURES, packed_geometry
from matcher.matcher import SNAPSHOT_NAME, Matcher
from matcher.store import TemplateStore
from matcher.synthetic import Population
from matcher.types import CandidateList, FingerPosition, Template

SEED = 20240611
LIMIT = 10
BATCH = 64
TARGET_FPIR = 1e-3
SAME_FINGER_SIMILARITY = 5.0
"""Median similarity over impressions from which two fingers are taken for one: strangers reach it
in one comparison of 100,000, and not in half of them."""
_ADDED_AT_ONCE = 500
_TIMED_BATCHES = 5
_TIMED_SEARCHES = 200
_BASELINE_S = 45.0
_FLAT_MINUTIAE = 8_000_000
_POSITIONS = (2, 7, 1, 6, 3, 8, 4, 9, 5, 10)  # indexes, thumbs, middles, rings, little fingers

Probes = list[Template]


@dataclass
class Person:
    """One enrolled identity and its mated searches.

    Attributes:
        fingers: the real fingers it is made of, in the order of their positions.
        same: ids of people who are suspected to be this one.
    """

    subject_id: str
    fingers: tuple[str, ...]
    references: Probes
    probes: list[Probes]
    same: set[str] = field(default_factory=set)


@dataclass
class Search:
    """What one search returned, as far as the rates need it.

    Attributes:
        rank: of the mate in the list, from 1; 0 when it is not there.
        mate: similarity of the mate, ``-inf`` when it is not there.
        stranger: highest similarity of anybody else, ``-inf`` when there is nobody.
    """

    rank: int = 0
    mate: float = -math.inf
    stranger: float = -math.inf


# --- people -------------------------------------------------------------------------------


def make_people(impressions: Sequence[Impression], fingers: int) -> list[Person]:
    """One person a finger, or a person for each run of ``fingers`` fingers of a set."""
    people = []
    sets: dict[str, list[str]] = {}
    grouped = by_finger(impressions)
    for finger, members in grouped.items():
        sets.setdefault(members[0].set_name, []).append(finger)
    for names in sets.values():
        if len(names) < fingers:
            continue
        for i in range(len(names)):
            group = tuple(names[(i + k) % len(names)] for k in range(fingers))
            captures = [{m.number: m.template for m in grouped[name]} for name in group]
            numbers = sorted(set.intersection(*(set(c) for c in captures)))
            rows = [[_placed(c[n], k, fingers) for k, c in enumerate(captures)] for n in numbers]
            if rows:
                people.append(Person("+".join(group), group, rows[0], rows[1:]))
    return people


def _placed(template: Template, k: int, fingers: int) -> Template:
    if fingers == 1:
        return template
    return replace(template, position=FingerPosition(_POSITIONS[k]))


def mark_same_fingers(people: list[Person], impressions: Sequence[Impression]) -> list[str]:
    """Note who is suspected to be whom; the suspected pairs of fingers come back."""
    matcher = Matcher.open(None)
    grouped = by_finger(impressions)
    for sequence, (finger, members) in enumerate(grouped.items()):
        if usable(matcher, [members[0].template]):
            matcher.add(finger, [members[0].template], sequence)
    found: dict[tuple[str, str], list[float]] = {}
    for finger, members in grouped.items():
        probes = [m.template for m in members[1:] if usable(matcher, [m.template])]
        for probe in probes:
            for candidate in matcher.identify([probe], limit=len(grouped)).candidates:
                if candidate.subject_id != finger:
                    pair = (min(finger, candidate.subject_id), max(finger, candidate.subject_id))
                    found.setdefault(pair, []).append(candidate.similarity)
    twins = {p for p, values in found.items() if np.median(values) >= SAME_FINGER_SIMILARITY}
    for person in people:
        for other in people:
            if other is not person and any(
                (min(a, b), max(a, b)) in twins
                for a, b in zip(person.fingers, other.fingers, strict=True)
            ):
                person.same.add(other.subject_id)
    return sorted(f"{a} = {b}" for a, b in twins)


def usable(matcher: Matcher, templates: Probes) -> bool:
    try:
        matcher.check(templates)
    except FailureToEnrolError:
        return False
    return True


def synthetic_people(seed: int, count: int, fingers: int, number: int) -> Iterator[Probes]:
    """Capture ``number`` of each of ``count`` synthetic people, in order."""
    population = Population(seed)
    positions = [0] if fingers == 1 else list(_POSITIONS[:fingers])
    people_at_once = max(1, 1024 // fingers)
    for start in range(0, count, people_at_once):
        stop = min(count, start + people_at_once)
        index = np.repeat(np.arange(start, stop), fingers)
        position = np.tile(np.array(positions), stop - start)
        templates = population.batch(index, position, np.full_like(index, number)).templates()
        for i in range(0, len(templates), fingers):
            yield templates[i : i + fingers]


# --- the matcher from inside --------------------------------------------------------------


class Inside:
    """What the benchmark needs of the matcher's inner parts, in one place."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self.index = matcher._index
        self._searcher = matcher._searcher

    def packed(self, probes: Probes) -> list[PackedTemplate | None]:
        return self._matcher._packed(probes)

    def shortlisted(self, probes: Probes) -> set[str]:
        """Subjects on the shortlist of a search for these probes."""
        packed = self.packed(probes)
        (answer,) = self._matcher._look_up([packed], False)
        subjects, found = answer.shortlist.subjects, answer.found
        if subjects is None:  # so few that everybody is compared
            return {self.index.subject_id(int(row)) for row in np.flatnonzero(self.index.alive)}
        rows = self.index.rows_of_numbers(subjects, found.rows)
        return {self.index.subject_id(int(row)) for row in rows}

    def exhaustive(self, probes: Probes) -> CandidateList:
        """The candidate list when everybody is compared with."""
        rows = np.flatnonzero(self.index.alive)
        candidates = self._searcher.rank(self.index, self.packed(probes), LIMIT, rows)
        return CandidateList(candidates, True, int(rows.shape[0]), 0)

    def similarities(self, probe: Template, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """One probe compared with rows of the index."""
        return self._searcher._compare(self.index, self.packed([probe])[0], rows)

    def described(self, rows: NDArray[np.int64]) -> TemplateStore:
        """Rows with the descriptors that the index makes only when it compares."""
        model = shipped_model()
        store = TemplateStore(DIMENSION)
        for row in rows:
            store.append(self.index.packed_of(int(row), model.describe))
        return store

    @contextmanager
    def flat_lookup(self) -> Iterator[None]:
        """Within, minutiae are looked up in a flat index of exact descriptors."""
        model = shipped_model()
        flat = faiss.IndexIDMap2(faiss.IndexFlatL2(DIMENSION))
        for row in np.flatnonzero(self.index.alive):
            packed = self.index.packed_of(int(row), model.describe)
            geometry = packed_geometry(packed.x, packed.y, packed.angle, packed.kind)
            ids = (np.int64(row) << 28) | (geometry >> 4).astype(np.int64)
            flat.add_with_ids(packed.descriptors.astype(np.float32), ids)

        def nearest(
            probe: NDArray[np.int8], k: int, lists: int
        ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            distances, ids = flat.search(probe.astype(np.float32), min(k, flat.ntotal))
            return np.where(ids >= 0, distances, np.inf).astype(np.float32), ids

        vars(self.index)["nearest"] = nearest
        try:
            yield
        finally:
            del vars(self.index)["nearest"]


# --- rates --------------------------------------------------------------------------------


def judged(answer: CandidateList, person: Person | None) -> Search:
    search = Search()
    for rank, candidate in enumerate(answer.candidates, 1):
        if person is not None and candidate.subject_id == person.subject_id:
            search.rank, search.mate = rank, candidate.similarity
        elif person is None or candidate.subject_id not in person.same:
            search.stranger = max(search.stranger, candidate.similarity)
    return search


def rate(hits: int, trials: int) -> dict[str, Any]:
    """A proportion with its counts and 95 % interval."""
    low, high = wilson_interval(hits, trials)
    return {
        "value": hits / trials if trials else None,
        "count": hits,
        "of": trials,
        "interval_95": [low, high],
    }


def threshold_at(strangers: Sequence[float], fpir: float) -> float | None:
    """The lowest threshold that at most ``fpir`` of the searches reach; ``None`` when there are
    too few searches to observe that rate."""
    allowed = math.floor(fpir * len(strangers) + 1e-9)
    if allowed < 1:
        return None
    ordered = np.sort(np.asarray(strangers))[::-1]
    return float(np.nextafter(ordered[allowed], np.inf))


def identification_rates(
    mated: Sequence[Search], non_mated: dict[str, list[float]], calibrated: float
) -> dict[str, Any]:
    strangers = [value for values in non_mated.values() for value in values]
    threshold = threshold_at(strangers, TARGET_FPIR)
    rates: dict[str, Any] = {
        "rank1": rate(sum(s.rank == 1 for s in mated), len(mated)),
        "rank10": rate(sum(0 < s.rank <= LIMIT for s in mated), len(mated)),
        "non_mated_searches": {name: len(values) for name, values in non_mated.items()},
        "smallest_observable_fpir": 1.0 / max(1, len(strangers)),
        "at_fpir_1e-3": None,
    }
    if threshold is not None:
        rates["at_fpir_1e-3"] = {
            "threshold": threshold,
            "fnir": rate(sum(s.mate < threshold for s in mated), len(mated)),
            "fnir_by_threshold_of": {
                name: _fnir_of(mated, values) for name, values in non_mated.items()
            },
        }
    rates["at_calibrated_threshold"] = {
        "threshold": calibrated,
        "fnir": rate(sum(s.mate < calibrated for s in mated), len(mated)),
        "fpir": {
            name: rate(sum(v >= calibrated for v in values), len(values))
            for name, values in non_mated.items()
        },
    }
    return rates


def _fnir_of(mated: Sequence[Search], strangers: Sequence[float]) -> float | None:
    threshold = threshold_at(strangers, TARGET_FPIR)
    if threshold is None or not mated:
        return None
    return sum(s.mate < threshold for s in mated) / len(mated)


def hardness(
    inside: Inside, people: Sequence[Person], synthetic: Sequence[Probes]
) -> dict[str, Any]:
    """Similarities of strangers: real probes with real and with synthetic references, and
    synthetic probes with synthetic ones, a finger at a time whatever the position."""
    rng = np.random.default_rng(SEED)
    own = {p.subject_id: p for p in people}
    alive = np.flatnonzero(inside.index.alive)
    real_rows = np.array([r for r in alive if inside.index.subject_id(int(r)) in own])
    made_rows = np.setdiff1d(alive, real_rows)
    chosen = rng.choice(made_rows, size=min(500, made_rows.size), replace=False)
    values: dict[str, list[NDArray[np.float64]]] = {
        "real with real": [],
        "real with synthetic": [],
        "synthetic with synthetic": [],
    }
    order = rng.permutation(len(people))[:150]
    for person in (people[i] for i in order if people[i].probes):
        if not usable(inside._matcher, person.probes[0][:1]):
            continue
        probe = replace(person.probes[0][0], position=FingerPosition.UNKNOWN)
        strangers = [
            row
            for row in real_rows
            if not set(own[inside.index.subject_id(int(row))].fingers) & set(person.fingers)
            and inside.index.subject_id(int(row)) not in person.same
        ]
        values["real with real"].append(inside.similarities(probe, np.array(strangers, np.int64)))
        values["real with synthetic"].append(inside.similarities(probe, chosen))
    for probes in synthetic[:150]:
        if usable(inside._matcher, probes[:1]):
            probe = replace(probes[0], position=FingerPosition.UNKNOWN)
            values["synthetic with synthetic"].append(inside.similarities(probe, chosen))
    return {name: _tail(np.concatenate(v)) for name, v in values.items() if v and sum(map(len, v))}


def _tail(similarities: NDArray[np.float64]) -> dict[str, float]:
    return {
        "comparisons": int(similarities.size),
        **{f"p{q}": float(np.percentile(similarities, q)) for q in (50, 90, 99, 99.9)},
        "share_at_2": float(np.mean(similarities >= 2.0)),
        "share_at_3": float(np.mean(similarities >= 3.0)),
    }


# --- the run ------------------------------------------------------------------------------


def run(
    directory: Path, gallery: int, fingers: int, non_mated_count: int, console: Console
) -> dict[str, Any]:
    impressions = load_sets(directory)
    people = make_people(impressions, fingers)
    suspected = mark_same_fingers(people, impressions)
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(console=console, transient=True) as progress,
    ):
        key = os.urandom(32)
        matcher = Matcher.open(Path(folder), key=key)
        built = _build(matcher, people, gallery, fingers, progress)
        start = perf_counter()
        matcher.snapshot()
        built["snapshot_s"] = perf_counter() - start
        built["snapshot_bytes_per_reference"] = (Path(folder) / SNAPSHOT_NAME).stat().st_size / len(
            matcher
        )
        built.update(opened_elsewhere(Path(folder), key, len(matcher), people[0].references))
        enrolled = [p for p in people if p.subject_id in matcher]
        report = _searched(matcher, enrolled, non_mated_count, gallery, fingers, progress)
    report = {
        "benchmark": "identification",
        **report,
        **built,
        "fingers": fingers,
        "seed": SEED,
        "suspected_same_fingers": suspected,
        "environment": environment(),
    }
    report["counts"]["people_failed_to_enrol"] = len(people) - len(enrolled)
    return report


def _build(
    matcher: Matcher, people: Sequence[Person], gallery: int, fingers: int, progress: Progress
) -> dict[str, Any]:
    matcher.compare(people[0].references[0], people[0].references[0])  # compile
    before = resident_bytes()
    seconds = 0.0
    task = progress.add_task("enrolling", total=gallery // fingers + len(people))
    sequence = 0

    waiting: list[tuple[str, Probes, int]] = []

    def add(subject_id: str, templates: Probes) -> None:
        nonlocal seconds, sequence
        sequence += 1
        start = perf_counter()
        if usable(matcher, templates):
            waiting.append((subject_id, templates, sequence))
        if len(waiting) == _ADDED_AT_ONCE:
            matcher.add_many(waiting)
            waiting.clear()
        seconds += perf_counter() - start
        progress.advance(task)

    for person in people:
        add(person.subject_id, person.references)
    for number, templates in enumerate(synthetic_people(SEED, gallery // fingers, fingers, 0)):
        add(f"synthetic-{number}", templates)
    matcher.add_many(waiting)
    return {
        "build_s": seconds,
        "build_references_per_s": len(matcher) / seconds,
        "bytes_per_reference_after_build": (resident_bytes() - before) / len(matcher),
    }


_OPEN = """
import pickle, sys, json
from pathlib import Path
from time import perf_counter
from benchmarks.common import resident_bytes
from matcher.matcher import Matcher, MatcherSettings
from matcher.search import SearchSettings
key, probes = pickle.loads(sys.stdin.buffer.read())
voting = MatcherSettings(search=SearchSettings(exhaustive_references=0))
small = Matcher.open(None, settings=voting)
small.add("a", probes, 1)
small.identify(probes)  # what is compiled is loaded
before = resident_bytes()
start = perf_counter()
matcher = Matcher.open(Path(sys.argv[1]), key=key)
opened = perf_counter() - start
matcher.identify(probes)
answered = perf_counter() - start
print(json.dumps({"open_s": opened, "open_and_answer_s": answered,
                  "bytes": resident_bytes() - before, "n": len(matcher)}))
"""


def opened_elsewhere(folder: Path, key: bytes, references: int, probes: Probes) -> dict[str, Any]:
    """Open the snapshot in a process of its own: its time, and memory without the building."""
    result = subprocess.run(
        [sys.executable, "-c", _OPEN, str(folder)],
        input=pickle.dumps((key, probes)),
        capture_output=True,
        check=True,
    )
    opened = json.loads(result.stdout)
    if opened["n"] != references:
        raise RuntimeError(f"the snapshot opened with {opened['n']} of {references} references")
    return {
        "open_s": opened["open_s"],
        "open_and_answer_s": opened["open_and_answer_s"],
        "bytes_per_reference": opened["bytes"] / references,
    }


def _searched(
    matcher: Matcher,
    people: Sequence[Person],
    non_mated_count: int,
    gallery: int,
    fingers: int,
    progress: Progress,
) -> dict[str, Any]:
    inside = Inside(matcher)
    searches = [(person, probes) for person in people for probes in person.probes]
    able = [(p, t) for p, t in searches if usable(matcher, t)]
    strangers = [
        t
        # People the gallery has not: another seed.
        for t in synthetic_people(SEED + 1, non_mated_count, fingers, 1)
        if usable(matcher, t)
    ]
    answers = _identified(matcher, [t for _, t in able], "mated searches", progress)
    mated = [judged(answer, person) for answer, (person, _) in zip(answers, able, strict=True)]
    # A probe that cannot be compared misses its mate.
    mated += [Search() for _ in range(len(searches) - len(able))]
    non_mated = {
        "real, mate disregarded": [s.stranger for s in mated[: len(able)]],
        "synthetic, not enrolled": [
            judged(answer, None).stranger
            for answer in _identified(matcher, strangers, "non-mated searches", progress)
        ],
    }
    task = progress.add_task("shortlists", total=len(able))
    listed = []
    for person, probes in able:
        listed.append(person.subject_id in inside.shortlisted(probes))
        progress.advance(task)
    subjects = len(people) + gallery // fingers
    rates = identification_rates(
        mated, non_mated, matcher.threshold_for_fpir(TARGET_FPIR, subjects)
    )
    at_target = rates["at_fpir_1e-3"]
    speed = _speed(matcher, inside, [t for _, t in able], progress)
    baselines = _baselines(inside, able, mated, listed, speed["p50_ms"], progress)
    return {
        "gallery_references": len(matcher),
        "gallery_subjects": subjects,
        "shortlist_recall": sum(listed) / max(1, len(searches)),
        "rank1": rates["rank1"]["value"],
        "rank10": rates["rank10"]["value"],
        "fnir_at_fpir_1e-3": at_target["fnir"]["value"] if at_target else None,
        "rates": {"shortlist_recall": rate(sum(listed), len(searches)), **rates},
        **speed,
        "baselines": baselines,
        "non_mated_similarity": hardness(inside, people, strangers),
        "counts": {
            "people": len(people),
            "mated_searches": len(searches),
            "probes_failed_to_acquire": len(searches) - len(able),
            "non_mated_searches": sum(map(len, non_mated.values())),
        },
    }


def _identified(
    matcher: Matcher, probes: Sequence[Probes], what: str, progress: Progress
) -> list[CandidateList]:
    task = progress.add_task(what, total=len(probes))
    answers: list[CandidateList] = []
    for start in range(0, len(probes), BATCH):
        part = probes[start : start + BATCH]
        answers += matcher.identify_many(part, limit=LIMIT)
        progress.advance(task, len(part))
    return answers


def _speed(
    matcher: Matcher, inside: Inside, probes: Sequence[Probes], progress: Progress
) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(probes))
    batches = [
        [probes[i] for i in order[start : start + BATCH]]
        for start in range(0, len(probes) - BATCH + 1, BATCH)
    ] or [[probes[i] for i in order]]
    task = progress.add_task("timing", total=None)
    per_s: list[float] = []
    for k in range(_TIMED_BATCHES):
        batch = batches[k % len(batches)]
        (seconds,) = timed(partial(matcher.identify_many, batch, limit=LIMIT), 1, 0)
        per_s.append(len(batch) / seconds)
    single_ms = []
    for i in order[:_TIMED_SEARCHES]:
        (seconds,) = timed(partial(matcher.identify, probes[i], limit=LIMIT), 1, 0)
        single_ms.append(1e3 * seconds)
    alive = np.flatnonzero(inside.index.alive)
    rows = np.sort(rng.choice(alive, size=min(20_000, alive.size), replace=False))
    compared, ordered = [], []
    store = inside.described(rows)
    features = np.zeros((rows.size, len(FEATURES)))
    geometry, motions = inside.index.geometry, np.zeros((rows.size, 3))
    for i in order[:9]:
        (packed,) = inside.packed(probes[i][:1])
        if packed is None:
            continue
        compare = partial(
            kernels_fast.compare_rows,
            *packed.arrays(),
            *store.arrays(),
            np.arange(rows.size),
            shipped_model().scale,
            PARAMETERS,
            features,
        )
        (seconds,) = timed(compare, 1, 0)
        compared.append(rows.size / seconds)
        # Motions as a vote proposes them: one minutia laid on another.
        motions[:, 0] = rng.normal(0.0, 0.2, rows.size)
        motions[:, 1:] = rng.normal(0.0, 40.0, (rows.size, 2))
        unit = np.float32(math.tau / 256.0)
        place = (packed.x, packed.y, packed.angle * unit)
        rank = partial(
            kernels_fast.rank_rows,
            *(np.asarray(values, dtype=np.float32) for values in place),
            *geometry,
            rows,
            motions,
            PARAMETERS,
        )
        (seconds,) = timed(rank, 1, 1)
        ordered.append(rows.size / seconds)
    progress.remove_task(task)
    return {
        "searches_per_s": float(np.median(per_s)),
        "searches_per_s_spread": spread(per_s),
        "batch": len(batches[0]),
        "p50_ms": float(np.percentile(single_ms, 50)),
        "p99_ms": float(np.percentile(single_ms, 99)),
        "single_ms_spread": spread(single_ms),
        "comparisons_per_s": float(np.median(compared)),
        "comparisons_per_s_spread": spread(compared),
        "ordered_per_s": float(np.median(ordered)),
        "ordered_per_s_spread": spread(ordered),
    }


def _baselines(
    inside: Inside,
    usable: Sequence[tuple[Person, Probes]],
    mated: Sequence[Search],
    listed: Sequence[bool],
    p50_ms: float,
    progress: Progress,
) -> dict[str, Any]:
    """Everybody compared with, and a flat FAISS lookup, on as many probes as the time allows."""
    order = np.random.default_rng(SEED + 2).permutation(len(usable)).tolist()
    seconds: list[float] = []
    ranks = []
    for i in _while_time_allows(order, "comparing with everybody", progress):
        person, probes = usable[i]
        start = perf_counter()
        answer = inside.exhaustive(probes)
        seconds.append(perf_counter() - start)
        ranks.append(judged(answer, person).rank)
    found: dict[str, Any] = {
        "exhaustive": {
            "probes": len(ranks),
            "rank1": ranks.count(1) / len(ranks),
            "rank1_of_the_search_on_these": _share(mated[i].rank == 1 for i in order[: len(ranks)]),
            "seconds": spread(seconds),
            "times_slower": 1e3 * float(np.median(seconds)) / p50_ms,
        }
    }
    minutiae = inside.index.minutiae
    if minutiae > _FLAT_MINUTIAE:
        found["flat_faiss"] = f"left out: {minutiae} minutiae take {minutiae * 256 / 2**30:.0f} GiB"
        return found
    flat_s: list[float] = []
    recalled = []
    with inside.flat_lookup():
        for i in _while_time_allows(order, "flat lookup", progress):
            start = perf_counter()
            subjects = inside.shortlisted(usable[i][1])
            flat_s.append(perf_counter() - start)
            recalled.append(usable[i][0].subject_id in subjects)
    some = order[: len(recalled)]
    own_s = [timed(partial(inside.shortlisted, usable[i][1]), 1, 0)[0] for i in some]
    found["flat_faiss"] = {
        "probes": len(some),
        "shortlist_recall": _share(recalled),
        "shortlist_recall_of_the_search_on_these": _share(listed[i] for i in some),
        "shortlist_seconds": spread(flat_s),
        "shortlist_seconds_of_the_search": spread(own_s),
        "times_slower": float(np.median(flat_s) / np.median(own_s)),
    }
    return found


def _while_time_allows(order: Sequence[int], what: str, progress: Progress) -> Iterator[int]:
    """Entries of ``order`` until the time for one baseline is over, three at least."""
    task = progress.add_task(what, total=len(order))
    start = perf_counter()
    for k, i in enumerate(order):
        if k >= 3 and perf_counter() - start > _BASELINE_S:
            break
        yield i
        progress.advance(task)


def _share(values: Iterable[bool]) -> float:
    counted = list(values)
    return sum(counted) / len(counted)


# --- showing ------------------------------------------------------------------------------


def show(report: dict[str, Any], console: Console) -> None:
    table = Table(
        title=f"identification among {report['gallery_references']:,} references, "
        f"{report['fingers']} finger(s) a person"
    )
    for heading in ("figure", "value", "counts"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    rates = report["rates"]

    def proportion(name: str, entry: dict[str, Any] | None) -> None:
        if entry is None or entry["value"] is None:
            table.add_row(name, "not observable", "")
            return
        low, high = (100 * value for value in entry["interval_95"])
        counts = f"{entry['count']} of {entry['of']} ({low:.2f} to {high:.2f} %)"
        table.add_row(name, f"{100 * entry['value']:.2f} %", counts)

    proportion("mate in the shortlist", rates["shortlist_recall"])
    proportion("rank 1", rates["rank1"])
    proportion("rank 10", rates["rank10"])
    target = rates["at_fpir_1e-3"]
    proportion("FNIR at FPIR 1e-3", target["fnir"] if target else None)
    calibrated = rates["at_calibrated_threshold"]
    proportion("FNIR at the calibrated threshold", calibrated["fnir"])
    for name, entry in calibrated["fpir"].items():
        proportion(f"  FPIR there ({name})", entry)
    for name, unit in (
        ("searches_per_s", f"1/s, batches of {report['batch']}"),
        ("p50_ms", "ms, one search"),
        ("p99_ms", "ms, one search"),
        ("comparisons_per_s", "1/s, in full"),
        ("ordered_per_s", "1/s, putting the shortlist in order"),
        ("bytes_per_reference", "bytes"),
        ("build_s", "s"),
        ("open_s", "s"),
    ):
        table.add_row(name, f"{report[name]:,.1f}", unit)
    console.print(table)
    for name, entry in report["non_mated_similarity"].items():
        console.print(
            f"strangers, {name}: 99 % below {entry['p99']:.2f}, 99.9 % below {entry['p99.9']:.2f} "
            f"({entry['comparisons']:,} comparisons)"
        )
    for pair in report["suspected_same_fingers"]:
        console.print(f"probably one finger: {pair}", markup=False)
    for name, entry in report["baselines"].items():
        console.print(f"{name}: {entry['times_slower']:.1f} times slower than the search")


def main() -> None:
    parser = argparse.ArgumentParser(description="Find real fingers among synthetic ones.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--gallery", type=int, default=10_000, help="synthetic references")
    parser.add_argument("--fingers", type=int, default=1, help="fingers a person, 1 to 10")
    parser.add_argument("--non-mated", type=int, default=1000, help="synthetic non-mated searches")
    parser.add_argument("--json", type=Path, help="write the report here as well")
    arguments = parser.parse_args()
    if not 1 <= arguments.fingers <= 10:
        parser.error("--fingers is 1 to 10")
    console = wide_console()
    report = run(
        arguments.directory,
        arguments.gallery,
        arguments.fingers,
        arguments.non_mated,
        console,
    )
    show(report, console)
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
