"""WSQ is read where its extra is installed, and its decoder may die without taking us along."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from devices.errors import ExtractorMissingError, ImageInvalidError
from devices.terminal import wsq
from devices.terminal.extract import extract
from devices.terminal.image import read_image
from tests.devices.test_extract import ridges

_wsq = pytest.importorskip("_wsq", reason="needs the extra [wsq]")


def compressed(pixels: Any, bits_per_pixel: float = 2.25) -> bytes:
    height, width = pixels.shape
    return bytes(_wsq.compress(pixels.tobytes(), width, height, bits_per_pixel))


@pytest.fixture(scope="module")
def drawn() -> bytes:
    return compressed(ridges()[0])


def test_a_finger_in_wsq_is_nearly_the_finger_that_was_written(drawn: bytes) -> None:
    pixels = ridges()[0]
    read = read_image(drawn).pixels
    assert read.shape == pixels.shape
    assert np.abs(read.astype(int) - pixels).mean() < 8
    first, second = extract(read_image(drawn)), extract(read_image(drawn, 500))
    assert first.record == second.record
    assert first.minutiae >= 15


def test_1000_ppi_is_stated_and_halved(drawn: bytes) -> None:
    assert read_image(drawn, 1000).width == ridges()[0].shape[1] // 2


def test_a_file_damaged_anywhere_is_refused_or_read_and_never_more(drawn: bytes) -> None:
    chance = random.Random(20261124)
    for _ in range(8):
        damaged = bytearray(drawn)
        for _ in range(4):
            damaged[chance.randrange(2, 600)] = chance.randrange(256)
        try:
            read = read_image(bytes(damaged))
        except ImageInvalidError:
            continue
        assert read.pixels.dtype == np.uint8
    for length in (2, 3, 20, 200, len(drawn) // 2):
        with pytest.raises(ImageInvalidError):
            read_image(drawn[:length])


def test_a_decoder_that_crashes_is_a_damaged_file(
    drawn: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for death in ("import os; os.abort()", "import sys; sys.exit(1)", "print('x')", ""):
        monkeypatch.setattr(wsq, "_DECODER", death)
        with pytest.raises(ImageInvalidError, match="damaged"):
            read_image(drawn)
    monkeypatch.setattr(wsq, "_DECODER", "import time; time.sleep(60)")
    monkeypatch.setattr(wsq, "TIMEOUT_S", 0.2)
    with pytest.raises(ImageInvalidError, match="damaged"):
        read_image(drawn)


def test_a_huge_image_is_refused_before_the_decoder_sees_it(
    drawn: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    width, height = wsq.size_of(drawn)
    at = drawn.index(struct.pack(">HH", height, width))
    huge = drawn[:at] + struct.pack(">HH", 60_000, 60_000) + drawn[at + 4 :]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(ImageInvalidError, match="60000 x 60000"):
        read_image(huge)


def test_without_the_extra_it_says_what_to_install(
    drawn: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "_wsq", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ExtractorMissingError, match="wsq"):
        read_image(drawn)
