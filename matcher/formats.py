"""The formats of a finger minutiae record that are read, and telling them apart.

All begin with ``FMR``, and two of them with the same version, so the format is stated beside the
bytes and the bytes must be of it. What was accepted under its name reads under no other:
:func:`decode_as` refuses a record that is well-formed in two formats at once (nobody makes one by
accident), so :func:`decode_stored` needs no name.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from matcher import codec, codec_2011, codec_ansi378
from matcher.errors import DecodeError
from matcher.types import Template


class RecordFormat(IntEnum):
    """Numbers as in anju.v1.SampleFormat."""

    ISO_19794_2_2005 = 1
    ISO_19794_2_2011 = 2
    ANSI_INCITS_378_2004 = 3
    ANSI_INCITS_378_2009 = 4

    @property
    def standard(self) -> str:
        """The standard's own name."""
        return _STANDARDS[self]


_STANDARDS = {
    RecordFormat.ISO_19794_2_2005: "ISO/IEC 19794-2:2005",
    RecordFormat.ISO_19794_2_2011: "ISO/IEC 19794-2:2011",
    RecordFormat.ANSI_INCITS_378_2004: "ANSI INCITS 378-2004",
    RecordFormat.ANSI_INCITS_378_2009: "ANSI INCITS 378-2009",
}
_DECODERS: dict[RecordFormat, Callable[[bytes], list[Template]]] = {
    RecordFormat.ISO_19794_2_2005: codec.decode,
    RecordFormat.ISO_19794_2_2011: codec_2011.decode,
    RecordFormat.ANSI_INCITS_378_2004: codec_ansi378.decode_2004,
    RecordFormat.ANSI_INCITS_378_2009: codec_ansi378.decode_2009,
}
# A version belongs to two formats at most.
_BY_VERSION = {
    b" 20\0": (RecordFormat.ISO_19794_2_2005, RecordFormat.ANSI_INCITS_378_2004),
    b"030\0": (RecordFormat.ISO_19794_2_2011, RecordFormat.ANSI_INCITS_378_2009),
    b"035\0": (RecordFormat.ANSI_INCITS_378_2009,),
}


def formats_of(record: bytes) -> list[RecordFormat]:
    """The formats that a record is well-formed in: none or one, unless it was made up."""
    return [one for one in _BY_VERSION.get(bytes(record[4:8]), ()) if _reads_as(one, record)]


def decode_as(stated: RecordFormat, record: bytes) -> list[Template]:
    """Read a record of the stated format as templates at 500 ppi, in the order recorded.

    Raises:
        DecodeError: with a reason of the format's codec; ``FORMAT_MISMATCH`` when the bytes are a
            well-formed record of another format; ``FORMAT_AMBIGUOUS`` when they are one of both.
    """
    others = [one for one in formats_of(record) if one is not stated]
    try:
        views = _DECODERS[stated](record)
    except DecodeError as error:
        if not others:
            raise
        raise DecodeError(
            "FORMAT_MISMATCH",
            f"the sample is stated to be {stated.standard}, its bytes are {others[0].standard}",
        ) from error
    if others:
        raise DecodeError(
            "FORMAT_AMBIGUOUS",
            f"the record reads as {stated.standard} and as {others[0].standard} alike",
        )
    return views


def decode_stored(record: bytes) -> list[Template]:
    """Read a record that :func:`decode_as` accepted before.

    Raises:
        DecodeError: it is damaged.
    """
    candidates = _BY_VERSION.get(bytes(record[4:8]), ())
    for one in candidates[:-1]:
        if _reads_as(one, record):
            return _DECODERS[one](record)
    return _DECODERS[candidates[-1] if candidates else RecordFormat.ISO_19794_2_2005](record)


def _reads_as(one: RecordFormat, record: bytes) -> bool:
    try:
        _DECODERS[one](record)
    except DecodeError:
        return False
    return True
