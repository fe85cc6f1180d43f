"""WSQ: the FBI's compression of grey fingerprint images (IAFIS-IC-0110), read by NIST's decoder.

The package ``wsq`` (IDEMIA; CeCILL-C; the extra ``[wsq]``) wraps that decoder, which is C of 1990s
manners: of 150 files damaged at random one crashed it. So it runs in a process of its own, with
bounds on memory and time, and what happens there is an error here and nothing else. The size of the
image is read from the frame header first: the decoder would take memory for whatever it says.
"""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys

from devices.errors import ExtractorMissingError, ImageInvalidError

START_OF_IMAGE = b"\xff\xa0"
TIMEOUT_S = 15.0
_FRAME = 0xFFA2
_SEGMENTS = range(0xFFA2, 0xFFA9)
_ANSWER = struct.Struct(">IIi")
_DECODER = """
import struct, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except ImportError:  # not on Windows
    pass
import _wsq
pixels, width, height, ppi = _wsq.decompress(sys.stdin.buffer.read())
sys.stdout.buffer.write(struct.pack(">IIi", width, height, ppi) + pixels)
"""


def size_of(content: bytes) -> tuple[int, int]:
    """Width and height by the frame header.

    Raises:
        ImageInvalidError: there is none.
    """
    at = 2
    while at + 4 <= len(content):
        marker, length = struct.unpack_from(">HH", content, at)
        if marker not in _SEGMENTS:
            break
        if marker == _FRAME and at + 10 <= len(content):
            height, width = struct.unpack_from(">HH", content, at + 6)
            return width, height
        at += 2 + length
    raise ImageInvalidError("the WSQ file is damaged: it has no frame header")


def decode(content: bytes) -> tuple[bytes, int, int, int]:
    """Pixels (8 bits, rows from the top), width, height, and ppi or -1 if the file does not say it.

    Raises:
        ImageInvalidError: it is damaged.
        ExtractorMissingError: the extra ``[wsq]`` is not installed.
    """
    if importlib.util.find_spec("_wsq") is None:
        raise ExtractorMissingError(
            "reading WSQ needs the extra [wsq]: pip install 'anju[terminal,extract,wsq]', or let "
            "the reader write PNG, BMP or TIFF"
        )
    try:
        done = subprocess.run(  # noqa: S603 (this interpreter, and a constant)
            [sys.executable, "-I", "-c", _DECODER],
            input=content,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise ImageInvalidError("the WSQ file is damaged") from error
    answer = done.stdout
    if len(answer) < _ANSWER.size:
        raise ImageInvalidError("the WSQ file is damaged")
    width, height, ppi = _ANSWER.unpack_from(answer)
    pixels = answer[_ANSWER.size :]
    if (width, height) != size_of(content) or len(pixels) != width * height:
        raise ImageInvalidError("the WSQ file is damaged")
    return pixels, width, height, ppi
