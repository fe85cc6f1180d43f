"""COSE bytes <-> the text of the QR symbol: zlib, then base45 (RFC 1950, RFC 9285).

Everything here is bounded, because the text comes from a picture that anybody can print: the text
by what the largest QR symbol holds, and the decompressed bytes by `MAX_COSE_BYTES`, since a few
kilobytes of zlib can stand for megabytes.
"""

from __future__ import annotations

import zlib
from typing import Final

from issuance import base45
from issuance.errors import DecodeError
from issuance.types import Reason, Stage

# Alphanumeric capacity of a version-40 symbol at level L, ISO/IEC 18004 table 7.
MAX_TEXT_CHARS: Final = 4_296
# 2,864 bytes fill that symbol; permits are about 500, and with a photograph about 1,300.
MAX_COSE_BYTES: Final = 16_384


def to_text(cose: bytes) -> str:
    """The text for the QR symbol. Raises ValueError if it exceeds the largest symbol."""
    text = base45.encode(zlib.compress(cose, 9))
    if len(text) > MAX_TEXT_CHARS:
        raise ValueError(f"{len(text)} characters do not fit a QR symbol of {MAX_TEXT_CHARS}")
    return text


def from_text(text: str) -> bytes:
    """The COSE bytes in the text of a QR symbol; line ends around it are ignored.

    A space is a base45 digit, so spaces are not. Raises `DecodeError` with stage READ.
    """
    if len(text) > MAX_TEXT_CHARS + 4:
        raise _refused(Reason.TOO_LARGE, f"text is longer than {MAX_TEXT_CHARS} characters")
    text = text.strip("\r\n")
    if len(text) > MAX_TEXT_CHARS:
        raise _refused(Reason.TOO_LARGE, f"text is longer than {MAX_TEXT_CHARS} characters")
    try:
        compressed = base45.decode(text)
    except ValueError as error:
        raise _refused(Reason.NOT_A_PERMIT, "text is not base45") from error
    return inflate(compressed)


def inflate(compressed: bytes) -> bytes:
    """Decompress one zlib stream, at most `MAX_COSE_BYTES`, nothing after it.

    Raises `DecodeError`: NOT_A_PERMIT if it is no zlib stream, TOO_LARGE, or MALFORMED when it ends
    early or goes on after its end.
    """
    # RFC 1950 section 2.2: method 8, and the first two bytes are a multiple of 31.
    if len(compressed) < 2 or compressed[0] & 15 != 8 or (compressed[0] << 8 | compressed[1]) % 31:
        raise _refused(Reason.NOT_A_PERMIT, "not zlib data")
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(compressed, MAX_COSE_BYTES + 1)
    except zlib.error as error:
        raise _refused(Reason.MALFORMED, "the zlib data is damaged") from error
    if len(data) > MAX_COSE_BYTES:
        raise _refused(Reason.TOO_LARGE, f"decompresses to more than {MAX_COSE_BYTES} bytes")
    if not stream.eof or stream.unused_data:
        raise _refused(Reason.MALFORMED, "the zlib data ends early or goes on after its end")
    return data


def _refused(reason: Reason, message: str) -> DecodeError:
    return DecodeError(Stage.READ, reason, message)
