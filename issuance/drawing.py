"""A drawing in millimetres, and two pens for it: Pillow for pictures, reportlab for PDF.

A card is laid out once, as a list of marks. Both pens read the same list, so the PDF that is
printed and the picture that is read back cannot differ in anything but resolution. The origin is
the upper left corner, y grows downwards, and text stands on its baseline.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image, ImageDraw

from issuance import card_fonts
from issuance.errors import CardError
from issuance.qr import Symbol

MM_PER_INCH: Final = 25.4
_POINTS_PER_MM: Final = 72 / MM_PER_INCH
# Below this resolution everything is drawn twice as large and reduced, which smooths edges that
# would show as steps.
_SMOOTH_BELOW_DPI: Final = 500


@dataclass(frozen=True, slots=True)
class Color:
    """Red, green, blue, 0 to 255."""

    red: int
    green: int
    blue: int

    def rgb(self) -> tuple[int, int, int]:
        return self.red, self.green, self.blue


@dataclass(frozen=True, slots=True)
class Box:
    """A filled rectangle, in mm; `radius` rounds its corners."""

    x: float
    y: float
    width: float
    height: float
    color: Color
    radius: float = 0.0


@dataclass(frozen=True, slots=True)
class Polygon:
    points: tuple[tuple[float, float], ...]
    color: Color


@dataclass(frozen=True, slots=True)
class Stroke:
    """An open line through points, in mm."""

    points: tuple[tuple[float, float], ...]
    color: Color
    width: float


@dataclass(frozen=True, slots=True)
class Label:
    """Text from `x` on the baseline `y`; `spacing` mm are added after each character."""

    x: float
    y: float
    size: float
    text: str
    color: Color
    bold: bool = False
    spacing: float = 0.0


@dataclass(frozen=True, slots=True)
class Code:
    """A QR symbol without quiet zone, filling a square."""

    x: float
    y: float
    side: float
    symbol: Symbol
    color: Color


Mark = Box | Polygon | Stroke | Label | Code


@dataclass(frozen=True, slots=True)
class Page:
    """One side of a card, in mm."""

    width: float
    height: float
    marks: tuple[Mark, ...]


def raster(page: Page, dpi: int) -> Image.Image:
    """The page as RGB picture."""
    scale = dpi / MM_PER_INCH
    size = round(page.width * scale), round(page.height * scale)
    factor = 2 if dpi < _SMOOTH_BELOW_DPI else 1
    image = Image.new("RGB", (size[0] * factor, size[1] * factor), "white")
    pen = ImageDraw.Draw(image)
    for mark in page.marks:
        if not isinstance(mark, Code):
            _raster_mark(pen, mark, scale * factor)
    image = image.reduce(factor) if factor > 1 else image
    # Symbols last and at the final resolution: every module keeps sharp edges.
    for mark in page.marks:
        if isinstance(mark, Code):
            _raster_code(image, mark, scale)
    return image


def _raster_mark(pen: ImageDraw.ImageDraw, mark: Box | Polygon | Stroke | Label, k: float) -> None:
    match mark:
        case Box(x, y, width, height, color, radius):
            corners = (x * k, y * k, (x + width) * k - 1, (y + height) * k - 1)
            pen.rounded_rectangle(corners, radius * k, fill=color.rgb())
        case Polygon(points, color):
            pen.polygon([(x * k, y * k) for x, y in points], fill=color.rgb())
        case Stroke(points, color, width):
            line = [(x * k, y * k) for x, y in points]
            pen.line(line, fill=color.rgb(), width=max(1, round(width * k)), joint="curve")
        case Label():
            _raster_label(pen, mark, k)


def _raster_label(pen: ImageDraw.ImageDraw, label: Label, k: float) -> None:
    x = label.x * k
    for face, piece in card_fonts.runs(label.text, bold=label.bold):
        font = card_fonts.sized(face, label.size * k)
        parts = piece if label.spacing else [piece]
        for part in parts:
            pen.text((x, label.y * k), part, fill=label.color.rgb(), font=font, anchor="ls")
            x += font.getlength(part) + label.spacing * k


def _raster_code(image: Image.Image, code: Code, scale: float) -> None:
    # The whole square is used, so some modules are a pixel larger than others. Equal modules would
    # be up to a quarter smaller at 300 dpi, and size is what readers need most.
    side = round(code.side * scale)
    if side < code.symbol.size:
        raise CardError("the symbol has more modules than there are pixels for it")
    mask = Image.frombytes(
        "L", (code.symbol.size,) * 2, code.symbol.dark.translate(bytes([0, 255]) + bytes(254))
    ).resize((side, side), Image.Resampling.NEAREST)
    image.paste(code.color.rgb(), (round(code.x * scale), round(code.y * scale)), mask)


def pdf(pages: Sequence[Page], *, title: str, author: str) -> bytes:
    """The pages as PDF with embedded fonts; equal pages give equal bytes.

    Raises `CardError` if reportlab is not installed (extra `service`).
    """
    try:
        from reportlab.pdfbase import pdfmetrics
        from reportlab.pdfbase.ttfonts import TTFont
        from reportlab.pdfgen.canvas import Canvas
    except ImportError as error:
        raise CardError("PDF cards need reportlab: install anju[service]") from error
    for face in card_fonts.Face:
        if face.value not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(TTFont(face.value, card_fonts.path(face)))
    buffer = io.BytesIO()
    canvas = Canvas(buffer, invariant=True, pageCompression=1, lang="zh-CN")
    canvas.setTitle(title)
    canvas.setAuthor(author)
    for page in pages:
        canvas.setPageSize((page.width * _POINTS_PER_MM, page.height * _POINTS_PER_MM))
        canvas.scale(_POINTS_PER_MM, _POINTS_PER_MM)
        for mark in page.marks:
            _pdf_mark(canvas, mark, page.height)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _pdf_mark(canvas: Any, mark: Mark, height: float) -> None:
    """Draw one mark; reportlab's y grows upwards from the lower edge."""
    canvas.setFillColorRGB(*(part / 255 for part in mark.color.rgb()))
    match mark:
        case Box(x, y, width, box_height, _, radius):
            bottom = height - y - box_height
            if radius:
                canvas.roundRect(x, bottom, width, box_height, radius, stroke=0, fill=1)
            else:
                canvas.rect(x, bottom, width, box_height, stroke=0, fill=1)
        case Polygon(points, _):
            path = canvas.beginPath()
            path.moveTo(points[0][0], height - points[0][1])
            for x, y in points[1:]:
                path.lineTo(x, height - y)
            path.close()
            canvas.drawPath(path, stroke=0, fill=1)
        case Stroke(points, color, width):
            canvas.setStrokeColorRGB(*(part / 255 for part in color.rgb()))
            canvas.setLineWidth(width)
            path = canvas.beginPath()
            path.moveTo(points[0][0], height - points[0][1])
            for x, y in points[1:]:
                path.lineTo(x, height - y)
            canvas.drawPath(path, stroke=1, fill=0)
        case Label():
            _pdf_label(canvas, mark, height)
        case Code():
            _pdf_code(canvas, mark, height)


def _pdf_label(canvas: Any, label: Label, height: float) -> None:
    text = canvas.beginText(label.x, height - label.y)
    text.setCharSpace(label.spacing)
    for face, piece in card_fonts.runs(label.text, bold=label.bold):
        text.setFont(face.value, label.size)
        text.textOut(piece)
    canvas.drawText(text)


def _pdf_code(canvas: Any, code: Code, height: float) -> None:
    """All dark runs as one path: painted at once, no hairlines show between the modules."""
    module = code.side / code.symbol.size
    path = canvas.beginPath()
    for row, cells in enumerate(code.symbol.rows()):
        column = 0
        while column < len(cells):
            length = 1
            while column + length < len(cells) and cells[column + length] == cells[column]:
                length += 1
            if cells[column]:
                x, y = code.x + column * module, height - code.y - (row + 1) * module
                path.rect(x, y, length * module, module)
            column += length
    canvas.drawPath(path, stroke=0, fill=1)
