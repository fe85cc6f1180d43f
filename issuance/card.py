"""Permit on paper: the text of a permit's symbol -> a card or certificate, read back first.

It is made from nothing but the symbol's text and the profile, so what people read and what machines
verify is the same by construction. What the reader cannot read is never released.
"""

from __future__ import annotations

import enum
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from PIL import Image

from issuance import (
    card_layout,
    certificate_layout,
    codec,
    drawing,
    drawing_svg,
    envelope,
    photo,
    qr,
    signing,
)
from issuance.drawing import Page, PdfWriter, Picture
from issuance.errors import CardError, IssuanceError
from issuance.profile import Profile
from issuance.types import Permit

DEFAULT_DPI: Final = 600
_SCAN_DPI: Final = 300
_GAP_MM: Final = 4.0
# Around a symbol that is read back: more than its quiet zone, as a scan would show it.
_AROUND_MM: Final = 3.0


class CardFormat(enum.StrEnum):
    """`media_type` is the value."""

    PNG = "image/png"
    PDF = "application/pdf"
    SVG = "image/svg+xml"


class Paper(enum.StrEnum):
    """What is printed."""

    CARD = "card"  # ID-1, two sides
    CERTIFICATE = "certificate"  # A4, one page


def draw_card(
    qr_text: str,
    rules: Profile,
    *,
    format: CardFormat = CardFormat.PNG,
    dpi: int = DEFAULT_DPI,
    level: str = "M",
    replace_unprintable: bool = False,
    paper: Paper = Paper.CARD,
    portrait: bytes | None = None,
) -> bytes:
    """The card or certificate of an issued permit.

    A card is a PNG or SVG with front above back, or a PDF of two ID-1 pages. The symbol is read
    back at `dpi` and as a 300 dpi scan before anything is returned.

    Args:
        qr_text: `IssuedPermit.qr_text`. Its signature is not verified here.
        dpi: of the PNG, 300 to 1200.
        level: error correction of the symbol.
        replace_unprintable: print 〓 where no font has the character.
        portrait: that the permit's photograph was made of, to print in better quality; the
            photograph itself is printed, enlarged, without it.

    Raises:
        UnprintableCharacterError: a name or address has a character that no font has.
        DecodeError: `qr_text` is not a permit of `rules`.
        PhotoError: `portrait` is not the one that was signed.
        CardError: it does not fit, or does not read back.
    """
    if not 300 <= dpi <= 1200:
        raise CardError(f"dpi must be 300 to 1200, got {dpi}")
    permit, sides = _lay_out(qr_text, rules, level, paper, replace_unprintable, portrait)
    if format is not CardFormat.PNG:
        _read_back(sides, [drawing.raster(page, _SCAN_DPI) for page in sides], qr_text)
        if format is CardFormat.SVG:
            return drawing_svg.svg(_sheet(sides))
        return drawing.pdf(sides, title=_title(permit, rules), author=permit.authority)
    images = [drawing.raster(page, dpi) for page in sides]
    scans = [
        image.resize(
            (image.width * _SCAN_DPI // dpi, image.height * _SCAN_DPI // dpi),
            Image.Resampling.BOX,
        )
        for image in images
    ]
    _read_back(sides, images, qr_text)
    _read_back(sides, scans, qr_text)
    return _png(images, dpi)


@dataclass(frozen=True, slots=True)
class Batch:
    """Many cards in one PDF.

    Attributes:
        pdf: the pages of every permit that could be drawn, in order.
        drawn: how many those are.
        problems: position in the input, from 0, and why that one is not among them.
    """

    pdf: bytes
    drawn: int
    problems: tuple[tuple[int, IssuanceError], ...]


def draw_batch(
    qr_texts: Iterable[str],
    rules: Profile,
    *,
    level: str = "M",
    replace_unprintable: bool = False,
    paper: Paper = Paper.CARD,
) -> Batch:
    """Cards or certificates of many permits in one PDF, for a bulk re-issue.

    Each symbol is read back from its page, with all that is drawn around it, as a 300 dpi scan. One
    permit that cannot be drawn is named and left out; it does not hold up the others. Raises
    `CardError` if reportlab is not installed.
    """
    writer = PdfWriter(title=rules.authority, author=rules.authority)
    problems: list[tuple[int, IssuanceError]] = []
    drawn = 0
    for position, text in enumerate(qr_texts):
        try:
            _, sides = _lay_out(text, rules, level, paper, replace_unprintable, None)
            _read_back_around(sides, text)
        except IssuanceError as error:
            problems.append((position, error))
            continue
        for page in sides:
            writer.add(page)
        drawn += 1
    return Batch(writer.finish() if drawn else b"", drawn, tuple(problems))


def _lay_out(
    qr_text: str,
    rules: Profile,
    level: str,
    paper: Paper,
    replace_unprintable: bool,
    portrait: bytes | None,
) -> tuple[Permit, list[Page]]:
    message = signing.parse(envelope.from_text(qr_text))
    permit = codec.permit_from(codec.read_claims(message.payload), rules)
    layout = card_layout if paper is Paper.CARD else certificate_layout
    sides = layout.pages(
        permit,
        qr.symbol(qr_text, level),
        rules,
        message.kid or "",
        replace=replace_unprintable,
        portrait=_portrait(permit, portrait),
    )
    return permit, sides


def _portrait(permit: Permit, portrait: bytes | None) -> Picture | None:
    signed = permit.holder.photo
    if signed is None:
        if portrait is not None:
            raise CardError("the permit has no photograph, so none is printed on it")
        return None
    if portrait is not None:
        image = photo.print_picture(portrait, signed)
    else:
        small = photo.open_photo(signed)
        # Large enough that no printer shows its pixels as squares.
        size = (small.width * 4, small.height * 4)
        image = small.resize(size, Image.Resampling.LANCZOS)
    return Picture(0, 0, 0, 0, image.width, image.height, image.tobytes())


def _title(permit: Permit, rules: Profile) -> str:
    kind = rules.kind(permit.kind)
    return f"{kind.title_zh} {kind.title_en}"


def _read_back(sides: list[Page], images: list[Image.Image], text: str) -> None:
    """Raise `CardError` unless the symbol reads at the first try from every side that has one."""
    for page, image in zip(sides, images, strict=True):
        if page.codes() and qr.read_image(image) != [text]:
            raise CardError("the card does not read back; it is not released")


def _read_back_around(sides: list[Page], text: str) -> None:
    codes = [(page, code) for page in sides for code in page.codes()]
    for page, code in codes:
        scan = drawing.raster_around(page, code, _SCAN_DPI, _AROUND_MM)
        if qr.read_image(scan) != [text]:
            raise CardError("the card does not read back; it is not released")
    if not codes:
        raise CardError("the card has no symbol")


def _sheet(sides: list[Page]) -> Page:
    """All sides on one page, below each other."""
    marks: list[drawing.Mark] = []
    y = 0.0
    for page in sides:
        marks += [drawing.moved(mark, 0, y) for mark in (*page.ground, *page.marks)]
        y += page.height + _GAP_MM
    return Page(sides[0].width, y - _GAP_MM, (), tuple(marks))


def _png(images: list[Image.Image], dpi: int) -> bytes:
    gap = round(_GAP_MM * dpi / drawing.MM_PER_INCH)
    height = sum(image.height for image in images) + gap * (len(images) - 1)
    sheet = Image.new("RGB", (images[0].width, height), "white")
    y = 0
    for image in images:
        sheet.paste(image, (0, y))
        y += image.height + gap
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", dpi=(dpi, dpi), compress_level=4)
    return buffer.getvalue()
