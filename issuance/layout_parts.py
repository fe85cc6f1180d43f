"""What cards and certificates are laid out with: the permit in words, colours, lines of text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from issuance import card_fonts, permit_number
from issuance.drawing import MM_PER_INCH, Box, Code, Color, Label, Mark, Polygon
from issuance.errors import CardError
from issuance.messages import GENDERS
from issuance.profile import Profile
from issuance.qr import QUIET_ZONE, Symbol
from issuance.types import Permit

# 3.5 pixels at 300 dpi, measured on degraded prints.
MIN_MODULE_MM: Final = 3.5 * MM_PER_INCH / 300

INK = Color(23, 32, 38)
MUTED = Color(100, 116, 125)
DEEP = Color(13, 82, 87)
PALE = Color(222, 236, 235)
WAVE = Color(226, 238, 237)
GOLD = Color(196, 146, 61)
WHITE = Color(255, 255, 255)
PAPER = Color(250, 252, 251)


@dataclass(frozen=True, slots=True)
class Texts:
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


def texts_of(permit: Permit, rules: Profile, *, replace: bool) -> Texts:
    """The permit in words that the card fonts have; see `pages` for `replace` and errors."""

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
    return Texts(
        title_zh=clean(kind.title_zh),
        title_en=clean(kind.title_en),
        name=clean(holder.full_name),
        latin_name=clean(holder.latin_name) if holder.latin_name else None,
        sex=GENDERS[holder.gender],
        born=f"{holder.birth_date:%Y.%m.%d}",
        ethnicity=clean(holder.ethnicity) if holder.ethnicity else None,
        addresses=tuple(addresses),
        citizen_id=holder.citizen_id,
        validity=f"{first:%Y.%m.%d} — {last:%Y.%m.%d}",
        authority=clean(permit.authority),
        number=permit_number.display(permit.number),
        issued=f"{permit.issued_at.astimezone(zone):%Y.%m.%d}",
    )


def module_mm(symbol: Symbol, side: float) -> float:
    return side / (symbol.size + 2 * QUIET_ZONE)


def house(x: float, y: float, size: float, color: Color, hole: Color) -> list[Mark]:
    """A roof over a door: the character 安 has a roof, and so has the service's mark."""
    roof = ((x, y + 0.5 * size), (x + size / 2, y), (x + size, y + 0.5 * size))
    eaves = ((x + 0.86 * size, y + 0.62 * size), (x + size / 2, y + 0.26 * size))
    outline = (*roof, *eaves, (x + 0.14 * size, y + 0.62 * size))
    return [
        Polygon(outline, color),
        Box(x + 0.2 * size, y + 0.64 * size, 0.6 * size, 0.36 * size, color, 0.06 * size),
        Box(x + 0.41 * size, y + 0.74 * size, 0.18 * size, 0.26 * size, hole),
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


def notes(
    x: float, y: float, width: float, *, where: str, size: float, disc: float, gap: float
) -> list[Mark]:
    """What holders should know, numbered, from `y` down.

    Args:
        where: of the symbol, e.g. "正面".
        size: of the Chinese, in mm; the English is smaller.
        disc: diameter of those with the numbers.
        gap: between one note and the next.
    """
    marks: list[Mark] = []
    left = x + 1.47 * disc
    for number, (chinese, english) in enumerate(_NOTES, start=1):
        digit = 0.66 * disc
        digit_x = x + (disc - card_fonts.width(str(number), bold=True) * digit) / 2
        marks += [
            Box(x, y - 0.04 * disc, disc, disc, DEEP, disc / 2),
            Label(digit_x, y + 0.7 * disc, digit, str(number), WHITE, bold=True),
        ]
        for text, points, color in (
            (chinese.format(where=where), size, INK),
            (english, 0.7 * size, MUTED),
        ):
            for line in wrap(text, (x + width - left) / points):
                marks.append(Label(left, y + 0.88 * points, points, line, color))
                y += 1.32 * points
        y += gap
    return marks


def code_marks(symbol: Symbol, x: float, y: float, side: float) -> list[Mark]:
    """The symbol on white, its quiet zone included in `side`."""
    quiet = module_mm(symbol, side) * QUIET_ZONE
    return [
        Box(x - 0.6, y - 0.6, side + 1.2, side + 1.2, PALE, 1.6),
        Box(x - 0.35, y - 0.35, side + 0.7, side + 0.7, WHITE, 1.4),
        Code(x + quiet, y + quiet, side - 2 * quiet, symbol, Color(0, 0, 0)),
    ]


def caption(x: float, y: float, chinese: str, english: str) -> list[Mark]:
    size = 1.75
    after = x + card_fonts.width(chinese) * size + 0.7
    return [Label(x, y, size, chinese, MUTED), Label(after, y, 1.5, english, MUTED)]


def right_aligned(
    right: float,
    y: float,
    size: float,
    text: str,
    color: Color,
    spacing: float = 0.0,
    width: float = 44.0,
) -> Label:
    """The text ending at `right`, smaller than `size` where it would be wider than `width` mm."""
    size = fit(text, width - spacing * len(text), size, 0.8)
    x = right - card_fonts.width(text) * size - spacing * (len(text) - 1)
    return Label(x, y, size, text, color, spacing=spacing)


def fit(text: str, width: float, size: float, smallest: float) -> float:
    """The largest size up to `size` at which `text` is at most `width` mm wide."""
    fitted = min(size, width / max(card_fonts.width(text), 0.01))
    if fitted < smallest:
        raise CardError(f"a text of {len(text)} characters does not fit the card")
    return fitted


def wrap(text: str, width: float) -> list[str]:
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
