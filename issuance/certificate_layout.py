"""An A4 certificate of a permit: the card's facts with room to read them, and a large symbol.

For people who need a paper for a school or an office, and for those whose name or address no card
has room for. Like the card it shows what the symbol holds and nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
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
    WHITE,
    Texts,
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

WIDTH, HEIGHT = 210.0, 297.0
_MARGIN: Final = 22.0
_SYMBOL: Final = 62.0
_PORTRAIT: Final = 30.0
_TOP: Final = 66.0
# Most that a long title gets of the header; the authority's name has the rest.
_TITLE: Final = 90.0
# Distance of rows and size of texts, tried in this order: two long addresses need many lines.
_SIZES: Final = ((15.0, 4.6), (13.0, 4.2), (11.4, 3.9), (10.4, 3.5), (9.8, 3.1))


def pages(
    permit: Permit,
    symbol: Symbol,
    rules: Profile,
    kid: str,
    *,
    replace: bool,
    portrait: Picture | None = None,
) -> list[Page]:
    """The certificate, one page; see `card_layout.pages`."""
    texts = texts_of(permit, rules, replace=replace)
    if module_mm(symbol, _SYMBOL) < MIN_MODULE_MM:
        raise CardError(f"a version {symbol.version} symbol is too dense for a certificate")
    right = WIDTH - _MARGIN
    marks: list[Mark] = []
    if portrait is not None:
        height = _PORTRAIT * portrait.rows / portrait.columns
        x = right - _PORTRAIT
        marks += [
            Box(x - 0.5, _TOP - 0.5, _PORTRAIT + 1, height + 1, PALE, 1.0),
            dataclasses.replace(portrait, x=x, y=_TOP, width=_PORTRAIT, height=height),
        ]
    marks += _facts(texts, right - (_PORTRAIT + 8 if portrait else 0), right)
    marks += code_marks(symbol, _MARGIN, HEIGHT - 40 - _SYMBOL, _SYMBOL)
    marks += [
        Label(_MARGIN, HEIGHT - 18, 3.0, f"签发日期 Issued {texts.issued}", MUTED),
        right_aligned(right, HEIGHT - 18, 2.6, f"key {kid}", MUTED),
    ]
    return [
        Page(WIDTH, HEIGHT, _ground(texts.title_zh, texts.title_en, texts.authority), tuple(marks))
    ]


@functools.lru_cache(maxsize=32)
def _ground(title_zh: str, title_en: str, authority: str) -> tuple[Mark, ...]:
    """What all certificates of a kind and authority share."""
    right = WIDTH - _MARGIN
    english = title_en.upper()
    title_x, spacing = _MARGIN + 25, 2.2
    size = fit(title_zh, _TITLE - spacing * len(title_zh), 12, 5.0)
    title = card_fonts.width(title_zh, bold=True) * size + spacing * len(title_zh)
    beside = min(60.0, right - title_x - title - 2)
    return (
        Box(0, 0, WIDTH, 44, DEEP),
        Box(0, 44, WIDTH, 1.4, GOLD),
        *house(_MARGIN, 13, 18, WHITE, DEEP),
        Label(title_x, 25.5, size, title_zh, WHITE, bold=True, spacing=spacing),
        Label(title_x + 0.4, 33.5, fit(english, 90, 4.0, 2.0), english, PALE, spacing=0.2),
        right_aligned(
            right, 24.5, fit(authority, beside, 4.4, 2.0), authority, WHITE, width=beside
        ),
        Stroke(((_MARGIN, HEIGHT - 26), (right, HEIGHT - 26)), GOLD, 0.3),
        *notes(
            _MARGIN + _SYMBOL + 8,
            HEIGHT - 38 - _SYMBOL,
            right - _MARGIN - _SYMBOL - 8,
            where="左侧",
            size=3.35,
            disc=5.0,
            gap=2.4,
        ),
    )


def _facts(texts: Texts, narrow: float, right: float) -> list[Mark]:
    """One fact a row, as large as they fit; beside a portrait they end at `narrow`."""
    for row, size in _SIZES:
        marks, end = _facts_of_size(texts, narrow, right, row, size)
        if end <= HEIGHT - 42 - _SYMBOL:
            return marks
    raise CardError("the permit's texts do not fit the certificate")


def _facts_of_size(
    texts: Texts, narrow: float, right: float, row: float, size: float
) -> tuple[list[Mark], float]:
    """The marks, and where they end."""
    facts = [
        ("姓名", "Name", texts.name),
        ("拼音", "Pinyin", texts.latin_name),
        ("性别", "Sex", texts.sex),
        ("民族", "Ethnicity", texts.ethnicity),
        ("出生日期", "Date of birth", texts.born),
        ("公民身份号码", "Citizen ID number", texts.citizen_id),
        *texts.addresses,
        ("有效期限", "Valid", texts.validity),
        ("证件编号", "Number", texts.number),
    ]
    marks: list[Mark] = []
    x, y = _MARGIN + 34, _TOP
    for chinese, english, value in facts:
        if not value:
            continue
        end = narrow if y < _TOP + 42 else right
        marks += [
            Label(_MARGIN, y + 4.4, 3.6, chinese, MUTED),
            Label(_MARGIN, y + 8.2, 2.5, english, MUTED),
        ]
        if chinese == "姓名":
            large = fit(value, end - x, 1.5 * size, 1.6)
            marks.append(Label(x, y + 6.2, large, value, INK))
        else:
            lines = wrap(value, (end - x) / size)
            for number, line in enumerate(lines):
                marks.append(Label(x, y + 5.2 + 1.35 * size * number, size, line, INK))
            y += 1.35 * size * (len(lines) - 1)
        y += row
    return marks, y
