"""Finger minutiae records of ANSI INCITS 378-2004 and 378-2009 <-> templates.

All numbers are big-endian::

    2004 header, 26 bytes
      0  "FMR\\0"   4  " 20\\0"   8  length of the record (u16)
     10  product owner, product type (u16 each)   14  certifications:4, device id:12
     16  width, height (u16 each)   20  X, Y resolution in px/cm (u16 each)   24  views   25  0
    2004 view: position | view number:4, impression type:4 | finger quality | number of minutiae

    2009 header, 21 bytes
      0  "FMR\\0"   4  "030\\0", or "035\\0" after amendment 1   8  length of the record (u32)
     12  product owner, product type (u16 each)   16  certifications   17  device id (u16)
     19  views   20  0
    2009 view: position | view number | impression type | finger quality | vendor and algorithm of
      that quality (u16 each) | width, height, X, Y resolution (u16 each) | number of minutiae

    minutia: as in ISO/IEC 19794-2:2005, but the angle counts 2 degrees, 0 to 179; in 2009 a quality
      may also be 254 (not reported) or 255 (not computed)
    extended data: as in ISO/IEC 19794-2:2005

The angle itself is the same in all of them: counter-clockwise from the x axis.

**Written from memory and from how two open implementations lay the bytes out** (NIST's BIOMDI and
FingerprintIO), **not checked against the standards' text.** They differ on the 2009 header: BIOMDI
has 20 bytes; the annex's example, as FingerprintIO carries it, has 21, as here. The examples in the
annexes were run by hand: that of 2009 with amendment 1 is read and written back byte for byte, that
of 2009 too once its length, one too small, is corrected; that of 2004 is refused, as it states
another version, a wrong length, and angles beyond 179. Strictness is as in :mod:`matcher.codec`,
and also:

* A 2004 record beyond 65,535 bytes (length 0, and then four more bytes of it) is not read.
* Of the certifications only the first bit (Appendix F) has a meaning; the others are refused.
* The product owner may be 0, which the standard forbids: readers of NIST's MINEX test write it.
* 2009 and ISO/IEC 19794-2:2011 share "030": only whoever made the record knows which it is. See
  :mod:`matcher.formats`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from matcher.errors import DecodeError
from matcher.record_parts import (
    MAX_QUALITY,
    MAX_RECORD_BYTES,
    MAX_VIEW_NUMBER,
    MAX_VIEWS,
    NOMINAL_PX_PER_CM,
    NOT_COMPUTED,
    NOT_REPORTED,
    ExtendedArea,
    Minutiae,
    MinutiaRules,
    check_end,
    check_image_fields,
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

IMPRESSIONS_2004 = frozenset({0, 1, 2, 3, 8, 9})
IMPRESSIONS_2009 = frozenset({0, 1, 2, 3, 8, 10, 11, *range(20, 30)})
VERSION_2004, VERSION_2009, VERSION_2009_AM1 = b" 20\0", b"030\0", b"035\0"
APPENDIX_F = 8

_MAGIC = b"FMR\0"
_START_2004 = struct.Struct(">4s4sH")
_REST_2004 = struct.Struct(">HHHHHHHBB")
_VIEW_2004 = struct.Struct(">BBBB")
_HEADER_2009 = struct.Struct(">4s4sIHHBHBB")
_VIEW_2009 = struct.Struct(">BBBBHHHHHHB")
_RADIANS_PER_UNIT = math.radians(2.0)
_RULES_2004 = MinutiaRules(angles=180)
_SPECIAL = (NOT_REPORTED, NOT_COMPUTED)
_RULES_2009 = MinutiaRules(angles=180, special_qualities=_SPECIAL)


@dataclass(frozen=True, eq=False)
class View:
    """One finger view exactly as recorded; angles in units of 2 degrees.

    In a 2004 record all views share the image's size and resolution, and the owner and algorithm of
    the quality are not stated (0).
    """

    position: FingerPosition
    number: int
    width: int
    height: int
    minutiae: Minutiae
    x_px_per_cm: int = NOMINAL_PX_PER_CM
    y_px_per_cm: int = NOMINAL_PX_PER_CM
    impression: int = 0
    finger_quality: int = 0
    quality_vendor: int = 0
    quality_algorithm: int = 0
    extended: tuple[ExtendedArea, ...] = ()


@dataclass(frozen=True, eq=False)
class Record:
    """A whole record; ``serialize(parse(record)) == record`` for every record that parses.

    Attributes:
        version: :data:`VERSION_2004`, :data:`VERSION_2009` or :data:`VERSION_2009_AM1`.
        owner, product: CBEFF product identifier of the software that made the record.
        certifications: 0 or :data:`APPENDIX_F`.
        device_id: 12 bits in 2004, 16 in 2009.
    """

    version: bytes
    views: tuple[View, ...]
    owner: int = 0
    product: int = 0
    certifications: int = 0
    device_id: int = 0


def decode_2004(record: bytes) -> list[Template]:
    """Read every view as a template at 500 ppi; see :func:`matcher.codec.decode`.

    Raises:
        DecodeError: for anything but a well-formed record of 2004, see :func:`parse_2004`.
    """
    return _templates(parse_2004(record))


def decode_2009(record: bytes) -> list[Template]:
    """Read every view as a template at 500 ppi; see :func:`matcher.codec.decode`.

    Raises:
        DecodeError: for anything but a well-formed record of 2009, see :func:`parse_2009`.
    """
    return _templates(parse_2009(record))


def _templates(record: Record) -> list[Template]:
    return [
        template_at_500_ppi(
            view.minutiae, _RADIANS_PER_UNIT, view, view.position, view.finger_quality
        )
        for view in record.views
    ]


# --- writing ---


def serialize(record: Record) -> bytes:
    """Write a record byte for byte; the inverse of :func:`parse_2004` and :func:`parse_2009`.

    Raises:
        ValueError: a value does not fit its field, or the record would exceed 64 KiB.
    """
    require(1 <= len(record.views) <= MAX_VIEWS, "number of views", len(record.views))
    require(0 <= record.owner <= 0xFFFF, "product owner", record.owner)
    require(0 <= record.product <= 0xFFFF, "product type", record.product)
    require(record.certifications in (0, APPENDIX_F), "certifications", record.certifications)
    for view in record.views:
        require_image(view)
        require(0 <= view.number <= MAX_VIEW_NUMBER, "view number", view.number)
    written = _write_2004(record) if record.version == VERSION_2004 else _write_2009(record)
    require(len(written) <= MAX_RECORD_BYTES, "record length in bytes", len(written))
    return written


def _write_2004(record: Record) -> bytes:
    first = record.views[0]
    image = (first.width, first.height, first.x_px_per_cm, first.y_px_per_cm)
    require(0 <= record.device_id <= 0xFFF, "device id", record.device_id)
    body = _REST_2004.pack(
        record.owner,
        record.product,
        record.certifications << 12 | record.device_id,
        *image,
        len(record.views),
        0,
    )
    for view in record.views:
        if (view.width, view.height, view.x_px_per_cm, view.y_px_per_cm) != image:
            raise ValueError("the views of a 2004 record share one image size and resolution")
        require(view.impression in IMPRESSIONS_2004, "impression type", view.impression)
        require(0 <= view.finger_quality <= MAX_QUALITY, "finger quality", view.finger_quality)
        require(view.quality_vendor == 0, "quality vendor", view.quality_vendor)
        require(view.quality_algorithm == 0, "quality algorithm", view.quality_algorithm)
        body += _VIEW_2004.pack(
            view.position,
            view.number << 4 | view.impression,
            view.finger_quality,
            len(view.minutiae),
        )
        body += write_minutiae(view.minutiae, view.width, view.height, _RULES_2004)
        body += write_extended(view.extended)
    length = _START_2004.size + len(body)
    require(length <= 0xFFFF, "record length in bytes", length)
    return _START_2004.pack(_MAGIC, VERSION_2004, length) + body


def _write_2009(record: Record) -> bytes:
    if record.version not in (VERSION_2009, VERSION_2009_AM1):
        raise ValueError(f"version {record.version!r} is none of ANSI INCITS 378's")
    require(0 <= record.device_id <= 0xFFFF, "device id", record.device_id)
    body = b""
    for view in record.views:
        require(view.impression in IMPRESSIONS_2009, "impression type", view.impression)
        require(_is_quality_2009(view.finger_quality), "finger quality", view.finger_quality)
        require(0 <= view.quality_vendor <= 0xFFFF, "quality vendor", view.quality_vendor)
        require(0 <= view.quality_algorithm <= 0xFFFF, "quality algorithm", view.quality_algorithm)
        body += _VIEW_2009.pack(
            view.position,
            view.number,
            view.impression,
            view.finger_quality,
            view.quality_vendor,
            view.quality_algorithm,
            view.width,
            view.height,
            view.x_px_per_cm,
            view.y_px_per_cm,
            len(view.minutiae),
        )
        body += write_minutiae(view.minutiae, view.width, view.height, _RULES_2009)
        body += write_extended(view.extended)
    header = _HEADER_2009.pack(
        _MAGIC,
        record.version,
        _HEADER_2009.size + len(body),
        record.owner,
        record.product,
        record.certifications << 4,
        record.device_id,
        len(record.views),
        0,
    )
    return header + body


# --- reading ---


def parse_2004(record: bytes) -> Record:
    """Read a record of 2004 without losing anything.

    Raises:
        DecodeError: with a reason as in :func:`matcher.codec.parse`, or ``BAD_ANGLE``, and the byte
            it was found at.
    """
    record = check_size(record)
    shortest = _START_2004.size + _REST_2004.size
    check_start(record, [VERSION_2004], shortest, "ANSI INCITS 378-2004")
    declared: int = _START_2004.unpack_from(record)[2]
    at = _START_2004.size
    if declared == 0:
        raise DecodeError(
            "BAD_LENGTH", "a length in six bytes is of a record beyond 65,535, which is not read", 8
        )
    check_total(record, declared, shortest, 8)
    owner, product, equipment, *image, count, reserved = _REST_2004.unpack_from(record, at)
    _check_certifications(equipment >> 12 & 7, at + 4)
    check_image_fields(image, range(at + 6, at + 14, 2))
    _check_count(count, reserved, at + 14)
    offset = at + _REST_2004.size
    views = []
    expected: dict[FingerPosition, int] = {}
    for ordinal in range(count):
        need(record, offset, _VIEW_2004.size, f"the header of finger view {ordinal}")
        code, packed, quality, minutia_count = _VIEW_2004.unpack_from(record, offset)
        position = check_position(code, offset)
        check_view_number(position, packed >> 4, expected, offset + 1)
        _check_impression(packed & 0xF, IMPRESSIONS_2004, offset + 1)
        if quality > MAX_QUALITY:
            raise DecodeError(
                "BAD_QUALITY", f"finger quality {quality}, expected 0 to 100", offset + 2
            )
        minutiae, extended, offset = _read_body(
            record, offset + _VIEW_2004.size, minutia_count, image, _RULES_2004, ordinal
        )
        views.append(
            View(
                position,
                packed >> 4,
                image[0],
                image[1],
                minutiae,
                image[2],
                image[3],
                packed & 0xF,
                quality,
                extended=extended,
            )
        )
    check_end(record, offset, count)
    return Record(VERSION_2004, tuple(views), owner, product, equipment >> 12, equipment & 0xFFF)


def parse_2009(record: bytes) -> Record:
    """Read a record of 2009, with or without amendment 1, without losing anything.

    Raises:
        DecodeError: with a reason as in :func:`matcher.codec.parse`, or ``BAD_ANGLE``, and the byte
            it was found at.
    """
    record = check_size(record)
    versions = [VERSION_2009, VERSION_2009_AM1]
    check_start(record, versions, _HEADER_2009.size, "ANSI INCITS 378-2009")
    _, version, declared, owner, product, certifications, device_id, count, reserved = (
        _HEADER_2009.unpack_from(record)
    )
    check_total(record, declared, _HEADER_2009.size, 8)
    _check_certifications(certifications & 0x7F, 16)
    _check_count(count, reserved, 19)
    offset = _HEADER_2009.size
    views = []
    expected: dict[FingerPosition, int] = {}
    for ordinal in range(count):
        need(record, offset, _VIEW_2009.size, f"the header of finger view {ordinal}")
        code, number, impression, quality, vendor, algorithm, *image, minutia_count = (
            _VIEW_2009.unpack_from(record, offset)
        )
        position = check_position(code, offset)
        check_view_number(position, number, expected, offset + 1)
        _check_impression(impression, IMPRESSIONS_2009, offset + 2)
        if not _is_quality_2009(quality):
            raise DecodeError(
                "BAD_QUALITY",
                f"finger quality {quality}, expected 0 to 100, 254 or 255",
                offset + 3,
            )
        check_image_fields(image, range(offset + 8, offset + 16, 2))
        minutiae, extended, offset = _read_body(
            record, offset + _VIEW_2009.size, minutia_count, image, _RULES_2009, ordinal
        )
        views.append(
            View(
                position,
                number,
                image[0],
                image[1],
                minutiae,
                image[2],
                image[3],
                impression,
                quality,
                vendor,
                algorithm,
                extended,
            )
        )
    check_end(record, offset, count)
    return Record(version, tuple(views), owner, product, certifications >> 4, device_id)


def _read_body(
    record: bytes, at: int, count: int, image: Sequence[int], rules: MinutiaRules, ordinal: int
) -> tuple[Minutiae, tuple[ExtendedArea, ...], int]:
    minutiae, end = read_minutiae(record, at, count, image[0], image[1], rules, ordinal)
    extended, end = read_extended(record, end, ordinal)
    return minutiae, extended, end


def _check_certifications(reserved_bits: int, offset: int) -> None:
    if reserved_bits:
        raise DecodeError("BAD_RESERVED", "certification bits without a meaning are set", offset)


def _check_count(count: int, reserved: int, offset: int) -> None:
    if count == 0:
        raise DecodeError("BAD_VIEW_COUNT", "the record holds no finger view", offset)
    if reserved:
        raise DecodeError(
            "BAD_RESERVED", f"the reserved byte is {reserved}, expected 0", offset + 1
        )


def _check_impression(impression: int, known: frozenset[int], offset: int) -> None:
    if impression not in known:
        raise DecodeError("BAD_IMPRESSION", f"impression type {impression} is reserved", offset)


def _is_quality_2009(value: int) -> bool:
    return 0 <= value <= MAX_QUALITY or value in _SPECIAL
