from __future__ import annotations

import threading
from pathlib import Path

from structlog.testing import capture_logs

from identity.app import Server, open_installation
from identity.housekeeping import Chore, Housekeeper
from identity.server_process import loopback_toml
from identity.setup import create_installation
from identity.types import ApplicationState
from matcher.matcher import SNAPSHOT_NAME
from tests.identity.kit import TERMINAL, command, once


class Hands:
    """A clock to turn."""

    def __init__(self) -> None:
        self.time_s = 100.0

    def __call__(self) -> float:
        return self.time_s


def test_a_chore_is_done_when_it_is_due_and_not_before() -> None:
    hands, done = Hands(), []
    keeper = Housekeeper(
        (
            Chore("always", 0.0, lambda: done.append("always")),
            Chore("hourly", 3_600.0, lambda: done.append("hourly")),
        ),
        monotonic=hands,
    )
    for hands.time_s in (105.0, 3_699.0, 3_700.0, 3_705.0, 7_299.0, 7_300.0):
        keeper.tick()
        done.append("|")
    assert "".join(one[0] for one in done) == "a|a|ah|a|a|ah|"


def test_a_chore_that_fails_is_tried_again_and_holds_up_no_other() -> None:
    hands, done = Hands(), []
    broken = [True, True, False]

    def sometimes() -> None:
        if broken.pop(0):
            raise OSError(28, "张示例")
        done.append("mended")

    keeper = Housekeeper(
        (Chore("first", 60.0, sometimes), Chore("second", 0.0, lambda: done.append("second"))),
        monotonic=hands,
    )
    hands.time_s += 60.0
    with capture_logs() as logs:
        for _ in range(3):
            keeper.tick()
    assert done == ["second", "second", "mended", "second"]
    assert [(entry["chore"], entry["error"]) for entry in logs] == [("first", "OSError")] * 2
    assert "张示例" not in str(logs)
    keeper.tick()  # not due again before its time
    assert done.count("mended") == 1


def test_stopping_waits_for_the_chore_that_runs_and_begins_no_other() -> None:
    begun, finish, done = threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        finish.wait(10.0)
        done.append("slow")

    keeper = Housekeeper((Chore("slow", 0.0, slow),), tick_s=0.001)
    keeper.start()
    assert begun.wait(10.0)
    threading.Timer(0.05, finish.set).start()
    keeper.stop()
    count = len(done)
    assert count >= 1
    threading.Event().wait(0.02)
    assert len(done) == count


def test_stopping_what_was_never_started_is_no_fault() -> None:
    Housekeeper(()).stop()


def test_a_server_settles_what_waits_and_writes_snapshots_on_its_own(tmp_path: Path) -> None:
    directory = tmp_path / "anju"
    toml, _ = loopback_toml()
    create_installation(
        directory, toml.replace("snapshot_every_changes = 5000", "snapshot_every_changes = 2")
    )
    with open_installation(directory) as installation:
        server = Server(installation)
        server.start()
        now = installation.clock.now()
        waiting = [
            installation.enrolment.accept(command(index, now=now), once(), TERMINAL.station_id)
            for index in (1, 2)
        ]
        snapshot = directory / "index" / SNAPSHOT_NAME
        assert not snapshot.exists()
        for chore in server._housekeeper._chores[::-1]:
            chore.work()
        states = [installation.enrolment.application(one).state for one in waiting]
        assert states == [ApplicationState.ENROLLED] * 2
        assert snapshot.exists()
        server.stop()
