"""Makes the three card fonts beside this file; `README.md` says from what.

    python -m issuance.fonts.make_fonts NotoSansSC-Regular.ttf NotoSansSC-Bold.ttf \
        DroidSansFallbackFull.ttf

Needs fonttools (extra `service`). The fonts are renamed, so that nobody takes them for the whole.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fontTools import subset
from fontTools.ttLib import TTFont

_HERE: Final = Path(__file__).parent
# With the tone marks of pinyin.
_LATIN: Final = {*range(0x20, 0x7F), *range(0xA0, 0x180), *range(0x1CD, 0x1DD)}
_PUNCTUATION: Final = {
    ord(c)
    for c in "·•–—‐‘’“”…、。〇〈〉《》「」『』【】〓〔〕（）！，．：；？％＃＆－／～　№"
    "①②③④⑤⑥⑦⑧⑨⑩ⅠⅡⅢⅣⅤ"
}
# What cards print in bold; a title with another character is regular throughout.
_BOLD: Final = {ord(c) for c in "暂住证居民临时留登记安示例市公局。、：·（）0123456789"} | _LATIN


def _gb2312() -> set[int]:
    """The 6,763 characters of GB 2312-80, which nearly every name is made of."""
    characters = set()
    for row in range(0xB0, 0xF8):
        for cell in range(0xA1, 0xFF):
            try:
                characters.add(ord(bytes([row, cell]).decode("gb2312")))
            except UnicodeDecodeError:
                continue
    return characters


def _make(source: str, name: str, wanted: Callable[[set[int]], set[int]]) -> set[int]:
    font = TTFont(source)
    available = set(font.getBestCmap())
    options = subset.Options()
    options.hinting = False
    options.layout_features = []
    options.drop_tables += ["GSUB", "GPOS", "GDEF", "BASE", "vhea", "vmtx", "VORG", "STAT", "gasp"]
    options.name_IDs = [0, 13, 14]
    options.notdef_outline = True
    options.glyph_names = False
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=wanted(available))
    subsetter.subset(font)
    for name_id, text in ((1, name), (2, "Regular"), (3, name), (4, name), (6, name)):
        font["name"].setName(text.replace(" ", "-") if name_id == 6 else text, name_id, 3, 1, 0x409)
    # One character map, segmented coverage for all of Unicode, is all that card_fonts.py reads.
    tables = [table for table in font["cmap"].tables if table.format == 12]
    if not tables:
        (table,) = (t for t in font["cmap"].tables if t.format == 4 and t.platformID == 3)
        full = type(table).getSubtableClass(12)(12)
        full.platformID, full.platEncID, full.language = 3, 10, 0
        full.format, full.reserved, full.cmap = 12, 0, dict(table.cmap)
        font["cmap"].tables.append(full)
    font["head"].modified = font["head"].created
    font.recalcTimestamp = False
    font.save(_HERE / f"{name.replace(' ', '-')}.ttf")
    return set(font.getBestCmap())


def main(regular: str, bold: str, fallback: str) -> None:
    common = _gb2312() | _LATIN | _PUNCTUATION
    # The characters beyond the basic plane are those of the table of general standard characters.
    done = _make(
        regular,
        "Anju Card Sans",
        lambda known: (common & known) | {c for c in known if c > 0x1FFFF},
    )
    _make(bold, "Anju Card Sans Bold", lambda known: _BOLD & known)
    han = {*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000)}
    _make(fallback, "Anju Card Sans Rare", lambda known: (han & known) - done)


if __name__ == "__main__":
    main(*sys.argv[1:4])
