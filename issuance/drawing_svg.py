"""The third pen: a page as SVG, with every character as an outline.

No font is needed where it is shown, and none can be substituted; what a text says is in a `<title>`
for screen readers and search. Outlines come from the card's fonts by fontTools (extra `service`).
"""

from __future__ import annotations

import base64
import functools
import io
from typing import Any
from xml.sax.saxutils import escape

from issuance import card_fonts
from issuance.card_fonts import Face
from issuance.drawing import (
    Box,
    Code,
    Color,
    Label,
    Mark,
    Page,
    Picture,
    Polygon,
    Stroke,
    dark_runs,
)
from issuance.errors import CardError


def svg(page: Page) -> bytes:
    """The page as SVG 1.1 in millimetres; equal pages give equal bytes.

    Raises `CardError` if fontTools is not installed.
    """
    glyphs: dict[tuple[Face, str], str] = {}
    body = [_element(mark, glyphs) for mark in (*page.ground, *page.marks)]
    defined = [
        f'<path id="{name}" d="{_outline(face, character)}"/>'
        for (face, character), name in glyphs.items()
    ]
    size = f"{page.width:g}", f"{page.height:g}"
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"',
        f' width="{size[0]}mm" height="{size[1]}mm" viewBox="0 0 {size[0]} {size[1]}">',
        "<defs>",
        *defined,
        "</defs>",
        *body,
        "</svg>",
    ]
    return "\n".join(lines).encode()


def _element(mark: Mark, glyphs: dict[tuple[Face, str], str]) -> str:
    match mark:
        case Box(x, y, width, height, color, radius):
            place = f'x="{x:.4g}" y="{y:.4g}" width="{width:.4g}" height="{height:.4g}"'
            return f'<rect {place} rx="{radius:.4g}" fill="{_hex(color)}"/>'
        case Polygon(points, color):
            return f'<polygon points="{_points(points)}" fill="{_hex(color)}"/>'
        case Stroke(points, color, width):
            style = f'fill="none" stroke="{_hex(color)}" stroke-width="{width:.4g}"'
            return f'<polyline points="{_points(points)}" {style}/>'
        case Label():
            return _label(mark, glyphs)
        case Picture(x, y, width, height):
            png = io.BytesIO()
            mark.image().save(png, "PNG")
            place = f'x="{x:.4g}" y="{y:.4g}" width="{width:.4g}" height="{height:.4g}"'
            data = base64.b64encode(png.getvalue()).decode()
            return f'<image {place} xlink:href="data:image/png;base64,{data}"/>'
        case Code(x, y, side, symbol, color):
            runs = "".join(f"M{c} {r}h{n}v1h-{n}z" for c, r, n in dark_runs(symbol))
            scale = side / symbol.size
            move = f"translate({x:.6g} {y:.6g}) scale({scale:.8g})"
            style = f'fill="{_hex(color)}" shape-rendering="crispEdges"'
            return f'<path id="symbol" transform="{move}" {style} d="{runs}"/>'


def _label(label: Label, glyphs: dict[tuple[Face, str], str]) -> str:
    uses, x = [], 0.0
    for face, piece in card_fonts.runs(label.text, bold=label.bold):
        for character in piece:
            name = glyphs.setdefault((face, character), f"g{len(glyphs)}")
            uses.append(f'<use xlink:href="#{name}" x="{x:.5g}"/>')
            # In units of the font: the group below scales.
            x += (card_fonts.advance(face, character) + label.spacing / label.size) * 1000
    scale = label.size / 1000
    move = f"translate({label.x:.6g} {label.y:.6g}) scale({scale:.6g})"
    title = f"<title>{escape(label.text)}</title>"
    return f'<g transform="{move}" fill="{_hex(label.color)}">{title}{"".join(uses)}</g>'


@functools.lru_cache(maxsize=4_096)
def _outline(face: Face, character: str) -> str:
    """The glyph in thousandths of the font size, y downwards."""
    try:
        from fontTools.pens.svgPathPen import SVGPathPen
        from fontTools.pens.transformPen import TransformPen
    except ImportError as error:
        raise CardError("SVG cards need fontTools: install anju[service]") from error
    font = _font(face)
    scale = 1000 / font["head"].unitsPerEm
    glyphs = font.getGlyphSet()
    pen = SVGPathPen(glyphs, ntos=lambda number: f"{number:.4g}")
    glyphs[font.getBestCmap()[ord(character)]].draw(TransformPen(pen, (scale, 0, 0, -scale, 0, 0)))
    return str(pen.getCommands())


@functools.lru_cache(maxsize=3)
def _font(face: Face) -> Any:
    from fontTools.ttLib import TTFont

    return TTFont(card_fonts.path(face), lazy=True)


def _hex(color: Color) -> str:
    return f"#{color.red:02x}{color.green:02x}{color.blue:02x}"


def _points(points: tuple[tuple[float, float], ...]) -> str:
    return " ".join(f"{x:.5g},{y:.5g}" for x, y in points)
