"""Who comes to which station, when, and as whom: one day, drawn from a seed.

Stations are open from 8:30 to 17:30 (Asia/Shanghai). A third of the people come at any time, the
others around two peaks: in the morning, and when work ends. These shapes, and the shares in
:class:`Mix`, are assumptions to put load on a register with; no station was counted for them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import time, timedelta
from enum import Enum
from typing import Protocol

from devices.terminal.types import MissingFinger, MissingReason, Person, Sample

OPENS, CLOSES = time(8, 30), time(17, 30)
OPEN_S = 9 * 3600.0

# ISO/IEC 19794-2 table 5.
RIGHT_THUMB, RIGHT_INDEX, LEFT_INDEX = 1, 2, 7
BOTH_INDEX = (RIGHT_INDEX, LEFT_INDEX)

_PEAKS = ((9.5, 0.75), (16.75, 0.6))  # hour of the day and spread in hours
_AT_ANY_TIME = 1 / 3
_REASONS = (MissingReason.AMPUTATED, MissingReason.BANDAGED, MissingReason.WORN)
_SHORTEST_WAY_S = 20 * 60.0  # from one station to the next
_AT_THE_SAME_TIME = 0.1  # of the double registrations: two people hurry with one pair of hands


class VisitKind(Enum):
    """What a visit is in truth."""

    NEW = "new"
    RETURNING = "returning"  # the same person under the same papers
    DOUBLE = "double"  # the same person under other papers, at another station


@dataclass(frozen=True)
class Mix:
    """Shares of the people, 0 to 1.

    Attributes:
        returning, double: of the people, who come a second time, as themselves or as another.
        few_fingers: who have one finger to give.
        poor: of the visits, whose first capture is too poor and has to be repeated.
    """

    returning: float = 0.10
    double: float = 0.03
    few_fingers: float = 0.03
    poor: float = 0.04

    def __post_init__(self) -> None:
        shares = (self.returning, self.double, self.few_fingers, self.poor)
        if not all(0 <= share <= 1 for share in shares) or self.returning + self.double > 1:
            raise ValueError("shares are 0 to 1, and nobody both returns and comes as another")


@dataclass(frozen=True)
class Arrival:
    """One person at one counter.

    Attributes:
        at_s: seconds after the stations open, in the time of the day that is played.
        station: number from 0.
        person: who it really is, from 0; never sent.
        papers: number of the particulars they show; ``person`` unless they come as another.
        impression: which capture of their fingers this is, from 0.
        positions: the fingers they give.
        missing: those of :data:`BOTH_INDEX` that they cannot give, with the reason.
        poor: the first capture fails.
    """

    at_s: float
    station: int
    person: int
    papers: int
    impression: int
    positions: tuple[int, ...]
    missing: tuple[MissingFinger, ...]
    poor: bool
    kind: VisitKind


class Captures(Protocol):
    """Faces, papers and fingers of people who never lived; from outside, because drawing fingers
    is not the devices' business."""

    def person(self, papers: int) -> Person:
        """The particulars with this number: the same every time, a document nobody else has."""

    def samples(
        self, person: int, positions: Sequence[int], impression: int, poor: bool
    ) -> tuple[Sample, ...]:
        """One record a finger.

        Args:
            impression: another number is another impression of the same fingers.
            poor: too little to enrol with.
        """


@dataclass(frozen=True)
class DayPlan:
    """Everybody who comes, in order."""

    stations: int
    people: int
    arrivals: tuple[Arrival, ...]


def plan_day(stations: int, people: int, seed: int, mix: Mix | None = None) -> DayPlan:
    """Draw a day. The same arguments give the same day.

    Raises:
        ValueError: no station or nobody to come, or only one station to register twice at.
    """
    if stations < 1 or people < 1:
        raise ValueError("a day needs at least one station and one person")
    mix = mix or Mix()
    if stations < 2 and mix.double:
        raise ValueError("nobody registers twice where there is one station: double must be 0")
    rng = random.Random(f"day {seed}")
    # Some stations are busier than others, none by more than about four times.
    weights = [rng.uniform(0.4, 1.6) for _ in range(stations)]
    arrivals = []
    for person in range(people):
        (station,) = rng.choices(range(stations), weights)
        at_s = _arrives(rng)
        positions, missing = _fingers(rng, mix)
        kind = rng.random()
        again: tuple[VisitKind, int] | None = None
        if kind < mix.double:
            again = (VisitKind.DOUBLE, people + person)
        elif kind < mix.double + mix.returning:
            again = (VisitKind.RETURNING, person)
        if again is not None:
            at_s = min(at_s, OPEN_S - 2 * _SHORTEST_WAY_S)  # there is time for a second visit
        arrivals.append(
            Arrival(
                at_s=at_s,
                station=station,
                person=person,
                papers=person,
                impression=0,
                positions=positions,
                missing=missing,
                poor=rng.random() < mix.poor,
                kind=VisitKind.NEW,
            )
        )
        if again is None:
            continue
        second_s = rng.uniform(at_s + _SHORTEST_WAY_S, OPEN_S)
        if again[0] is VisitKind.DOUBLE:
            station = (station + rng.randrange(1, stations)) % stations
            if rng.random() < _AT_THE_SAME_TIME:
                second_s = at_s
        arrivals.append(
            Arrival(
                at_s=second_s,
                station=station,
                person=person,
                papers=again[1],
                impression=1,
                positions=positions,
                missing=missing,
                poor=rng.random() < mix.poor,
                kind=again[0],
            )
        )
    arrivals.sort(key=lambda one: (one.at_s, one.person, one.impression))
    return DayPlan(stations, people, tuple(arrivals))


def hour_of_day(at_s: float) -> str:
    """``HH:MM`` so many seconds after opening; later than closing when the day runs over."""
    at = timedelta(hours=OPENS.hour, minutes=OPENS.minute, seconds=at_s)
    minutes = int(at.total_seconds() // 60)
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _arrives(rng: random.Random) -> float:
    """Seconds after opening."""
    if rng.random() < _AT_ANY_TIME:
        return rng.uniform(0, OPEN_S)
    opens = OPENS.hour + OPENS.minute / 60
    while True:
        middle, spread = rng.choice(_PEAKS)
        at_s = (rng.gauss(middle, spread) - opens) * 3600
        if 0 <= at_s < OPEN_S:
            return at_s


def _fingers(rng: random.Random, mix: Mix) -> tuple[tuple[int, ...], tuple[MissingFinger, ...]]:
    """Those somebody gives, and those they were asked for and cannot."""
    if rng.random() >= mix.few_fingers:
        return BOTH_INDEX, ()
    given = rng.choice((LEFT_INDEX, RIGHT_INDEX, RIGHT_THUMB))
    reason = rng.choice(_REASONS)
    return (given,), tuple(MissingFinger(one, reason) for one in BOTH_INDEX if one != given)
