"""A fingerprint image from a file: PNG, BMP, TIFF or WSQ, grey, brought to 500 ppi.

The file comes from a reader's software and is still looked at as if from a stranger: its size in
bytes and its size in pixels are checked before anything is unpacked, only three decoders of Pillow
are ever tried, and that of WSQ runs in a process of its own (:mod:`devices.terminal.wsq`).
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from devices.errors import ImageInvalidError
from devices.terminal import wsq

FORMATS = ("PNG", "BMP", "TIFF")
RESOLUTIONS_PPI = (500, 1000)
TOLERANCE_PPI = 15
"""Files say 499.999, or 197 px/cm, which is 500.4; 1,000 ppi is 984 to 1,015 in the same way."""
MAX_FILE_BYTES = 8 << 20
MIN_SIDE_PX, MAX_SIDE_PX = 96, 1_500
"""At 500 ppi: half a centimetre, and 7.6 cm, more than any reader of one finger has."""
_GREY_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


@dataclass(frozen=True, eq=False)
class FingerImage:
    """A finger as captured.

    Attributes:
        pixels: (H, W) uint8 at 500 ppi, 0 black; ridges are dark.
    """

    pixels: NDArray[np.uint8]

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def read_image(content: bytes, resolution_ppi: int | None = None) -> FingerImage:
    """Read an image file.

    Args:
        resolution_ppi: 500 or 1000; what the file says of itself if left out.

    Raises:
        ImageInvalidError: no such image, too large or small, or of unknown or other resolution.
    """
    if len(content) > MAX_FILE_BYTES:
        raise ImageInvalidError(
            f"the image file has {len(content)} bytes; at most {MAX_FILE_BYTES} are read"
        )
    if content.startswith(wsq.START_OF_IMAGE):
        return _read_wsq(content, resolution_ppi)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is refused or does no harm
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            ppi = _resolution(image.info.get("dpi"), resolution_ppi)
            _check(image, ppi)
            grey = _grey(image)
    except ImageInvalidError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageInvalidError("the image has far too many pixels for a finger") from error
    except UnidentifiedImageError as error:
        raise ImageInvalidError("this is no PNG, BMP or TIFF image") from error
    except Exception as error:  # Pillow's decoders raise many kinds for damaged files
        raise ImageInvalidError("the image file is damaged") from error
    return _at_500(grey, ppi)


def _read_wsq(content: bytes, resolution_ppi: int | None) -> FingerImage:
    """The standard is for 500 ppi, and its files seldom say it; other numbers must be stated."""
    width, height = wsq.size_of(content)
    if max(width, height) > 2 * MAX_SIDE_PX:
        raise ImageInvalidError(f"the image has {width} x {height} pixels, too many for a finger")
    pixels, width, height, told = wsq.decode(content)
    ppi = _resolution((told, told) if told > 0 else (500, 500), resolution_ppi)
    _check_size((width, height), ppi)
    return _at_500(Image.frombytes("L", (width, height), pixels), ppi)


def _at_500(grey: Image.Image, ppi: int) -> FingerImage:
    if ppi == 1000:
        grey = grey.reduce(2)  # the mean of four pixels: ridges survive, noise does not
    return FingerImage(np.asarray(grey, dtype=np.uint8))


def _resolution(told: tuple[float, float] | None, stated: int | None) -> int:
    if stated is not None:
        if stated not in RESOLUTIONS_PPI:
            raise ImageInvalidError(f"the resolution must be 500 or 1000 ppi, not {stated}")
        return stated
    if not told:
        raise ImageInvalidError("the file does not say its resolution: state 500 or 1000 ppi")
    for ppi in RESOLUTIONS_PPI:
        if all(abs(float(axis) - ppi) <= TOLERANCE_PPI for axis in told):
            return ppi
    raise ImageInvalidError(
        f"the file says {told[0]:.0f} x {told[1]:.0f} ppi; 500 or 1000 is expected. If the file "
        "is wrong about itself, state the reader's resolution"
    )


def _check_size(size: tuple[int, int], ppi: int) -> None:
    scale = ppi // 500
    if not all(MIN_SIDE_PX * scale <= side <= MAX_SIDE_PX * scale for side in size):
        raise ImageInvalidError(
            f"the image has {size[0]} x {size[1]} pixels; expected {MIN_SIDE_PX * scale} "
            f"to {MAX_SIDE_PX * scale} on each side at {ppi} ppi"
        )


def _check(image: Image.Image, ppi: int) -> None:
    _check_size(image.size, ppi)
    if getattr(image, "n_frames", 1) != 1:
        raise ImageInvalidError("the file holds several images; give one finger a file")
    if image.mode not in _GREY_MODES:
        raise ImageInvalidError(f"the image has pixels of mode {image.mode}; 8 bits are expected")


def _grey(image: Image.Image) -> Image.Image:
    """Grey; what is transparent is the background, which is white."""
    if image.mode in ("LA", "RGBA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        paper = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(paper, layered).convert("L")
    return image.convert("L")
