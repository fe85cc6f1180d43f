"""What is kept of a picture: a portrait's few hundred bytes, a finger's minutiae."""

from __future__ import annotations

from devices.errors import ExtractorMissingError
from devices.terminal import extract
from devices.terminal.image import read_image
from identity.errors import ConfigError, InvalidRequestError
from identity.types import CapturedSample
from issuance import photo
from issuance.errors import PhotoError
from matcher.codec import decode


def photo_of(portrait: bytes) -> bytes:
    """The photograph of a permit out of a portrait.

    Raises:
        InvalidRequestError: PORTRAIT_INVALID.
    """
    try:
        return photo.make(portrait).data
    except PhotoError as error:
        raise InvalidRequestError("PORTRAIT_INVALID", str(error)) from error


def sample_of(image: bytes, position: int, resolution_ppi: int) -> CapturedSample:
    """The finger on an image, extracted here. A second or so of one core.

    Args:
        position: 0 to 10.
        resolution_ppi: 0 for what the file says.

    Raises:
        devices.errors.ImageInvalidError: it cannot be read.
    """
    record = extract.extract(read_image(image, resolution_ppi or None), position).record
    return CapturedSample(record, decode(record)[0])


def require_extractor() -> None:
    """Raises ConfigError unless images can be extracted here."""
    try:
        extract.require_installed()
    except ExtractorMissingError as error:
        raise ConfigError(f"capture.finger_images is on, but {error}") from error
