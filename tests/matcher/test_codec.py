from __future__ import annotations

import importlib.util
import json
import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher import codec
from matcher.codec import ExtendedArea, ImpressionType, Record, View
from matcher.errors import DecodeError
from matcher.types import FingerPosition, Template

REPOSITORY = Path(__file__).resolve().parents[2]
VECTORS = REPOSITORY / "tests" / "vectors" / "minutiae_records"
SHARED = REPOSITORY.parent / "shared" / "data"
SETTINGS = settings(max_examples=150, deadline=None)


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_records", VECTORS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _vectors(prefix: str) -> list[Path]:
    return sorted(VECTORS.glob(f"{prefix}-*.json"))


# --- vectors ---


def test_regenerating_the_vectors_gives_no_diff() -> None:
    generated = _generator().vectors()
    assert {path.name: path.read_text() for path in VECTORS.glob("*.json")} == generated


@pytest.mark.parametrize("path", _vectors("valid"), ids=lambda p: p.stem)
def test_valid_vector_decodes_to_its_views_and_back_to_its_bytes(path: Path) -> None:
    vector = json.loads(path.read_text())
    record = bytes.fromhex(vector["record"])
    templates = codec.decode(record)
    assert len(templates) == len(vector["views"])
    for template, view in zip(templates, vector["views"], strict=True):
        assert int(template.position) == view["position"]
        assert template.finger_quality == view["finger_quality"]
        assert (template.width, template.height) == (view["width"], view["height"])
        np.testing.assert_allclose(template.x, view["x"], atol=1e-3)
        np.testing.assert_allclose(template.y, view["y"], atol=1e-3)
        np.testing.assert_allclose(np.degrees(template.angle), view["angle_degrees"], atol=1e-4)
        assert template.kind.tolist() == view["kind"]
        assert template.quality.tolist() == view["quality"]
    assert codec.serialize(codec.parse(record)) == record
    assert (codec.encode(templates) == record) == vector["canonical"]


@pytest.mark.parametrize("path", _vectors("invalid"), ids=lambda p: p.stem)
def test_invalid_vector_is_refused_for_its_reason_at_its_byte(path: Path) -> None:
    vector = json.loads(path.read_text())
    with pytest.raises(DecodeError) as caught:
        codec.decode(bytes.fromhex(vector["record"]))
    assert (caught.value.reason, caught.value.offset) == (vector["reason"], vector["offset"])


# --- round trips ---


@st.composite
def templates(draw: st.DrawFn, width: int, height: int) -> Template:
    count = draw(st.integers(0, 255))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return Template(
        x=(rng.random(count) * width * 0.9999).astype(np.float32),
        y=(rng.random(count) * height * 0.9999).astype(np.float32),
        angle=(rng.random(count) * 2.0 * math.pi).astype(np.float32),
        kind=rng.integers(0, 3, count).astype(np.uint8),
        quality=rng.integers(0, 101, count).astype(np.uint8),
        width=width,
        height=height,
        position=draw(st.sampled_from(FingerPosition)),
        finger_quality=draw(st.integers(0, 100)),
    )


@st.composite
def template_lists(draw: st.DrawFn) -> list[Template]:
    width, height = draw(st.integers(1, 2000)), draw(st.integers(1, 2000))
    return draw(st.lists(templates(width, height), min_size=1, max_size=6))


@st.composite
def records(draw: st.DrawFn) -> Record:
    width, height = draw(st.integers(1, 0xFFFF)), draw(st.integers(1, 0xFFFF))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    area = st.builds(ExtendedArea, st.integers(1, 0xFFFF), st.binary(max_size=40))
    views: list[View] = []
    for position in draw(st.lists(st.sampled_from(FingerPosition), min_size=1, max_size=4)):
        count = draw(st.integers(0, 255))
        views.append(
            View(
                position=position,
                number=sum(view.position == position for view in views),
                impression=draw(st.sampled_from(ImpressionType)),
                finger_quality=draw(st.integers(0, 100)),
                x=rng.integers(0, min(width, 1 << 14), count).astype(np.uint16),
                y=rng.integers(0, min(height, 1 << 14), count).astype(np.uint16),
                angle=rng.integers(0, 256, count).astype(np.uint8),
                kind=rng.integers(0, 3, count).astype(np.uint8),
                quality=rng.integers(0, 101, count).astype(np.uint8),
                extended=tuple(draw(st.lists(area, max_size=3))),
            )
        )
    resolution = st.integers(codec.MIN_PX_PER_CM, codec.MAX_PX_PER_CM)
    return Record(
        width=width,
        height=height,
        views=tuple(views),
        x_px_per_cm=draw(resolution),
        y_px_per_cm=draw(resolution),
        certifications=draw(st.integers(0, 15)),
        device_id=draw(st.integers(0, 0xFFF)),
    )


@SETTINGS
@given(template_lists())
def test_decoding_an_encoded_template_gives_it_back_up_to_quantisation(
    originals: list[Template],
) -> None:
    record = codec.encode(originals)
    restored = codec.decode(record)
    assert codec.encode(restored) == record
    for a, b in zip(originals, restored, strict=True):
        assert (a.width, a.height, a.position) == (b.width, b.height, b.position)
        assert a.finger_quality == b.finger_quality
        assert a.kind.tolist() == b.kind.tolist()
        assert a.quality.tolist() == b.quality.tolist()
        for before, after, size in ((a.x, b.x, a.width), (a.y, b.y, a.height)):
            edge = before > size - 1  # such a minutia is written in the last pixel
            assert np.all(np.abs(before - after)[~edge] <= 0.5)
            assert np.all(after[edge] == size - 1)
        turned = np.abs(np.angle(np.exp(1j * (a.angle - b.angle))))
        assert np.all(turned <= math.pi / 256 + 1e-5)


@SETTINGS
@given(records())
def test_every_record_that_can_be_written_is_read_and_written_back_unchanged(
    record: Record,
) -> None:
    written = codec.serialize(record)
    parsed = codec.parse(written)
    assert codec.serialize(parsed) == written
    assert [view.extended for view in parsed.views] == [view.extended for view in record.views]
    for template in codec.decode(written):
        assert np.all(template.x < template.width)
        assert np.all(template.y < template.height)
        assert np.all((template.angle >= 0.0) & (template.angle < 2.0 * math.pi))


def test_unequal_resolutions_turn_directions_onto_square_pixels() -> None:
    record = _generator().record(
        _generator().view(minutiae=[(1, 100, 100, 32, 0), (1, 100, 100, 160, 0)]),
        resolution=(197, 394),
    )
    (template,) = codec.decode(record)
    assert (template.width, template.height) == (300, 200)
    assert template.y.tolist() == [50.0, 50.0]
    expected = [math.atan2(0.5, 1.0), math.atan2(0.5, 1.0) + math.pi]
    np.testing.assert_allclose(template.angle, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"x": np.array([300.0], np.float32)}, "outside"),
        ({"y": np.array([-1.0], np.float32)}, "outside"),
        ({"x": np.array([math.nan], np.float32)}, "outside"),
        ({"angle": np.array([math.inf], np.float32)}, "finite"),
        ({"angle": np.zeros(2, np.float32)}, "columns"),
        ({"kind": np.array([3], np.uint8)}, "kind 3"),
        ({"quality": np.array([101], np.uint8)}, "quality 101"),
        ({"finger_quality": 101}, "finger quality 101"),
    ],
)
def test_a_template_that_no_record_can_hold_is_a_value_error(
    change: dict[str, object], complaint: str
) -> None:
    fields: dict[str, object] = {
        "x": np.zeros(1, np.float32),
        "y": np.zeros(1, np.float32),
        "angle": np.zeros(1, np.float32),
        "kind": np.ones(1, np.uint8),
        "quality": np.zeros(1, np.uint8),
        "width": 300,
        "height": 400,
    }
    with pytest.raises(ValueError, match=complaint):
        codec.encode([Template(**{**fields, **change})])  # type: ignore[arg-type]


def test_templates_of_different_image_sizes_do_not_share_a_record() -> None:
    empty = np.zeros(0, np.float32)
    nothing = np.zeros(0, np.uint8)
    small = Template(empty, empty, empty, nothing, nothing, width=300, height=400)
    large = Template(empty, empty, empty, nothing, nothing, width=500, height=400)
    with pytest.raises(ValueError, match="one image size"):
        codec.encode([small, large])
    with pytest.raises(ValueError, match="at least one"):
        codec.encode([])


# --- hostile input ---


def _seeds() -> list[bytes]:
    return [bytes.fromhex(json.loads(path.read_text())["record"]) for path in _vectors("valid")]


def _mutants(rng: np.random.Generator, count: int) -> Iterator[bytes]:
    seeds = _seeds()
    for _ in range(count):
        data = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(1, 4)):
            match rng.integers(5):
                case 0:
                    data[rng.integers(len(data))] = rng.integers(256)
                case 1:
                    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
                case 2:
                    del data[rng.integers(1, len(data) + 1) :]
                case 3:
                    at = int(rng.integers(len(data)))
                    data[at:at] = rng.bytes(int(rng.integers(1, 8)))
                case _:
                    # Keep the declared length honest, so that mutations reach the views.
                    data[8:12] = len(data).to_bytes(4, "big")
        if rng.random() < 0.7 and len(data) >= 12:
            data[8:12] = len(data).to_bytes(4, "big")
        yield bytes(data)


def _refused_or_sound(record: bytes) -> str | None:
    try:
        parsed = codec.parse(record)
    except DecodeError as error:
        offset, reason = error.offset, error.reason
    else:
        assert codec.serialize(parsed) == record
        codec.templates_of(parsed)
        return None
    assert offset is None or 0 <= offset <= len(record)
    return reason


def test_mutated_records_decode_or_raise_decode_error() -> None:
    outcomes = {_refused_or_sound(r) for r in _mutants(np.random.default_rng(20240607), 20_000)}
    # The mutants reach every stage, or this test shows nothing.
    assert outcomes >= {
        None,
        "TRUNCATED",
        "BAD_MAGIC",
        "BAD_VERSION",
        "BAD_LENGTH",
        "TRAILING_BYTES",
        "BAD_RESOLUTION",
        "BAD_RESERVED",
        "BAD_POSITION",
        "BAD_VIEW_NUMBER",
        "BAD_IMPRESSION",
        "BAD_QUALITY",
        "BAD_MINUTIA_TYPE",
        "OUT_OF_IMAGE",
        "BAD_EXTENDED_DATA",
    }


def test_every_truncation_is_refused() -> None:
    for record in _seeds():
        for length in range(len(record)):
            assert _refused_or_sound(record[:length]) is not None


@SETTINGS
@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_decode_or_raise_decode_error(data: bytes, with_header: bool) -> None:
    if with_header:
        data = b"FMR\0 20\0" + (len(data) + 12).to_bytes(4, "big") + data
    _refused_or_sound(data)


def test_an_oversized_record_is_refused_unread() -> None:
    with pytest.raises(DecodeError) as caught:
        codec.decode(bytes(codec.MAX_RECORD_BYTES + 1))
    assert caught.value.reason == "TOO_LARGE"


def _many_areas() -> bytes:
    make = _generator()
    areas = make.area(1, b"") * ((codec.MAX_RECORD_BYTES - 64) // 4)
    return bytes(make.record(make.view(minutiae=[], extended=areas)))


def _many_views() -> bytes:
    make = _generator()
    full = make.view(minutiae=[(1, 1, 1, 1, 1)] * 255, position=0)
    return bytes(make.record(*[full] * (codec.MAX_RECORD_BYTES // len(full))))


@pytest.mark.parametrize("make", [_many_areas, _many_views])
def test_the_largest_records_are_read_in_bounded_time_and_memory(make: object) -> None:
    assert callable(make)
    record = make()
    assert codec.MAX_RECORD_BYTES * 0.9 < len(record) <= codec.MAX_RECORD_BYTES
    start = perf_counter()
    codec.decode(record)
    assert perf_counter() - start < 2.0  # takes some 20 ms; generous for a busy machine
    tracemalloc.start()
    codec.decode(record)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 64 * codec.MAX_RECORD_BYTES


# --- real records ---


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared tuning data is not on this machine")
def test_all_shared_records_round_trip_and_the_truncated_ones_are_refused() -> None:
    paths = [p for folder in ("vendor", "leader", "mindtct") for p in SHARED.glob(f"{folder}/*/*")]
    assert paths
    for path in paths:
        record = path.read_bytes()
        parsed = codec.parse(record)
        assert codec.serialize(parsed) == record, path
        if parsed.x_px_per_cm == codec.NOMINAL_PX_PER_CM:
            assert codec.encode(codec.templates_of(parsed)) == record, path
    for path in SHARED.glob("invalid/*.iso"):
        with pytest.raises(DecodeError) as caught:
            codec.decode(path.read_bytes())
        assert caught.value.reason == "TRUNCATED", path
