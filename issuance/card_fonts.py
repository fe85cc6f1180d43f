"""The fonts of the card: which of them has a character, and how wide is a text?

Names must never come out as empty boxes. Every character is looked up in the fonts' own character
maps before anything is drawn; one that no font has is either an error or, if the operator chooses,
printed as the geta mark 〓 that Chinese and Japanese typesetters use for a missing sort.
"""

from __future__ import annotations

import enum
import functools
import struct
from pathlib import Path
from typing import Final

from PIL import ImageFont

from issuance.errors import CardError, UnprintableCharacterError

GETA: Final = "〓"
_DIRECTORY: Final = Path(__file__).parent / "fonts"
_MEASURE_PX: Final = 200


class Face(enum.StrEnum):
    """A font file, by its stem."""

    REGULAR = "Anju-Card-Sans"
    BOLD = "Anju-Card-Sans-Bold"
    RARE = "Anju-Card-Sans-Rare"


# Where a character is looked for, first to last.
_ORDER: Final = (Face.REGULAR, Face.RARE)


def path(face: Face) -> Path:
    return _DIRECTORY / f"{face}.ttf"


def runs(text: str, *, bold: bool = False) -> list[tuple[Face, str]]:
    """`text` cut into pieces of one face each, in order. Every character must be printable.

    Bold where the bold font has all of it: one thin character in a title looks like a mistake.
    """
    if bold and all(ord(character) in _coverage(Face.BOLD) for character in text):
        return [(Face.BOLD, text)]
    pieces: list[tuple[Face, str]] = []
    for character in text:
        face = _face(character)
        if face is None:
            raise UnprintableCharacterError(character)
        if pieces and pieces[-1][0] is face:
            pieces[-1] = (face, pieces[-1][1] + character)
        else:
            pieces.append((face, character))
    return pieces


def printable(text: str, *, replace: bool) -> str:
    """`text` with every character that no font has replaced by 〓.

    Raises `UnprintableCharacterError` if there are any and `replace` is false.
    """
    missing = "".join(dict.fromkeys(c for c in text if _face(c) is None))
    if missing and not replace:
        raise UnprintableCharacterError(missing)
    return "".join(GETA if c in missing else c for c in text)


def width(text: str, *, bold: bool = False) -> float:
    """Width of `text` at a font size of 1, without kerning: the sum of the advances."""
    return sum(
        advance(face, character) for face, piece in runs(text, bold=bold) for character in piece
    )


@functools.lru_cache(maxsize=16_384)
def advance(face: Face, character: str) -> float:
    """Advance of one character at a font size of 1."""
    # Cached by character, never by text: a cache of texts would be a list of names.
    return _font(face).getlength(character) / _MEASURE_PX


@functools.lru_cache(maxsize=8)
def _font(face: Face) -> ImageFont.FreeTypeFont:
    return sized(face, _MEASURE_PX)


def sized(face: Face, size_px: float) -> ImageFont.FreeTypeFont:
    """The face for Pillow. Basic layout: the same advances on every machine and in the PDF."""
    try:
        return ImageFont.truetype(path(face), size_px, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise CardError(f"cannot open the font {face}") from error


@functools.lru_cache(maxsize=16_384)
def _face(character: str) -> Face | None:
    code = ord(character)
    return next((face for face in _ORDER if code in _coverage(face)), None)


@functools.lru_cache(maxsize=8)
def _coverage(face: Face) -> frozenset[int]:
    """Code points with a glyph, from the format 12 subtable of `cmap` (ISO/IEC 14496-22 5.2.1)."""
    data = path(face).read_bytes()
    tables: dict[bytes, int] = {}
    for at in range(12, 12 + 16 * struct.unpack_from(">H", data, 4)[0], 16):
        tag, _, offset, _ = struct.unpack_from(">4sLLL", data, at)
        tables[tag] = offset
    cmap = tables[b"cmap"]
    for at in range(cmap + 4, cmap + 4 + 8 * struct.unpack_from(">H", data, cmap + 2)[0], 8):
        table = cmap + struct.unpack_from(">HHL", data, at)[2]
        if struct.unpack_from(">H", data, table)[0] == 12:
            groups = struct.unpack_from(">L", data, table + 12)[0]
            numbers = struct.unpack_from(f">{3 * groups}L", data, table + 16)
            return frozenset(
                code
                for first, last in zip(numbers[0::3], numbers[1::3], strict=True)
                for code in range(first, last + 1)
            )
    raise CardError(f"the font {face} has no format 12 character map")
