"""Quotas and backpressure: who is let in, who waits, who is told to come back, and when."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

from anju.v1 import enrolment_pb2, enrolment_pb2_grpc, register_pb2, register_pb2_grpc
from devices.terminal import Connection
from identity.admission import Quotas, Slots
from identity.app import Server, open_installation
from identity.errors import OverloadError
from identity.server_process import loopback_toml
from identity.setup import create_installation
from tests.identity.service_kit import Service

Code = grpc.StatusCode


# -- quotas --


def test_a_quota_is_spent_refilled_evenly_and_held_for_each_by_itself() -> None:
    now = [0.0]
    quotas = Quotas(60, lambda: now[0])
    for _ in range(60):
        quotas.spend("terminal:a")
    with pytest.raises(OverloadError) as caught:
        quotas.spend("terminal:a")
    assert caught.value.reason == "QUOTA"
    assert caught.value.retry_after_s == pytest.approx(1.0)
    quotas.spend("terminal:b")
    now[0] += 0.75
    with pytest.raises(OverloadError) as caught:
        quotas.spend("terminal:a")
    assert caught.value.retry_after_s == pytest.approx(0.25)
    now[0] += 0.25
    quotas.spend("terminal:a")
    now[0] += 10_000  # a long silence is worth a minute, no more
    for _ in range(60):
        quotas.spend("terminal:a")
    with pytest.raises(OverloadError):
        quotas.spend("terminal:a")


def test_no_quota_sets_no_limit() -> None:
    quotas = Quotas(0)
    for _ in range(10_000):
        quotas.spend("terminal:a")


# -- slots --


def test_a_call_runs_waits_or_is_refused_at_once() -> None:
    slots = Slots(running=1, waiting=1, patience_s=10)
    entered, release = threading.Event(), threading.Event()
    order: list[str] = []

    def hold() -> None:
        with slots.held(None):
            entered.set()
            release.wait(10)
            order.append("first")

    def follow() -> None:
        with slots.held(None):
            order.append("second")

    threads = [threading.Thread(target=hold), threading.Thread(target=follow)]
    threads[0].start()
    assert entered.wait(10)
    threads[1].start()
    while slots._waiting == 0:
        time.sleep(0.001)
    start = time.monotonic()
    with pytest.raises(OverloadError) as caught, slots.held(None):
        pass
    assert time.monotonic() - start < 1.0
    assert (caught.value.reason, caught.value.retry_after_s) == ("BUSY", 2.0)
    release.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first", "second"]
    with slots.held(None):
        pass


@pytest.mark.parametrize(("patience_s", "remaining_s"), [(0.05, None), (10, 0.05), (10, -1)])
def test_nobody_waits_longer_than_patience_or_deadline(
    patience_s: float, remaining_s: float | None
) -> None:
    slots = Slots(running=1, waiting=5, patience_s=patience_s)
    with slots.held(None):
        start = time.monotonic()
        with pytest.raises(OverloadError), slots.held(remaining_s):
            pass
        assert time.monotonic() - start < 2.0
    assert slots._waiting == 0
    with slots.held(None):  # nothing leaked
        pass


def test_a_call_that_fails_gives_its_slot_back() -> None:
    slots = Slots(running=1, waiting=0)
    for _ in range(3):
        with pytest.raises(KeyError), slots.held(None):
            raise KeyError


# -- the service --


def told(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, int]:
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None
    info, retry = ErrorInfo(), RetryInfo()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(retry)
    return error.code(), info.reason, retry.retry_delay.seconds


def ask(connection: Connection, timeout_s: float = 10) -> tuple[grpc.StatusCode, str, int]:
    stub = enrolment_pb2_grpc.EnrolmentServiceStub(connection.channel)
    request = enrolment_pb2.GetApplicationRequest(application_id="A-0")
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetApplication(request, timeout=timeout_s)
    return told(caught.value)


def toml_with(**settings: int) -> str:
    toml = loopback_toml()[0]
    for name, value in settings.items():
        kept = [line for line in toml.splitlines() if not line.startswith(name)]
        kept.insert(kept.index("[server]") + 1, f"{name} = {value}")
        toml = "\n".join(kept) + "\n"
    return toml


def test_a_terminal_beyond_its_quota_is_told_when_to_come_back_and_others_are_served(
    tmp_path: Path,
) -> None:
    create_installation(tmp_path / "anju", toml_with(terminal_calls_per_minute=20))
    with open_installation(tmp_path / "anju") as installation:
        server = Server(installation)
        server.start()
        service = Service(tmp_path / "anju", installation, server)
        with (
            service.terminal("east", "hall-1") as eager,
            service.terminal("west", "hall-2") as calm,
        ):
            answers = Counter(ask(eager)[:2] for _ in range(30))
            assert answers[(Code.NOT_FOUND, "APPLICATION_UNKNOWN")] >= 18  # logging in took two
            assert answers[(Code.RESOURCE_EXHAUSTED, "QUOTA")] >= 8
            assert 1 <= ask(eager)[2] <= 3
            assert ask(calm)[0] is Code.NOT_FOUND
        with service.operator() as operator:  # operators have no quota
            stub = register_pb2_grpc.RegisterServiceStub(operator.channel)
            for _ in range(40):
                with pytest.raises(grpc.RpcError) as caught:
                    stub.GetRegistrant(register_pb2.GetRegistrantRequest(), timeout=10)
                assert told(caught.value)[0] is not Code.RESOURCE_EXHAUSTED
        server.stop()


def test_more_calls_than_the_server_carries_are_refused_promptly_and_it_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_installation(tmp_path / "anju", toml_with(workers=2, waiting_calls=4))
    with open_installation(tmp_path / "anju") as installation:
        release = threading.Event()
        answered = installation.reception.application

        def slow(application_id: str, caller: object) -> object:
            release.wait(20)
            return answered(application_id, caller)  # type: ignore[arg-type]

        monkeypatch.setattr(installation.reception, "application", slow)
        server = Server(installation)
        server.start()
        service = Service(tmp_path / "anju", installation, server)
        with service.terminal("east", "hall-1") as terminal, ThreadPoolExecutor(60) as pool:
            start = time.monotonic()
            calls = [pool.submit(ask, terminal, 15) for _ in range(60)]
            while sum(call.done() for call in calls) < 54:
                assert time.monotonic() - start < 1.8, "refused at once, not after waiting"
                time.sleep(0.01)
            release.set()
            outcomes = Counter(call.result()[:2] for call in calls)
        assert outcomes == {
            (Code.RESOURCE_EXHAUSTED, "BUSY"): 54,
            (Code.NOT_FOUND, "APPLICATION_UNKNOWN"): 6,
        }
        with service.terminal("east", "hall-2") as terminal:
            assert ask(terminal)[0] is Code.NOT_FOUND
        server.stop()
