"""Finger minutiae records of ISO/IEC 19794-2:2005 (clause 7, the general format) <-> templates.

Theory of operation. A record is one header and then one or more finger views, all big-endian::

    header (clause 7.3), 24 bytes
      0  "FMR\\0"   4  " 20\\0"   8  length of the record (u32)   12  certifications:4, device id:12
     14  width, height (u16 each)   18  X, Y resolution in px/cm (u16 each)   22  views (u8)
     23  reserved, 0
    view header (clause 7.4.1), 4 bytes
      position, view number:4 | impression type:4, finger quality, number of minutiae
    minutia (clause 7.4.2), 6 bytes each
      type:2 | x:14, reserved:2 | y:14, angle in 360/256 degrees, quality
    extended data (clause 7.5)
      length of the block (u16, not counting itself), then areas: code, length (counting its own
      four bytes), data

:func:`parse` turns bytes into a :class:`Record` that loses nothing, :func:`serialize` turns it back
into the same bytes, :func:`decode` and :func:`encode` go on to and from :class:`Template`.

The reader is strict: whatever the standard calls reserved or out of range is refused with the byte
it stands at. A record that is wrong in one place was written by something that may be wrong in
others, and a wrong reference is found only when somebody's duplicate is missed. What the standard
leaves open, or where this is stricter or laxer than its letter on purpose:

* Resolution must lie between 98 and 433 px/cm (250 to 1100 ppi, rounded outwards). The standard
  sets no upper bound; no fingerprint reader works beyond 1000 ppi, and a wrong unit (500 for ppi)
  is the commonest mistake.
* 197 px/cm stands for 500 ppi exactly (by arithmetic it is 500.4): such records are not rescaled.
* Views of one finger position are numbered 0, 1, 2... in order (clause 7.4.1). Views of position
  UNKNOWN may all be numbered 0: nobody can say whether they are the same finger.
* A view without minutiae is valid here. Whether it can be enrolled is the matcher's question.
* Two minutiae may share a place: a reader maker's SDK wrote one such record of our tuning data.
  All 1,216 records of that data are otherwise to the letter and round-trip byte for byte.
* Extended data is carried, its block structure checked, its contents unread.
* A record over 64 KiB is refused unread: ten fingers of four views with 250 minutiae take 60 kB.

The older ANSI INCITS 378-2004 has the same first eight bytes and another header; it is recognised
and named in the error, and read by :mod:`matcher.codec_ansi378`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from matcher.errors import DecodeError
from matcher.record_parts import (
    MAX_PX_PER_CM,
    MAX_QUALITY,
    MAX_RECORD_BYTES,
    MAX_VIEWS,
    MIN_PX_PER_CM,
    NOMINAL_PX_PER_CM,
    ExtendedArea,
    Minutiae,
    MinutiaRules,
    check_end,
    check_image,
    check_position,
    check_size,
    check_start,
    check_total,
    check_view_number,
    need,
    read_extended,
    read_minutiae,
    require,
    require_image,
    template_at_500_ppi,
    write_extended,
    write_minutiae,
)
from matcher.types import FingerPosition, Template

__all__ = [
    "MAX_PX_PER_CM",
    "MAX_RECORD_BYTES",
    "MIN_PX_PER_CM",
    "NOMINAL_PX_PER_CM",
    "ExtendedArea",
    "ImpressionType",
    "Record",
    "View",
    "decode",
    "encode",
    "parse",
    "serialize",
    "templates_of",
]

RULES = MinutiaRules()

_MAGIC = b"FMR\0"
_VERSION = b" 20\0"
_HEADER = struct.Struct(">4s4sIHHHHHBB")
_VIEW_HEADER = struct.Struct(">BBBB")
_U16 = struct.Struct(">H")
_RADIANS_PER_UNIT = 2.0 * math.pi / 256.0


class ImpressionType(IntEnum):
    """Impression types a 2005 record can state (clause 7.4.1)."""

    LIVE_SCAN_PLAIN = 0
    LIVE_SCAN_ROLLED = 1
    NON_LIVE_SCAN_PLAIN = 2
    NON_LIVE_SCAN_ROLLED = 3
    SWIPE = 8


@dataclass(frozen=True, eq=False)
class View:
    """One finger view exactly as recorded: pixels of the record, angles in 256ths of a turn.

    Attributes:
        x, y: (M,) uint16, pixels at the record's own resolution.
        angle: (M,) uint8, units of 360/256 degrees, counter-clockwise.
        kind: (M,) uint8, :class:`MinutiaKind`.
        quality: (M,) uint8, 0 (not reported) to 100.
    """

    position: FingerPosition
    number: int
    impression: ImpressionType
    finger_quality: int
    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    angle: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    quality: NDArray[np.uint8]
    extended: tuple[ExtendedArea, ...] = ()


@dataclass(frozen=True, eq=False)
class Record:
    """A whole record; ``serialize(parse(record)) == record`` for every record that parses.

    Attributes:
        width, height: of the image in the record's own pixels.
        x_px_per_cm, y_px_per_cm: declared resolution.
        certifications: 4 bits, which certifications the capture equipment claims.
        device_id: 12 bits, assigned by the maker, 0 when not reported.
    """

    width: int
    height: int
    views: tuple[View, ...]
    x_px_per_cm: int = NOMINAL_PX_PER_CM
    y_px_per_cm: int = NOMINAL_PX_PER_CM
    certifications: int = 0
    device_id: int = 0


def decode(record: bytes) -> list[Template]:
    """Read every finger view of a record as a template at 500 ppi, in the order recorded.

    Coordinates are multiplied by 197 and divided by the declared px/cm of their axis; the image
    size is rounded up, so that every minutia stays inside it. Angles are taken as drawn on the
    record's own pixels.

    Raises:
        DecodeError: for anything but a well-formed record, see :func:`parse`.
    """
    return templates_of(parse(record))


def encode(templates: Sequence[Template]) -> bytes:
    """Write templates as one canonical record: 197 px/cm, live-scan plain, no extended data.

    Coordinates are rounded to whole pixels (at the right and bottom edge to the last pixel), angles
    to 360/256 degrees. ``encode(decode(r)) == r`` for a canonical ``r``.

    Raises:
        ValueError: there is nothing to write, or the templates do not share one image size (a
            record has one), or a value cannot be written; nothing a captured record can cause.
    """
    if not templates:
        raise ValueError("a record holds at least one finger view, got no template")
    sizes = {(t.width, t.height) for t in templates}
    if len(sizes) != 1:
        raise ValueError(
            f"a record has one image size, got {sorted(sizes)}: encode these templates separately"
        )
    numbers: dict[FingerPosition, int] = {}
    views = []
    for template in templates:
        number = numbers.get(template.position, 0)
        numbers[template.position] = number + 1
        views.append(_view_of(template, number))
    width, height = sizes.pop()
    return serialize(Record(width=width, height=height, views=tuple(views)))


def templates_of(record: Record) -> list[Template]:
    """Bring each view of a parsed record to 500 ppi."""
    return [
        template_at_500_ppi(
            Minutiae(view.x, view.y, view.angle, view.kind, view.quality),
            _RADIANS_PER_UNIT,
            record,
            view.position,
            view.finger_quality,
        )
        for view in record.views
    ]


def _view_of(template: Template, number: int) -> View:
    count = len(template)
    if not all(
        np.shape(column) == (count,)
        for column in (template.y, template.angle, template.kind, template.quality)
    ):
        raise ValueError(f"the template's columns do not all hold {count} minutiae")
    inside = (
        (template.x >= 0)
        & (template.x < template.width)
        & (template.y >= 0)
        & (template.y < template.height)
    )
    if not bool(np.all(inside)):
        raise ValueError(
            f"{count - int(np.sum(inside))} of {count} minutiae lie outside the "
            f"{template.width} x {template.height} image"
        )
    if not bool(np.all(np.isfinite(template.angle))):
        raise ValueError("a minutia angle is not a finite number")
    turns = template.angle.astype(np.float64) / _RADIANS_PER_UNIT
    return View(
        position=FingerPosition(template.position),
        number=number,
        impression=ImpressionType.LIVE_SCAN_PLAIN,
        finger_quality=template.finger_quality,
        x=np.minimum(np.rint(template.x), template.width - 1).astype(np.uint16),
        y=np.minimum(np.rint(template.y), template.height - 1).astype(np.uint16),
        angle=np.mod(np.rint(turns), 256.0).astype(np.uint8),
        kind=template.kind.astype(np.uint8),
        quality=template.quality.astype(np.uint8),
    )


# --- writing ---


def serialize(record: Record) -> bytes:
    """Write a record byte for byte; the inverse of :func:`parse`.

    Raises:
        ValueError: a value does not fit its field, or the record would exceed 64 KiB.
    """
    require(1 <= len(record.views) <= MAX_VIEWS, "number of views", len(record.views))
    require_image(record)
    require(0 <= record.certifications <= 0xF, "certifications", record.certifications)
    require(0 <= record.device_id <= 0xFFF, "device id", record.device_id)
    body = b"".join(_serialize_view(view, record.width, record.height) for view in record.views)
    length = _HEADER.size + len(body)
    require(length <= MAX_RECORD_BYTES, "record length in bytes", length)
    header = _HEADER.pack(
        _MAGIC,
        _VERSION,
        length,
        record.certifications << 12 | record.device_id,
        record.width,
        record.height,
        record.x_px_per_cm,
        record.y_px_per_cm,
        len(record.views),
        0,
    )
    return header + body


def _serialize_view(view: View, width: int, height: int) -> bytes:
    count = len(view.x)
    require(0 <= view.number <= 0xF, "view number", view.number)
    require(0 <= view.finger_quality <= MAX_QUALITY, "finger quality", view.finger_quality)
    minutiae = write_minutiae(
        Minutiae(view.x, view.y, view.angle, view.kind, view.quality), width, height, RULES
    )
    header = _VIEW_HEADER.pack(
        view.position, view.number << 4 | view.impression, view.finger_quality, count
    )
    return header + minutiae + write_extended(view.extended)


# --- reading ---


def parse(record: bytes) -> Record:
    """Read a record without losing anything; takes time and memory linear in its length.

    Raises:
        DecodeError: with one of the reasons ``TOO_LARGE``, ``TRUNCATED``, ``BAD_MAGIC``,
            ``BAD_VERSION``, ``BAD_LENGTH``, ``TRAILING_BYTES``, ``BAD_IMAGE_SIZE``,
            ``BAD_RESOLUTION``, ``BAD_VIEW_COUNT``, ``BAD_RESERVED``, ``BAD_POSITION``,
            ``BAD_VIEW_NUMBER``, ``BAD_IMPRESSION``, ``BAD_QUALITY``, ``BAD_MINUTIA_TYPE``,
            ``OUT_OF_IMAGE``, ``BAD_EXTENDED_DATA``, and the byte it was found at.
    """
    record = check_size(record)
    view_count, header = _parse_header(record)
    views: list[View] = []
    expected_numbers: dict[FingerPosition, int] = {}
    offset = _HEADER.size
    for ordinal in range(view_count):
        view, end = _parse_view(record, offset, ordinal, header)
        check_view_number(view.position, view.number, expected_numbers, offset + 1)
        views.append(view)
        offset = end
    check_end(record, offset, view_count)
    return Record(
        width=header.width,
        height=header.height,
        views=tuple(views),
        x_px_per_cm=header.x_px_per_cm,
        y_px_per_cm=header.y_px_per_cm,
        certifications=header.certifications,
        device_id=header.device_id,
    )


def _parse_header(record: bytes) -> tuple[int, Record]:
    """Clause 7.3. The number of views, and the header as a record without views."""
    check_start(record, [_VERSION], _HEADER.size, "ISO/IEC 19794-2:2005")
    _, _, length, equipment, width, height, x_res, y_res, view_count, reserved = (
        _HEADER.unpack_from(record)
    )
    _check_length(record, length)
    check_image(record, 14)
    if view_count == 0:
        raise DecodeError("BAD_VIEW_COUNT", "the record holds no finger view", 22)
    if reserved != 0:
        raise DecodeError("BAD_RESERVED", f"the reserved byte is {reserved}, expected 0", 23)
    header = Record(
        width=width,
        height=height,
        views=(),
        x_px_per_cm=x_res,
        y_px_per_cm=y_res,
        certifications=equipment >> 12,
        device_id=equipment & 0xFFF,
    )
    return view_count, header


def _check_length(record: bytes, declared: int) -> None:
    actual = len(record)
    if declared == actual:
        return
    # INCITS 378-2004 counts in two bytes where ISO counts in four; 6 bytes when the two are zero.
    if _U16.unpack_from(record, 8)[0] == actual or (
        record[8:10] == b"\0\0" and struct.unpack_from(">I", record, 10)[0] == actual
    ):
        raise DecodeError(
            "BAD_VERSION",
            "this is an ANSI INCITS 378-2004 record: say so, or export as ISO/IEC 19794-2:2005",
            8,
        )
    check_total(record, declared, _HEADER.size, 8)


def _parse_view(record: bytes, offset: int, ordinal: int, header: Record) -> tuple[View, int]:
    """Clauses 7.4 and 7.5. The view that starts at ``offset``, and the offset behind it."""
    need(record, offset, _VIEW_HEADER.size, f"the header of finger view {ordinal}")
    code, packed, finger_quality, count = _VIEW_HEADER.unpack_from(record, offset)
    position = check_position(code, offset)
    impression = packed & 0xF
    if impression not in ImpressionType.__members__.values():
        raise DecodeError(
            "BAD_IMPRESSION", f"impression type {impression}, expected 0 to 3 or 8", offset + 1
        )
    if finger_quality > MAX_QUALITY:
        raise DecodeError(
            "BAD_QUALITY", f"finger quality {finger_quality}, expected 0 to 100", offset + 2
        )
    at = offset + _VIEW_HEADER.size
    minutiae, end = read_minutiae(record, at, count, header.width, header.height, RULES, ordinal)
    extended, end = read_extended(record, end, ordinal)
    view = View(
        position=position,
        number=packed >> 4,
        impression=ImpressionType(impression),
        finger_quality=finger_quality,
        x=minutiae.x,
        y=minutiae.y,
        angle=minutiae.angle,
        kind=minutiae.kind,
        quality=minutiae.quality,
        extended=extended,
    )
    return view, end
