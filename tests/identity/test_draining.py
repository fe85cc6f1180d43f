"""SIGTERM under load: health says so first, running calls finish, nothing acknowledged is lost."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from anju.v1 import enrolment_pb2, enrolment_pb2_grpc
from devices.terminal import Connection
from identity.admission import Gate
from identity.app import Server, open_installation
from identity.errors import UnavailableError
from identity.server_process import loopback_toml, serving
from identity.setup import create_installation
from tests.identity.service_kit import Service, admit_terminal, application, working_at

Code = grpc.StatusCode
CLIENTS = 6


def test_a_gate_counts_those_inside_and_shuts_behind_the_last() -> None:
    gate, leave, inside = Gate(), threading.Event(), threading.Event()

    def visit() -> None:
        with gate.entered():
            inside.set()
            leave.wait(10)

    visitor = threading.Thread(target=visit)
    visitor.start()
    assert inside.wait(10)
    assert gate.shut(0.01) == 1
    with pytest.raises(UnavailableError) as caught, gate.entered():
        pass
    assert caught.value.reason == "DRAINING"
    leave.set()
    assert gate.shut(10) == 0
    visitor.join()


def told(error: grpc.RpcError) -> tuple[Code, str, bool]:
    """Status, reason, and whether there is a retry hint."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = ErrorInfo()
    for detail in status.details if status else ():
        detail.Unpack(info)
    hint = any(one.Is(RetryInfo.DESCRIPTOR) for one in (status.details if status else ()))
    return error.code(), info.reason, hint


def test_while_it_drains_health_says_so_running_calls_finish_and_new_ones_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_installation(tmp_path / "anju", loopback_toml()[0])
    with open_installation(tmp_path / "anju") as installation:
        inside, leave = threading.Event(), threading.Event()
        settle = installation.enrolment.settle

        def slow(application_id: str) -> object:
            inside.set()
            assert leave.wait(20)
            return settle(application_id)

        monkeypatch.setattr(installation.enrolment, "settle", slow)
        server = Server(installation)
        server.start()
        service = Service(tmp_path / "anju", installation, server)
        home = admit_terminal(installation, "east-gate", "hall-1")
        with working_at(home) as terminal, service.operator() as watcher:
            health: Any = health_pb2_grpc.HealthStub(watcher.channel)
            states = iter(health.Watch(health_pb2.HealthCheckRequest()))
            assert next(states).status == health_pb2.HealthCheckResponse.SERVING
            stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
            running = stub.Enrol.future(application(0), timeout=60)
            assert inside.wait(20)
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
            deadline = time.monotonic() + 5
            outcome = None
            while outcome is None and time.monotonic() < deadline:
                try:
                    stub.GetApplication(
                        enrolment_pb2.GetApplicationRequest(application_id="A1"), timeout=5
                    )
                except grpc.RpcError as error:
                    code, reason, hint = told(error)
                    if code is not Code.NOT_FOUND:
                        outcome = (code, reason, hint)
            assert outcome == (Code.UNAVAILABLE, "DRAINING", True)
            assert not running.done()
            leave.set()
            done = running.result(timeout=30).application
            assert done.state == enrolment_pb2.APPLICATION_STATE_ENROLLED
            stopping.join(20)
            assert not stopping.is_alive()


def test_sigterm_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    directory = tmp_path / "anju"
    create_installation(directory, loopback_toml()[0])
    with open_installation(directory) as installation:
        homes = [admit_terminal(installation, "east-gate", f"hall-{n}") for n in range(CLIENTS)]
    acknowledged: dict[int, str] = {}
    refusals: Counter[Code] = Counter()
    stop = threading.Event()

    def enrol(client: int, terminal: Connection) -> None:
        stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
        for number in range(50):
            person = client * 50 + number
            try:
                answer = stub.Enrol(application(person, permit=False), timeout=30).application
            except grpc.RpcError as error:
                refusals[error.code()] += 1
                return
            acknowledged[person] = answer.application_id
            if stop.is_set():
                return

    with serving(directory) as server:
        connections = [working_at(home) for home in homes]
        threads = [threading.Thread(target=enrol, args=pair) for pair in enumerate(connections)]
        for thread in threads:
            thread.start()
        while len(acknowledged) < 2 * CLIENTS:
            assert not refusals
            time.sleep(0.01)
        asked = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=20) == 0
        assert time.monotonic() - asked < 12, "the grace is 10 s, and calls are shorter"
        stop.set()
        for thread in threads:
            thread.join()
        for connection in connections:
            connection.close()
    # A call that reaches a port in the moment it closes gets gRPC's own CANCELLED: terminals send
    # again after either.
    assert Code.UNAVAILABLE in refusals, refusals
    assert set(refusals) <= {Code.UNAVAILABLE, Code.CANCELLED}, refusals
    with open_installation(directory) as installation, installation.database.read() as tx:
        for application_id in acknowledged.values():
            tx.people.application(application_id)
        rows = tx.connection.exec_driver_sql("SELECT count(*) FROM applications").scalar_one()
        # A call that was cut off before its answer may be in the register too: settled by a retry.
        assert len(acknowledged) <= rows <= len(acknowledged) + CLIENTS
        assert '"event": "stopped"' in (directory / "server.log").read_text(encoding="utf-8")
