"""Run as a script, this writes the minutiae record vectors beside this file.

Each record is packed here field by field from the layout of ISO/IEC 19794-2:2005 clause 7, without
``matcher.codec``, so that a mistake there cannot hide in its own vectors. One file, one scenario:
the record in hexadecimal and either the views it holds (recorded units and 500 ppi) or the reason
and byte at which it must be refused. The minutiae are made up.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

Minutia = tuple[int, int, int, int, int]  # kind, x, y, angle in 256ths of a turn, quality
MINUTIAE: list[Minutia] = [
    (1, 10, 20, 0, 60),
    (2, 299, 399, 64, 100),
    (0, 0, 0, 255, 0),
    (1, 150, 200, 128, 33),
]


def minutia(kind: int, x: int, y: int, angle: int, quality: int, y_reserved: int = 0) -> bytes:
    return struct.pack(">HHBB", kind << 14 | x, y_reserved << 14 | y, angle, quality)


def view(
    minutiae: list[Minutia] | None = None,
    position: int = 2,
    number: int = 0,
    impression: int = 0,
    quality: int = 80,
    extended: bytes = b"",
    count: int | None = None,
) -> bytes:
    minutiae = MINUTIAE if minutiae is None else minutiae
    count = len(minutiae) if count is None else count
    return (
        bytes([position, number << 4 | impression, quality, count])
        + b"".join(minutia(*m) for m in minutiae)
        + struct.pack(">H", len(extended))
        + extended
    )


def area(code: int, data: bytes, length: int | None = None) -> bytes:
    return struct.pack(">HH", code, len(data) + 4 if length is None else length) + data


def record(
    *views: bytes,
    magic: bytes = b"FMR\0",
    version: bytes = b" 20\0",
    length: int | None = None,
    equipment: int = 0,
    size: tuple[int, int] = (300, 400),
    resolution: tuple[int, int] = (197, 197),
    view_count: int | None = None,
    reserved: int = 0,
) -> bytes:
    body = b"".join(views)
    return (
        magic
        + version
        + struct.pack(
            ">IHHHHHBB",
            24 + len(body) if length is None else length,
            equipment,
            *size,
            *resolution,
            len(views) if view_count is None else view_count,
            reserved,
        )
        + body
    )


def decoded(
    minutiae: list[Minutia] | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
    size: tuple[int, int] = (300, 400),
    position: int = 2,
    quality: int = 80,
) -> dict[str, Any]:
    minutiae = MINUTIAE if minutiae is None else minutiae
    return {
        "position": position,
        "finger_quality": quality,
        "width": size[0],
        "height": size[1],
        "x": [round(m[1] * scale[0], 4) for m in minutiae],
        "y": [round(m[2] * scale[1], 4) for m in minutiae],
        "angle_degrees": [m[3] * 360 / 256 for m in minutiae],
        "kind": [m[0] for m in minutiae],
        "quality": [m[4] for m in minutiae],
    }


def valid() -> Iterator[tuple[str, str, bytes, bool, list[dict[str, Any]]]]:
    """Name, what it shows, the record, whether it is canonical, what it decodes to."""
    yield "one-view", "one finger at 500 ppi", record(view()), True, [decoded()]
    yield (
        "no-minutiae",
        "a view may hold no minutiae",
        record(view(minutiae=[])),
        True,
        [decoded(minutiae=[])],
    )
    yield (
        "two-fingers-three-views",
        "views are numbered within their finger",
        record(view(), view(position=7), view(number=1, quality=10)),
        True,
        [decoded(), decoded(position=7), decoded(quality=10)],
    )
    yield (
        "unknown-positions",
        "views of an unknown position may all be numbered 0",
        record(view(position=0), view(position=0)),
        False,
        [decoded(position=0), decoded(position=0)],
    )
    yield (
        "1000-ppi",
        "394 px/cm is brought to 500 ppi",
        record(view(), resolution=(394, 394)),
        False,
        [decoded(scale=(0.5, 0.5), size=(150, 200))],
    )
    yield (
        "full-header",
        "certifications, device, impression type and extended data are carried",
        record(
            view(impression=8, extended=area(1, b"\1\0\1\5") + area(0x0102, b"vendor")),
            equipment=0x8ABC,
        ),
        False,
        [decoded()],
    )


def invalid() -> Iterator[tuple[str, str, bytes, str, int | None]]:
    """Name, what is wrong, the record, the reason and the byte it is found at."""
    good = record(view())
    yield "empty", "no bytes at all", b"", "TRUNCATED", 0
    yield "header-cut", "the header is cut", good[:23], "TRUNCATED", 0
    yield "last-byte-cut", "the last byte is missing", good[:-1], "TRUNCATED", 8
    yield "bad-magic", "another format", record(view(), magic=b"FIR\0"), "BAD_MAGIC", 0
    yield "version-30", "the 2011 edition", record(view(), version=b"030\0"), "BAD_VERSION", 4
    ansi = b"FMR\0 20\0" + struct.pack(">H", 60) + bytes(50)
    yield "ansi-378", "INCITS 378-2004 counts its length in two bytes", ansi, "BAD_VERSION", 8
    yield (
        "length-short",
        "declared shorter than it is",
        good[:8] + record(view(), length=len(good) - 1)[8:],
        "TRAILING_BYTES",
        8,
    )
    yield "length-tiny", "shorter than the header", record(view(), length=23), "BAD_LENGTH", 8
    yield (
        "byte-behind",
        "a byte behind the last view",
        record(view() + b"\0", view_count=1),
        ("TRAILING_BYTES"),
        len(good),
    )
    yield "zero-width", "no image", record(view(), size=(0, 400)), "BAD_IMAGE_SIZE", 14
    yield "zero-height", "no image", record(view(), size=(300, 0)), "BAD_IMAGE_SIZE", 16
    yield (
        "resolution-zero",
        "no resolution",
        record(view(), resolution=(0, 197)),
        ("BAD_RESOLUTION"),
        18,
    )
    yield (
        "resolution-in-ppi",
        "500 is ppi, not px/cm",
        record(view(), resolution=(197, 500)),
        ("BAD_RESOLUTION"),
        20,
    )
    yield "no-view", "a record of nothing", record(), "BAD_VIEW_COUNT", 22
    yield "reserved-byte", "reserved byte set", record(view(), reserved=1), "BAD_RESERVED", 23
    yield (
        "view-missing",
        "one view fewer than announced",
        record(view(), view_count=2),
        ("BAD_LENGTH"),
        len(good),
    )
    yield "position-11", "no such finger", record(view(position=11)), "BAD_POSITION", 24
    yield (
        "impression-4",
        "no such impression type",
        record(view(impression=4)),
        ("BAD_IMPRESSION"),
        25,
    )
    yield "first-view-is-1", "views start at 0", record(view(number=1)), "BAD_VIEW_NUMBER", 25
    yield (
        "view-repeated",
        "two views numbered 0 of one finger",
        record(view(), view()),
        ("BAD_VIEW_NUMBER"),
        len(good) + 1,
    )
    yield "finger-quality-101", "quality ends at 100", record(view(quality=101)), "BAD_QUALITY", 26
    yield (
        "count-too-large",
        "more minutiae announced than there",
        record(view(count=5)),
        ("BAD_LENGTH"),
        28,
    )
    yield "count-too-small", "a minutia is left over", record(view(count=3)), "BAD_LENGTH", 48
    yield (
        "type-3",
        "reserved minutia type",
        record(view([MINUTIAE[0], (3, 1, 1, 0, 0)])),
        ("BAD_MINUTIA_TYPE"),
        34,
    )
    yield (
        "x-at-width",
        "x outside the image",
        record(view([(1, 300, 0, 0, 0)])),
        ("OUT_OF_IMAGE"),
        28,
    )
    yield (
        "y-at-height",
        "y outside the image",
        record(view([(1, 0, 400, 0, 0)])),
        ("OUT_OF_IMAGE"),
        28,
    )
    y_reserved = good[:30] + bytes([good[30] | 0x40]) + good[31:]
    yield "y-reserved-bits", "bits before y are reserved", y_reserved, "BAD_RESERVED", 30
    yield (
        "quality-101",
        "minutia quality ends at 100",
        record(view([(1, 1, 1, 0, 101)])),
        ("BAD_QUALITY"),
        33,
    )
    end = len(good)
    yield (
        "area-header-cut",
        "three bytes are no area",
        record(view(extended=b"\0\1\0")),
        ("BAD_EXTENDED_DATA"),
        end,
    )
    yield (
        "area-code-0",
        "area code 0 is reserved",
        record(view(extended=area(0, b"x"))),
        ("BAD_EXTENDED_DATA"),
        end,
    )
    yield (
        "area-too-long",
        "an area beyond its block",
        record(view(extended=area(1, b"x", length=6))),
        "BAD_EXTENDED_DATA",
        end + 2,
    )
    yield (
        "area-length-3",
        "an area shorter than its header",
        record(view(extended=area(1, b"", length=3))),
        "BAD_EXTENDED_DATA",
        end + 2,
    )
    cut = record(view()[:-2] + struct.pack(">H", 4))
    yield "extended-missing", "the block is announced and absent", cut, "BAD_LENGTH", end


def vectors() -> dict[str, str]:
    """File name -> contents."""
    files = {}
    for name, shows, data, canonical, views in valid():
        files[f"valid-{name}.json"] = {
            "shows": shows,
            "record": data.hex(),
            "canonical": canonical,
            "views": views,
        }
    for name, shows, data, reason, offset in invalid():
        files[f"invalid-{name}.json"] = {
            "shows": shows,
            "record": data.hex(),
            "reason": reason,
            "offset": offset,
        }
    return {name: json.dumps(vector, indent=1) + "\n" for name, vector in files.items()}


if __name__ == "__main__":
    for name, contents in vectors().items():
        (HERE / name).write_text(contents)
