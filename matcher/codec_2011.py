"""Finger minutiae records of ISO/IEC 19794-2:2011 (the general, off-card format) <-> templates.

All numbers are big-endian::

    record header, 15 bytes
      0  "FMR\\0"   4  "030\\0"   8  length of the record (u32)   12  representations (u16)
     14  whether certification blocks follow in each representation (0 or 1)
    representation
      length, counting itself (u32) | captured: year (u16), month, day, hour, minute, second,
      millisecond (u16), each all ones where unknown | technology | vendor (u16), device (u16)
      quality blocks: how many, then value, vendor (u16), algorithm (u16) each
      certification blocks, if the header says so: how many, then authority (u16), scheme each
      position | representation number | X, Y resolution in px/cm (u16 each) | impression type
      width, height (u16 each) | bytes per minutia:4, kind of ridge ending:4 | number of minutiae
    minutia: as in 2005, five bytes without quality or six with; quality 254 and 255 are no number
    extended data: as in 2005

**Written from memory and from how two open implementations lay the bytes out** (FingerprintIO, a
reader of version 030 in C), **not checked against the standard's text.** The example
in its annex, as FingerprintIO carries it, was run by hand: it is refused, because the only view of
its second finger is numbered 1; with that byte set to 0 it reads as described there, and is written
back byte for byte. Strictness is as in :mod:`matcher.codec`, and also:

* A representation without minutiae is refused: the count starts at 1.
* The codes of several fingers at once (13 to 15, 40 to 50) are refused: a view is of one finger.
* ``captured`` is checked field by field, not as a date.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from datetime import date

from matcher.errors import DecodeError
from matcher.record_parts import (
    MAX_QUALITY,
    MAX_RECORD_BYTES,
    MAX_VIEW_NUMBER,
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

MAX_REPRESENTATIONS = 176  # 11 positions of 16 representations
IMPRESSIONS = frozenset({*range(10), 24, 28, 29})
MAX_TECHNOLOGY = 20
MAX_IMAGE_PX = 0x3FFF
UNKNOWN_TIME = b"\xff" * 9

_MAGIC, _VERSION = b"FMR\0", b"030\0"
_HEADER = struct.Struct(">4s4sIHB")
_CAPTURE = struct.Struct(">I9sBHHB")
_QUALITY = struct.Struct(">BHH")
_CERTIFICATE = struct.Struct(">HB")
_VIEW = struct.Struct(">BBHHBHHBB")
_TIME = struct.Struct(">HBBBBBH")
_TIME_RANGES = ((0, 9_999), (1, 12), (1, 31), (0, 23), (0, 59), (0, 59), (0, 999))
_RADIANS_PER_UNIT = 2.0 * math.pi / 256.0
_SPECIAL = (NOT_REPORTED, NOT_COMPUTED)
_RULES = {
    5: MinutiaRules(with_quality=False),
    6: MinutiaRules(special_qualities=_SPECIAL),
}


@dataclass(frozen=True)
class QualityBlock:
    """A quality of the whole view: 0 to 100, or 255 where computing it failed; and whose it is."""

    value: int
    vendor: int
    algorithm: int


@dataclass(frozen=True)
class Certificate:
    """A certification of the capture device: by whom, and after which scheme (1 to 3)."""

    authority: int
    scheme: int


@dataclass(frozen=True, eq=False)
class Representation:
    """One finger view exactly as recorded; angles in 256ths of a turn.

    Attributes:
        captured: the nine bytes of the capture time; see :data:`UNKNOWN_TIME`.
        certificates: ``None`` where the record has no certification blocks at all.
        ridge_ending: 0 for the middle of the valley, 1 for the end of the ridge's skeleton.
        minutia_bytes: 5, or 6 with a quality each.
    """

    position: FingerPosition
    number: int
    width: int
    height: int
    minutiae: Minutiae
    x_px_per_cm: int = 197
    y_px_per_cm: int = 197
    impression: int = 0
    captured: bytes = UNKNOWN_TIME
    technology: int = 0
    vendor: int = 0
    device: int = 0
    qualities: tuple[QualityBlock, ...] = ()
    certificates: tuple[Certificate, ...] | None = None
    ridge_ending: int = 0
    minutia_bytes: int = 6
    extended: tuple[ExtendedArea, ...] = ()

    @property
    def captured_on(self) -> date | None:
        """The day of capture, if the record names a real one."""
        year, month, day = _TIME.unpack(self.captured)[:3]
        try:
            return date(year, month, day)
        except ValueError:
            return None


@dataclass(frozen=True, eq=False)
class Record:
    """A whole record; ``serialize(parse(record)) == record`` for every record that parses."""

    views: tuple[Representation, ...]


def decode(record: bytes) -> list[Template]:
    """Read every representation as a template at 500 ppi; see :func:`matcher.codec.decode`.

    The finger's quality is that of its first quality block, 0 without one.

    Raises:
        DecodeError: for anything but a well-formed record, see :func:`parse`.
    """
    return [
        template_at_500_ppi(
            view.minutiae,
            _RADIANS_PER_UNIT,
            view,
            view.position,
            view.qualities[0].value if view.qualities else 0,
        )
        for view in parse(record).views
    ]


def serialize(record: Record) -> bytes:
    """Write a record byte for byte; the inverse of :func:`parse`.

    Raises:
        ValueError: a value does not fit its field, or the record would exceed 64 KiB.
    """
    count = len(record.views)
    require(1 <= count <= MAX_REPRESENTATIONS, "number of representations", count)
    certified = record.views[0].certificates is not None
    if any((view.certificates is not None) != certified for view in record.views):
        raise ValueError("certification blocks are in all representations of a record, or in none")
    body = b"".join(_written(view) for view in record.views)
    length = _HEADER.size + len(body)
    require(length <= MAX_RECORD_BYTES, "record length in bytes", length)
    return _HEADER.pack(_MAGIC, _VERSION, length, count, certified) + body


def parse(record: bytes) -> Record:
    """Read a record without losing anything; takes time and memory linear in its length.

    Raises:
        DecodeError: with a reason as in :func:`matcher.codec.parse`, or ``BAD_FLAG``, ``BAD_TIME``,
            ``BAD_TECHNOLOGY``, ``BAD_CERTIFICATE``, ``BAD_MINUTIA_SIZE``, ``BAD_RIDGE_ENDING``,
            ``BAD_MINUTIA_COUNT``, and the byte it was found at.
    """
    record = check_size(record)
    check_start(record, [_VERSION], _HEADER.size, "ISO/IEC 19794-2:2011")
    _, _, declared, count, certified = _HEADER.unpack_from(record)
    check_total(record, declared, _HEADER.size, 8)
    if not 1 <= count <= MAX_REPRESENTATIONS:
        raise DecodeError(
            "BAD_VIEW_COUNT", f"{count} representations, expected 1 to {MAX_REPRESENTATIONS}", 12
        )
    if certified > 1:
        raise DecodeError("BAD_FLAG", f"certification flag {certified}, expected 0 or 1", 14)
    views = []
    expected: dict[FingerPosition, int] = {}
    offset = _HEADER.size
    for ordinal in range(count):
        view, offset = _read(record, offset, ordinal, bool(certified), expected)
        views.append(view)
    check_end(record, offset, count)
    return Record(tuple(views))


def _read(
    record: bytes,
    start: int,
    ordinal: int,
    certified: bool,
    expected: dict[FingerPosition, int],
) -> tuple[Representation, int]:
    what = f"finger view {ordinal}"
    need(record, start, _CAPTURE.size, f"the header of {what}")
    length, captured, technology, vendor, device, quality_count = _CAPTURE.unpack_from(
        record, start
    )
    _check_time(captured, start + 4)
    if technology > MAX_TECHNOLOGY:
        raise DecodeError(
            "BAD_TECHNOLOGY",
            f"capture device technology {technology}, expected 0 to {MAX_TECHNOLOGY}",
            start + 13,
        )
    qualities, at = _read_qualities(record, start + _CAPTURE.size, quality_count, what)
    certificates = None
    if certified:
        certificates, at = _read_certificates(record, at, what)
    need(record, at, _VIEW.size, f"the image header of {what}")
    code, number, x_res, y_res, impression, width, height, packed, count = _VIEW.unpack_from(
        record, at
    )
    position = check_position(code, at)
    check_view_number(position, number, expected, at + 1)
    check_image_fields((width, height, x_res, y_res), (at + 7, at + 9, at + 2, at + 4))
    if max(width, height) > MAX_IMAGE_PX:
        raise DecodeError(
            "BAD_IMAGE_SIZE", f"the image is larger than {MAX_IMAGE_PX} pixels", at + 7
        )
    if impression not in IMPRESSIONS:
        raise DecodeError("BAD_IMPRESSION", f"impression type {impression} is reserved", at + 6)
    minutia_bytes, ridge_ending = packed >> 4, packed & 0xF
    if minutia_bytes not in _RULES:
        raise DecodeError(
            "BAD_MINUTIA_SIZE", f"{minutia_bytes} bytes per minutia, expected 5 or 6", at + 11
        )
    if ridge_ending > 1:
        raise DecodeError(
            "BAD_RIDGE_ENDING", f"ridge ending kind {ridge_ending}, expected 0 or 1", at + 11
        )
    if count == 0:
        raise DecodeError("BAD_MINUTIA_COUNT", f"{what} holds no minutiae", at + 12)
    rules = _RULES[minutia_bytes]
    minutiae, end = read_minutiae(record, at + _VIEW.size, count, width, height, rules, ordinal)
    extended, end = read_extended(record, end, ordinal)
    if end - start != length:
        raise DecodeError(
            "BAD_LENGTH", f"{what} declares {length} bytes and takes {end - start}", start
        )
    view = Representation(
        position=position,
        number=number,
        width=width,
        height=height,
        minutiae=minutiae,
        x_px_per_cm=x_res,
        y_px_per_cm=y_res,
        impression=impression,
        captured=captured,
        technology=technology,
        vendor=vendor,
        device=device,
        qualities=qualities,
        certificates=certificates,
        ridge_ending=ridge_ending,
        minutia_bytes=minutia_bytes,
        extended=extended,
    )
    return view, end


def _check_time(captured: bytes, offset: int) -> None:
    for value, (low, high), width in zip(
        _TIME.unpack(captured), _TIME_RANGES, (2, 1, 1, 1, 1, 1, 2), strict=True
    ):
        unknown = 256**width - 1
        if not low <= value <= high and value != unknown:
            raise DecodeError(
                "BAD_TIME",
                f"a field of the capture time is {value}, expected {low} to {high}, or {unknown}",
                offset,
            )
        offset += width


def _read_qualities(
    record: bytes, at: int, count: int, what: str
) -> tuple[tuple[QualityBlock, ...], int]:
    need(record, at, count * _QUALITY.size, f"{count} quality blocks of {what}")
    blocks = []
    for _ in range(count):
        block = QualityBlock(*_QUALITY.unpack_from(record, at))
        if not _is_view_quality(block.value):
            raise DecodeError(
                "BAD_QUALITY", f"finger quality {block.value}, expected 0 to 100, or 255", at
            )
        blocks.append(block)
        at += _QUALITY.size
    return tuple(blocks), at


def _read_certificates(record: bytes, at: int, what: str) -> tuple[tuple[Certificate, ...], int]:
    need(record, at, 1, f"the number of certification blocks of {what}")
    count = record[at]
    at += 1
    need(record, at, count * _CERTIFICATE.size, f"{count} certification blocks of {what}")
    blocks = []
    for _ in range(count):
        block = Certificate(*_CERTIFICATE.unpack_from(record, at))
        if not _is_certificate(block):
            raise DecodeError(
                "BAD_CERTIFICATE",
                f"certification authority {block.authority}, scheme {block.scheme}; expected an "
                "authority that is not 0 and a scheme of 1 to 3",
                at,
            )
        blocks.append(block)
        at += _CERTIFICATE.size
    return tuple(blocks), at


def _is_view_quality(value: int) -> bool:
    return 0 <= value <= MAX_QUALITY or value == NOT_COMPUTED


def _is_certificate(block: Certificate) -> bool:
    return 1 <= block.authority <= 0xFFFF and 1 <= block.scheme <= 3


def _written(view: Representation) -> bytes:
    require_image(view)
    require(max(view.width, view.height) <= MAX_IMAGE_PX, "image size", view.width)
    require(0 <= view.number <= MAX_VIEW_NUMBER, "representation number", view.number)
    require(view.impression in IMPRESSIONS, "impression type", view.impression)
    require(0 <= view.technology <= MAX_TECHNOLOGY, "capture device technology", view.technology)
    require(0 <= view.vendor <= 0xFFFF, "capture device vendor", view.vendor)
    require(0 <= view.device <= 0xFFFF, "capture device", view.device)
    require(view.minutia_bytes in _RULES, "bytes per minutia", view.minutia_bytes)
    require(view.ridge_ending in (0, 1), "ridge ending kind", view.ridge_ending)
    require(len(view.minutiae) >= 1, "number of minutiae", len(view.minutiae))
    require(len(view.qualities) <= 0xFF, "number of quality blocks", len(view.qualities))
    for quality in view.qualities:
        require(_is_view_quality(quality.value), "finger quality", quality.value)
    parts = [_QUALITY.pack(one.value, one.vendor, one.algorithm) for one in view.qualities]
    if view.certificates is not None:
        require(len(view.certificates) <= 0xFF, "number of certificates", len(view.certificates))
        parts.append(bytes([len(view.certificates)]))
        for certificate in view.certificates:
            require(_is_certificate(certificate), "certification scheme", certificate.scheme)
            parts.append(_CERTIFICATE.pack(certificate.authority, certificate.scheme))
    parts.append(
        _VIEW.pack(
            view.position,
            view.number,
            view.x_px_per_cm,
            view.y_px_per_cm,
            view.impression,
            view.width,
            view.height,
            view.minutia_bytes << 4 | view.ridge_ending,
            len(view.minutiae),
        )
    )
    rules = _RULES[view.minutia_bytes]
    parts.append(write_minutiae(view.minutiae, view.width, view.height, rules))
    parts.append(write_extended(view.extended))
    body = b"".join(parts)
    head = _CAPTURE.pack(
        _CAPTURE.size + len(body),
        view.captured,
        view.technology,
        view.vendor,
        view.device,
        len(view.qualities),
    )
    return head + body
