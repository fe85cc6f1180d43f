"""What the finger minutiae records of ISO/IEC 19794-2 and ANSI INCITS 378 have in common.

All of them descend from ANSI INCITS 378-2004: minutiae of five or six bytes, finger views that are
numbered per finger, extended data in areas. The headers around these differ and are the codecs'
own.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from matcher.errors import DecodeError
from matcher.types import FingerPosition, MinutiaKind, Template

MAX_RECORD_BYTES = 64 * 1024
NOMINAL_PX_PER_CM = 197
"""500 ppi as the standards' whole pixels per centimetre."""
MIN_PX_PER_CM = 98
MAX_PX_PER_CM = 433
MAX_COORDINATE = 0x3FFF
MAX_MINUTIAE = 255
MAX_VIEWS = 255
MAX_VIEW_NUMBER = 15
MAX_QUALITY = 100
NOT_REPORTED, NOT_COMPUTED = 254, 255
"""Qualities of the later standards that are no number; they become 0, "not reported"."""

_AREA_HEADER = struct.Struct(">HH")
_IMAGE = struct.Struct(">HHHH")
_U16 = struct.Struct(">H")
_LONG = np.dtype([("x", ">u2"), ("y", ">u2"), ("angle", "u1"), ("quality", "u1")])
_SHORT = np.dtype([("x", ">u2"), ("y", ">u2"), ("angle", "u1")])


@dataclass(frozen=True)
class ExtendedArea:
    """One area of extended data, carried unread: 1 to 3 are the standard's, 256 and above the
    maker's."""

    code: int
    data: bytes


@dataclass(frozen=True, eq=False)
class Minutiae:
    """The minutiae of one view exactly as recorded: pixels of the record, the record's own units.

    Attributes:
        x, y: (M,) uint16.
        angle, kind, quality: (M,) uint8.
    """

    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    angle: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    quality: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class MinutiaRules:
    """How one standard writes a minutia.

    Attributes:
        angles: how many units make a turn.
        special_qualities: qualities above 100 that mean something.
        with_quality: six bytes, the last its quality; without, five bytes.
    """

    angles: int = 256
    special_qualities: tuple[int, ...] = ()
    with_quality: bool = True


class Imaged(Protocol):
    """Something that says how large its image is and how dense its pixels."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def x_px_per_cm(self) -> int: ...
    @property
    def y_px_per_cm(self) -> int: ...


def template_at_500_ppi(
    minutiae: Minutiae,
    radians_per_unit: float,
    image: Imaged,
    position: FingerPosition,
    finger_quality: int,
) -> Template:
    """A view as a template; see :func:`matcher.codec.decode` for what happens to its pixels."""
    x_scale = NOMINAL_PX_PER_CM / image.x_px_per_cm
    y_scale = NOMINAL_PX_PER_CM / image.y_px_per_cm
    angle = minutiae.angle.astype(np.float64) * radians_per_unit
    if image.x_px_per_cm != image.y_px_per_cm:
        # A direction drawn on unequal pixels leans when the pixels are made square.
        leaned = np.arctan2(np.sin(angle) * y_scale, np.cos(angle) * x_scale)
        angle = np.where(leaned < 0.0, leaned + 2.0 * math.pi, leaned)
    quality = minutiae.quality
    return Template(
        x=(minutiae.x * x_scale).astype(np.float32),
        y=(minutiae.y * y_scale).astype(np.float32),
        angle=angle.astype(np.float32),
        kind=minutiae.kind,
        quality=np.where(quality > MAX_QUALITY, 0, quality).astype(np.uint8),
        width=-(-image.width * NOMINAL_PX_PER_CM // image.x_px_per_cm),
        height=-(-image.height * NOMINAL_PX_PER_CM // image.y_px_per_cm),
        position=position,
        finger_quality=finger_quality if finger_quality <= MAX_QUALITY else 0,
    )


# --- writing ---


def require(holds: bool, what: str, value: int) -> None:
    """Raises ValueError for a value that its field cannot hold."""
    if not holds:
        raise ValueError(f"{what} {value} cannot be written in a finger minutiae record")


def require_image(image: Imaged) -> None:
    """Raises ValueError for an image size or resolution that a record cannot state."""
    require(1 <= image.width <= 0xFFFF, "image width", image.width)
    require(1 <= image.height <= 0xFFFF, "image height", image.height)
    for px_per_cm in (image.x_px_per_cm, image.y_px_per_cm):
        require(MIN_PX_PER_CM <= px_per_cm <= MAX_PX_PER_CM, "resolution in px/cm", px_per_cm)


def write_minutiae(minutiae: Minutiae, width: int, height: int, rules: MinutiaRules) -> bytes:
    """The inverse of :func:`read_minutiae`. Raises ValueError for what it would not read."""
    count = len(minutiae)
    require(count <= MAX_MINUTIAE, "number of minutiae", count)
    if count:
        x, y, kind = int(minutiae.x.max()), int(minutiae.y.max()), int(minutiae.kind.max())
        require(x < min(width, MAX_COORDINATE + 1), "x", x)
        require(y < min(height, MAX_COORDINATE + 1), "y", y)
        require(kind <= MinutiaKind.BIFURCATION, "kind", kind)
        require(int(minutiae.angle.max()) < rules.angles, "angle", int(minutiae.angle.max()))
        for quality in np.unique(minutiae.quality).tolist():
            require(_is_quality(quality, rules), "quality", quality)
    packed = np.empty(count, dtype=_LONG if rules.with_quality else _SHORT)
    packed["x"] = minutiae.kind.astype(np.uint16) << 14 | minutiae.x
    packed["y"] = minutiae.y
    packed["angle"] = minutiae.angle
    if rules.with_quality:
        packed["quality"] = minutiae.quality
    return packed.tobytes()


def write_extended(extended: Sequence[ExtendedArea]) -> bytes:
    """The length of the block and its areas. Raises ValueError for what does not fit."""
    areas = b"".join(_write_area(area) for area in extended)
    require(len(areas) <= 0xFFFF, "extended data length in bytes", len(areas))
    return _U16.pack(len(areas)) + areas


def _write_area(area: ExtendedArea) -> bytes:
    require(1 <= area.code <= 0xFFFF, "extended data area code", area.code)
    length = _AREA_HEADER.size + len(area.data)
    require(length <= 0xFFFF, "extended data area length in bytes", length)
    return _AREA_HEADER.pack(area.code, length) + area.data


# --- reading ---


def need(record: bytes, offset: int, count: int, what: str) -> None:
    """Raises DecodeError (``BAD_LENGTH``) unless that many bytes are left."""
    if offset + count > len(record):
        raise DecodeError(
            "BAD_LENGTH",
            f"{what} need {count} bytes, {max(0, len(record) - offset)} of the record are left",
            offset,
        )


def check_size(record: bytes) -> bytes:
    """The record as bytes, unless it is too large to be looked at."""
    if len(record) > MAX_RECORD_BYTES:
        raise DecodeError(
            "TOO_LARGE", f"the record has {len(record)} bytes, at most {MAX_RECORD_BYTES} are read"
        )
    return bytes(record)


def check_start(record: bytes, versions: Sequence[bytes], header_bytes: int, standard: str) -> None:
    """Raises DecodeError unless a record starts with ``FMR`` and one of the versions."""
    start = record[:4]
    if start != b"FMR\0"[: len(start)]:
        raise DecodeError(
            "BAD_MAGIC", f"expected a minutiae record beginning b'FMR\\x00', found {start!r}", 0
        )
    if len(record) < header_bytes:
        raise DecodeError(
            "TRUNCATED", f"the record header takes {header_bytes} bytes, {len(record)} are there", 0
        )
    if record[4:8] not in versions:
        raise DecodeError(
            "BAD_VERSION",
            f"expected version {' or '.join(map(repr, versions))} ({standard}), "
            f"found {record[4:8]!r}",
            4,
        )


def check_total(record: bytes, declared: int, shortest: int, at: int) -> None:
    """Raises DecodeError unless a record has the length it declares."""
    actual = len(record)
    if declared < shortest:
        raise DecodeError(
            "BAD_LENGTH", f"the declared length {declared} is shorter than the header", at
        )
    if declared > actual:
        raise DecodeError(
            "TRUNCATED", f"the record declares {declared} bytes, {actual} are there", at
        )
    if declared < actual:
        raise DecodeError(
            "TRAILING_BYTES", f"{actual - declared} bytes follow the declared length {declared}", at
        )


def check_end(record: bytes, offset: int, view_count: int) -> None:
    """Raises DecodeError (``TRAILING_BYTES``) unless the record ends where its last view does."""
    if offset != len(record):
        raise DecodeError(
            "TRAILING_BYTES",
            f"{len(record) - offset} bytes follow the last of {view_count} finger views",
            offset,
        )


def check_image(record: bytes, offset: int) -> None:
    """Width, height, X and Y resolution, two bytes each, from ``offset``."""
    check_image_fields(_IMAGE.unpack_from(record, offset), range(offset, offset + 8, 2))


def check_image_fields(fields: Sequence[int], offsets: Sequence[int]) -> None:
    """The same four values, wherever they were found."""
    for name, size, at in zip(("width", "height"), fields[:2], offsets[:2], strict=True):
        if size == 0:
            raise DecodeError("BAD_IMAGE_SIZE", f"the image {name} is 0 pixels", at)
    for axis, px_per_cm, at in zip("XY", fields[2:], offsets[2:], strict=True):
        if not MIN_PX_PER_CM <= px_per_cm <= MAX_PX_PER_CM:
            raise DecodeError(
                "BAD_RESOLUTION",
                f"the {axis} resolution is {px_per_cm} px/cm, expected {MIN_PX_PER_CM} to "
                f"{MAX_PX_PER_CM} (500 ppi is {NOMINAL_PX_PER_CM} px/cm)",
                at,
            )


def check_position(code: int, offset: int) -> FingerPosition:
    """A finger position; the codes of several fingers at once are no view of one finger."""
    if code > FingerPosition.LEFT_LITTLE:
        raise DecodeError("BAD_POSITION", f"finger position {code}, expected 0 to 10", offset)
    return FingerPosition(code)


def check_view_number(
    position: FingerPosition, number: int, expected: dict[FingerPosition, int], offset: int
) -> None:
    """The views of one finger are numbered from 0 in order; ``expected`` keeps count."""
    wanted = expected.get(position, 0)
    restarted = position is FingerPosition.UNKNOWN and number == 0
    if number != wanted and not restarted:
        raise DecodeError(
            "BAD_VIEW_NUMBER",
            f"view number {number} of finger position {int(position)}, expected {wanted}",
            offset,
        )
    expected[position] = number + 1


def read_minutiae(
    record: bytes,
    offset: int,
    count: int,
    width: int,
    height: int,
    rules: MinutiaRules,
    ordinal: int,
) -> tuple[Minutiae, int]:
    """The minutiae of finger view ``ordinal`` that start at ``offset``, and the offset behind."""
    layout = _LONG if rules.with_quality else _SHORT
    need(record, offset, count * layout.itemsize, f"{count} minutiae of finger view {ordinal}")
    raw = np.frombuffer(record, dtype=layout, count=count, offset=offset)
    quality = raw["quality"] if rules.with_quality else np.zeros(count, np.uint8)
    _check_minutiae(raw, quality, width, height, offset, rules)
    return Minutiae(
        x=(raw["x"] & MAX_COORDINATE).astype(np.uint16),
        y=raw["y"].astype(np.uint16),
        angle=raw["angle"].astype(np.uint8),
        kind=(raw["x"] >> 14).astype(np.uint8),
        quality=quality.astype(np.uint8),
    ), offset + raw.nbytes


def _check_minutiae(
    raw: NDArray[np.void],
    quality: NDArray[np.uint8],
    width: int,
    height: int,
    offset: int,
    rules: MinutiaRules,
) -> None:
    """Of the first rule that is broken, the first minutia that breaks it is named."""
    x = raw["x"] & MAX_COORDINATE
    special = np.isin(quality, np.array(rules.special_qualities, np.uint8))
    checks = (
        ("BAD_MINUTIA_TYPE", raw["x"] >> 14 == 3, 0, "has the reserved type 3"),
        ("BAD_RESERVED", raw["y"] >> 14 != 0, 2, "has reserved bits set before its y coordinate"),
        (
            "OUT_OF_IMAGE",
            (x >= width) | (raw["y"] >= height),
            0,
            f"lies outside the {width} x {height} image",
        ),
        ("BAD_ANGLE", raw["angle"] >= rules.angles, 4, f"has an angle above {rules.angles - 1}"),
        ("BAD_QUALITY", (quality > MAX_QUALITY) & ~special, 5, "has a quality above 100"),
    )
    for reason, broken, within, complaint in checks:
        if broken.any():
            number = int(np.argmax(broken))
            at = offset + number * raw.itemsize + within
            raise DecodeError(reason, f"minutia {number} of {len(raw)} {complaint}", at)


def _is_quality(value: int, rules: MinutiaRules) -> bool:
    return 0 <= value <= MAX_QUALITY or value in rules.special_qualities


def read_extended(record: bytes, offset: int, ordinal: int) -> tuple[tuple[ExtendedArea, ...], int]:
    """The areas of the extended data block that starts at ``offset``, and the offset behind."""
    need(record, offset, _U16.size, f"the extended data length of finger view {ordinal}")
    block_bytes: int = _U16.unpack_from(record, offset)[0]
    at = offset + _U16.size
    need(record, at, block_bytes, f"the extended data of finger view {ordinal}")
    end = at + block_bytes
    areas = []
    while at < end:
        if end - at < _AREA_HEADER.size:
            raise DecodeError(
                "BAD_EXTENDED_DATA", f"{end - at} bytes are left, too few for an area header", at
            )
        code, length = _AREA_HEADER.unpack_from(record, at)
        if code == 0:
            raise DecodeError("BAD_EXTENDED_DATA", "area code 0 is reserved", at)
        if not _AREA_HEADER.size <= length <= end - at:
            raise DecodeError(
                "BAD_EXTENDED_DATA",
                f"area length {length}, expected {_AREA_HEADER.size} to {end - at} "
                "(it counts its own four-byte header)",
                at + 2,
            )
        areas.append(ExtendedArea(code, record[at + _AREA_HEADER.size : at + length]))
        at += length
    return tuple(areas), end
