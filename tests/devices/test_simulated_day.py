from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from devices.simulator import Arrival, FaultKind, FaultRates, Mix, plan_day, plan_faults
from devices.simulator.day import BOTH_INDEX, OPEN_S, VisitKind, hour_of_day
from devices.simulator.faults import PROFILES, plan_skews

PEOPLE = 4_000


@pytest.fixture(scope="module")
def arrivals() -> tuple[Arrival, ...]:
    return plan_day(20, PEOPLE, seed=3, mix=Mix(0.10, 0.05, 0.03, 0.04)).arrivals


def test_a_seed_is_a_day() -> None:
    assert plan_day(5, 100, 1) == plan_day(5, 100, 1)
    assert plan_day(5, 100, 1) != plan_day(5, 100, 2)


def test_everybody_comes_while_the_stations_are_open(arrivals: tuple[Arrival, ...]) -> None:
    assert {one.person for one in arrivals} == set(range(PEOPLE))
    assert all(0 <= one.at_s <= OPEN_S for one in arrivals)
    assert all(before.at_s <= after.at_s for before, after in pairwise(arrivals))
    assert {one.station for one in arrivals} == set(range(20))


def test_more_come_in_the_morning_and_after_work_than_at_noon(
    arrivals: tuple[Arrival, ...],
) -> None:
    hours = Counter(hour_of_day(one.at_s)[:2] for one in arrivals)
    assert hours["09"] > 2 * hours["13"]
    assert hours["16"] > 2 * hours["13"]


def test_who_comes_again_comes_as_planned(arrivals: tuple[Arrival, ...]) -> None:
    first = {one.person: one for one in arrivals if one.kind is VisitKind.NEW}
    kinds = Counter(one.kind for one in arrivals)
    assert kinds[VisitKind.NEW] == PEOPLE
    assert kinds[VisitKind.RETURNING] == pytest.approx(400, abs=80)
    assert kinds[VisitKind.DOUBLE] == pytest.approx(200, abs=60)
    same_time = 0
    for one in arrivals:
        before = first[one.person]
        if one.kind is VisitKind.RETURNING:
            assert one.papers == one.person
            assert one.at_s > before.at_s
        if one.kind is VisitKind.DOUBLE:
            assert one.papers >= PEOPLE
            assert one.station != before.station
            same_time += one.at_s == before.at_s
        if one is not before:
            assert one.impression != before.impression
            assert one.positions == before.positions
    assert same_time > 5, "nobody tries at two counters in the same moment"
    papers = [one.papers for one in arrivals if one.kind is not VisitKind.RETURNING]
    assert len(set(papers)) == len(papers)


def test_some_have_few_fingers_and_some_captures_are_poor(arrivals: tuple[Arrival, ...]) -> None:
    few = {one.person for one in arrivals if one.positions != BOTH_INDEX}
    assert len(few) == pytest.approx(0.03 * PEOPLE, abs=50)
    assert all(len(one.positions) == 1 for one in arrivals if one.person in few)
    for one in arrivals:
        assert {finger.position for finger in one.missing} == {*BOTH_INDEX} - {*one.positions}
    assert sum(one.poor for one in arrivals) == pytest.approx(0.04 * len(arrivals), abs=60)


@pytest.mark.parametrize(
    ("stations", "people", "mix"), [(0, 1, Mix()), (1, 0, Mix()), (1, 5, Mix(double=0.1))]
)
def test_a_day_that_cannot_be_is_refused(stations: int, people: int, mix: Mix) -> None:
    with pytest.raises(ValueError, match=r"at least|registers twice"):
        plan_day(stations, people, 1, mix)


def test_shares_beyond_everybody_are_refused() -> None:
    with pytest.raises(ValueError, match="shares"):
        Mix(returning=0.6, double=0.5)


def test_faults_are_as_many_as_asked_for_and_over_before_the_day_is() -> None:
    rates = PROFILES["hard"]
    planned = plan_faults(rates, 40, 300.0, seed=5)
    counts = Counter(one.kind for one in planned)
    assert counts == {
        FaultKind.LINK_CUT: 80,
        FaultKind.LINK_SILENT: 40,
        FaultKind.LINK_SLOW: 40,
        FaultKind.TERMINAL_KILLED: 40,
        FaultKind.DISK_FULL: 20,
        FaultKind.SERVER_KILLED: 3,
        FaultKind.SERVER_STOPPED: 2,
    }
    assert all(0 < one.begins_s < one.ends_s <= 300.0 for one in planned)
    assert planned == plan_faults(rates, 40, 300.0, seed=5)
    assert planned != plan_faults(rates, 40, 300.0, seed=6)
    lanes: dict[object, list[tuple[float, float]]] = {}
    for one in planned:
        lane: object = "server" if one.kind.of_server else (one.kind, one.station)
        lanes.setdefault(lane, []).append((one.begins_s, one.ends_s))
    for spans in lanes.values():
        assert all(end <= begin for (_, end), (begin, _) in pairwise(sorted(spans)))


def test_nothing_goes_wrong_unless_asked_for() -> None:
    assert plan_faults(PROFILES["none"], 10, 100.0, 1) == ()
    assert plan_skews(PROFILES["none"], 3, 1) == (0.0, 0.0, 0.0)


def test_clocks_are_wrong_both_ways() -> None:
    skews = plan_skews(FaultRates(clock_skew_s=60.0), 30, 1)
    assert min(skews) < 0 < max(skews)
    assert all(abs(one) <= 60 for one in skews)


def test_single_numbers_of_a_profile_can_be_replaced() -> None:
    changed = PROFILES["some"].but(cuts=3.0, slow=None)
    assert (changed.cuts, changed.slow) == (3.0, PROFILES["some"].slow)
    with pytest.raises(ValueError, match="negative"):
        changed.but(cuts=-1.0)
