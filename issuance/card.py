"""Permit card: the text of a permit's symbol -> a printable picture or PDF, read back first.

The card is made from nothing but the symbol's text and the profile, so what people read and what
machines verify is the same by construction. A card that the reader cannot read is never released.
"""

from __future__ import annotations

import enum
import io
from typing import Final

from PIL import Image

from issuance import card_layout, codec, drawing, envelope, qr, signing
from issuance.drawing import Code, Page
from issuance.errors import CardError
from issuance.profile import Profile

DEFAULT_DPI: Final = 600
_GAP_MM: Final = 4.0


class CardFormat(enum.StrEnum):
    """`media_type` is the value."""

    PNG = "image/png"
    PDF = "application/pdf"


def draw_card(
    qr_text: str,
    rules: Profile,
    *,
    format: CardFormat = CardFormat.PNG,
    dpi: int = DEFAULT_DPI,
    level: str = "M",
    replace_unprintable: bool = False,
) -> bytes:
    """The card of an issued permit: PNG with front above back, or PDF of two ID-1 pages.

    The symbol is read back at `dpi` and as a 300 dpi scan before the card is returned.

    Args:
        qr_text: `IssuedPermit.qr_text`. Its signature is not verified here.
        dpi: of the PNG, 300 to 1200.
        level: error correction of the symbol.
        replace_unprintable: print 〓 where no font has the character.

    Raises:
        UnprintableCharacterError: a name or address has a character that no font has.
        DecodeError: `qr_text` is not a permit of `rules`.
        CardError: it does not fit, or does not read back.
    """
    if not 300 <= dpi <= 1200:
        raise CardError(f"dpi must be 300 to 1200, got {dpi}")
    message = signing.parse(envelope.from_text(qr_text))
    permit = codec.permit_from(codec.read_claims(message.payload), rules)
    symbol = qr.symbol(qr_text, level)
    sides = card_layout.pages(permit, symbol, rules, message.kid or "", replace=replace_unprintable)
    if format is CardFormat.PDF:
        _read_back(sides, [drawing.raster(page, 300) for page in sides], qr_text)
        kind = rules.kind(permit.kind)
        return drawing.pdf(sides, title=f"{kind.title_zh} {kind.title_en}", author=permit.authority)
    images = [drawing.raster(page, dpi) for page in sides]
    scans = [
        image.resize((image.width * 300 // dpi, image.height * 300 // dpi), Image.Resampling.BOX)
        for image in images
    ]
    _read_back(sides, images, qr_text)
    _read_back(sides, scans, qr_text)
    return _png(images, dpi)


def _read_back(sides: list[Page], images: list[Image.Image], text: str) -> None:
    """Raise `CardError` unless the symbol reads at the first try from every side that has one."""
    for page, image in zip(sides, images, strict=True):
        if any(isinstance(mark, Code) for mark in page.marks) and qr.read_image(image) != [text]:
            raise CardError("the card does not read back; it is not released")


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
