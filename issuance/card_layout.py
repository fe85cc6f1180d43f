"""Where everything stands on a permit card: ID-1 (ISO/IEC 7810), 85.60 x 53.98 mm, two sides.

The card shows what the symbol holds and nothing else: the layout is made from the permit that was
read out of the symbol's own text. The symbol is 31 mm wide, quiet zone included, if its modules are
then at least `MIN_MODULE_MM` (3.5 pixels at 300 dpi, measured on degraded prints); a denser one
moves to the back and gets 38 mm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from issuance import card_fonts, permit_number
from issuance.drawing import MM_PER_INCH, Box, Code, Color, Label, Mark, Page, Polygon, Stroke
from issuance.errors import CardError
from issuance.profile import Profile
from issuance.qr import QUIET_ZONE, Symbol
from issuance.types import Gender, Permit

WIDTH, HEIGHT = 85.60, 53.98
MIN_MODULE_MM: Final = 3.5 * MM_PER_INCH / 300

_INK = Color(23, 32, 38)
_MUTED = Color(100, 116, 125)
_DEEP = Color(13, 82, 87)
_PALE = Color(222, 236, 235)
_WAVE = Color(226, 238, 237)
_GOLD = Color(196, 146, 61)
_WHITE = Color(255, 255, 255)
_PAPER = Color(250, 252, 251)

_MARGIN: Final = 4.6
_HEADER: Final = 11.2
_FRONT_SYMBOL: Final = 31.0
_BACK_SYMBOL: Final = 38.0
_GENDERS: Final = {Gender.MALE: "男", Gender.FEMALE: "女", Gender.OTHER: "其他"}


@dataclass(frozen=True, slots=True)
class _Texts:
    """The permit in printable words."""

    title_zh: str
    title_en: str
    name: str
    latin_name: str | None
    sex: str
    born: str
    ethnicity: str | None
    addresses: tuple[tuple[str, str, str], ...]
    citizen_id: str | None
    validity: str
    authority: str
    number: str
    issued: str


def pages(permit: Permit, symbol: Symbol, rules: Profile, kid: str, *, replace: bool) -> list[Page]:
    """Front and back of the card.

    Args:
        replace: print 〓 for characters that no font has, instead of raising.

    Raises:
        UnprintableCharacterError: a name or address has such characters.
        CardError: the symbol or an address is too large for the card.
    """
    texts = _texts(permit, rules, replace=replace)
    fits_front = _module_mm(symbol, _FRONT_SYMBOL) >= MIN_MODULE_MM
    if not fits_front and _module_mm(symbol, _BACK_SYMBOL) < MIN_MODULE_MM:
        raise CardError(f"a version {symbol.version} symbol is too dense for a card")
    try:
        fields = _front_fields(texts, fits_front)
    except CardError:
        # Long texts need the whole front; the symbol then moves to the back.
        fields, fits_front = _front_fields(texts, False), False
    front = [*_ground(), *_header(texts), *fields]
    back = [*_ground(), *_back_head(texts, kid)]
    if fits_front:
        front += _code(symbol, WIDTH - _MARGIN - _FRONT_SYMBOL - 0.6, 12.95, _FRONT_SYMBOL)
        back += _notes(_MARGIN, WIDTH - 2 * _MARGIN, "正面")
    else:
        x = WIDTH - _MARGIN - _BACK_SYMBOL - 0.6
        back += _code(symbol, x, 9.7, _BACK_SYMBOL)
        back += _notes(_MARGIN, x - _MARGIN - 2.5, "右侧")
    return [Page(WIDTH, HEIGHT, tuple(front)), Page(WIDTH, HEIGHT, tuple(back))]


def _module_mm(symbol: Symbol, side: float) -> float:
    return side / (symbol.size + 2 * QUIET_ZONE)


def _texts(permit: Permit, rules: Profile, *, replace: bool) -> _Texts:
    def clean(text: str) -> str:
        return card_fonts.printable(text, replace=replace)

    kind, holder, zone = rules.kind(permit.kind), permit.holder, rules.time_zone
    first = permit.not_before.astimezone(zone)
    last = (permit.expires_at - timedelta(seconds=1)).astimezone(zone)
    addresses = [
        (zh, en, clean(value))
        for zh, en, value in (
            ("现住址", "Residence", holder.residence_address),
            ("户籍地址", "Household", holder.household_address),
        )
        if value
    ]
    return _Texts(
        title_zh=clean(kind.title_zh),
        title_en=clean(kind.title_en),
        name=clean(holder.full_name),
        latin_name=clean(holder.latin_name) if holder.latin_name else None,
        sex=_GENDERS[holder.gender],
        born=f"{holder.birth_date:%Y.%m.%d}",
        ethnicity=clean(holder.ethnicity) if holder.ethnicity else None,
        addresses=tuple(addresses),
        citizen_id=holder.citizen_id,
        validity=f"{first:%Y.%m.%d} — {last:%Y.%m.%d}",
        authority=clean(permit.authority),
        number=permit_number.display(permit.number),
        issued=f"{permit.issued_at.astimezone(zone):%Y.%m.%d}",
    )


def _ground() -> list[Mark]:
    """Paper and a quiet pattern of waves."""
    marks: list[Mark] = [Box(0, 0, WIDTH, HEIGHT, _PAPER)]
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
        marks.append(Stroke(points, _WAVE, 0.12))
    return marks


def _house(x: float, y: float, size: float, color: Color, hole: Color) -> list[Mark]:
    """A roof over a door: the character 安 has a roof, and so has the service's mark."""
    roof = ((x, y + 0.5 * size), (x + size / 2, y), (x + size, y + 0.5 * size))
    eaves = ((x + 0.86 * size, y + 0.62 * size), (x + size / 2, y + 0.26 * size))
    outline = (*roof, *eaves, (x + 0.14 * size, y + 0.62 * size))
    return [
        Polygon(outline, color),
        Box(x + 0.2 * size, y + 0.64 * size, 0.6 * size, 0.36 * size, color, 0.06 * size),
        Box(x + 0.41 * size, y + 0.74 * size, 0.18 * size, 0.26 * size, hole),
    ]


def _header(texts: _Texts) -> list[Mark]:
    size = 5.6
    spacing = 1.1
    title_x = _MARGIN + 8.2
    marks: list[Mark] = [
        Box(0, 0, WIDTH, _HEADER, _DEEP),
        Box(0, _HEADER, WIDTH, 0.55, _GOLD),
        *_house(_MARGIN, 2.7, 6.0, _WHITE, _DEEP),
        Label(title_x, 7.9, size, texts.title_zh, _WHITE, bold=True, spacing=spacing),
    ]
    english = texts.title_en.upper()
    right = WIDTH - _MARGIN
    marks.append(_right(right, 5.3, 2.1, texts.authority, _WHITE))
    marks.append(_right(right, 8.4, 1.75, english, _PALE, spacing=0.12))
    return marks


def _front_fields(texts: _Texts, beside_symbol: bool) -> list[Mark]:
    right = WIDTH - _MARGIN - (_FRONT_SYMBOL + 3.0 if beside_symbol else 0)
    top, y = 15.2, 15.2
    marks = _name(texts, y, (right if beside_symbol else _MARGIN + 34) - _MARGIN)
    facts = [("性别", "Sex", texts.sex, 10.0)]
    if texts.ethnicity:
        facts.append(("民族", "Ethnicity", texts.ethnicity, 13.0))
    facts.append(("出生日期", "Born", texts.born, 0.0))
    # Without a symbol beside it the name leaves room for the facts on its own line.
    x, y = (_MARGIN, y + 9.6) if beside_symbol else (_MARGIN + 36, y + 1.5)
    for zh, en, value, advance in facts:
        marks += _caption(x, y, zh, en)
        marks.append(Label(x, y + 3.7, 2.9, value, _INK))
        x += advance
    y = y + 7.4 if beside_symbol else top + 9.6
    if texts.citizen_id:
        marks += _caption(_MARGIN, y, "公民身份号码", "Citizen ID")
        marks.append(Label(_MARGIN, y + 3.7, 2.9, texts.citizen_id, _INK))
        y += 7.0
    marks += _addresses(texts, _MARGIN, y, right - _MARGIN, 43.6 - y)
    return marks + _front_foot(texts, beside_symbol)


def _name(texts: _Texts, y: float, width: float) -> list[Mark]:
    size = _fit(texts.name, width, 4.6, 2.2)
    marks = [
        *_caption(_MARGIN, y, "姓名", "Name"),
        Label(_MARGIN, y + 5.2, size, texts.name, _INK),
    ]
    if texts.latin_name:
        # Above the name, after its caption: there it has room whatever the name's length.
        size = _fit(texts.latin_name, width - 9.5, 1.9, 0.9)
        marks.append(Label(_MARGIN + 9.5, y, size, texts.latin_name, _INK))
    return marks


def _addresses(texts: _Texts, x: float, y: float, width: float, height: float) -> list[Mark]:
    """All addresses below `y` at the largest common size that leaves them within `height`."""
    size = 2.75
    while size >= 1.9:
        wrapped = [_wrap(value, width / size) for _, _, value in texts.addresses]
        if sum(3.0 + size * 1.28 * len(lines) for lines in wrapped) - 1.6 <= height:
            break
        size -= 0.05
    else:
        length = sum(len(value) for _, _, value in texts.addresses)
        raise CardError(f"addresses of {length} characters do not fit the card")
    marks: list[Mark] = []
    for (zh, en, _), lines in zip(texts.addresses, wrapped, strict=True):
        marks += _caption(x, y, zh, en)
        y += 0.75
        for line in lines:
            y += size * 1.28
            marks.append(Label(x, y - size * 0.28, size, line, _INK))
        y += 3.0 - 0.75
    return marks


def _front_foot(texts: _Texts, on_front: bool) -> list[Mark]:
    y = 46.6
    middle = WIDTH - _MARGIN - _FRONT_SYMBOL - 1.0
    marks: list[Mark] = [
        Stroke(
            ((_MARGIN, 44.4), (middle - 2.4 if on_front else WIDTH - _MARGIN, 44.4)), _GOLD, 0.18
        )
    ]
    marks += _caption(_MARGIN, y, "有效期限", "Valid")
    marks.append(Label(_MARGIN, y + 3.7, 2.9, texts.validity, _INK))
    marks += _caption(middle, y, "证件编号", "No.")
    marks.append(Label(middle, y + 3.7, 2.9, texts.number, _INK, bold=True))
    return marks


def _back_head(texts: _Texts, kid: str) -> list[Mark]:
    right = WIDTH - _MARGIN
    return [
        Box(0, 0, WIDTH, 7.4, _DEEP),
        Box(0, 7.4, WIDTH, 0.4, _GOLD),
        *_house(_MARGIN, 1.9, 3.8, _WHITE, _DEEP),
        Label(_MARGIN + 5.4, 5.0, 2.7, "使用说明", _WHITE, spacing=0.2),
        _right(right, 4.9, 2.3, texts.number, _WHITE),
        Label(_MARGIN, 51.4, 1.8, f"签发日期 {texts.issued}", _MUTED),
        _right(right, 51.4, 1.6, f"key {kid}", _MUTED),
    ]


_NOTES: Final = (
    (
        "扫描{where}二维码，不联网即可核验真伪、有效期和证件状态。",
        "Scan the symbol to verify this permit, even offline.",
    ),
    (
        "核验部门只显示办理事项所需的信息，不留存核验记录。",
        "A checker is shown only what the service needs; nothing is recorded.",
    ),
    (
        "到期前可在任一登记服务站续办；遗失请尽快挂失补办。",
        "Renew before expiry, or report a loss, at any registration station.",
    ),
    (
        "信息有误，或对暂停、注销有异议，可申请更正或申诉。",
        "You may ask for correction, and appeal a suspension or revocation.",
    ),
)


def _notes(x: float, width: float, where: str) -> list[Mark]:
    marks: list[Mark] = []
    narrow = width < 50
    size, small = (1.95, 1.35) if narrow else (2.6, 1.85)
    y = 10.6 if narrow else 12.2
    for number, (chinese, english) in enumerate(_NOTES, start=1):
        marks.append(Box(x, y - 0.1, 3.0, 3.0, _DEEP, 1.5))
        digit = card_fonts.width(str(number), bold=True) * 2.0
        marks.append(Label(x + 1.5 - digit / 2, y + 2.12, 2.0, str(number), _WHITE, bold=True))
        for text, points, color in (
            (chinese.format(where=where), size, _INK),
            (english, small, _MUTED),
        ):
            for line in _wrap(text, (width - 4.4) / points):
                marks.append(Label(x + 4.4, y + points * 0.88, points, line, color))
                y += points * 1.32
        y += 0.75 if narrow else 2.4
    return marks


def _code(symbol: Symbol, x: float, y: float, side: float) -> list[Mark]:
    """The symbol on white, its quiet zone included in `side`."""
    quiet = _module_mm(symbol, side) * QUIET_ZONE
    return [
        Box(x - 0.6, y - 0.6, side + 1.2, side + 1.2, _PALE, 1.6),
        Box(x - 0.35, y - 0.35, side + 0.7, side + 0.7, _WHITE, 1.4),
        Code(x + quiet, y + quiet, side - 2 * quiet, symbol, Color(0, 0, 0)),
    ]


def _caption(x: float, y: float, chinese: str, english: str) -> list[Mark]:
    size = 1.75
    after = x + card_fonts.width(chinese) * size + 0.7
    return [Label(x, y, size, chinese, _MUTED), Label(after, y, 1.5, english, _MUTED)]


def _right(
    right: float, y: float, size: float, text: str, color: Color, spacing: float = 0.0
) -> Label:
    size = _fit(text, 44.0 - spacing * len(text), size, 0.8)
    x = right - card_fonts.width(text) * size - spacing * (len(text) - 1)
    return Label(x, y, size, text, color, spacing=spacing)


def _fit(text: str, width: float, size: float, smallest: float) -> float:
    """The largest size up to `size` at which `text` is at most `width` mm wide."""
    fitted = min(size, width / max(card_fonts.width(text), 0.01))
    if fitted < smallest:
        raise CardError(f"a text of {len(text)} characters does not fit the card")
    return fitted


def _wrap(text: str, width: float) -> list[str]:
    """Lines no wider than `width` at size 1. Breaks between Han characters, and at spaces.

    A line does not begin with closing punctuation (GB/T 15834), which hangs over by a character.
    """
    lines, line, used = [], "", 0.0
    for word in _words(text):
        wide = card_fonts.width(word)
        if line and used + wide > width and not word.isspace() and word not in _NO_BREAK:
            lines.append(line.rstrip())
            line, used = "", 0.0
        if line or not word.isspace():
            line += word
            used += wide
    return [*lines, line.rstrip()]


_NO_BREAK: Final = frozenset("，。、；：？！）》」』】")


def _words(text: str) -> list[str]:
    """Pieces between which a line may break: Han characters one by one, Latin words whole."""
    words: list[str] = []
    for character in text:
        joins = character.isascii() and not character.isspace()
        if words and joins and words[-1][-1].isascii() and not words[-1].isspace():
            words[-1] += character
        else:
            words.append(character)
    return words
