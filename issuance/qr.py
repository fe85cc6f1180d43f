"""QR symbols (ISO/IEC 18004): text -> modules, picture -> texts.

The text is base45, so the symbol uses alphanumeric mode, 5.5 bits a character. Level M is the
default: measured on degraded prints, Q reads worse at equal size because its modules are smaller.
Reading is bounded in bytes and pixels before a pixel is decoded, since a small PNG can stand for
gigabytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import zxingcpp
from PIL import Image, ImageFilter, UnidentifiedImageError

from issuance.envelope import MAX_TEXT_CHARS
from issuance.errors import SymbolError

QUIET_ZONE: Final = 4  # modules on each side, ISO/IEC 18004 section 6.3.8
MAX_PICTURE_BYTES: Final = 24 << 20
# A 600 dpi scan of an A4 page is 35 megapixels.
MAX_PICTURE_PIXELS: Final = 40_000_000
# Larger pictures have large modules and need no enlarging.
_MAX_ENLARGED_PIXELS: Final = 4_000_000
# Tables for `bytes.translate`: grey value -> module, and module -> grey value.
_DARK: Final = bytes([1] * 128 + [0] * 128)
_INK: Final = bytes([255, 0]) + bytes(254)
_QR_ONLY: Final = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)


@dataclass(frozen=True, slots=True)
class Symbol:
    """A QR symbol without its quiet zone.

    Attributes:
        size: modules on a side; 17 + 4 * version.
        dark: size * size bytes, row by row, 1 for a dark module.
    """

    size: int
    dark: bytes

    @property
    def version(self) -> int:
        return (self.size - 17) // 4

    def rows(self) -> list[bytes]:
        return [self.dark[at : at + self.size] for at in range(0, len(self.dark), self.size)]


def symbol(text: str, level: str = "M") -> Symbol:
    """The smallest symbol that holds `text` at error correction level L, M, Q or H.

    Raises `SymbolError` if none does.
    """
    if level not in ("L", "M", "Q", "H"):
        raise SymbolError(f"error correction level must be L, M, Q or H, got {level!r}")
    if not 0 < len(text) <= MAX_TEXT_CHARS:
        raise SymbolError(f"a symbol holds 1 to {MAX_TEXT_CHARS} characters, got {len(text)}")
    try:
        barcode = zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.QRCode, ec_level=level)
        drawn = barcode.to_image(scale=1, add_quiet_zones=False)
    except (ValueError, RuntimeError) as error:
        raise SymbolError(f"{len(text)} characters do not fit at level {level}") from error
    pixels = Image.fromarray(drawn)
    return Symbol(pixels.width, pixels.tobytes().translate(_DARK))


def picture(drawn: Symbol, module_px: int) -> Image.Image:
    """Grey picture of a symbol with its quiet zone, `module_px` pixels a module."""
    grid = Image.frombytes("L", (drawn.size, drawn.size), drawn.dark.translate(_INK))
    framed = Image.new("L", (drawn.size + 2 * QUIET_ZONE,) * 2, 255)
    framed.paste(grid, (QUIET_ZONE, QUIET_ZONE))
    side = framed.width * module_px
    return framed.resize((side, side), Image.Resampling.NEAREST)


def read_image(image: Image.Image) -> list[str]:
    """Texts of all QR symbols in `image` at the first try, in the order found."""
    return _read(image.convert("L"), zxingcpp.Binarizer.LocalAverage)


def read_worn_image(image: Image.Image) -> list[str]:
    """Like `read_image`, with more tries where nothing is found.

    Each try alone misses some worn or badly lit prints, and not the same ones: of 50 degraded
    pictures of a card, single tries read 39 to 41, and all together 50.
    """
    grey = image.convert("L")
    return next((texts for attempt in _ATTEMPTS if (texts := attempt(grey))), [])


def _read(grey: Image.Image, binarizer: zxingcpp.Binarizer) -> list[str]:
    found = zxingcpp.read_barcodes(grey, formats=_QR_ONLY, binarizer=binarizer)
    # latin-1 keeps every byte; what is not base45 is refused later, with a reason.
    return [code.bytes.decode("latin-1") for code in found]


def _read_enlarged(grey: Image.Image, sharpen: bool) -> list[str]:
    if grey.width * grey.height > _MAX_ENLARGED_PIXELS:
        return []
    large = grey.resize((grey.width * 2, grey.height * 2), Image.Resampling.BICUBIC)
    if sharpen:
        large = large.filter(ImageFilter.UnsharpMask(4, 150))
    return _read(large, zxingcpp.Binarizer.LocalAverage)


_ATTEMPTS: Final[tuple[Callable[[Image.Image], list[str]], ...]] = (
    lambda grey: _read(grey, zxingcpp.Binarizer.LocalAverage),
    lambda grey: _read_enlarged(grey, sharpen=False),
    lambda grey: _read(grey, zxingcpp.Binarizer.GlobalHistogram),
    lambda grey: _read_enlarged(grey, sharpen=True),
    lambda grey: _read(grey.filter(ImageFilter.GaussianBlur(0.6)), zxingcpp.Binarizer.LocalAverage),
)


def read_picture(data: bytes) -> list[str]:
    """Texts of all QR symbols in a PNG or JPEG file.

    Raises `SymbolError` if it is neither, too large, damaged, or shows no QR symbol.
    """
    if len(data) > MAX_PICTURE_BYTES:
        raise SymbolError(f"the picture is larger than {MAX_PICTURE_BYTES >> 20} MiB")
    try:
        # The header is read first; pixels only after their number is known to be harmless.
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PICTURE_PIXELS:
                raise SymbolError(f"the picture has more than {MAX_PICTURE_PIXELS:,} pixels")
            texts = read_worn_image(image)
    except UnidentifiedImageError as error:
        raise SymbolError("the file is neither a PNG nor a JPEG picture") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SymbolError("the picture is damaged") from error
    if not texts:
        raise SymbolError("there is no readable QR symbol in the picture")
    return texts
