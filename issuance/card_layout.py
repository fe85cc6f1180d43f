"""Where everything stands on a permit card: ID-1 (ISO/IEC 7810), 85.60 x 53.98 mm, two sides.

The card shows what the symbol holds and nothing else: the layout is made from the permit that was
read out of the symbol's own text. The symbol is 31 mm wide, quiet zone included, if its modules are
then at least `MIN_MODULE_MM` (3.5 pixels at 300 dpi, measured on degraded prints); a denser one
moves to the back and gets 40.5 mm. A portrait takes its place on the front.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Final

from issuance import card_fonts
from issuance.drawing import Box, Label, Mark, Page, Picture, Stroke
from issuance.errors import CardError
from issuance.layout_parts import (
    DEEP,
    GOLD,
    INK,
    MIN_MODULE_MM,
    MUTED,
    PALE,
    PAPER,
    WAVE,
    WHITE,
    Texts,
    caption,
    code_marks,
    fit,
    house,
    module_mm,
    notes,
    right_aligned,
    texts_of,
    wrap,
)
from issuance.profile import Profile
from issuance.qr import Symbol
from issuance.types import Permit

WIDTH, HEIGHT = 85.60, 53.98

_MARGIN: Final = 4.6
_HEADER: Final = 11.2
# Most that a long title gets of the header; the authority's name has the rest.
_TITLE: Final = 36.0
_FRONT_SYMBOL: Final = 31.0
# Room for version 27 at the smallest module: a photograph, and a long address.
_BACK_SYMBOL: Final = 40.5
_BACK_SYMBOL_TOP: Final = 9.2
# Tried in this order: a long address needs more room.
_PORTRAIT_WIDTHS: Final = (24.0, 18.0)


def pages(
    permit: Permit,
    symbol: Symbol,
    rules: Profile,
    kid: str,
    *,
    replace: bool,
    portrait: Picture | None = None,
) -> list[Page]:
    """Front and back of the card.

    Args:
        replace: print 〓 for characters that no font has, instead of raising.
        portrait: goes where the symbol would be, and the symbol to the back; its place is ignored.

    Raises:
        UnprintableCharacterError: a name or address has such characters.
        CardError: the symbol or an address is too large for the card.
    """
    texts = texts_of(permit, rules, replace=replace)
    fits_front = portrait is None and module_mm(symbol, _FRONT_SYMBOL) >= MIN_MODULE_MM
    if not fits_front and module_mm(symbol, _BACK_SYMBOL) < MIN_MODULE_MM:
        raise CardError(f"a version {symbol.version} symbol is too dense for a card")
    if portrait is not None:
        front = _front_with_portrait(texts, portrait)
    else:
        front, fits_front = _front_with_symbol(texts, symbol, fits_front)
    back = _back_texts(texts, kid)
    if not fits_front:
        x = WIDTH - _MARGIN - _BACK_SYMBOL - 0.6
        back += code_marks(symbol, x, _BACK_SYMBOL_TOP, _BACK_SYMBOL)
    front_ground = _front_ground(texts.title_zh, texts.title_en, texts.authority)
    return [
        Page(WIDTH, HEIGHT, front_ground, tuple(front)),
        Page(WIDTH, HEIGHT, _back_ground(fits_front), tuple(back)),
    ]


def _front_with_symbol(texts: Texts, symbol: Symbol, fits_front: bool) -> tuple[list[Mark], bool]:
    """The marks of the front, and whether the symbol is among them."""
    if fits_front:
        try:
            marks = _front_fields(texts, _FRONT_SYMBOL)
        except CardError:
            # Long texts need the whole front; the symbol then moves to the back.
            return _front_fields(texts, 0), False
        x = WIDTH - _MARGIN - _FRONT_SYMBOL - 0.6
        return [*marks, *code_marks(symbol, x, 12.95, _FRONT_SYMBOL)], True
    return _front_fields(texts, 0), False


def _front_with_portrait(texts: Texts, portrait: Picture) -> list[Mark]:
    for width in _PORTRAIT_WIDTHS:
        try:
            marks = _front_fields(texts, width)
        except CardError:
            if width == _PORTRAIT_WIDTHS[-1]:
                raise
            continue
        break
    height = width * portrait.rows / portrait.columns
    x, y = WIDTH - _MARGIN - width, 13.0
    return [
        *marks,
        Box(x - 0.3, y - 0.3, width + 0.6, height + 0.6, PALE, 0.8),
        dataclasses.replace(portrait, x=x, y=y, width=width, height=height),
    ]


@functools.lru_cache(maxsize=32)
def _front_ground(title_zh: str, title_en: str, authority: str) -> tuple[Mark, ...]:
    """What all fronts of a kind and authority share."""
    return (*_ground(), *_header(title_zh, title_en, authority))


@functools.lru_cache(maxsize=2)
def _back_ground(symbol_on_front: bool) -> tuple[Mark, ...]:
    """What all backs share."""
    width = WIDTH - 2 * _MARGIN
    if symbol_on_front:
        told = notes(_MARGIN, 12.2, width, where="正面", size=2.6, disc=3.0, gap=2.4)
    else:
        width -= _BACK_SYMBOL + 3.1
        told = notes(_MARGIN, 10.6, width, where="右侧", size=1.95, disc=3.0, gap=0.75)
    return (*_ground(), *_back_head(), *told)


def _ground() -> list[Mark]:
    """Paper and a quiet pattern of waves."""
    marks: list[Mark] = [Box(0, 0, WIDTH, HEIGHT, PAPER)]
    steps = 120
    for line in range(16):
        base = 14 + 2.8 * line
        points = tuple(
            (
                WIDTH * step / steps,
                base
                + 1.6 * math.sin(step / steps * 4 * math.pi + line * 0.55)
                + 0.7 * math.sin(step / steps * 10 * math.pi - line * 0.3),
            )
            for step in range(steps + 1)
        )
        marks.append(Stroke(points, WAVE, 0.12))
    return marks


def _header(title_zh: str, title_en: str, authority: str) -> list[Mark]:
    spacing = 1.1
    title_x, right = _MARGIN + 8.2, WIDTH - _MARGIN
    size = fit(title_zh, _TITLE - spacing * len(title_zh), 5.6, 2.2)
    title = card_fonts.width(title_zh, bold=True) * size + spacing * len(title_zh)
    beside = min(44.0, right - title_x - title - 1.0)
    return [
        Box(0, 0, WIDTH, _HEADER, DEEP),
        Box(0, _HEADER, WIDTH, 0.55, GOLD),
        *house(_MARGIN, 2.7, 6.0, WHITE, DEEP),
        Label(title_x, 7.9, size, title_zh, WHITE, bold=True, spacing=spacing),
        right_aligned(right, 5.3, 2.1, authority, WHITE, width=beside),
        right_aligned(right, 8.4, 1.75, title_en.upper(), PALE, spacing=0.12, width=beside),
    ]


def _front_fields(texts: Texts, beside: float) -> list[Mark]:
    """Everything that is text, left of a symbol or portrait `beside` mm wide; 0 for neither."""
    right = WIDTH - _MARGIN - (beside + 3.0 if beside else 0)
    top, y = 15.2, 15.2
    marks = _name(texts, y, (right if beside else _MARGIN + 34) - _MARGIN)
    facts = [("性别", "Sex", texts.sex, 10.0)]
    if texts.ethnicity:
        # 柯尔克孜族 is wider than most.
        wide = max(13.0, card_fonts.width(texts.ethnicity) * 2.9 + 1.4)
        facts.append(("民族", "Ethnicity", texts.ethnicity, wide))
    facts.append(("出生日期", "Born", texts.born, 0.0))
    # Without a symbol beside it the name leaves room for the facts on its own line.
    x, y = (_MARGIN, y + 9.6) if beside else (_MARGIN + 35, y + 1.5)
    for zh, en, value, advance in facts:
        marks += caption(x, y, zh, en)
        marks.append(Label(x, y + 3.7, 2.9, value, INK))
        x += advance
    y = y + 7.4 if beside else top + 9.6
    if texts.citizen_id:
        marks += caption(_MARGIN, y, "公民身份号码", "Citizen ID")
        marks.append(Label(_MARGIN, y + 3.7, 2.9, texts.citizen_id, INK))
        y += 7.0
    marks += _addresses(texts, _MARGIN, y, right - _MARGIN, 43.6 - y)
    return marks + _front_foot(texts, beside)


def _name(texts: Texts, y: float, width: float) -> list[Mark]:
    size = fit(texts.name, width, 4.6, 2.2)
    marks = [
        *caption(_MARGIN, y, "姓名", "Name"),
        Label(_MARGIN, y + 5.2, size, texts.name, INK),
    ]
    if texts.latin_name:
        # Above the name, after its caption: there it has room whatever the name's length.
        size = fit(texts.latin_name, width - 9.5, 1.9, 0.9)
        marks.append(Label(_MARGIN + 9.5, y, size, texts.latin_name, INK))
    return marks


def _addresses(texts: Texts, x: float, y: float, width: float, height: float) -> list[Mark]:
    """All addresses below `y` at the largest common size that leaves them within `height`."""
    size = 2.75
    while size >= 1.9:
        wrapped = [wrap(value, width / size) for _, _, value in texts.addresses]
        if sum(3.0 + size * 1.28 * len(lines) for lines in wrapped) - 1.6 <= height:
            break
        size -= 0.05
    else:
        length = sum(len(value) for _, _, value in texts.addresses)
        raise CardError(f"addresses of {length} characters do not fit the card")
    marks: list[Mark] = []
    for (zh, en, _), lines in zip(texts.addresses, wrapped, strict=True):
        marks += caption(x, y, zh, en)
        y += 0.75
        for line in lines:
            y += size * 1.28
            marks.append(Label(x, y - size * 0.28, size, line, INK))
        y += 3.0 - 0.75
    return marks


def _front_foot(texts: Texts, beside: float) -> list[Mark]:
    y = 46.6
    middle = WIDTH - _MARGIN - _FRONT_SYMBOL - 1.0
    marks: list[Mark] = [
        Stroke(
            (
                (_MARGIN, 44.4),
                (WIDTH - _MARGIN - beside - 3.4 if beside else WIDTH - _MARGIN, 44.4),
            ),
            GOLD,
            0.18,
        )
    ]
    marks += caption(_MARGIN, y, "有效期限", "Valid")
    marks.append(Label(_MARGIN, y + 3.7, 2.9, texts.validity, INK))
    marks += caption(middle, y, "证件编号", "No.")
    marks.append(Label(middle, y + 3.7, 2.9, texts.number, INK, bold=True))
    return marks


def _back_head() -> list[Mark]:
    return [
        Box(0, 0, WIDTH, 7.4, DEEP),
        Box(0, 7.4, WIDTH, 0.4, GOLD),
        *house(_MARGIN, 1.9, 3.8, WHITE, DEEP),
        Label(_MARGIN + 5.4, 5.0, 2.7, "使用说明", WHITE, spacing=0.2),
    ]


def _back_texts(texts: Texts, kid: str) -> list[Mark]:
    right = WIDTH - _MARGIN
    return [
        right_aligned(right, 4.9, 2.3, texts.number, WHITE),
        Label(_MARGIN, 52.3, 1.7, f"签发日期 {texts.issued}", MUTED),
        right_aligned(right, 52.3, 1.5, f"key {kid}", MUTED),
    ]
