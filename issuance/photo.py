"""The holder's face in the symbol: a portrait -> 48 x 60 grey pixels in about 500 bytes of WebP.

Measured (ISSUANCE.md): grey 48 x 60 WebP gives the best picture per byte, and 500 bytes make a
symbol of version 26 at level M, which a card's back has room for.

Cropping is by rule, without looking for a face. Portraits for documents are taken to GA 461 (China)
or ISO/IEC 19794-5: upright, one person, the head in the upper half of a picture a little taller
than wide. From such a picture nothing of the head is lost if only the sides are cut evenly, or the
bottom: the top edge is never cut. A picture far from that shape is refused instead of guessed at.
A detector would accept more and be wrong about some; OpenCV's is 60 MB, and this is the one place
where a mistake costs a person a permit that does not look like them.

Pictures come from cameras and from symbols, so both directions are bounded before pixels are
decoded.
"""

from __future__ import annotations

import io
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from issuance.errors import PhotoError
from issuance.types import Photo

COLUMNS, ROWS = 48, 60
TARGET_BYTES: Final = 500
# No photograph in a symbol is larger, whoever wrote it.
MAX_BYTES: Final = 2_048
_MAX_SIDE: Final = 512
# A portrait for a document; more is a mistake or an attack.
MAX_PORTRAIT_BYTES: Final = 8 << 20
_MAX_PORTRAIT_PIXELS: Final = 24_000_000
_MIN_COLUMNS, _MIN_ROWS = 96, 120
# Width over height. GA 461 pictures have 0.81, passport pictures 0.78, phones upright 0.75.
_NARROWEST, _WIDEST = 0.6, 1.0
# Darkest and lightest per cent that may be lost when the contrast is stretched.
_CUTOFF: Final = 0.5

# Claim 169 key 62, sub-formats of images that are shown; the rest are left alone.
MEDIA_TYPES: Final = {0: "image/png", 1: "image/jpeg", 4: "image/webp"}
_PILLOW_NAMES: Final = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
WEBP: Final = 4


def make(portrait: bytes) -> Photo:
    """The photograph for a permit out of a portrait (PNG or JPEG), without metadata.

    Raises `PhotoError` if it is neither, too large, damaged, too small, or of another shape than a
    portrait.
    """
    return _encode(_reduce(portrait, COLUMNS, ROWS))


def print_picture(portrait: bytes, photo: Photo) -> Image.Image:
    """The portrait in print quality, cropped like `photo`, which must have been made of it.

    So the paper shows the same face as what is signed, and only more of it. Raises `PhotoError`
    if it shows another.
    """
    small, signed = _reduce(portrait, COLUMNS, ROWS), open_photo(photo)
    if signed.size != small.size or _difference(small, signed) > _MAX_DIFFERENCE:
        raise PhotoError("the portrait is not the one that the permit's photograph was made of")
    return _reduce(portrait, COLUMNS * 8, ROWS * 8)


# Mean difference of grey levels, 0 to 255. WebP at 500 bytes stays below 9 on the portraits tried,
# another portrait of the same person is above 20.
_MAX_DIFFERENCE: Final = 14.0


def open_photo(photo: Photo) -> Image.Image:
    """The photograph as grey picture. Raises `PhotoError` if it is damaged or too large."""
    if len(photo.data) > MAX_BYTES or photo.media_type not in _PILLOW_NAMES:
        raise PhotoError("the photograph is too large or of an unknown kind")
    try:
        formats = (_PILLOW_NAMES[photo.media_type],)
        with Image.open(io.BytesIO(photo.data), formats=formats) as image:
            if max(image.size) > _MAX_SIDE:
                raise PhotoError(f"the photograph has more than {_MAX_SIDE} pixels on a side")
            return image.convert("L")
    except PhotoError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PhotoError("the photograph is damaged") from error


def _reduce(portrait: bytes, columns: int, rows: int) -> Image.Image:
    """The portrait upright, cropped, grey and of that size."""
    if len(portrait) > MAX_PORTRAIT_BYTES:
        raise PhotoError(f"the portrait is larger than {MAX_PORTRAIT_BYTES >> 20} MiB")
    try:
        with Image.open(io.BytesIO(portrait), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > _MAX_PORTRAIT_PIXELS:
                raise PhotoError(f"the portrait has more than {_MAX_PORTRAIT_PIXELS:,} pixels")
            # A JPEG is decoded no larger than needed.
            image.draft("RGB", (4 * columns, 4 * rows))
            turned = ImageOps.exif_transpose(image)
            full = image.size
            grey = _on_white(turned).convert("L")
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError("the portrait is neither a PNG nor a JPEG picture") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PhotoError("the portrait is damaged") from error
    if min(full) < _MIN_COLUMNS or max(full) < _MIN_ROWS:
        raise PhotoError(f"the portrait is smaller than {_MIN_COLUMNS} x {_MIN_ROWS} pixels")
    box = _crop(*grey.size)
    cropped = grey.resize((columns, rows), Image.Resampling.LANCZOS, box=box)
    return ImageOps.autocontrast(cropped, cutoff=_CUTOFF)


def _crop(width: int, height: int) -> tuple[float, float, float, float]:
    """The part of 4:5 that is kept: the sides are cut evenly, or the bottom; never the top."""
    shape = width / height
    if not _NARROWEST <= shape <= _WIDEST:
        raise PhotoError(
            f"a portrait is a little taller than wide; this one is {width} x {height}: "
            "crop it to the head and shoulders"
        )
    if shape > COLUMNS / ROWS:
        kept = height * COLUMNS / ROWS
        left = (width - kept) / 2
        return left, 0, left + kept, height
    return 0, 0, width, width * ROWS / COLUMNS


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image
    layered = image.convert("RGBA")
    white = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(white, layered)


def _encode(image: Image.Image) -> Photo:
    """WebP of the best quality that fits `TARGET_BYTES`; of the least quality if none does."""
    low, high, best = 0, 80, _webp(image, 0)
    while low < high:
        quality = (low + high + 1) // 2
        data = _webp(image, quality)
        if len(data) <= TARGET_BYTES:
            low, best = quality, data
        else:
            high = quality - 1
    return Photo(MEDIA_TYPES[WEBP], best)


def _webp(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=6)
    return buffer.getvalue()


def _difference(one: Image.Image, other: Image.Image) -> float:
    pairs = zip(one.tobytes(), other.tobytes(), strict=True)
    return sum(abs(a - b) for a, b in pairs) / (one.width * one.height)
