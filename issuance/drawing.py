"""A drawing in millimetres, and two pens for it: Pillow for pictures, reportlab for PDF.

A card is laid out once, as a list of marks. All pens (`drawing_svg` is the third) read the same
list, so the PDF that is printed and the picture that is read back cannot differ in anything but
resolution. The origin is the upper left corner, y grows downwards, and text stands on its baseline.

What all cards of a kind share is a page's `ground`: drawn once, kept, and put under every card.
"""

from __future__ import annotations

import functools
import io
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
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
_DARK_RUN: Final = re.compile(rb"\x01+")


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


@dataclass(frozen=True, slots=True)
class Picture:
    """A grey picture, filling a rectangle.

    Attributes:
        pixels: rows from the top, a byte each; columns * rows of them.
    """

    x: float
    y: float
    width: float
    height: float
    columns: int
    rows: int
    pixels: bytes

    def image(self) -> Image.Image:
        return Image.frombytes("L", (self.columns, self.rows), self.pixels)


Mark = Box | Polygon | Stroke | Label | Code | Picture


@dataclass(frozen=True, slots=True)
class Page:
    """One side of a card, in mm.

    Attributes:
        ground: marks below, the same on many pages; nothing personal.
        marks: above them.
    """

    width: float
    height: float
    ground: tuple[Mark, ...]
    marks: tuple[Mark, ...]

    def codes(self) -> list[Code]:
        return [mark for mark in self.marks if isinstance(mark, Code)]


def moved(mark: Mark, right: float, down: float) -> Mark:
    """The mark elsewhere, by so many mm."""
    if isinstance(mark, Polygon | Stroke):
        return replace(mark, points=tuple((x + right, y + down) for x, y in mark.points))
    return replace(mark, x=mark.x + right, y=mark.y + down)


def raster(page: Page, dpi: int) -> Image.Image:
    """The page as RGB picture."""
    scale = dpi / MM_PER_INCH
    factor = 2 if dpi < _SMOOTH_BELOW_DPI else 1
    image = _raster_ground(page.ground, page.width, page.height, dpi * factor).copy()
    pen = ImageDraw.Draw(image)
    for mark in page.marks:
        if not isinstance(mark, Code):
            _raster_mark(pen, mark, scale * factor)
    if factor > 1:
        width, height = _size(page.width, page.height, dpi)
        image = image.reduce(factor).crop((0, 0, width, height))
    # Symbols last and at the final resolution: every module keeps sharp edges.
    for code in page.codes():
        _raster_code(image, code, scale)
    return image


def raster_around(page: Page, code: Code, dpi: int, margin: float) -> Image.Image:
    """What a reader sees of a symbol: it, and whatever is drawn within `margin` mm of it.

    Much faster than `raster`, because texts elsewhere are left out.
    """
    scale = dpi / MM_PER_INCH
    # On whole pixels, so that modules fall where they do on the whole page.
    x0, y0 = round((code.x - margin) * scale), round((code.y - margin) * scale)
    side = round((code.side + 2 * margin) * scale)
    ground = _raster_ground(page.ground, page.width, page.height, dpi)
    image = ground.crop((x0, y0, x0 + side, y0 + side))
    pen = ImageDraw.Draw(image)
    for mark in page.marks:
        if isinstance(mark, Code):
            continue
        left, top, right, bottom = (edge * scale for edge in _bounds(mark))
        if left < x0 + side and right > x0 and top < y0 + side and bottom > y0:
            _raster_mark(pen, moved(mark, -x0 / scale, -y0 / scale), scale)
    _raster_code(image, replace(code, x=code.x - x0 / scale, y=code.y - y0 / scale), scale)
    return image


def _size(width: float, height: float, dpi: int) -> tuple[int, int]:
    return round(width * dpi / MM_PER_INCH), round(height * dpi / MM_PER_INCH)


@functools.lru_cache(maxsize=8)
def _raster_ground(ground: tuple[Mark, ...], width: float, height: float, dpi: int) -> Image.Image:
    image = Image.new("RGB", _size(width, height, dpi), "white")
    pen = ImageDraw.Draw(image)
    for mark in ground:
        _raster_mark(pen, mark, dpi / MM_PER_INCH)
    return image


def _bounds(mark: Mark) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a mark; of a text generously."""
    match mark:
        case Box(x, y, width, height) | Picture(x, y, width, height):
            return x, y, x + width, y + height
        case Code(x, y, side):
            return x, y, x + side, y + side
        case Label(x, y, size, text):
            width = card_fonts.width(text, bold=mark.bold) * size + mark.spacing * len(text)
            return x, y - 1.2 * size, x + width, y + 0.4 * size
        case Polygon(points) | Stroke(points):
            xs, ys = [x for x, _ in points], [y for _, y in points]
            return min(xs), min(ys), max(xs), max(ys)


def _raster_mark(pen: ImageDraw.ImageDraw, mark: Mark, k: float) -> None:
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
        case Picture(x, y, width, height):
            size = max(1, round(width * k)), max(1, round(height * k))
            enlarged = mark.image().resize(size, Image.Resampling.BICUBIC)
            pen._image.paste(enlarged, (round(x * k), round(y * k)))
        case Code():
            raise CardError("a symbol is drawn at the final resolution, never as part of a ground")


def _raster_label(pen: ImageDraw.ImageDraw, label: Label, k: float) -> None:
    # One by one: within a text Pillow rounds every advance to whole pixels, so that a small text is
    # a per cent narrower or wider than in the PDF, and a flush right edge is ragged.
    x, color = label.x, label.color.rgb()
    for face, piece in card_fonts.runs(label.text, bold=label.bold):
        font = card_fonts.sized(face, label.size * k)
        for character in piece:
            pen.text((x * k, label.y * k), character, fill=color, font=font, anchor="ls")
            x += card_fonts.advance(face, character) * label.size + label.spacing


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


class PdfWriter:
    """Pages into one PDF with embedded fonts; equal pages give equal bytes.

    Grounds are stored once. Raises `CardError` if reportlab is not installed (extra `service`).
    """

    def __init__(self, *, title: str, author: str) -> None:
        try:
            from reportlab import rl_config
            from reportlab.pdfgen.canvas import Canvas
        except ImportError as error:
            raise CardError("PDF cards need reportlab: install anju[service]") from error
        # Text encodings of compressed streams are a relic of seven-bit mail, and slow.
        rl_config.useA85 = 0
        _register_fonts()
        self._buffer = io.BytesIO()
        self._canvas = Canvas(self._buffer, invariant=True, pageCompression=1, lang="zh-CN")
        self._canvas.setTitle(title)
        self._canvas.setAuthor(author)
        self._grounds: dict[tuple[Mark, ...], str] = {}

    def add(self, page: Page) -> None:
        canvas = self._canvas
        canvas.setPageSize((page.width * _POINTS_PER_MM, page.height * _POINTS_PER_MM))
        name = self._ground(page)
        canvas.scale(_POINTS_PER_MM, _POINTS_PER_MM)
        canvas.doForm(name)
        for mark in page.marks:
            _pdf_mark(canvas, mark, page.height)
        canvas.showPage()

    def finish(self) -> bytes:
        self._canvas.save()
        return self._buffer.getvalue()

    def _ground(self, page: Page) -> str:
        if page.ground not in self._grounds:
            name = self._grounds[page.ground] = f"ground{len(self._grounds)}"
            self._canvas.beginForm(name, 0, 0, page.width, page.height)
            for mark in page.ground:
                _pdf_mark(self._canvas, mark, page.height)
            self._canvas.endForm()
        return self._grounds[page.ground]


def pdf(pages: Iterable[Page], *, title: str, author: str) -> bytes:
    """The pages as PDF, see `PdfWriter`."""
    writer = PdfWriter(title=title, author=author)
    for page in pages:
        writer.add(page)
    return writer.finish()


_fonts_lock = threading.Lock()


def _register_fonts() -> None:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    with _fonts_lock:
        for face in card_fonts.Face:
            if face.value not in pdfmetrics.getRegisteredFontNames():
                pdfmetrics.registerFont(TTFont(face.value, card_fonts.path(face)))


def _pdf_mark(canvas: Any, mark: Mark, height: float) -> None:
    """Draw one mark; reportlab's y grows upwards from the lower edge."""
    if not isinstance(mark, Picture):
        canvas.setFillColorRGB(*(part / 255 for part in mark.color.rgb()))
    match mark:
        case Box(x, y, width, box_height, _, radius):
            bottom = height - y - box_height
            if radius:
                canvas.roundRect(x, bottom, width, box_height, radius, stroke=0, fill=1)
            else:
                canvas.rect(x, bottom, width, box_height, stroke=0, fill=1)
        case Polygon(points, _):
            canvas.drawPath(_pdf_path(canvas, points, height), stroke=0, fill=1)
        case Stroke(points, color, width):
            canvas.setStrokeColorRGB(*(part / 255 for part in color.rgb()))
            canvas.setLineWidth(width)
            canvas.drawPath(_pdf_path(canvas, points, height), stroke=1, fill=0)
        case Label():
            _pdf_label(canvas, mark, height)
        case Code():
            _pdf_code(canvas, mark, height)
        case Picture(x, y, width, picture_height):
            from reportlab.lib.utils import ImageReader

            bottom = height - y - picture_height
            canvas.drawImage(ImageReader(mark.image()), x, bottom, width, picture_height)


def _pdf_path(canvas: Any, points: tuple[tuple[float, float], ...], height: float) -> Any:
    path = canvas.beginPath()
    path.moveTo(points[0][0], height - points[0][1])
    for x, y in points[1:]:
        path.lineTo(x, height - y)
    return path


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
    # In modules, y downwards: whole numbers, written without reportlab's formatting.
    runs = [f"{x} {y} {length} 1 re" for x, y, length in dark_runs(code.symbol)]
    canvas.saveState()
    canvas.transform(module, 0, 0, -module, code.x, height - code.y)
    canvas.addLiteral("\n".join([*runs, "f"]))
    canvas.restoreState()


def dark_runs(symbol: Symbol) -> list[tuple[int, int, int]]:
    """(column, row, length) of every run of dark modules."""
    return [
        (found.start(), y, found.end() - found.start())
        for y, cells in enumerate(symbol.rows())
        for found in _DARK_RUN.finditer(cells)
    ]
