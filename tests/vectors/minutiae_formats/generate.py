"""Run as a script, this writes the vectors of the later and of the American formats beside it.

Each record is packed here field by field, without ``matcher``, so that a mistake there cannot hide
in its own vectors. One file, one scenario: the format, the record in hexadecimal, and either the
views it holds (at 500 ppi) or the reason and byte at which it must be refused. The minutiae are
made up. What the layouts rest on is told in ``matcher/codec_2011.py`` and
``matcher/codec_ansi378.py``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

ISO_2011, ANSI_2004, ANSI_2009 = "iso-19794-2-2011", "ansi-incits-378-2004", "ansi-incits-378-2009"
Minutia = tuple[int, int, int, int, int]  # kind, x, y, angle in the format's units, quality
MINUTIAE: list[Minutia] = [
    (1, 10, 20, 0, 60),
    (2, 299, 399, 64, 100),
    (0, 0, 0, 179, 0),
    (1, 150, 200, 128, 33),
]
LATER: list[Minutia] = [*MINUTIAE, (1, 5, 6, 7, 254), (1, 8, 9, 10, 255)]


def minutiae_bytes(minutiae: list[Minutia], size: int = 6) -> bytes:
    return b"".join(
        struct.pack(">HHBB", kind << 14 | x, y, angle, quality)[:size]
        for kind, x, y, angle, quality in minutiae
    )


def area(code: int, data: bytes) -> bytes:
    return struct.pack(">HH", code, len(data) + 4) + data


def block(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


# --- ISO/IEC 19794-2:2011 ---


def view_2011(
    minutiae: list[Minutia] | None = None,
    position: int = 2,
    number: int = 0,
    resolution: tuple[int, int] = (197, 197),
    impression: int = 0,
    size: tuple[int, int] = (300, 400),
    minutia_bytes: int = 6,
    ridge_ending: int = 0,
    captured: bytes = b"\xff" * 9,
    technology: int = 0,
    qualities: list[tuple[int, int, int]] | None = None,
    certificates: list[tuple[int, int]] | None = None,
    extended: bytes = b"",
    length: int | None = None,
) -> bytes:
    minutiae = LATER if minutiae is None else minutiae
    qualities = [(80, 1, 2)] if qualities is None else qualities
    body = captured + struct.pack(">BHH", technology, 3, 4)
    body += bytes([len(qualities)]) + b"".join(struct.pack(">BHH", *one) for one in qualities)
    if certificates is not None:
        body += bytes([len(certificates)])
        body += b"".join(struct.pack(">HB", *one) for one in certificates)
    body += struct.pack(">BBHHB", position, number, *resolution, impression)
    body += struct.pack(">HH", *size) + bytes([minutia_bytes << 4 | ridge_ending, len(minutiae)])
    body += minutiae_bytes(minutiae, minutia_bytes) + block(extended)
    return struct.pack(">I", 4 + len(body) if length is None else length) + body


def record_2011(
    *views: bytes, length: int | None = None, count: int | None = None, certified: int = 0
) -> bytes:
    body = b"".join(views)
    total = 15 + len(body) if length is None else length
    return (
        b"FMR\x00030\0"
        + struct.pack(">IHB", total, len(views) if count is None else count, certified)
        + body
    )


# --- ANSI INCITS 378 ---


def view_2004(
    minutiae: list[Minutia] | None = None,
    position: int = 2,
    number: int = 0,
    impression: int = 0,
    quality: int = 80,
    extended: bytes = b"",
) -> bytes:
    minutiae = MINUTIAE if minutiae is None else minutiae
    head = bytes([position, number << 4 | impression, quality, len(minutiae)])
    return head + minutiae_bytes(minutiae) + block(extended)


def record_2004(
    *views: bytes,
    length: bytes | None = None,
    equipment: int = 0,
    resolution: tuple[int, int] = (197, 197),
    reserved: int = 0,
) -> bytes:
    body = b"".join(views)
    if length is None:
        length = struct.pack(">H", 26 + len(body))
    fields = (0x42, 0x11, equipment, 300, 400, *resolution, len(views), reserved)
    return b"FMR\0 20\0" + length + struct.pack(">HHHHHHHBB", *fields) + body


def view_2009(
    minutiae: list[Minutia] | None = None,
    position: int = 2,
    number: int = 0,
    impression: int = 0,
    quality: int = 80,
    size: tuple[int, int] = (300, 400),
    resolution: tuple[int, int] = (197, 197),
    extended: bytes = b"",
) -> bytes:
    minutiae = LATER if minutiae is None else minutiae
    head = struct.pack(">BBBBHH", position, number, impression, quality, 6, 0x3702)
    head += struct.pack(">HHHHB", *size, *resolution, len(minutiae))
    return head + minutiae_bytes(minutiae) + block(extended)


def record_2009(
    *views: bytes, version: bytes = b"030\0", compliance: int = 0, length: int | None = None
) -> bytes:
    body = b"".join(views)
    total = 21 + len(body) if length is None else length
    fields = (total, 0x42, 0x11, compliance, 0xB5, len(views), 0)
    return b"FMR\0" + version + struct.pack(">IHHBHBB", *fields) + body


# --- scenarios ---


def decoded(
    minutiae: list[Minutia],
    degrees: float,
    scale: float = 1.0,
    position: int = 2,
    quality: int = 80,
    size: tuple[int, int] = (300, 400),
) -> dict[str, Any]:
    return {
        "position": position,
        "finger_quality": quality,
        "width": size[0],
        "height": size[1],
        "x": [round(m[1] * scale, 4) for m in minutiae],
        "y": [round(m[2] * scale, 4) for m in minutiae],
        "angle_degrees": [m[3] * degrees for m in minutiae],
        "kind": [m[0] for m in minutiae],
        "quality": [m[4] if m[4] <= 100 else 0 for m in minutiae],
    }


Valid = tuple[str, str, str, bytes, list[dict[str, Any]]]
Invalid = tuple[str, str, str, bytes, str, int | None]


def valid() -> Iterator[Valid]:
    """Name, format, what it shows, the record, what it decodes to."""
    iso, two = 360 / 256, 2.0
    yield (
        "one-view",
        ISO_2011,
        "one finger; qualities 254 and 255 are no number",
        record_2011(view_2011()),
        [decoded(LATER, iso)],
    )
    bare = [(k, x, y, a, 0) for k, x, y, a, _ in MINUTIAE]
    yield (
        "five-bytes",
        ISO_2011,
        "minutiae without quality, a finger without quality blocks",
        record_2011(view_2011(MINUTIAE, minutia_bytes=5, ridge_ending=1, qualities=[])),
        [decoded(bare, iso, quality=0)],
    )
    yield (
        "full-header",
        ISO_2011,
        "capture time, technology, certificates, two qualities and extended data are carried",
        record_2011(
            view_2011(
                captured=struct.pack(">HBBBBBH", 2026, 3, 2, 9, 30, 59, 999),
                technology=20,
                qualities=[(90, 1, 2), (255, 3, 4)],
                certificates=[(7, 1), (8, 3)],
                impression=29,
                extended=area(1, b"\1\0\1\5") + area(0x0102, b"vendor"),
            ),
            view_2011(position=7, certificates=[]),
            view_2011(number=1, certificates=[], qualities=[(255, 1, 1)]),
            certified=1,
        ),
        [
            decoded(LATER, iso, quality=90),
            decoded(LATER, iso, position=7),
            decoded(LATER, iso, quality=0),
        ],
    )
    yield (
        "1000-ppi",
        ISO_2011,
        "394 px/cm is brought to 500 ppi; each view has its own image",
        record_2011(view_2011(resolution=(394, 394)), view_2011(number=1, size=(310, 410))),
        [decoded(LATER, iso, 0.5, size=(150, 200)), decoded(LATER, iso, size=(310, 410))],
    )
    yield "one-view", ANSI_2004, "one finger", record_2004(view_2004()), [decoded(MINUTIAE, two)]
    yield (
        "full-header",
        ANSI_2004,
        "certification, device, impression type and extended data are carried",
        record_2004(
            view_2004(impression=9, extended=area(2, b"\1\0\1\5")),
            view_2004([], position=7, quality=0),
            equipment=0x8ABC,
        ),
        [decoded(MINUTIAE, two), decoded([], two, position=7, quality=0)],
    )
    yield (
        "one-view",
        ANSI_2009,
        "one finger; qualities 254 and 255 are no number",
        record_2009(view_2009()),
        [decoded(LATER, two)],
    )
    yield (
        "amendment-1",
        ANSI_2009,
        "version 035, certification, two views of different images",
        record_2009(
            view_2009(impression=29, quality=254, extended=area(0x0102, b"vendor")),
            view_2009(number=1, size=(310, 410), resolution=(394, 394)),
            version=b"035\0",
            compliance=0x80,
        ),
        [decoded(LATER, two, quality=0), decoded(LATER, two, 0.5, size=(155, 205))],
    )


def invalid() -> Iterator[Invalid]:
    """Name, format, what is wrong, the record, the reason and the byte it is found at."""
    good = record_2011(view_2011())
    yield from (
        ("cut", ISO_2011, "the last byte is missing", good[:-1], "TRUNCATED", 8),
        ("behind", ISO_2011, "a byte follows", good + b"\0", "TRAILING_BYTES", 8),
        ("no-view", ISO_2011, "no representation", record_2011(), "BAD_VIEW_COUNT", 12),
        ("flag", ISO_2011, "flag 2", record_2011(view_2011(), certified=2), "BAD_FLAG", 14),
        (
            "certificates-missing",
            ISO_2011,
            "certification blocks are announced and missing",
            record_2011(view_2011([(1, 1, 1, 1, 1)]), certified=1),
            "BAD_CERTIFICATE",
            40,
        ),
        (
            "scheme-4",
            ISO_2011,
            "a certification scheme beyond the table",
            record_2011(view_2011(certificates=[(1, 4)]), certified=1),
            "BAD_CERTIFICATE",
            40,
        ),
        (
            "length",
            ISO_2011,
            "a representation that is shorter than it says",
            record_2011(view_2011(length=90)),
            "BAD_LENGTH",
            15,
        ),
        (
            "month-13",
            ISO_2011,
            "captured in month 13",
            record_2011(view_2011(captured=struct.pack(">HBBBBBH", 2026, 13, 1, 0, 0, 0, 0))),
            "BAD_TIME",
            21,
        ),
        ("technology", ISO_2011, "21", record_2011(view_2011(technology=21)), "BAD_TECHNOLOGY", 28),
        (
            "quality-101",
            ISO_2011,
            "finger quality 101",
            record_2011(view_2011(qualities=[(101, 0, 0)])),
            "BAD_QUALITY",
            34,
        ),
        ("palm", ISO_2011, "four fingers", record_2011(view_2011(position=13)), "BAD_POSITION", 39),
        (
            "number-1",
            ISO_2011,
            "first is 1",
            record_2011(view_2011(number=1)),
            "BAD_VIEW_NUMBER",
            40,
        ),
        (
            "resolution-in-ppi",
            ISO_2011,
            "500 where 197 is meant",
            record_2011(view_2011(resolution=(500, 500))),
            "BAD_RESOLUTION",
            41,
        ),
        ("impression", ISO_2011, "10", record_2011(view_2011(impression=10)), "BAD_IMPRESSION", 45),
        ("zero-width", ISO_2011, "0", record_2011(view_2011(size=(0, 9))), "BAD_IMAGE_SIZE", 46),
        (
            "minutia-size-7",
            ISO_2011,
            "seven bytes a minutia",
            record_2011(view_2011(minutia_bytes=7)),
            "BAD_MINUTIA_SIZE",
            50,
        ),
        (
            "ridge-ending-2",
            ISO_2011,
            "a kind of ridge ending beyond the table",
            record_2011(view_2011(ridge_ending=2)),
            "BAD_RIDGE_ENDING",
            50,
        ),
        ("empty-view", ISO_2011, "none", record_2011(view_2011([])), "BAD_MINUTIA_COUNT", 51),
        (
            "minutia-quality",
            ISO_2011,
            "a minutia's quality of 253",
            record_2011(view_2011([(1, 1, 1, 1, 253)])),
            "BAD_QUALITY",
            57,
        ),
        (
            "is-ansi-2009",
            ISO_2011,
            "a record of ANSI INCITS 378-2009",
            record_2009(view_2009()),
            "FORMAT_MISMATCH",
            None,
        ),
    )
    good = record_2004(view_2004())
    yield from (
        ("cut", ANSI_2004, "the last byte is missing", good[:-1], "TRUNCATED", 8),
        (
            "long-length",
            ANSI_2004,
            "a length in six bytes",
            record_2004(view_2004(), length=struct.pack(">HI", 0, 30 + 30)),
            "BAD_LENGTH",
            8,
        ),
        (
            "certification-bits",
            ANSI_2004,
            "a certification without a meaning",
            record_2004(view_2004(), equipment=0x4000),
            "BAD_RESERVED",
            14,
        ),
        (
            "resolution-zero",
            ANSI_2004,
            "0 px/cm",
            record_2004(view_2004(), resolution=(197, 0)),
            "BAD_RESOLUTION",
            22,
        ),
        ("no-view", ANSI_2004, "no view", record_2004(), "BAD_VIEW_COUNT", 24),
        ("reserved", ANSI_2004, "7", record_2004(view_2004(), reserved=7), "BAD_RESERVED", 25),
        ("impression", ANSI_2004, "4", record_2004(view_2004(impression=4)), "BAD_IMPRESSION", 27),
        ("quality-254", ANSI_2004, "254", record_2004(view_2004(quality=254)), "BAD_QUALITY", 28),
        (
            "angle-180",
            ANSI_2004,
            "an angle of 360 degrees",
            record_2004(view_2004([(1, 1, 1, 180, 1)])),
            "BAD_ANGLE",
            34,
        ),
        (
            "is-iso-2011",
            ANSI_2004,
            "a record of ISO/IEC 19794-2:2011",
            record_2011(view_2011()),
            "FORMAT_MISMATCH",
            None,
        ),
    )
    good = record_2009(view_2009())
    yield from (
        ("cut", ANSI_2009, "the last byte is missing", good[:-1], "TRUNCATED", 8),
        (
            "version-036",
            ANSI_2009,
            "a version there is not",
            record_2009(view_2009(), version=b"036\0"),
            "BAD_VERSION",
            4,
        ),
        (
            "compliance",
            ANSI_2009,
            "a certification without a meaning",
            record_2009(view_2009(), compliance=1),
            "BAD_RESERVED",
            16,
        ),
        ("no-view", ANSI_2009, "no view", record_2009(), "BAD_VIEW_COUNT", 19),
        ("impression", ANSI_2009, "9", record_2009(view_2009(impression=9)), "BAD_IMPRESSION", 23),
        ("quality-101", ANSI_2009, "101", record_2009(view_2009(quality=101)), "BAD_QUALITY", 24),
        ("zero-height", ANSI_2009, "0", record_2009(view_2009(size=(9, 0))), "BAD_IMAGE_SIZE", 31),
        (
            "is-iso-2011",
            ANSI_2009,
            "a record of ISO/IEC 19794-2:2011",
            record_2011(view_2011()),
            "FORMAT_MISMATCH",
            None,
        ),
    )


def vectors() -> dict[str, str]:
    """File names and contents."""
    files: dict[str, dict[str, object]] = {}
    for name, standard, shows, record, views in valid():
        files[f"valid-{standard}-{name}.json"] = {
            "format": standard,
            "shows": shows,
            "record": record.hex(),
            "views": views,
        }
    for name, standard, wrong, record, reason, offset in invalid():
        files[f"invalid-{standard}-{name}.json"] = {
            "format": standard,
            "wrong": wrong,
            "record": record.hex(),
            "reason": reason,
            "offset": offset,
        }
    return {name: json.dumps(content, indent=1) + "\n" for name, content in files.items()}


if __name__ == "__main__":
    for name, text in vectors().items():
        (HERE / name).write_text(text)
