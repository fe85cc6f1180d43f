"""Plays a day: hands in at the counters, lets things go wrong, and remembers what was promised.

One thread does everything in turn (:meth:`Run.play`); the network, the terminals' processes and the
server's restarts happen beside it and report through queues.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from devices.errors import DevicesError
from devices.simulator.day import OPEN_S, Arrival, Captures, DayPlan
from devices.simulator.faults import Fault, FaultKind
from devices.simulator.network import CUT, GOOD, SILENT, SLOW, Line, Quality
from devices.simulator.processes import Event, TerminalProcess
from devices.simulator.truth import Findings, Judged, findings
from devices.simulator.verdict import POOR_CAPTURE, Submission
from devices.simulator.worker import TerminalSpec, submit_line
from devices.terminal.sending import SendPolicy
from devices.terminal.types import ApplicationState, Person, Sample
from devices.terminal.wire import new_idempotency_key

MAX_PROCESSES = 8
READY_S = 120.0
_TICK_S = 0.05
_AGAIN_S = 1.0  # the counter asks the terminal again when its disk was full
_RECAPTURE_S = 120.0  # of the day that is played
_AHEAD = 200  # arrivals whose fingers are drawn before they come
_LINK_QUALITY = {FaultKind.LINK_SLOW: SLOW, FaultKind.LINK_SILENT: SILENT, FaultKind.LINK_CUT: CUT}


class SimulatorError(DevicesError):
    """A part of the simulator itself failed; the run shows nothing."""

    reason = "SIMULATOR_FAILED"


class ServerControl(Protocol):
    """The register's process, as somebody with root sees it. Each call may take its time."""

    def kill(self) -> None:
        """SIGKILL."""

    def stop(self) -> None:
        """SIGTERM, and wait until it has ended."""

    def start(self) -> None:
        """Start it and wait until it serves."""


@dataclass(frozen=True)
class RunSettings:
    """How a day is played.

    Attributes:
        day_s: real seconds from opening to closing.
        permits: whether applicants ask for a permit.
        patience_s: after closing, how long nothing may arrive at the register before the run gives
            up on what is still queued, seconds.
        view_every_s: how often the view is shown, seconds.
    """

    day_s: float
    permits: bool = True
    patience_s: float = 120.0
    view_every_s: float = 0.5

    @property
    def policy(self) -> SendPolicy:
        """How patiently the terminals send: the shorter the day, the less."""
        longest_s = min(max(self.day_s / 30, 1.0), 30.0)
        return SendPolicy(
            deadline_s=15.0, first_wait_s=0.5, longest_wait_s=longest_s, refresh_every_s=15.0
        )


@dataclass
class StationState:
    """One station as it is now.

    Attributes:
        waiting: submissions on its terminal that the register has not acknowledged.
        sent, refused: of its submissions.
        up: whether its terminal runs.
        problem: what the terminal tells its operator.
    """

    name: str
    waiting: int = 0
    sent: int = 0
    refused: int = 0
    up: bool = False
    problem: str = ""


@dataclass
class State:
    """How the run stands; the same object all along, for the view to read.

    Attributes:
        day_s: seconds after opening, in the time of the day that is played.
        arrived, arrivals: how many have come, and how many will.
        states: acknowledged submissions by state.
        took_s: of the acknowledged submissions, in order of their arrival, seconds.
        faults: in progress now.
        past_faults: how many are over, by kind.
        over: nothing more will happen.
    """

    stations: list[StationState]
    arrivals: int
    elapsed_s: float = 0.0
    day_s: float = 0.0
    arrived: int = 0
    acknowledged: int = 0
    states: Counter[ApplicationState] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    past_faults: Counter[FaultKind] = field(default_factory=Counter)
    over: bool = False
    judged: list[Judged] = field(default_factory=list, repr=False)

    @property
    def waiting(self) -> int:
        """In all queues together."""
        return sum(one.waiting for one in self.stations)

    def findings(self) -> Findings:
        """As the terminals were told so far; the verdict asks the register instead."""
        return findings(self.judged)


@dataclass(eq=False)
class _Handed:
    """A submission that somebody handed in at a counter."""

    key: str
    station: int
    arrival: Arrival
    document: str
    data: tuple[Person, tuple[Sample, ...]] | None  # until the terminal has it
    kept: bool = False
    refused: str = ""
    application_id: str = ""
    state: ApplicationState = ApplicationState.UNSPECIFIED
    registrant_id: str = ""
    took_s: float = 0.0

    @property
    def settled(self) -> bool:
        return bool(self.refused or self.application_id)


class Run:
    """One run; :meth:`play` it once."""

    def __init__(
        self,
        plan: DayPlan,
        captures: Captures,
        faults: Sequence[Fault],
        terminals: Sequence[TerminalSpec],
        lines: Sequence[Line],
        server: ServerControl | None,
        settings: RunSettings,
        log: Path,
        view: Callable[[State], None] = lambda state: None,
    ) -> None:
        """
        Args:
            terminals: one a station, provisioned; they find the register over the lines.
            server: ``None`` when it cannot be restarted; then no fault may ask for it.
            log: gets what the terminals' processes write to stderr.
            view: called now and then, from the thread that plays.
        """
        if not len(terminals) == len(lines) == plan.stations:
            raise ValueError("there must be one terminal and one line for each station")
        if server is None and any(fault.kind.of_server for fault in faults):
            raise ValueError("a server that is not ours is not restarted")
        self._plan = plan
        self._captures = captures
        self._faults = faults
        self._lines = lines
        self._server = server
        self._settings = settings
        self._view = view
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._station_of = {one.name: number for number, one in enumerate(terminals)}
        self._names = [one.name for one in terminals]
        count = min(MAX_PROCESSES, plan.stations)
        self._processes = [
            TerminalProcess(terminals[number::count], settings.policy, self._events, log)
            for number in range(count)
        ]
        self._handed: dict[str, _Handed] = {}
        self._open = 0  # handed in and not settled
        self._again: list[tuple[float, int, _Handed]] = []
        self._number = itertools.count()
        self._began: list[Fault] = []
        self._start = 0.0
        self._last_news = 0.0
        self.state = State([StationState(one.name) for one in terminals], len(plan.arrivals))

    def play(self) -> list[Submission]:
        """The day from opening until every queue is empty, or nothing moves any more.

        Raises:
            SimulatorError: a terminal's process ended by itself; the log says why.
            Exception: what the server's control or the captures raise.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="server-control") as control:
            drawn = _Ahead(self._plan.arrivals, self._captures)
            try:
                for process in self._processes:
                    process.start()
                self._wait_until_ready()
                self._play(drawn, control)
                self._stop()
                self.state.over = True
                self._view(self.state)
            finally:
                drawn.close()
                for process in self._processes:
                    process.kill()
        return [self._submission(one) for one in self._handed.values()]

    # -- the day --

    def _play(self, drawn: _Ahead, control: ThreadPoolExecutor) -> None:
        settings = self._settings
        self._start = time.monotonic()
        arrivals = iter(self._plan.arrivals)
        coming = next(arrivals, None)
        begin = sorted(self._faults, key=lambda one: one.begins_s)
        end: list[tuple[float, int, Fault]] = []
        actions: list[Future[None]] = []
        next_view = 0.0
        while True:
            now = time.monotonic() - self._start
            self._show_time(now)
            while coming is not None and coming.at_s * settings.day_s / OPEN_S <= now:
                self._arrive(coming, *drawn.next())
                coming = next(arrivals, None)
            while self._again and self._again[0][0] <= now:
                self._hand_in(heapq.heappop(self._again)[2])
            while begin and begin[0].begins_s <= now:
                fault = begin.pop(0)
                heapq.heappush(end, (fault.ends_s, next(self._number), fault))
                self._begin(fault, control, actions)
            while end and end[0][0] <= now:
                self._end(heapq.heappop(end)[2], control, actions)
            actions = [one for one in actions if not _finished(one)]
            self._take_events()
            if now >= next_view:
                self._view(self.state)
                next_view = now + settings.view_every_s
            if coming is None and not (begin or end or actions):
                if not self._open:
                    break
                if time.monotonic() - self._last_news > settings.patience_s:
                    break
            else:
                self._last_news = time.monotonic()

    def _show_time(self, now: float) -> None:
        self.state.elapsed_s = now
        self.state.day_s = now * OPEN_S / self._settings.day_s

    def _arrive(self, arrival: Arrival, person: Person, samples: tuple[Sample, ...]) -> None:
        self.state.arrived += 1
        self._capture(arrival, person, samples, 0.0)

    def _capture(
        self, arrival: Arrival, person: Person, samples: tuple[Sample, ...], in_s: float
    ) -> None:
        handed = _Handed(
            new_idempotency_key(),
            arrival.station,
            arrival,
            person.document_number,
            (person, samples),
        )
        self._handed[handed.key] = handed
        self._open += 1
        if in_s:
            self._hand_in_later(handed, in_s)
        else:
            self._hand_in(handed)

    def _hand_in(self, handed: _Handed) -> None:
        if handed.data is None:
            return
        person, samples = handed.data
        name = self._names[handed.station]
        if self.state.stations[handed.station].up:
            label = f"ticket-{len(self._handed)}"
            self._process(handed.station).send(
                submit_line(
                    name,
                    handed.key,
                    label,
                    person,
                    samples,
                    handed.arrival.missing,
                    self._settings.permits,
                )
            )

    def _hand_in_later(self, handed: _Handed, in_s: float) -> None:
        at = time.monotonic() - self._start + in_s
        heapq.heappush(self._again, (at, next(self._number), handed))

    def _process(self, station: int) -> TerminalProcess:
        return self._processes[station % len(self._processes)]

    # -- what the terminals tell --

    def _take_events(self, wait_s: float = _TICK_S) -> None:
        try:
            event = self._events.get(timeout=wait_s)
            while True:
                self._take(event)
                event = self._events.get_nowait()
        except queue.Empty:
            return

    def _take(self, event: Event) -> None:
        match event["is"]:
            case "ready":
                self._ready(self._station_of[event["terminal"]])
            case "queue":
                station = self.state.stations[self._station_of[event["terminal"]]]
                station.waiting, station.problem = event["waiting"], event["problem"]
            case "kept":
                self._kept(self._handed[event["key"]])
            case "not kept":
                self._hand_in_later(self._handed[event["key"]], _AGAIN_S)
            case "entry":
                self._entry(event)
            case "died":
                raise SimulatorError(
                    f"a terminal's process ended with status {event['status']}; see {event['log']}"
                )
            case other:
                raise SimulatorError(f"a terminal's process says {other!r}")

    def _ready(self, number: int) -> None:
        """A terminal runs, again perhaps: its counter hands in what was not confirmed."""
        self.state.stations[number].up = True
        if any(one.kind is FaultKind.DISK_FULL and one.station == number for one in self._began):
            self._fill_disk(number, True)
        for handed in self._handed.values():
            if handed.station == number and not handed.kept:
                self._hand_in(handed)

    def _kept(self, handed: _Handed) -> None:
        handed.kept = True
        handed.data = None

    def _entry(self, event: Event) -> None:
        # Unknown where the terminal was used before: another run's receipts.
        handed = self._handed.get(event["key"])
        if handed is None:
            return
        self._kept(handed)
        if event["state"] == "SENT" and not handed.application_id:
            self._last_news = time.monotonic()
            self._acknowledged(handed, event)
        elif event["state"] == "ATTENTION":
            self._last_news = time.monotonic()
            self._refused(handed, event["reason"])

    def _acknowledged(self, handed: _Handed, event: Event) -> None:
        self._open -= not handed.settled
        handed.application_id = event["application_id"]
        handed.state = ApplicationState(event["application_state"])
        handed.registrant_id = event["registrant_id"]
        handed.took_s = event["took_s"]
        state = self.state
        state.acknowledged += 1
        state.stations[handed.station].sent += 1
        state.states[handed.state] += 1
        state.took_s.append(handed.took_s)
        state.judged.append(
            Judged(str(handed.arrival.person), handed.document, handed.state, handed.registrant_id)
        )

    def _refused(self, handed: _Handed, reason: str) -> None:
        first = not handed.settled
        self._open -= first
        handed.refused = reason
        if reason != POOR_CAPTURE:
            self.state.stations[handed.station].refused += first
            return
        # The operator sees why, discards it and captures anew. Discarding is repeated after a
        # crash, capturing is not.
        self._process(handed.station).send(
            {"do": "discard", "terminal": self._names[handed.station], "key": handed.key}
        )
        if first:
            arrival = handed.arrival
            person = self._captures.person(arrival.papers)
            samples = self._captures.samples(
                arrival.person, arrival.positions, arrival.impression + 2, poor=False
            )
            in_s = _RECAPTURE_S * self._settings.day_s / OPEN_S
            self._capture(arrival, person, samples, in_s)

    # -- what goes wrong --

    def _begin(
        self, fault: Fault, control: ThreadPoolExecutor, actions: list[Future[None]]
    ) -> None:
        self._began.append(fault)
        self.state.faults = list(self._began)
        match fault.kind, fault.station, self._server:
            case FaultKind.SERVER_KILLED, _, server if server is not None:
                actions.append(control.submit(server.kill))
            case FaultKind.SERVER_STOPPED, _, server if server is not None:
                actions.append(control.submit(server.stop))
            case FaultKind.TERMINAL_KILLED, int() as station, _:
                self._kill_terminal(station)
            case FaultKind.DISK_FULL, int() as station, _:
                self._fill_disk(station, True)
            case _, int() as station, _:
                self._set_line(station)

    def _end(self, fault: Fault, control: ThreadPoolExecutor, actions: list[Future[None]]) -> None:
        self._began.remove(fault)
        self.state.faults = list(self._began)
        self.state.past_faults[fault.kind] += 1
        match fault.kind, fault.station, self._server:
            case FaultKind.SERVER_KILLED | FaultKind.SERVER_STOPPED, _, server if server:
                actions.append(control.submit(server.start))
            case FaultKind.TERMINAL_KILLED, int() as station, _:
                self._start_terminal(station)
            case FaultKind.DISK_FULL, int() as station, _:
                self._fill_disk(station, False)
            case _, int() as station, _:
                self._set_line(station)

    def _set_line(self, station: int) -> None:
        """A line is as bad as the worst that happens to it now."""
        quality: Quality = GOOD
        for kind, worse in _LINK_QUALITY.items():
            if any(one.kind is kind and one.station == station for one in self._began):
                quality = worse
        self._lines[station].become(quality)

    def _fill_disk(self, station: int, full: bool) -> None:
        self._process(station).send({"do": "disk", "terminal": self._names[station], "full": full})

    def _kill_terminal(self, station: int) -> None:
        process = self._process(station)
        process.kill()
        for name in process.names:
            self.state.stations[self._station_of[name]].up = False

    def _start_terminal(self, station: int) -> None:
        process = self._process(station)
        others = (
            one.station
            for one in self._began
            if one.kind is FaultKind.TERMINAL_KILLED and one.station is not None
        )
        if not process.alive and not any(self._process(other) is process for other in others):
            process.start()

    # -- beginning and end --

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + READY_S
        while not all(station.up for station in self.state.stations):
            self._take_events()
            if time.monotonic() > until:
                raise SimulatorError(f"the terminals did not start within {READY_S:.0f} s")

    def _stop(self) -> None:
        for process in self._processes:
            status = process.stop()
            if status:
                raise SimulatorError(f"a terminal's process ended with status {status}")
        self._take_events()

    def _submission(self, handed: _Handed) -> Submission:
        return Submission(
            key=handed.key,
            terminal_id=self._names[handed.station],
            person=str(handed.arrival.person),
            document=handed.document,
            kept=handed.kept,
            refused=handed.refused,
            application_id=handed.application_id,
            state=handed.state,
            registrant_id=handed.registrant_id,
            took_s=handed.took_s,
        )


class _Ahead:
    """Draws papers and fingers before they are needed, in a thread: the day does not wait."""

    def __init__(self, arrivals: Sequence[Arrival], captures: Captures) -> None:
        self._queue: queue.Queue[tuple[Person, tuple[Sample, ...]] | BaseException] = queue.Queue(
            _AHEAD
        )
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._draw, args=(arrivals, captures), daemon=True)
        self._thread.start()

    def next(self) -> tuple[Person, tuple[Sample, ...]]:
        drawn = self._queue.get()
        if isinstance(drawn, BaseException):
            raise drawn
        return drawn

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _draw(self, arrivals: Sequence[Arrival], captures: Captures) -> None:
        try:
            for drawn in self._drawn(arrivals, captures):
                self._put(drawn)
        except BaseException as error:
            self._put(error)

    def _drawn(
        self, arrivals: Sequence[Arrival], captures: Captures
    ) -> Iterator[tuple[Person, tuple[Sample, ...]]]:
        for one in arrivals:
            yield (
                captures.person(one.papers),
                captures.samples(one.person, one.positions, one.impression, one.poor),
            )

    def _put(self, drawn: tuple[Person, tuple[Sample, ...]] | BaseException) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(drawn, timeout=0.2)
            except queue.Full:
                continue
            return


def _finished(action: Future[None]) -> bool:
    """Whether it has; raises what it raised."""
    if not action.done():
        return False
    action.result()
    return True
