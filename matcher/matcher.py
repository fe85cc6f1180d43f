"""The matcher: enrol, withdraw, identify, verify. The rest of this package serves this class."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np

from matcher import calibration, compare, snapshot
from matcher.calibration import shipped_calibration
from matcher.compare import PackedTemplate
from matcher.descriptor import DESCRIPTOR_VERSION, shipped_model
from matcher.errors import FailureToEnrolError, IndexStateError, UnknownSubjectError
from matcher.index import CENTRES_VERSION, ReferenceIndex
from matcher.kernels import FEATURES
from matcher.search import Found, Searcher, SearchSettings, Shortlist
from matcher.types import CandidateList, Comparison, Decision, Template

SNAPSHOT_NAME = "references.anjuidx"
_TOGETHER = 32
"""Searches looked up at once: more gain little and keep changes waiting."""
_FEWEST_CLEARED = 1000
_LISTS_AT_A_TIME = 16
"""Of FAISS's lists, while changes wait for a snapshot, or for a clearing and searches too."""


@dataclass(frozen=True)
class MatcherSettings:
    """How a matcher works on this machine. Nothing here changes a candidate list's similarities.

    Attributes:
        search: how wide a search looks before it compares.
        threads: comparisons in parallel; 0 for one a core.
        clear_dead_share: withdrawn references are cleared away above this share of all.
    """

    search: SearchSettings = field(default_factory=SearchSettings)
    threads: int = 0
    clear_dead_share: float = 0.25


class _Guard:
    """Many readers or one writer; a waiting writer goes before new readers.

    Who needs things to stay as they are for longer keeps writers out, and readers go on.
    """

    def __init__(self) -> None:
        self._writers = threading.Lock()
        self._condition = threading.Condition()
        self._readers = 0
        self._writers_waiting = 0
        self._writing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._condition:
            while self._writing or self._writers_waiting:
                self._condition.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._condition:
                self._readers -= 1
                self._condition.notify_all()

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        with self._writers:
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._writers:
            with self._condition:
                self._writers_waiting += 1
                while self._readers:
                    self._condition.wait()
                self._writers_waiting -= 1
                self._writing = True
            try:
                yield
            finally:
                with self._condition:
                    self._writing = False
                    self._condition.notify_all()


@dataclass(eq=False)
class _Asked:
    """One search that waits to be looked up."""

    probes: list[PackedTemplate | None]
    answer: _Answer | None = None
    error: BaseException | None = None


@dataclass(frozen=True, eq=False)
class _Answer:
    """What was found, when the index held so many references and was at this change."""

    found: Found
    shortlist: Shortlist
    searched: int
    sequence: int


class _Together:
    """Searches that come while others are looked up are looked up together when those are done.

    Nobody waits for company: as long as a lane is free, whoever comes goes at once.
    """

    def __init__(
        self,
        look_up: Callable[[list[list[PackedTemplate | None]], bool], list[_Answer]],
        lanes: int,
    ) -> None:
        self._look_up = look_up
        self._lanes = self._free = lanes
        self._changed = threading.Condition()
        self._waiting: list[_Asked] = []

    def look_up(self, probes: list[PackedTemplate | None]) -> _Answer:
        own = _Asked(probes)
        with self._changed:
            self._waiting.append(own)
        while True:
            with self._changed:
                while not (own.answer or own.error) and (
                    not self._free or own not in self._waiting
                ):
                    self._changed.wait()
                if own.error is not None:
                    raise own.error
                if own.answer is not None:
                    return own.answer
                batch = self._waiting[:_TOGETHER]
                del self._waiting[:_TOGETHER]
                alone = self._free == self._lanes
                self._free -= 1
            self._run(batch, alone)

    def _run(self, batch: list[_Asked], alone: bool) -> None:
        answers: list[_Answer] | None = None
        error: BaseException | None = None
        try:
            answers = self._look_up([asked.probes for asked in batch], alone)
        except BaseException as caught:
            error = caught  # for each who waits, the caller among them
        with self._changed:
            for number, asked in enumerate(batch):
                asked.answer, asked.error = (answers[number] if answers else None), error
            self._free += 1
            self._changed.notify_all()


class Matcher:
    """Compares fingers with fingers. Thread-safe; open one and share it.

    Similarities are ``-log10`` of a false match rate throughout (:mod:`matcher.calibration`). The
    same input gives the same answer, whatever else is searched at the time, however many threads
    there are and in whatever order references were added.

    A template too poor to compare is left out where others remain; a request of which nothing
    remains raises :class:`FailureToEnrolError`.
    """

    def __init__(
        self,
        index: ReferenceIndex,
        sequence: int,
        directory: Path | None,
        key: bytes | None,
        settings: MatcherSettings,
    ) -> None:
        """Use :meth:`open`."""
        self._model = shipped_model()
        self._calibration = shipped_calibration()
        self._index = index
        self._sequence = sequence
        self._directory = directory
        self._key = key
        self._settings = settings
        self._guard = _Guard()
        # A snapshot and a clearing see each other's half done work otherwise.
        self._maintenance = threading.Lock()
        self._clearing = threading.Lock()
        # Templates hash by identity; an entry goes when its template does.
        self._pack_cache: WeakKeyDictionary[Template, PackedTemplate] = WeakKeyDictionary()
        threads = settings.threads or os.cpu_count() or 1
        self._threads = threads
        executor = ThreadPoolExecutor(threads, "matcher-compare") if threads > 1 else None
        # A pool of its own: searches wait for comparisons, never the other way round.
        self._searches = ThreadPoolExecutor(threads, "matcher-search") if threads > 1 else None
        self._searcher = Searcher(self._model, self._calibration, settings.search, executor)
        self._together = _Together(self._look_up, threads)

    @classmethod
    def open(
        cls,
        directory: Path | None,
        *,
        key: bytes | None = None,
        settings: MatcherSettings | None = None,
    ) -> Matcher:
        """A matcher with what the directory's snapshot holds, or empty when there is none.

        Args:
            directory: where snapshots are kept; ``None`` for a matcher purely in memory.
            key: 32 bytes. Snapshots are biometric data and always sealed, so a directory needs one.

        Raises:
            ValueError: a directory without a key, or a key of another length.
            IndexStateError: the snapshot is broken, another key's, or another version's; rebuild
                from the register.
        """
        settings = settings or MatcherSettings()
        if directory is None:
            return cls(ReferenceIndex(), 0, None, None, settings)
        if key is None or len(key) != snapshot.KEY_BYTES:
            raise ValueError(f"snapshots need a key of {snapshot.KEY_BYTES} bytes")
        path = directory / SNAPSHOT_NAME
        if not path.exists():
            return cls(ReferenceIndex(), 0, directory, key, settings)
        with snapshot.reading(path, key) as (header, reader):
            if header.get("versions") != _versions():
                raise IndexStateError(
                    f"the snapshot was made by {header.get('versions')}, this is {_versions()}"
                )
            try:
                sequence = int(reader.array("sequence")[0])
                index = ReferenceIndex.restored(reader.array)
            except (ValueError, IndexError, TypeError) as error:
                raise IndexStateError("the snapshot's parts do not belong together") from error
            reader.end()
        return cls(index, sequence, directory, key, settings)

    @property
    def sequence(self) -> int:
        """The last applied change of the register; 0 before the first."""
        return self._sequence

    def __len__(self) -> int:
        """Number of enrolled references (finger views)."""
        return len(self._index)

    def __contains__(self, subject_id: object) -> bool:
        return isinstance(subject_id, str) and subject_id in self._index

    # --- enrolment ---------------------------------------------------------------------------

    def check(self, templates: Sequence[Template]) -> None:
        """Return if at least one of the templates can become a reference.

        Raises:
            FailureToEnrolError: none can; its reason is the first template's.
        """
        self._packed(templates)

    def add(self, subject_id: str, templates: Sequence[Template], sequence: int) -> None:
        """Enrol references of a subject, beside those it has. The next search sees them.

        Templates too poor to become a reference are left out.

        Args:
            sequence: the change of the register this is; changes are applied in their order.

        Raises:
            FailureToEnrolError: none of the templates can become a reference.
            ValueError: ``sequence`` lies before the last applied change.
        """
        self.add_many([(subject_id, templates, sequence)])

    def add_many(self, additions: Sequence[tuple[str, Sequence[Template], int]]) -> None:
        """:meth:`add` for each of many, all at once: for catching up with the register.

        Args:
            additions: subject, templates and sequence, in the order of the changes.

        Raises:
            FailureToEnrolError, ValueError: as :meth:`add` for one of them; none is enrolled then.
        """
        packed = [
            (subject_id, [t for t in self._packed(templates) if t is not None], sequence)
            for subject_id, templates, sequence in additions
        ]
        with self._guard.writing():
            before = self._sequence
            try:
                for _, _, sequence in packed:
                    self._advance(sequence)
            except ValueError:
                self._sequence = before
                raise
            self._index.add(packed)

    def withdraw(self, subject_id: str, sequence: int) -> None:
        """Remove every reference of a subject, at once. An unknown subject is already gone.

        Raises:
            ValueError: ``sequence`` lies before the last applied change.
        """
        with self._guard.writing():
            self._advance(sequence)
            self._index.withdraw(subject_id)
        if self._worth_clearing() and self._clearing.acquire(blocking=False):
            threading.Thread(target=self._clear, name="matcher-clear", daemon=True).start()

    def _worth_clearing(self) -> bool:
        uncleared, living = self._index.uncleared, len(self._index)
        share = self._settings.clear_dead_share
        return uncleared > max(_FEWEST_CLEARED, share * (uncleared + living))

    def _clear(self) -> None:
        """Take withdrawn references out of the lists, a few at a time; searches go on.

        Whoever calls this has acquired ``_clearing``.
        """
        try:
            while True:
                self._clear_once()
                if not self._worth_clearing():
                    return
        finally:
            self._clearing.release()

    def _clear_once(self) -> None:
        with self._maintenance:
            with self._guard.reading():
                dead, lists = self._index.uncleared, self._index.lists
            for first in range(0, lists, _LISTS_AT_A_TIME):
                with self._guard.writing():
                    self._index.clear(range(first, min(first + _LISTS_AT_A_TIME, lists)))
            with self._guard.writing():
                self._index.cleared(dead)

    def _advance(self, sequence: int) -> None:
        if sequence < self._sequence:
            raise ValueError(
                f"change {sequence} after {self._sequence}: changes are applied in order"
            )
        self._sequence = sequence

    # --- one to many -------------------------------------------------------------------------

    def identify(
        self, probes: Sequence[Template], *, limit: int = 10, added_after: int | None = None
    ) -> CandidateList:
        """The subjects most like the probes, fused over fingers.

        Args:
            probes: one person's fingers; each is compared with references of the same position, a
                probe or reference of unknown position with any.
            limit: candidates to return at most.
            added_after: consider only references added by later changes than this, all of them.

        Raises:
            FailureToEnrolError: no probe can be compared.
        """
        packed = self._packed(probes)
        if added_after is not None:
            with self._guard.reading():
                sequence, rows = self._sequence, self._index.added_after(added_after)
            ranked = self._searcher.rank(self._index, packed, limit, rows)
            return CandidateList(ranked, True, int(rows.shape[0]), sequence)
        return self._candidates(packed, self._together.look_up(packed), limit)

    def identify_many(
        self, batch: Sequence[Sequence[Template]], *, limit: int = 10
    ) -> list[CandidateList]:
        """:meth:`identify` for each of a batch, in order, with the same answers.

        Raises:
            FailureToEnrolError: of one entry no probe can be compared; there is no answer at all.
        """
        packed = [self._packed(probes) for probes in batch]
        size = max(1, min(_TOGETHER, -(-len(packed) // self._threads)))
        parts = [packed[first : first + size] for first in range(0, len(packed), size)]

        def search(part: list[list[PackedTemplate | None]]) -> list[CandidateList]:
            answers = self._look_up(part, False)
            both = zip(part, answers, strict=True)
            return [self._candidates(probes, answer, limit) for probes, answer in both]

        if self._searches is None or len(parts) < 2:
            return [found for part in parts for found in search(part)]
        return [found for part in self._searches.map(search, parts) for found in part]

    def _look_up(self, people: list[list[PackedTemplate | None]], parallel: bool) -> list[_Answer]:
        answers = self._looked_up(people, widely=False, parallel=parallel)
        again = [number for number, answer in enumerate(answers) if not answer.shortlist.decided]
        if again:
            some = [people[number] for number in again]
            wide = self._looked_up(some, widely=True, parallel=parallel)
            for number, answer in zip(again, wide, strict=True):
                answers[number] = answer
        return answers

    def _looked_up(
        self, people: list[list[PackedTemplate | None]], *, widely: bool, parallel: bool
    ) -> list[_Answer]:
        with self._guard.reading():
            searched, sequence = len(self._index), self._sequence
            founds = self._searcher.look_up(self._index, people, widely=widely, parallel=parallel)
        return [
            _Answer(found, self._searcher.shortlist(self._index, probes, found), searched, sequence)
            for probes, found in zip(people, founds, strict=True)
        ]

    def _candidates(
        self, probes: list[PackedTemplate | None], answer: _Answer, limit: int
    ) -> CandidateList:
        # What rows hold never changes: putting in order and comparing need no guard.
        rows = self._searcher.chosen(self._index, probes, answer.found, answer.shortlist)
        ranked = self._searcher.rank(self._index, probes, limit, rows)
        return CandidateList(ranked, True, answer.searched, answer.sequence)

    # --- one to one --------------------------------------------------------------------------

    def verify(self, subject_id: str, probes: Sequence[Template], *, fmr: float = 1e-4) -> Decision:
        """Whether the probes are the subject's, at a false match rate of ``fmr``.

        Raises:
            UnknownSubjectError: nobody is enrolled under that id.
            FailureToEnrolError: no probe can be compared.
            ValueError: ``fmr`` is not within (0, 1].
        """
        threshold = self.threshold_for_fmr(fmr)
        packed = self._packed(probes)
        with self._guard.reading():
            rows = np.asarray(self._index.rows_of(subject_id), dtype=np.int64)
        if rows.shape[0] == 0:
            raise UnknownSubjectError(subject_id)
        ranked = self._searcher.rank(self._index, packed, 1, rows)
        if not ranked:
            return Decision(-math.inf, threshold, (-math.inf,) * len(packed))
        return Decision(ranked[0].similarity, threshold, ranked[0].finger_similarities)

    def compare(self, probe: Template, reference: Template) -> Comparison:
        """One comparison with its reasons, whatever the finger positions say.

        ``compare(a, b)`` and ``compare(b, a)`` have the same similarity.

        Raises:
            FailureToEnrolError: either cannot be compared.
        """
        measured = compare.measure(
            compare.pack(probe, self._model), compare.pack(reference, self._model), self._model
        )
        evidence = self._calibration.evidence(measured.features.reshape(1, len(FEATURES)))
        similarity = float(self._calibration.similarity(evidence)[0])
        return Comparison(
            similarity=max(similarity, 0.0),
            pairs=measured.pairs,
            rotation_rad=measured.rotation_rad,
            shift_px=measured.shift_px,
        )

    def similarity(self, probes: Sequence[Template], references: Sequence[Template]) -> float:
        """Fused similarity of two sets of templates, as if the second were enrolled alone.

        ``-inf`` when no two fingers are compatible.

        Raises:
            FailureToEnrolError: nothing on one side can be compared.
        """
        packed = self._packed(probes)
        index = ReferenceIndex()
        index.add([("", [template for template in self._packed(references) if template], 0)])
        rows = np.arange(index.rows, dtype=np.int64)
        ranked = self._searcher.rank(index, packed, 1, rows)
        return ranked[0].similarity if ranked else -math.inf

    # --- thresholds --------------------------------------------------------------------------

    def threshold_for_fmr(self, fmr: float) -> float:
        """See :func:`matcher.calibration.threshold_for_fmr`."""
        return calibration.threshold_for_fmr(fmr)

    def threshold_for_fpir(self, fpir: float, gallery_subjects: int) -> float:
        """See :func:`matcher.calibration.threshold_for_fpir`."""
        return calibration.threshold_for_fpir(fpir, gallery_subjects)

    # --- snapshots ---------------------------------------------------------------------------

    def snapshot(self) -> None:
        """Write the sealed snapshot. Searches and enrolments go on.

        Raises:
            IndexStateError: this matcher has no directory.
            OSError: the disk refused; the previous snapshot is untouched.
        """
        if self._directory is None or self._key is None:
            raise IndexStateError("a matcher in memory has no snapshot")
        with self._maintenance:
            with self._guard.unchanged():
                saved, sequence = self._index.saved(), self._sequence
            new_rows = saved.new_rows()
            self._directory.mkdir(parents=True, exist_ok=True)
            path = self._directory / SNAPSHOT_NAME
            with snapshot.writing(path, self._key, {"versions": _versions()}) as out:
                out.array("sequence", np.asarray([sequence]))
                for name, array in saved.rows():
                    out.array(name, array)
                for first in range(0, self._index.lists, _LISTS_AT_A_TIME):
                    with self._guard.reading():
                        some = range(first, min(first + _LISTS_AT_A_TIME, self._index.lists))
                        lists = [saved.living_list(number, new_rows) for number in some]
                    for ids, codes in lists:
                        out.array("ids", ids)
                        out.array("codes", codes)

    def _pack(self, template: Template) -> PackedTemplate:
        """:func:`matcher.compare.pack`, once a template: an enrolment checks, searches and adds."""
        packed = self._pack_cache.get(template)
        if packed is None:
            packed = self._pack_cache[template] = compare.pack(template, self._model)
        return packed

    def _packed(self, templates: Sequence[Template]) -> list[PackedTemplate | None]:
        packed: list[PackedTemplate | None] = []
        first: FailureToEnrolError | None = None
        for template in templates:
            try:
                packed.append(self._pack(template))
            except FailureToEnrolError as error:
                first = first or error
                packed.append(None)
        if not any(template is not None for template in packed):
            raise first or FailureToEnrolError("NO_TEMPLATES", "there is no template at all")
        return packed


def _versions() -> dict[str, str]:
    """What a snapshot's arrays depend on: descriptors and list numbers mean nothing to others."""
    return {"descriptor": DESCRIPTOR_VERSION, "centres": CENTRES_VERSION}
