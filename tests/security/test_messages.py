"""Messages, streams and frames that no honest terminal sends: too large, broken, never ending."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from anju.v1 import common_pb2, enrolment_pb2, enrolment_pb2_grpc
from devices.terminal import Connection, connect
from tests.identity.service_kit import Refusal, application, refusal, samples_of, working_at
from tests.security.http2 import (
    CONTINUATION,
    END_HEADERS,
    GRPC,
    HEADERS,
    OPENING,
    PING,
    RST_STREAM,
    SETTINGS,
    begun,
    fields,
    frame,
    message,
)
from tests.security.target import Target

Code = grpc.StatusCode
SERVICE = "/anju.v1.EnrolmentService"
LARGEST, COARSE, PICTURE = 1_048_576, 4 * 1_048_576, 1_048_576
MIB = 1 << 20
ROOM = 128 * MIB
"""What a server may grow by under an attack that asks for a hundred times as much."""
HEARTBEAT = "/anju.v1.TerminalService/Heartbeat"


@pytest.fixture
def home(target: Target) -> Path:
    return target.new_terminal()


@pytest.fixture
def terminal(home: Path) -> Iterator[Connection]:
    with working_at(home) as connection:
        yield connection


@contextlib.contextmanager
def bounded(target: Target, room: int = ROOM) -> Iterator[None]:
    """The server does not grow by more than that while the block runs."""
    before = target.resident_bytes()
    yield
    assert target.peak_bytes() < before + room


def sent(terminal: Connection, method: str, *data: bytes, **how: Any) -> Refusal:
    """How bytes of ours are refused as the messages of a call."""
    path = f"{SERVICE}/{method}"
    if method == "Upload":
        stream: Any = terminal.channel.stream_unary(path)
        return refusal(lambda: stream(iter(data), timeout=30, **how))
    call: Any = terminal.channel.unary_unary(path)
    return refusal(lambda: call(data[0], timeout=30, **how))


# -- unary messages ----


@pytest.mark.parametrize("method", ["Enrol", "GetApplication", "GetUpload", "Upload"])
@pytest.mark.parametrize(
    ("data", "reason", "counted"),
    [
        (b"\xff" * 40, "MESSAGE_MALFORMED", "malformed"),
        (b"\x0a\x7fx", "MESSAGE_MALFORMED", "malformed"),
        (b"\0" * (LARGEST + 1), "MESSAGE_TOO_LARGE", "size"),
    ],
    ids=["noise", "truncated", "oversized"],
)
def test_a_message_that_is_none_is_refused_before_anybody_works_on_it(
    target: Target, home: Path, method: str, data: bytes, reason: str, counted: str
) -> None:
    with connect(home) as bare, target.counting(counted, 1, 1):
        told = sent(bare, method, data)
    assert (told.code, told.reason) == (Code.INVALID_ARGUMENT, reason)
    assert target.has_entry(f"terminal:{home.name}", f"EnrolmentService.{method}", reason)


@pytest.mark.parametrize("size", [COARSE + 1, 64 * MIB])
def test_a_message_that_is_far_too_large_is_not_even_read(
    target: Target, terminal: Connection, size: int
) -> None:
    """gRPC's own limit: no reason, and of our numbers only that the call came to nothing."""
    with bounded(target), target.counting("unfinished", 1, 1):
        assert sent(terminal, "Enrol", b"\0" * size).code is Code.RESOURCE_EXHAUSTED


def test_a_compressed_message_is_measured_by_what_it_becomes(
    target: Target, terminal: Connection
) -> None:
    """200 MiB in 200 kB."""
    bomb = b"\0" * (200 * MIB)
    with bounded(target), target.counting("unfinished", 1, 1):
        told = sent(terminal, "Enrol", bomb, compression=grpc.Compression.Gzip)
    assert told.code is Code.RESOURCE_EXHAUSTED


def changed(samples: list[common_pb2.Sample]) -> enrolment_pb2.EnrolRequest:
    request = application(320)
    del request.samples[:]
    request.samples.extend(samples)
    return request


def truncated_template() -> enrolment_pb2.EnrolRequest:
    samples = samples_of(320)
    samples[0].data = samples[0].data[:-7]
    return changed(samples)


def noise_for_a_template() -> enrolment_pb2.EnrolRequest:
    samples = samples_of(320)
    samples[0].data = b"FMR\0 20\0" + b"\xff" * 200
    return changed(samples)


@pytest.mark.parametrize("make", [truncated_template, noise_for_a_template])
def test_a_template_that_is_broken_enrols_nobody(
    target: Target,
    home: Path,
    terminal: Connection,
    make: Callable[[], enrolment_pb2.EnrolRequest],
) -> None:
    stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
    with target.counting("malformed", 1, 1):
        told = refusal(lambda: stub.Enrol(make(), timeout=60))
    assert (told.code, told.reason) == (Code.INVALID_ARGUMENT, "DECODE_FAILED")
    assert target.has_entry(working(home), "EnrolmentService.Enrol", told.reason)


def working(home: Path) -> str:
    return f"operator:operator-1 terminal:{home.name} station:east-gate"


# -- pictures ----


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes, *more: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *more,
            chunk(b"IDAT", pixels),
            chunk(b"IEND", b""),
        )
    )


def many_pixels() -> bytes:
    """25,000 x 32,000 grey pixels, which would be 800 MB."""
    return png(25_000, 32_000, black(20))


def black(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(b"\0" * MIB) for _ in range(mebibytes)) + packer.flush()


def more_than_a_portrait_has() -> bytes:
    """10,000 x 12,000, all of them there; the decoder alone would not mind."""
    return png(10_000, 12_000, black(115))


def too_much_for_its_size() -> bytes:
    """100 MB of rows in a picture that says it has 400 x 500."""
    return png(400, 500, black(100))


def long_comments() -> bytes:
    """300 comments of 1 MB, each in 1 kB."""
    comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * MIB, 9))
    return png(400, 500, zlib.compress(b"\0" * 401 * 500), *([comment] * 300))


def of_another_kind() -> bytes:
    data = io.BytesIO()
    Image.new("L", (400, 500)).save(data, "TIFF")
    return data.getvalue()


@pytest.mark.parametrize("uploaded", [False, True])
@pytest.mark.parametrize(
    "make", [many_pixels, more_than_a_portrait_has, long_comments, of_another_kind]
)
def test_a_picture_that_is_a_bomb_is_refused_and_costs_nothing(
    target: Target, home: Path, terminal: Connection, make: Callable[[], bytes], uploaded: bool
) -> None:
    picture, request = make(), application(321)
    assert len(picture) < LARGEST // 2
    if uploaded:
        terminal.upload(picture)
        request.portrait_sha256 = hashlib.sha256(picture).digest()
    else:
        request.portrait = picture
    stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
    with bounded(target), target.counting("malformed", 1, 1):
        told = refusal(lambda: stub.Enrol(request, timeout=60))
    assert (told.code, told.reason) == (Code.INVALID_ARGUMENT, "PORTRAIT_INVALID")
    assert target.has_entry(working(home), "EnrolmentService.Enrol", told.reason)


def test_what_a_picture_has_beyond_its_size_is_not_unpacked(
    target: Target, terminal: Connection
) -> None:
    """It is as black as it says it is, and good for a permit."""
    request = application(322)
    request.portrait = too_much_for_its_size()
    stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
    with bounded(target, 64 * MIB):
        assert stub.Enrol(request, timeout=60).application.permit.permit_number


# -- uploads ----


def start(size: int, offset: int = 0, digest: bytes = b"d" * 32) -> bytes:
    begin = enrolment_pb2.UploadStart(sha256=digest, size=size, offset=offset)
    return enrolment_pb2.UploadRequest(start=begin).SerializeToString()


def part(size: int) -> bytes:
    return enrolment_pb2.UploadRequest(chunk=b"x" * size).SerializeToString()


def endless() -> Iterator[bytes]:
    yield start(PICTURE)
    while True:
        yield part(100_000)


def nothing_for_ever() -> Iterator[bytes]:
    yield start(PICTURE)
    while True:
        yield b""


def beginnings() -> Iterator[bytes]:
    while True:
        yield start(PICTURE)


@pytest.mark.parametrize(
    ("stream", "code", "reason", "counted"),
    [
        (endless, Code.INVALID_ARGUMENT, "UPLOAD_INVALID", "malformed"),
        (nothing_for_ever, Code.INVALID_ARGUMENT, "UPLOAD_INVALID", "malformed"),
        (beginnings, Code.INVALID_ARGUMENT, "UPLOAD_INVALID", "malformed"),
        (lambda: [start(PICTURE + 1)], Code.INVALID_ARGUMENT, "UPLOAD_TOO_LARGE", "size"),
        (lambda: [start(1 << 62)], Code.INVALID_ARGUMENT, "UPLOAD_TOO_LARGE", "size"),
        (lambda: [start(-1)], Code.INVALID_ARGUMENT, "UPLOAD_INVALID", "malformed"),
        (lambda: [start(5), part(5)], Code.INVALID_ARGUMENT, "DIGEST_MISMATCH", "malformed"),
        (
            lambda: [start(PICTURE), part(100), b"\xff" * 9],
            Code.INVALID_ARGUMENT,
            "MESSAGE_MALFORMED",
            "malformed",
        ),
        (
            lambda: [start(PICTURE), part(LARGEST)],
            Code.INVALID_ARGUMENT,
            "MESSAGE_TOO_LARGE",
            "size",
        ),
    ],
    ids=[
        "endless", "of nothing", "of beginnings", "announced too large", "announced huge",
        "negative", "not what it says", "broken in the middle", "oversized piece",
    ],
)  # fmt: skip
def test_a_stream_that_is_no_picture_is_ended(
    target: Target,
    home: Path,
    terminal: Connection,
    stream: Callable[[], Any],
    code: grpc.StatusCode,
    reason: str,
    counted: str,
) -> None:
    call: Any = terminal.channel.stream_unary(f"{SERVICE}/Upload")
    with bounded(target), target.counting(counted, 1, 1):
        told = refusal(lambda: call(iter(stream()), timeout=30))
    assert (told.code, told.reason) == (code, reason)
    assert target.has_entry(f"terminal:{home.name}", "EnrolmentService.Upload", reason)


def test_a_terminal_that_uploads_and_never_enrols_is_stopped_and_others_upload(
    target: Target, home: Path, terminal: Connection
) -> None:
    call: Any = terminal.channel.stream_unary(f"{SERVICE}/Upload")
    for number in range(2):  # as much as one may have waiting
        call(iter([start(PICTURE, digest=bytes([number]) * 32), part(9)]), timeout=30)
    with target.counting("quota", 1, 1):
        told = refusal(lambda: call(iter([start(PICTURE, digest=b"2" * 32)]), timeout=30))
    assert (told.code, told.reason) == (Code.RESOURCE_EXHAUSTED, "UPLOADS_FULL")
    assert target.has_entry(f"terminal:{home.name}", "EnrolmentService.Upload", told.reason)
    with connect(target.new_terminal()) as other:
        other.upload(b"a picture of another's")


def test_anothers_upload_is_nobodys(target: Target, terminal: Connection) -> None:
    picture = b"of somebody" * 10
    with connect(target.new_terminal()) as other:
        other.upload(picture)
    request = application(323)
    request.portrait_sha256 = hashlib.sha256(picture).digest()
    stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
    told = refusal(lambda: stub.Enrol(request, timeout=60))
    assert (told.code, told.reason) == (Code.FAILED_PRECONDITION, "UPLOAD_MISSING")


# -- headers and frames ----


@pytest.mark.parametrize("size", [20_000, 100_000, 4 * MIB])
def test_headers_that_are_too_large_are_refused(
    target: Target, terminal: Connection, size: int
) -> None:
    """By gRPC, before there is a call: of our numbers none knows of it."""
    with bounded(target):
        told = sent(terminal, "GetUpload", b"", metadata=(("anju-session", "x" * size),))
    assert told.code is Code.RESOURCE_EXHAUSTED


def test_what_is_sent_under_another_content_type_is_judged_the_same(
    target: Target, home: Path
) -> None:
    """gRPC takes any; who calls, and whether they may, is looked at as ever."""
    with target.tls(home) as connection, target.counting("authorisation", 1, 1):
        path = "/anju.v1.AuditService/ListEntries"
        connection.sendall(OPENING + begun(path, "text/html") + message(b""))
        answer = b""
        while b"grpc-status" not in answer:
            got = connection.recv(65_536)
            assert got, "the connection ended without an answer"
            answer += got
    assert b"METHOD" in answer or b"may not call" in answer
    assert target.has_entry(
        f"terminal:{home.name}", "AuditService.ListEntries", "METHOD_NOT_ALLOWED"
    )


CALL = fields(
    [
        (":method", "POST"), (":scheme", "https"), (":path", HEARTBEAT), ("te", "trailers"),
        ("content-type", GRPC),
    ]
)  # fmt: skip
LONG = frame(CONTINUATION, 0, 1, fields([("a", "b" * 16_000)]))


def gone(stream: int) -> bytes:
    return frame(RST_STREAM, 0, stream, b"\0\0\0\x08")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: register\r\n\r\n",
        bytes(range(256)) * 40,
        OPENING + b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 100_000,
        OPENING + frame(HEADERS, END_HEADERS, 1, b"\xff" * 50),
        OPENING + message(b"x" * 1_000, stream=7),
        OPENING + frame(SETTINGS) * 20_000,
        OPENING + frame(PING, 0, 0, b"12345678") * 20_000,
        OPENING + frame(HEADERS, 0, 1, CALL) + LONG * 3_000,
        OPENING + b"".join(begun(HEARTBEAT, stream=n) + gone(n) for n in range(1, 10_001, 2)),
    ],
    ids=[
        "HTTP/1.1", "noise", "a huge frame", "no HPACK", "data of no call", "settings", "pings",
        "endless headers", "rapid reset",
    ],
)  # fmt: skip
def test_frames_that_make_no_call_cost_nothing(target: Target, home: Path, data: bytes) -> None:
    with bounded(target), target.tls(home) as connection, contextlib.suppress(OSError):
        connection.settimeout(0.5)
        connection.sendall(data)
        while connection.recv(65_536):
            pass
