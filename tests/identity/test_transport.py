"""What the ports do with peers who send too little, too slowly, too much or in an old way."""

from __future__ import annotations

import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from anju.v1 import enrolment_pb2, enrolment_pb2_grpc
from devices.authority import SERVER_NAME, open_authority
from devices.credentials import load
from devices.terminal import connect
from identity import app, transport
from identity.admission import Gate
from identity.errors import ConfigError
from identity.observability.metrics import REGISTRY
from identity.ports import SystemClock
from identity.receiving import ReceivingInterceptor, Watchman
from identity.rpc_status import StatusInterceptor
from identity.transport import SPARE_FILES, allow_open_files, grpc_server, listen
from tests.identity.service_kit import Service, application, refusal, running

Code = grpc.StatusCode
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
HANDSHAKE_S, IDLE_S, MESSAGE_S = 1.0, 2.0, 1.0
MAX_BYTES, CONNECTIONS = 4_096, 12


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("transport") / "anju") as started:
        yield started


class Echo(enrolment_pb2_grpc.EnrolmentServiceServicer):
    """Answers with the id it is asked about."""

    def GetApplication(
        self, request: enrolment_pb2.GetApplicationRequest, context: grpc.ServicerContext
    ) -> enrolment_pb2.GetApplicationResponse:
        application = enrolment_pb2.Application(application_id=request.application_id)
        return enrolment_pb2.GetApplicationResponse(application=application)

    def Enrol(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def Upload(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def GetUpload(self, request: Any, context: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Port:
    """A server with the product's transport and short timeouts, and a client's means."""

    address: tuple[str, int]
    context: Callable[[], ssl.SSLContext]
    credentials: grpc.ChannelCredentials

    def plain(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def tls(self) -> ssl.SSLSocket:
        return self.context().wrap_socket(self.plain(), server_hostname=SERVER_NAME)

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        options = [
            ("grpc.ssl_target_name_override", SERVER_NAME),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
        ]
        host, port = self.address
        with grpc.secure_channel(f"{host}:{port}", self.credentials, options) as channel:
            yield channel


@pytest.fixture(scope="module")
def port(service: Service) -> Iterator[Port]:
    home = service.directory / "devices"
    authority = open_authority(home, SystemClock(), service.installation.config.server.hostnames)
    own = load(service.directory / "operators" / "operator-1")
    files = service.directory / "operators" / "operator-1"

    def context() -> ssl.SSLContext:
        made = ssl.create_default_context(cadata=own.ca_pem.decode())
        made.load_cert_chain(files / "certificate.pem", files / "key.pem")
        made.set_alpn_protocols(["h2"])
        return made

    watchman = Watchman(MESSAGE_S)
    server = grpc_server(
        4,
        (StatusInterceptor(), ReceivingInterceptor(Gate(), MAX_BYTES, watchman)),
        max_message_bytes=4 * MAX_BYTES,
        connections=CONNECTIONS,
        calls_per_connection=8,
        idle_s=IDLE_S,
        handshake_s=HANDSHAKE_S,
    )
    enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(Echo(), server)
    pair = [(authority.server.key_pem, authority.server.certificate_pem)]
    credentials = grpc.ssl_server_credentials(pair, authority.server.ca_pem, True)
    host, _, number = listen(server, "127.0.0.1:0", credentials).rpartition(":")
    watchman.start()
    server.start()
    yield Port(
        (host, int(number)),
        context,
        grpc.ssl_channel_credentials(own.ca_pem, own.key_pem, own.certificate_pem),
    )
    server.stop(0).wait()
    watchman.stop()


def ask(channel: grpc.Channel, application_id: str = "A1") -> str:
    stub = enrolment_pb2_grpc.EnrolmentServiceStub(channel)
    request = enrolment_pb2.GetApplicationRequest(application_id=application_id)
    return stub.GetApplication(request, timeout=20).application.application_id


def refused(reason: str) -> float:
    return REGISTRY.get_sample_value("anju_refusals_total", {"reason": reason}) or 0.0


# -- slow-loris ----


def nothing(port: Port) -> socket.socket:
    return port.plain()


def half_a_hello(port: Port) -> socket.socket:
    connection = port.plain()
    connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
    return connection


def dripping(port: Port) -> socket.socket:
    connection = port.plain()

    def drip() -> None:
        try:
            for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 100:
                connection.sendall(bytes([byte]))
                time.sleep(0.1)
        except OSError:
            return  # it was cut, which is what the test waits for

    threading.Thread(target=drip, daemon=True).start()
    return connection


def only_tls(port: Port) -> socket.socket:
    return port.tls()


def no_settings(port: Port) -> socket.socket:
    connection = port.tls()
    connection.sendall(PREFACE)
    return connection


def no_call(port: Port) -> socket.socket:
    connection = port.tls()
    connection.sendall(PREFACE + SETTINGS)
    return connection


@pytest.mark.parametrize(
    ("begin", "cut_after_s"),
    [
        (nothing, HANDSHAKE_S),
        (half_a_hello, HANDSHAKE_S),
        (dripping, HANDSHAKE_S),
        (only_tls, HANDSHAKE_S),
        (no_settings, HANDSHAKE_S),
        (no_call, IDLE_S),
    ],
)
def test_a_connection_that_gets_nowhere_is_cut_and_others_are_served(
    port: Port, begin: Callable[[Port], socket.socket], cut_after_s: float
) -> None:
    start = time.monotonic()
    with begin(port) as connection, port.channel() as channel:
        assert ask(channel) == "A1"
        while connection.recv(4_096):
            pass
        elapsed = time.monotonic() - start
    assert 0.8 * cut_after_s <= elapsed < cut_after_s + 3.0


def test_calls_whose_message_never_comes_hold_nobody_up(port: Port) -> None:
    """More of them than the server has threads, and each without a deadline."""
    before = refused("unfinished")
    release = threading.Event()

    def never() -> Iterator[bytes]:
        release.wait(30)
        yield from ()

    with port.channel() as channel, port.channel() as other:
        method = "/anju.v1.EnrolmentService/GetApplication"
        call: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(method)
        stalled = [call.future(never()) for _ in range(8)]
        start = time.monotonic()
        assert ask(other) == "A1"
        assert time.monotonic() - start < 2 * (MESSAGE_S + 1.0)
        for one in stalled:
            error: Any = one.exception(timeout=10)
            assert error.code() is Code.CANCELLED
        release.set()
    assert refused("unfinished") == before + 8


# -- size and form ----


def test_a_message_that_is_too_large_is_refused_with_a_reason(port: Port) -> None:
    before = refused("size")
    with port.channel() as channel:
        told = refusal(lambda: ask(channel, "x" * MAX_BYTES))
        assert (told.code, told.reason) == (Code.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE")
        assert str(MAX_BYTES) in told.message
        assert ask(channel, "x" * (MAX_BYTES - 10)) == "x" * (MAX_BYTES - 10)
    assert refused("size") == before + 1


def test_one_that_is_far_too_large_is_not_even_read(port: Port) -> None:
    with port.channel() as channel:
        told = refusal(lambda: ask(channel, "x" * 10_000_000))
        assert told.code is Code.RESOURCE_EXHAUSTED
        assert ask(channel) == "A1"


@pytest.mark.parametrize("garbage", [b"\xff" * 40, b"\x0a\x7fx", b"\x0a\x02\xff\xfe"])
def test_bytes_that_are_no_message_are_refused_with_a_reason(port: Port, garbage: bytes) -> None:
    before = refused("malformed")
    with port.channel() as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/anju.v1.EnrolmentService/GetApplication"
        )
        told = refusal(lambda: call(garbage, timeout=20))
        assert (told.code, told.reason) == (Code.INVALID_ARGUMENT, "MESSAGE_MALFORMED")
        assert ask(channel) == "A1"
    assert refused("malformed") == before + 1


def test_a_call_without_a_message_is_refused(port: Port) -> None:
    with port.channel() as channel:
        call: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(
            "/anju.v1.EnrolmentService/GetApplication"
        )
        told = refusal(lambda: call(iter(()), timeout=20))
        assert (told.code, told.reason) == (Code.INVALID_ARGUMENT, "MESSAGE_UNFINISHED")


# -- how many, and which ----


def taken(port: Port) -> ssl.SSLSocket | None:
    """A connection on which the server has answered; None if it closed it."""
    try:
        one = port.tls()
        one.sendall(PREFACE + SETTINGS)
        return one if one.recv(100) else None
    except OSError:
        return None


def test_beyond_the_limit_of_connections_one_more_is_closed_and_the_others_stay(port: Port) -> None:
    time.sleep(0.2)  # for what earlier tests closed
    kept: list[ssl.SSLSocket] = []
    try:
        with port.channel() as channel:
            assert ask(channel) == "A1"
            while len(kept) < CONNECTIONS + 2 and (one := taken(port)) is not None:
                kept.append(one)
            assert 1 < len(kept) < CONNECTIONS
            assert ask(channel) == "A1"
    finally:
        for one in kept:
            one.close()


def test_many_calls_at_once_on_one_connection_are_all_answered(port: Port) -> None:
    """More than the limit queue at the client; what races with it may be called again."""

    def until_answered(number: int) -> str:
        while True:
            try:
                return ask(channel, f"A{number}")
            except grpc.RpcError as error:
                if error.code() is not Code.UNAVAILABLE:
                    raise

    with port.channel() as channel, ThreadPoolExecutor(40) as pool:
        answers = pool.map(until_answered, range(200))
        assert list(answers) == [f"A{number}" for number in range(200)]


def test_the_provisioning_port_gives_nobody_more_than_a_few_calls_at_a_time(
    service: Service,
) -> None:
    assert app.OPEN_CALLS_PER_CONNECTION * app.OPEN_CONNECTIONS >= 1_000
    assert app.OPEN_IDLE_S <= 60
    files = service.directory / "operators" / "operator-1"
    with connect(files) as operator:
        assert operator  # the main port answers beside it
    assert refusal(
        lambda: ask(
            grpc.secure_channel(
                service.server.provisioning_address,
                grpc.ssl_channel_credentials(load(files).ca_pem),
                [("grpc.ssl_target_name_override", SERVER_NAME)],
            )
        )
    ).code in (Code.UNAUTHENTICATED, Code.UNIMPLEMENTED)


# -- open files ----


class Limits:
    RLIMIT_NOFILE = resource.RLIMIT_NOFILE
    RLIM_INFINITY = resource.RLIM_INFINITY

    def __init__(self, soft: int, hard: int) -> None:
        self.now = (soft, hard)

    def getrlimit(self, _which: int) -> tuple[int, int]:
        return self.now

    def setrlimit(self, _which: int, limits: tuple[int, int]) -> None:
        self.now = limits


@pytest.mark.parametrize(
    ("soft", "hard", "after"),
    [
        (1_024, 20_000, 5_000 + SPARE_FILES),
        (1_024, resource.RLIM_INFINITY, 5_000 + SPARE_FILES),
        (9_000, 20_000, 9_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    ],
)
def test_the_limit_on_open_files_is_raised_where_it_must_be(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, after: int
) -> None:
    limits = Limits(soft, hard)
    monkeypatch.setattr(transport, "resource", limits)
    allow_open_files(5_000)
    assert limits.now == (after, hard)


def test_too_few_open_files_stop_the_start_and_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "resource", Limits(1_024, 4_096))
    with pytest.raises(ConfigError, match=r"LimitNOFILE.*lower server.max_connections"):
        allow_open_files(5_000)


def test_a_real_enrolment_passes_this_door(service: Service, tmp_path: Path) -> None:
    with service.terminal("east-gate", "hall-9") as terminal:
        stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
        done = stub.Enrol(application(40), timeout=60).application
    assert done.state == enrolment_pb2.APPLICATION_STATE_ENROLLED
