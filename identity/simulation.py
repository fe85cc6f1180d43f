"""``anju terminal simulate``: a day at simulated stations, with a verdict from the register itself.

The composition of :mod:`devices.simulator` with synthetic people, a server of its own (or one that
runs already), and the register's facts at the end.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from devices.credentials import CERTIFICATE_FILE
from devices.simulator import (
    DayPlan,
    Facts,
    FaultRates,
    Mix,
    Run,
    RunSettings,
    State,
    Submission,
    Verdict,
    judge,
    plan_day,
    plan_faults,
)
from devices.simulator.direct import STAFF, staff_key
from devices.simulator.faults import plan_skews
from devices.simulator.network import network
from devices.simulator.worker import FINGERS_ASKED, TerminalSpec
from devices.terminal import Connection, connect, log_in, provision
from devices.terminal.wire import create_token
from identity import simulation_view
from identity.app import OPERATORS
from identity.config import CaptureConfig, load_config
from identity.errors import InvalidRequestError, StateError
from identity.example_population import SyntheticCaptures
from identity.particulars import SHANGHAI
from identity.ports import SystemClock
from identity.server_process import ServerProcess, loopback_toml, serving
from identity.setup import create_installation
from identity.simulation_facts import audit_end, facts_in_store, facts_of_service

TERMINAL = "-t1"  # each station has one terminal, named after it
LINES = 20  # of what is wrong; the JSON file has all


@dataclass(frozen=True)
class RunningServer:
    """A register that runs already: host:port of its two ports, and an operator's credentials."""

    address: str
    provisioning_address: str
    credentials: Path


@dataclass(frozen=True)
class Options:
    """What is to be simulated.

    Attributes:
        minutes: how long the day takes, from opening to closing.
        max_missed: the share of second visits that may go unnoticed before the run fails.
    """

    stations: int
    people: int
    minutes: float
    rates: FaultRates
    seed: int
    mix: Mix = field(default_factory=Mix)
    permits: bool = True
    patience_s: float = 120.0
    max_missed: float = 0.05


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        result: everything measured, for a JSON file.
        problems: why it failed; empty when it did not.
        submissions: as the terminals know them.
    """

    result: dict[str, Any]
    problems: tuple[str, ...]
    submissions: tuple[Submission, ...] = field(repr=False)


def run(
    options: Options, directory: Path | None, server: RunningServer | None, console: Console
) -> Outcome:
    """Play the day and print the verdict.

    Args:
        directory: for everything made; a temporary one, kept only after a failure, if ``None``.
        server: a running register; one is made and started otherwise.

    Raises:
        InvalidRequestError: OPTIONS_INVALID.
        StateError: SERVER_FAILED.
        devices.simulator.run.SimulatorError: the simulation itself failed and shows nothing.
    """
    try:
        plan = plan_day(options.stations, options.people, options.seed, options.mix)
    except ValueError as error:
        raise InvalidRequestError("OPTIONS_INVALID", str(error)) from error
    place = directory or Path(tempfile.mkdtemp(prefix="anju-simulation-"))
    place.mkdir(parents=True, exist_ok=True)
    simulation = _Remote(place, server) if server is not None else _Own(place)
    submissions, facts, state = _play(options, plan, simulation, console)
    verdict = judge(submissions, facts)
    problems = tuple(verdict.problems(options.max_missed))
    console.print(simulation_view.verdict_table(verdict, state, problems))
    for line in (*verdict.lost, *verdict.doubled)[:LINES]:
        console.print(f"  {line}", soft_wrap=True)
    if problems:
        console.print(f"everything is kept in {place}", soft_wrap=True)
    elif directory is None:
        shutil.rmtree(place)
    return Outcome(_result(options, state, verdict, problems), problems, tuple(submissions))


def _play(
    options: Options, plan: DayPlan, simulation: _Own | _Remote, console: Console
) -> tuple[list[Submission], Facts, State]:
    day_s = options.minutes * 60.0
    faults = plan_faults(options.rates, options.stations, day_s, options.seed)
    skews = plan_skews(options.rates, options.stations, options.seed)
    yesterday = SystemClock().now().astimezone(SHANGHAI).date() - timedelta(days=1)
    captures = SyntheticCaptures(options.seed, yesterday)
    captures.samples(0, (2,), 0, False)  # what draws fingers is compiled before the day begins
    names = [f"station-{number:03}{TERMINAL}" for number in range(1, options.stations + 1)]
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(simulation.started())
        homes = simulation.terminals(names, skews)
        lines = stack.enter_context(network(address, options.stations))
        terminals = [
            TerminalSpec(home.name, str(home), line.address, skew)
            for home, line, skew in zip(homes, lines, skews, strict=True)
        ]
        with simulation_view.shown(console) as view:
            played = Run(
                plan,
                captures,
                faults,
                terminals,
                lines,
                simulation.control,
                RunSettings(day_s, options.permits, options.patience_s),
                simulation.place / "terminals.log",
                view,
            )
            submissions = played.play()
        facts = simulation.facts(homes, submissions)
    return submissions, facts, played.state


class _Own:
    """A register that is made, started, broken and, at the end, read on its disk."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._directory = place / "register"
        toml, self._provisioning_address = loopback_toml()
        # Whoever has fewer fingers than their terminal asks for must say why here too.
        asked = f"fingers_asked = {CaptureConfig().fingers_asked}"
        toml = toml.replace(asked, f"fingers_asked = {FINGERS_ASKED}")
        create_installation(self._directory, toml)
        self._address = load_config(self._directory).server.address
        self.control = ServerInProcess(self._directory)

    @contextlib.contextmanager
    def started(self) -> Iterator[str]:
        """The address, while it runs."""
        self.control.start()
        try:
            yield self._address
        finally:
            self.control.stop()

    def terminals(self, names: Sequence[str], skews: Sequence[float]) -> list[Path]:
        with connect(self._directory / OPERATORS / "operator-1") as operator:
            return _provisioned(
                operator, self.place, names, skews, self._provisioning_address, self._address
            )

    def facts(self, homes: Sequence[Path], submissions: Sequence[Submission]) -> Facts:
        """What the disk holds once the server has stopped."""
        stations = [_station(home.name) for home in homes]
        self.control.stop()
        facts = facts_in_store(self._directory, stations)
        if facts.waiting:
            self.control.start()  # settles what was accepted and not searched for
            self.control.stop()
            facts = facts_in_store(self._directory, stations)
        return facts


class ServerInProcess:
    """``anju serve`` of a working directory: :class:`devices.simulator.ServerControl`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running = contextlib.ExitStack()
        self._server: ServerProcess | None = None

    def start(self) -> None:
        self._server = self._running.enter_context(serving(self._directory))

    def stop(self) -> None:
        """Raises StateError (``SERVER_FAILED``) when it did not end in good order."""
        server, self._server = self._server, None
        if server is None:
            return
        self._running.close()
        if server.process.returncode:
            raise StateError(
                "SERVER_FAILED", f"the server ended with status {server.process.returncode}"
            )

    def kill(self) -> None:
        if self._server is not None:
            self._server.process.kill()
            self._server.process.wait()
            self._server = None
            self._running.close()


class _Remote:
    """A register that runs already, seen through its own services."""

    control = None

    def __init__(self, place: Path, server: RunningServer) -> None:
        self.place = place
        self._server = server
        self._before = 0

    @contextlib.contextmanager
    def started(self) -> Iterator[str]:
        """The address; where its audit log ends is noted."""
        with self._operator() as operator:
            self._before = audit_end(operator)
        yield self._server.address

    def terminals(self, names: Sequence[str], skews: Sequence[float]) -> list[Path]:
        with self._operator() as operator:
            return _provisioned(
                operator,
                self.place,
                names,
                skews,
                self._server.provisioning_address,
                self._server.address,
            )

    def facts(self, homes: Sequence[Path], submissions: Sequence[Submission]) -> Facts:
        with self._operator() as operator:
            return facts_of_service(
                operator, {home.name: home for home in homes}, submissions, self._before
            )

    def _operator(self) -> Connection:
        return connect(self._server.credentials, self._server.address)


def _provisioned(
    operator: Connection,
    place: Path,
    names: Sequence[str],
    skews: Sequence[float],
    provisioning_address: str,
    address: str,
) -> list[Path]:
    """Credentials of terminals, each at a station of its own; those of an earlier run are used.

    Somebody is logged in at each of them, by the terminal's own clock.
    """
    homes = [place / "terminals" / name for name in names]
    login_key = staff_key(place, operator)
    for home, skew in zip(homes, skews, strict=True):
        if not (home / CERTIFICATE_FILE).exists():
            token = create_token(operator, _station(home.name), home.name)
            provision(provisioning_address, token, home, address)
        log_in(home, STAFF, login_key=login_key, address=address, now=partial(_ahead, skew))
    return homes


def _ahead(skew_s: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=skew_s)


def _station(terminal: str) -> str:
    return terminal.removesuffix(TERMINAL)


def _result(
    options: Options, state: State, verdict: Verdict, problems: Sequence[str]
) -> dict[str, Any]:
    """For a JSON file. Times in seconds."""
    described = asdict(verdict)
    took_s = described.pop("took_s")
    return {
        "options": asdict(options),
        "verdict": {
            **described,
            "failed": list(problems),
            "took_p50_s": verdict.quantile_s(0.50) if took_s else None,
            "took_p99_s": verdict.quantile_s(0.99) if took_s else None,
            "took_max_s": took_s[-1] if took_s else None,
        },
        "elapsed_s": state.elapsed_s,
        "faults": {kind.value: count for kind, count in state.past_faults.items()},
    }
