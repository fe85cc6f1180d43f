"""What goes wrong and when: drawn from a seed before the run, so that a run can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import Enum

_SERVER_APART_S = 6.0  # a server that is just starting is not killed again


class FaultKind(Enum):
    """Numbers are per station for what happens to a station, in all for the server."""

    LINK_CUT = "network cut"  # connections are reset, new ones refused
    LINK_SILENT = "network silent"  # nothing arrives, and nobody says so
    LINK_SLOW = "slow link"
    SERVER_KILLED = "server killed"  # SIGKILL
    SERVER_STOPPED = "server restarted"  # SIGTERM
    TERMINAL_KILLED = "terminal killed"  # SIGKILL; its queue is opened again from the disk
    DISK_FULL = "terminal disk full"

    @property
    def of_server(self) -> bool:
        return self in (FaultKind.SERVER_KILLED, FaultKind.SERVER_STOPPED)


@dataclass(frozen=True)
class FaultRates:
    """How much goes wrong in a day.

    Attributes:
        cuts, silences, slow, terminal_kills, full_disks: mean number for each station.
        server_kills, server_stops: number in all.
        clock_skew_s: each terminal's clock is wrong by up to this, either way, seconds.
    """

    cuts: float = 0.0
    silences: float = 0.0
    slow: float = 0.0
    terminal_kills: float = 0.0
    full_disks: float = 0.0
    server_kills: int = 0
    server_stops: int = 0
    clock_skew_s: float = 0.0

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0:
            raise ValueError("numbers of faults are not negative")

    def but(self, **changes: float | None) -> FaultRates:
        """The same with some of them replaced; ``None`` leaves one as it is."""
        return replace(self, **{name: one for name, one in changes.items() if one is not None})  # type: ignore[arg-type]


PROFILES = {
    "none": FaultRates(),
    "some": FaultRates(
        cuts=0.5,
        slow=0.5,
        terminal_kills=0.25,
        server_kills=1,
        server_stops=1,
        clock_skew_s=300.0,
    ),
    "hard": FaultRates(
        cuts=2.0,
        silences=1.0,
        slow=1.0,
        terminal_kills=1.0,
        full_disks=0.5,
        server_kills=3,
        server_stops=2,
        clock_skew_s=3 * 3600.0,
    ),
}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        station: number from 0; ``None`` for the server.
        begins_s: real seconds after the stations open.
        lasts_s: until it is put right; a server is started again after that.
    """

    kind: FaultKind
    station: int | None
    begins_s: float
    lasts_s: float

    @property
    def ends_s(self) -> float:
        return self.begins_s + self.lasts_s


def plan_faults(rates: FaultRates, stations: int, day_s: float, seed: int) -> tuple[Fault, ...]:
    """Draw the faults of a day that takes ``day_s`` real seconds, in order of their beginning.

    A fault lasts 2 to 10 percent of the day, at least half a second; every one ends before the day.
    Those of one server, and of one kind at one station, never overlap.
    """
    rng = random.Random(f"faults {seed}")
    planned: list[Fault] = []
    per_station = (
        (FaultKind.LINK_CUT, rates.cuts),
        (FaultKind.LINK_SILENT, rates.silences),
        (FaultKind.LINK_SLOW, rates.slow),
        (FaultKind.TERMINAL_KILLED, rates.terminal_kills),
        (FaultKind.DISK_FULL, rates.full_disks),
    )
    for kind, mean in per_station:
        total = _rounded(rng, mean * stations)
        numbers = [rng.randrange(stations) for _ in range(total)]
        for station in sorted(set(numbers)):
            planned += _apart(rng, kind, station, numbers.count(station), day_s, 0.0)
    server = [FaultKind.SERVER_KILLED] * rates.server_kills
    server += [FaultKind.SERVER_STOPPED] * rates.server_stops
    rng.shuffle(server)
    times = _apart(rng, FaultKind.SERVER_KILLED, None, len(server), day_s, _SERVER_APART_S)
    planned += [replace(one, kind=kind) for one, kind in zip(times, server, strict=True)]
    return tuple(sorted(planned, key=lambda one: (one.begins_s, one.kind.name, one.station or 0)))


def plan_skews(rates: FaultRates, stations: int, seed: int) -> tuple[float, ...]:
    """By how many seconds each terminal's clock is ahead."""
    rng = random.Random(f"clocks {seed}")
    return tuple(rng.uniform(-rates.clock_skew_s, rates.clock_skew_s) for _ in range(stations))


def _apart(
    rng: random.Random,
    kind: FaultKind,
    station: int | None,
    count: int,
    day_s: float,
    apart_s: float,
) -> list[Fault]:
    """So many faults, each somewhere in its own part of the day."""
    if not count:
        return []
    part_s = 0.9 * day_s / count
    faults = []
    for number in range(count):
        lasts_s = max(0.5, min(rng.uniform(0.02, 0.10) * day_s, 0.7 * part_s))
        if kind.of_server:
            lasts_s = min(lasts_s, 10.0)
        latest_s = max(0.0, part_s - lasts_s - apart_s)
        begins_s = 0.05 * day_s + number * part_s + rng.uniform(0.0, latest_s)
        faults.append(Fault(kind, station, begins_s, lasts_s))
    return faults


def _rounded(rng: random.Random, mean: float) -> int:
    """``mean`` rounded up or down, so that it comes out right on average."""
    return int(mean) + (rng.random() < mean % 1)
