"""A disk that is full refuses, says so, and loses nothing of what was acknowledged."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import grpc
import pytest
from sqlalchemy import Connection, event

from anju.v1 import enrolment_pb2, enrolment_pb2_grpc
from identity.app import Server, open_installation
from identity.errors import StorageFullError
from identity.reception import Answer
from identity.server_process import loopback_toml
from identity.setup import create_installation
from identity.types import ApplicationState
from tests.identity.kit import COUNTER, World
from tests.identity.service_kit import admit_terminal, application, refusal, working_at

Code = grpc.StatusCode
ENROLLED = enrolment_pb2.APPLICATION_STATE_ENROLLED


@contextmanager
def full(world: World) -> Iterator[None]:
    """The database may not grow by a page: SQLite says the same as when the disk is full."""

    def limit(connection: Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    def no_limit(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")

    engine = world.database._engine
    event.listen(engine, "begin", limit)
    yield
    event.remove(engine, "begin", limit)
    event.listen(engine, "begin", no_limit)


def test_a_full_disk_keeps_nothing_of_the_request_and_all_that_was_before(world: World) -> None:
    def enrol(index: int) -> Answer:
        return world.enrol(index, permit=True, key=f"the-key-of-{index:06}")

    told = {index: enrol(index) for index in (1, 2)}
    refused = []
    with full(world):
        for index in range(10, 30):
            # Free space within the last pages may still take somebody.
            try:
                told[index] = enrol(index)
            except StorageFullError as error:
                refused.append(error.reason)
        assert refused == ["DISK_FULL"] * len(refused)
        assert len(refused) >= 15
        for index in (1, 2):
            assert enrol(index) == told[index]
    for index in range(10, 30):
        answer = enrol(index)
        assert answer.application.state is ApplicationState.ENROLLED
        assert index not in told or answer == told[index]
    assert world.registrants() == 22
    with world.database.read() as tx:
        assert tx.audit.verify()[2] == 0


def test_what_only_reads_goes_on_and_a_later_change_succeeds(world: World) -> None:
    registrant_id = world.registrant(1, permit=True)

    def look() -> None:
        world.register.look_up(registrant_id, "", COUNTER, "operator:anna", "test")

    def look_until_full() -> None:
        for _ in range(500):
            look()

    look()
    with full(world):
        with pytest.raises(StorageFullError):
            look_until_full()
        assert world.register.disclosures(registrant_id, None, 1)
        with world.database.read() as tx:
            assert tx.audit.verify()[2] == 0
    look()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB of its own, where this may be made (root on Linux)."""
    where = tmp_path / "small"
    where.mkdir()
    mounted = shutil.which("mount") is not None and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(where)],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("a file system of its own cannot be mounted here")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def test_a_service_on_a_full_disk_says_so_and_recovers(small_disk: Path) -> None:
    directory = small_disk / "anju"
    create_installation(directory, loopback_toml()[0])
    with open_installation(directory) as installation:
        admit_terminal(installation, "east-gate", "hall-1")
        server = Server(installation)
        server.start()
        with working_at(directory / "terminals" / "hall-1") as terminal:
            stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)

            def request(index: int) -> enrolment_pb2.EnrolRequest:
                return application(index, permit=True, key=f"the-key-of-{index:06}")

            told = {index: stub.Enrol(request(index)).application for index in (1, 2)}
            ballast = small_disk / "ballast"
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(b"\0" * 65_536) == 65_536:
                    pass
            # The write-ahead log has room left in its last blocks, for a few more perhaps.
            refused = []
            for index in range(3, 60):
                try:
                    told[index] = stub.Enrol(request(index)).application
                except grpc.RpcError:
                    again = partial(stub.Enrol, request(index))
                    refused.append(refusal(again))
                if len(refused) == 3:
                    break
            assert len(refused) == 3
            assert {one.code for one in refused} == {Code.RESOURCE_EXHAUSTED}
            assert {one.reason for one in refused} == {"DISK_FULL"}
            ballast.unlink()
            for index, before in told.items():
                after = stub.Enrol(request(index)).application
                assert after.application_id == before.application_id
                assert after.registrant_id == before.registrant_id
            for index in range(60, 63):
                assert stub.Enrol(request(index)).application.state == ENROLLED
        server.stop()
    with open_installation(directory) as installation:
        installation.follower.catch_up()
        with installation.database.read() as tx:
            assert tx.audit.verify()[2] == 0
        for before in told.values():
            assert before.registrant_id in installation.matcher
