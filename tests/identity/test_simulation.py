"""A small day with a real server, real terminals and faults; then the register is tampered with."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from devices.simulator import Fault, FaultKind, FaultRates, Mix, State, Verdict, judge
from devices.simulator.run import StationState
from devices.simulator.verdict import POOR_CAPTURE
from devices.terminal import ApplicationState
from identity import cli, simulation_view
from identity.example_population import SyntheticCaptures
from identity.simulation import Options, Outcome, RunningServer, run
from identity.simulation_facts import facts_in_store
from matcher.codec import decode
from tests.identity.service_kit import running

STATIONS = tuple(f"station-{number:03}" for number in range(1, 5))
SMALL = Options(
    stations=4,
    people=60,
    minutes=0.1,
    rates=FaultRates(
        cuts=0.5, slow=0.25, terminal_kills=0.5, full_disks=0.25, server_kills=1, clock_skew_s=600
    ),
    seed=7,
    mix=Mix(returning=0.10, double=0.10, few_fingers=0.05, poor=0.08),
    permits=False,  # the slow day asks for them
)


@dataclass(frozen=True)
class Day:
    place: Path
    outcome: Outcome
    printed: str

    @property
    def register(self) -> Path:
        return self.place / "register"

    def verdict(self) -> Verdict:
        return judge(self.outcome.submissions, facts_in_store(self.register, STATIONS))


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    place = tmp_path_factory.mktemp("simulation") / "day"
    printed = StringIO()
    outcome = run(SMALL, place, None, Console(file=printed, width=200))
    return Day(place, outcome, printed.getvalue())


def test_a_day_with_faults_loses_nothing_and_doubles_nobody(day: Day) -> None:
    verdict = day.verdict()
    assert day.outcome.problems == ()
    assert verdict.problems(SMALL.max_missed) == []
    second_visits = len(day.outcome.submissions) - 60 - verdict.refused[POOR_CAPTURE]
    assert verdict.second_visits == second_visits > 5
    assert verdict.acknowledged == 60 + second_visits
    assert verdict.enrolled == 60
    assert verdict.recognised > 0
    assert verdict.in_adjudication > 0


def test_everything_that_was_to_go_wrong_did(day: Day) -> None:
    assert day.outcome.result["faults"] == {
        "network cut": 2,
        "slow link": 1,
        "terminal killed": 2,
        "terminal disk full": 1,
        "server killed": 1,
    }
    starts = (day.register / "server.log").read_text(encoding="utf-8").count('"event": "serving"')
    assert starts >= 2
    assert (day.place / "terminals.log").read_text(encoding="utf-8") == ""


def test_the_result_is_for_a_file_and_the_table_for_people(day: Day) -> None:
    read = json.loads(json.dumps(day.outcome.result))
    assert read["verdict"]["lost"] == []
    assert read["verdict"]["failed"] == []
    assert 0 < read["verdict"]["took_p50_s"] <= read["verdict"]["took_p99_s"]
    assert "PASSED" in day.printed
    assert "arrived 60 of" not in day.printed.splitlines()[0]


# What somebody deletes, and how the verdict words it.
TAMPERED = {
    "an application": (
        "DELETE FROM applications WHERE state = 2 AND rowid = "
        "(SELECT min(rowid) FROM applications WHERE state = 2)",
        "does not have it",
    ),
    "a case": ("DELETE FROM cases WHERE rowid = (SELECT min(rowid) FROM cases)", "case"),
    "somebody's fingers": (
        "DELETE FROM reference_samples WHERE registrant_id = "
        "(SELECT max(registrant_id) FROM registrants WHERE registrant_id NOT IN "
        "(SELECT registrant_id FROM applications WHERE state = 3))",
        "no fingers",
    ),
    "an idempotency key": (
        "DELETE FROM idempotency WHERE method = 'EnrolmentService.Enrol' AND rowid = "
        "(SELECT min(rowid) FROM idempotency WHERE method = 'EnrolmentService.Enrol')",
        "sent again",
    ),
}


@pytest.fixture
def tampering(day: Day) -> Iterator[sqlite3.Connection]:
    """The register's database, put back afterwards."""
    database = day.register / "register.sqlite3"
    kept = day.place / "kept.sqlite3"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    shutil.copyfile(database, kept)
    connection = sqlite3.connect(database)
    yield connection
    connection.close()
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    shutil.copyfile(kept, database)


@pytest.mark.parametrize(("statement", "words"), TAMPERED.values(), ids=TAMPERED)
def test_a_row_that_is_deleted_is_found_out(
    day: Day, tampering: sqlite3.Connection, statement: str, words: str
) -> None:
    assert tampering.execute(statement).rowcount >= 1
    tampering.commit()
    verdict = day.verdict()
    assert len(verdict.lost) == 1
    assert words in verdict.lost[0]
    assert "lost 1" in verdict.problems()


def test_an_application_that_nobody_made_is_found_out(
    day: Day, tampering: sqlite3.Connection
) -> None:
    columns = [row[1] for row in tampering.execute("PRAGMA table_info(applications)")]
    others = ", ".join(one for one in columns if one != "application_id")
    tampering.execute(
        f"INSERT INTO applications (application_id, {others}) "
        f"SELECT 'A-made-up', {others} FROM applications LIMIT 1"
    )
    tampering.commit()
    verdict = day.verdict()
    assert verdict.lost == ()
    assert any("A-made-up" in line for line in verdict.doubled)
    assert "doubled 1" in verdict.problems()


def test_a_running_register_is_asked_through_its_services(tmp_path: Path) -> None:
    options = Options(
        stations=2,
        people=6,
        minutes=0.03,
        rates=FaultRates(terminal_kills=0.5),
        seed=3,
        mix=Mix(returning=0.3, double=0.0, few_fingers=0.0, poor=0.0),
    )
    with running(tmp_path / "register") as service:
        server = RunningServer(
            service.server.address,
            service.server.provisioning_address,
            service.directory / "operators" / "operator-1",
        )
        place = tmp_path / "simulation"
        outcome = run(options, place, server, Console(file=StringIO()))
        assert outcome.problems == ()
        assert outcome.result["verdict"]["enrolled"] == 6

        # The same day again, from the same terminals: everybody is known by now.
        again = run(options, place, server, Console(file=StringIO()))
        assert again.result["verdict"]["enrolled"] == 0
        assert again.result["verdict"]["recognised"] == len(again.submissions)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--faults", "many"], "none, some, hard"),
        (["--minutes", "1", "--speed", "10"], "not both"),
        (["--server", "127.0.0.1:1"], "--provisioning"),
        (["--cuts=-1"], "negative"),
        (["--returning", "0.9", "--double", "0.9"], "shares"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(cli.app, ["terminal", "simulate", *arguments])
    assert done.exit_code != 0
    assert words in str(done.exception)


def test_a_failed_run_fails_the_command_and_still_writes_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(*_: object) -> Outcome:
        return Outcome({"verdict": {"lost": ["a-1"]}}, ("lost 1", "doubled 2"), ())

    monkeypatch.setattr("identity.simulation.run", failed)
    file = tmp_path / "result.json"
    done = CliRunner().invoke(cli.app, ["terminal", "simulate", "--json", str(file)])
    assert done.exit_code == 1
    assert "lost 1; doubled 2" in str(done.exception)
    assert json.loads(file.read_text(encoding="utf-8")) == {"verdict": {"lost": ["a-1"]}}


def test_each_impression_of_the_same_fingers_is_another_and_a_poor_one_is_too_little() -> None:
    captures = SyntheticCaptures(5, date(2026, 11, 1))
    first, second = (captures.samples(1, (2, 7), impression, poor=False) for impression in (0, 1))
    assert [len(one.record) > 60 for one in first] == [True, True]
    assert all(a.record != b.record for a, b in zip(first, second, strict=True))
    (poor,) = captures.samples(1, (2,), 0, poor=True)
    (template,) = decode(poor.record)
    assert len(template) < 6
    documents = {captures.person(papers).document_number for papers in range(20_000)}
    assert len(documents) == 20_000


def test_the_live_picture_shows_stations_queues_and_faults() -> None:
    state = State([StationState("station-001-t1", waiting=3, up=True)], arrivals=10)
    state.stations.append(StationState("station-002-t1"))
    state.arrived, state.elapsed_s, state.day_s = 4, 12.0, 3_600.0
    state.states[ApplicationState.ENROLLED] = 2
    state.faults = [Fault(FaultKind.LINK_CUT, 0, 0.0, 1.0)]
    printed = StringIO()
    console = Console(file=printed, width=120, force_terminal=True, color_system=None)
    with simulation_view.shown(console) as view:
        view(state)
    shown = printed.getvalue()
    for words in ("2 stations, 09:30", "4 of 10", "network cut", "station-001-t1", "down"):
        assert words in shown


@pytest.mark.slow
def test_a_hard_day_loses_nothing_and_doubles_nobody(tmp_path: Path) -> None:
    from devices.simulator.faults import PROFILES

    options = Options(stations=12, people=600, minutes=2.0, rates=PROFILES["hard"], seed=11)
    outcome = run(options, tmp_path / "day", None, Console(file=StringIO()))
    assert outcome.problems == ()
