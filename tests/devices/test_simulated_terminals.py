"""The terminals' processes, where they fail by themselves."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest

from devices.simulator import Run, RunSettings, plan_day
from devices.simulator.day import Mix
from devices.simulator.faults import Fault, FaultKind
from devices.simulator.network import network
from devices.simulator.processes import TerminalProcess
from devices.simulator.run import SimulatorError
from devices.simulator.worker import TerminalSpec, submit_line
from devices.terminal import Gender, Person, Sample
from devices.terminal.submission import person_from

PERSON = Person(
    full_name="甲示例子",
    gender=Gender.FEMALE,
    birth_date=date(1990, 2, 3),
    document_number="E1234567",
    household_division_code="999999",
    residence_division_code="999999",
    residence_address="示例区样板路1号",
    arrival_date=date(2026, 11, 1),
)


class Nobody:
    def person(self, papers: int) -> Person:
        return PERSON

    def samples(
        self, person: int, positions: Sequence[int], impression: int, poor: bool
    ) -> tuple[Sample, ...]:
        return (Sample(b"finger"),)


def unprovisioned(directory: Path) -> TerminalSpec:
    return TerminalSpec("t-1", str(directory), "127.0.0.1:1", 0.0)


def test_a_process_that_ends_by_itself_is_told_of_with_the_reason_in_its_log(
    tmp_path: Path,
) -> None:
    events: queue.SimpleQueue[dict[str, object]] = queue.SimpleQueue()
    settings = RunSettings(day_s=10.0)
    log = tmp_path / "log"
    process = TerminalProcess([unprovisioned(tmp_path)], settings.policy, events, log)
    process.start()
    event = events.get(timeout=30)
    assert (event["is"], event["status"]) == ("died", 1)
    assert "CredentialsError" in log.read_text(encoding="utf-8")
    process.send({"do": "disk"})  # to nobody; it must not hurt
    process.kill()
    assert not process.alive


def test_a_run_whose_terminals_end_by_themselves_shows_nothing(tmp_path: Path) -> None:
    plan = plan_day(1, 1, 1, Mix(double=0.0))
    with network("127.0.0.1:1", 1) as lines:
        run = Run(
            plan,
            Nobody(),
            (),
            [unprovisioned(tmp_path)],
            lines,
            None,
            RunSettings(day_s=1.0),
            tmp_path / "log",
        )
        with pytest.raises(SimulatorError, match="ended with status 1"):
            run.play()


def test_a_server_that_is_not_ours_is_not_restarted(tmp_path: Path) -> None:
    plan = plan_day(1, 1, 1, Mix(double=0.0))
    fault = Fault(FaultKind.SERVER_KILLED, None, 0.0, 1.0)
    with network("127.0.0.1:1", 1) as lines, pytest.raises(ValueError, match="not ours"):
        Run(
            plan,
            Nobody(),
            [fault],
            [unprovisioned(tmp_path)],
            lines,
            None,
            RunSettings(day_s=1.0),
            tmp_path / "log",
        )


def test_what_is_handed_in_arrives_as_it_was() -> None:
    line = submit_line("t-1", "key", "ticket-1", PERSON, [Sample(b"finger", 2)], [], True)
    assert vars(person_from(line["person"])) == vars(PERSON)
    assert line["samples"] == [["ZmluZ2Vy", 2, 1]]
