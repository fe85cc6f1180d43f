"""Just enough HTTP/2 (RFC 9113) and HPACK (RFC 7541) to send what no client library would."""

from __future__ import annotations

import struct
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 0x1, 0x4
GRPC = "application/grpc"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """One frame; RFC 9113 section 4.1."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


OPENING = PREFACE + frame(SETTINGS)


def fields(headers: Iterable[tuple[str, str]]) -> bytes:
    """Literal fields without indexing, without Huffman coding; RFC 7541 section 6.2.2."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)


def _text(value: str) -> bytes:
    coded, length = value.encode("ascii"), len(value)
    if length < 127:
        return bytes([length]) + coded
    prefix, rest = bytearray([127]), length - 127
    while rest >= 128:
        prefix.append(rest % 128 + 128)
        rest //= 128
    return bytes(prefix) + bytes([rest]) + coded


def begun(path: str, content_type: str = GRPC, stream: int = 1) -> bytes:
    """The headers of a call, after which its message is waited for."""
    headers = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "register"),
        ("te", "trailers"),
    ]
    if content_type:
        headers.append(("content-type", content_type))
    return frame(HEADERS, END_HEADERS, stream, fields(headers))


def message(data: bytes, stream: int = 1, flags: int = END_STREAM) -> bytes:
    """A call's message: a byte for its compression, its length, itself."""
    return frame(DATA, flags, stream, b"\0" + struct.pack(">I", len(data)) + data)
