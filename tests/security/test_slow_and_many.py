"""Peers who take their time, and peers in numbers: they are cut, and nobody waits for them."""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from anju.v1 import enrolment_pb2, enrolment_pb2_grpc, terminals_pb2, terminals_pb2_grpc
from devices.terminal import connect
from identity.app import SHARES_OF_UPLOADS
from identity.config import CaptureConfig
from identity.receiving import MESSAGES_EACH
from tests.identity.service_kit import application, refusal_of, working_at
from tests.security.conftest import CONNECTIONS, HANDSHAKE_S, MESSAGE_S
from tests.security.http2 import OPENING, PREFACE, begun, message
from tests.security.target import SOON_S, Target, until

Code = grpc.StatusCode
HEARTBEAT = "/anju.v1.TerminalService/Heartbeat"
HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def somebody_comes(target: Target, number: int) -> None:
    """A terminal that has no connection yet enrols somebody, in good time."""
    home = target.new_terminal()
    start = time.monotonic()
    with working_at(home) as connection:
        stub = enrolment_pb2_grpc.EnrolmentServiceStub(connection.channel)
        assert stub.Enrol(application(number), timeout=30).application.registrant_id
    assert time.monotonic() - start < 2 * SOON_S


# -- slow-loris ----


@dataclass
class Slow:
    """A connection that gets nowhere; what it sends drop by drop comes from :meth:`drip`."""

    name: str
    connection: socket.socket
    drops: Iterator[bytes]
    cut_after_s: float
    began: float
    ended_after_s: float = 0.0

    def drip(self) -> None:
        with contextlib.suppress(OSError):  # it was cut, which is seen when it is read from
            self.connection.sendall(next(self.drops, b""))

    def look(self) -> None:
        """Note its end: the connection's, or of the call that was begun on it."""
        if not select.select([self.connection], [], [], 0)[0]:
            return
        try:
            data = self.connection.recv(65_536)
        except OSError:
            data = b""
        # RST_STREAM or trailers of our stream 1 end its call.
        if not data or is_over(data):
            self.ended_after_s = time.monotonic() - self.began


def is_over(data: bytes) -> bool:
    """Whether these frames reset stream 1 or end it."""
    while len(data) >= 9:
        length, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
        if int.from_bytes(data[5:9], "big") == 1 and (kind == 3 or (kind == 1 and flags & 1)):
            return True
        data = data[9 + length :]
    return False


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def test_who_gets_nowhere_is_cut_in_time_and_others_are_served(target: Target) -> None:
    silent, dripping = target.new_terminal(), target.new_terminal()
    never: Iterator[bytes] = iter(())
    begin: list[tuple[str, Callable[[], socket.socket], bytes, Iterator[bytes], float]] = [
        ("silence", target.socket, b"", never, HANDSHAKE_S),
        ("silence, open port", lambda: target.socket(target.provisioning), b"", never, HANDSHAKE_S),
        ("half a hello", target.socket, HALF_A_HELLO, never, HANDSHAKE_S),
        ("dripping hello", target.socket, b"", byte_by_byte(HALF_A_HELLO * 50), HANDSHAKE_S),
        ("TLS, silence", target.tls, b"", never, HANDSHAKE_S),
        ("TLS, no settings", target.tls, PREFACE, never, HANDSHAKE_S),
        ("TLS, dripping", target.tls, b"", byte_by_byte(PREFACE), HANDSHAKE_S),
        ("no message", lambda: target.tls(silent), OPENING + begun(HEARTBEAT), never, MESSAGE_S),
        (
            "dripping message",
            lambda: target.tls(dripping),
            OPENING + begun(HEARTBEAT),
            byte_by_byte(message(b"\0" * 200)),
            MESSAGE_S,
        ),
    ]
    with contextlib.ExitStack() as stack, target.counting("unfinished", 2, 2):
        slow = []
        for name, make, first, drops, cut_after_s in begin:
            began = time.monotonic()
            connection = stack.enter_context(make())
            connection.sendall(first)
            slow.append(Slow(name, connection, drops, cut_after_s, began))
        somebody_comes(target, 330)
        end = time.monotonic() + HANDSHAKE_S + 5
        while open_still := [one for one in slow if not one.ended_after_s]:
            assert time.monotonic() < end, [one.name for one in open_still]
            for one in open_still:
                one.drip()
                one.look()
            time.sleep(0.1)
    for one in slow:
        assert 0.8 * one.cut_after_s < one.ended_after_s < one.cut_after_s + 3, one.name
    for home in (silent, dripping):
        assert target.has_entry(
            f"terminal:{home.name}", "TerminalService.Heartbeat", "MESSAGE_LATE"
        )


def test_one_terminal_that_begins_hundreds_of_calls_holds_nobody_up(target: Target) -> None:
    """More than the server has threads."""
    thief = target.new_terminal()
    with (
        contextlib.ExitStack() as stack,
        target.counting("backpressure", least=300 - MESSAGES_EACH),
        target.counting("unfinished", MESSAGES_EACH, MESSAGES_EACH),
    ):
        for _ in range(3):
            connection = stack.enter_context(target.tls(thief))
            connection.sendall(OPENING)
            connection.sendall(b"".join(begun(HEARTBEAT, stream=1 + 2 * n) for n in range(100)))
        somebody_comes(target, 331)
        time.sleep(MESSAGE_S + 1)
    assert target.has_entry(f"terminal:{thief.name}", "TerminalService.Heartbeat", "MESSAGE_LATE")


def test_one_terminal_that_leaves_its_uploads_open_takes_nobodys_place(target: Target) -> None:
    release = threading.Event()

    def hanging(number: int) -> Iterator[enrolment_pb2.UploadRequest]:
        digest = hashlib.sha256(bytes([number])).digest()
        begin = enrolment_pb2.UploadStart(sha256=digest, size=9, offset=0)
        yield enrolment_pb2.UploadRequest(start=begin)
        release.wait(30)

    streams = CaptureConfig().upload_streams
    refused = streams - streams // SHARES_OF_UPLOADS
    with connect(target.new_terminal()) as thief, connect(target.new_terminal()) as other:
        upload = enrolment_pb2_grpc.EnrolmentServiceStub(thief.channel).Upload
        with target.counting("backpressure", refused, refused):
            calls = [upload.future(hanging(number)) for number in range(streams)]
            until(lambda: sum(call.done() for call in calls) == refused, "too many are let in")
        other.upload(b"a picture of another's")
        release.set()
        for call in calls:
            call.cancel()
    for call in calls:
        if not call.cancelled():
            told = refusal_of(call.exception())
            assert (told.code, told.reason) == (Code.RESOURCE_EXHAUSTED, "BUSY")


# -- in numbers ----


def test_beyond_the_limit_of_connections_those_that_are_there_stay(target: Target) -> None:
    """Silence needs no certificate, and takes others' place until it is cut."""
    with contextlib.ExitStack() as stack:
        flood = [stack.enter_context(target.socket()) for _ in range(2 * CONNECTIONS)]
        until(lambda: target.metric("anju_connections", port="main") >= CONNECTIONS - 1, "few")
        closed = 0
        for one in flood:
            one.settimeout(0.02)
            with contextlib.suppress(TimeoutError):
                try:
                    closed += not one.recv(1)
                except ConnectionError:
                    closed += 1
        assert closed >= CONNECTIONS
        assert target.metric("anju_connections", port="main") <= CONNECTIONS
        begin = time.monotonic()
        target.entries()  # over a connection that was open before
        assert time.monotonic() - begin < SOON_S
    until(lambda: target.metric("anju_connections", port="main") < CONNECTIONS / 2, "many")
    somebody_comes(target, 332)


def test_a_terminal_that_calls_in_a_loop_uses_its_own_quota_up_and_nobody_elses(
    target: Target,
) -> None:
    home = target.new_terminal()
    with connect(home) as loop, target.counting("quota", least=1):
        stub = terminals_pb2_grpc.TerminalServiceStub(loop.channel)
        told: set[Any] = set()
        for _ in range(90):
            calls = [stub.Heartbeat.future(terminals_pb2.HeartbeatRequest()) for _ in range(16)]
            for call in calls:
                if call.exception() is not None:
                    one = refusal_of(call.exception())
                    told.add((one.code, one.reason))
        assert told == {(Code.RESOURCE_EXHAUSTED, "QUOTA")}
    somebody_comes(target, 333)
