"""Uploads over the wire: who may, how long, how many, and what a broken call leaves."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from anju.v1 import enrolment_pb2, enrolment_pb2_grpc
from devices.terminal import Connection
from identity import app, servicer, uploads
from tests.identity.service_kit import Service, refusal, running

CONTENT = bytes(range(256)) * 2_000  # 512 kB
DIGEST = hashlib.sha256(CONTENT).digest()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("uploads") / "anju") as service:
        yield service


@pytest.fixture(scope="module")
def terminal(service: Service) -> Iterator[Connection]:
    with service.terminal("east-gate", "hall-1") as connection:
        yield connection


def stub(connection: Connection) -> enrolment_pb2_grpc.EnrolmentServiceStub:
    return enrolment_pb2_grpc.EnrolmentServiceStub(connection.channel)


def part(chunk: bytes) -> enrolment_pb2.UploadRequest:
    return enrolment_pb2.UploadRequest(chunk=chunk)


def start(content: bytes = CONTENT, offset: int = 0) -> enrolment_pb2.UploadRequest:
    return enrolment_pb2.UploadRequest(
        start=enrolment_pb2.UploadStart(
            sha256=hashlib.sha256(content).digest(), size=len(content), offset=offset
        )
    )


def standing(connection: Connection, digest: bytes = DIGEST) -> tuple[int, bool]:
    answer = stub(connection).GetUpload(enrolment_pb2.GetUploadRequest(sha256=digest))
    return answer.received, answer.complete


def test_an_upload_is_whole_and_its_terminals_alone(service: Service, terminal: Connection) -> None:
    terminal.upload(CONTENT)
    assert standing(terminal) == (len(CONTENT), True)
    with service.terminal("east-gate", "hall-2") as another:
        assert standing(another) == (0, False)
    with service.operator() as operator:
        told = refusal(lambda: stub(operator).Upload(iter([start()])))
        assert told.code is grpc.StatusCode.PERMISSION_DENIED


def test_a_line_that_is_cut_leaves_what_came(terminal: Connection) -> None:
    content = b"cut" * 100_000
    digest = hashlib.sha256(content).digest()
    release = threading.Event()

    def hanging() -> Iterator[enrolment_pb2.UploadRequest]:
        yield start(content)
        yield part(content[:65_536])
        yield part(content[65_536:131_072])
        release.wait(20)

    call = stub(terminal).Upload.future(hanging())
    time.sleep(0.5)
    call.cancel()
    release.set()
    end = time.monotonic() + 10
    while standing(terminal, digest)[0] != 131_072:
        assert time.monotonic() < end
        time.sleep(0.02)
    terminal.upload(content)
    assert standing(terminal, digest) == (len(content), True)


def test_who_sends_a_byte_a_minute_holds_nothing_for_long(
    terminal: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicer, "time_limit", lambda call: uploads.time_limit(call, 0.3))
    content = b"slow" * 50_000

    def dripping() -> Iterator[enrolment_pb2.UploadRequest]:
        yield start(content)
        for at in range(len(content)):
            yield part(content[at : at + 1])
            time.sleep(0.1)

    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        stub(terminal).Upload(dripping(), timeout=30)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert time.monotonic() - began < 5
    end = time.monotonic() + 10
    while not 1 <= standing(terminal, hashlib.sha256(content).digest())[0] <= 10:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [part(b"x")],
        [start(b"xy"), start(b"xy")],
        [start(b"xy"), enrolment_pb2.UploadRequest()],
        [start(b"xy"), part(b"xyz")],
    ],
)
def test_what_is_no_upload_is_refused_with_its_reason(
    terminal: Connection, messages: list[enrolment_pb2.UploadRequest]
) -> None:
    told = refusal(lambda: stub(terminal).Upload(iter(messages)))
    assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UPLOAD_INVALID")


def test_one_more_upload_than_slots_is_told_to_come_back(
    service: Service, terminal: Connection
) -> None:
    slots = service.installation.config.capture.upload_streams
    release, begun = threading.Event(), threading.Semaphore(0)

    def hanging(number: int) -> Iterator[enrolment_pb2.UploadRequest]:
        yield start(b"held %d" % number)
        begun.release()
        release.wait(20)

    calls: list[Any] = []
    with contextlib.ExitStack() as stack:
        for part in range(app.SHARES_OF_UPLOADS):
            one = stack.enter_context(service.terminal("east-gate", f"uploading-{part}"))
            numbers = range(part, slots, app.SHARES_OF_UPLOADS)
            calls += [stub(one).Upload.future(hanging(number)) for number in numbers]
        stack.callback(lambda: [call.cancel() for call in calls])
        stack.callback(release.set)
        for _ in range(slots):
            assert begun.acquire(timeout=10)
        time.sleep(0.3)
        told = refusal(lambda: stub(terminal).Upload(iter([start(b"one more")]), timeout=10))
        assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUSY")
        assert standing(terminal)[1]  # everything else is still served
