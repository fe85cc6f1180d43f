"""ISO/IEC 19794-2:2011 and ANSI INCITS 378: vectors, round trips, hostile input, telling apart."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anju.v1 import common_pb2
from matcher import codec, codec_2011, codec_ansi378
from matcher.errors import DecodeError
from matcher.formats import RecordFormat, decode_as, decode_stored, formats_of
from matcher.record_parts import MAX_RECORD_BYTES, ExtendedArea, Minutiae
from matcher.types import FingerPosition, Template
from matcher.wire import template_from

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "minutiae_formats"
SETTINGS = settings(max_examples=100, deadline=None)
PARSERS: dict[RecordFormat, Callable[[bytes], object]] = {
    RecordFormat.ISO_19794_2_2005: lambda r: codec.serialize(codec.parse(r)),
    RecordFormat.ISO_19794_2_2011: lambda r: codec_2011.serialize(codec_2011.parse(r)),
    RecordFormat.ANSI_INCITS_378_2004: lambda r: codec_ansi378.serialize(
        codec_ansi378.parse_2004(r)
    ),
    RecordFormat.ANSI_INCITS_378_2009: lambda r: codec_ansi378.serialize(
        codec_ansi378.parse_2009(r)
    ),
}


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_formats", VECTORS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = _generator()


def _vectors(prefix: str) -> list[Path]:
    return sorted(VECTORS.glob(f"{prefix}-*.json"))


def _format(vector: dict[str, str]) -> RecordFormat:
    return RecordFormat[vector["format"].upper().replace("-", "_")]


def test_the_formats_are_the_contracts() -> None:
    contract = {
        name.removeprefix("SAMPLE_FORMAT_"): number
        for name, number in common_pb2.SampleFormat.items()
    }
    assert {"UNSPECIFIED": 0, **{one.name: one.value for one in RecordFormat}} == contract


# --- vectors ---


def test_regenerating_the_vectors_gives_no_diff() -> None:
    assert {path.name: path.read_text() for path in VECTORS.glob("*.json")} == MAKE.vectors()


@pytest.mark.parametrize("path", _vectors("valid"), ids=lambda p: p.stem)
def test_valid_vector_decodes_to_its_views_and_back_to_its_bytes(path: Path) -> None:
    vector = json.loads(path.read_text())
    record, stated = bytes.fromhex(vector["record"]), _format(vector)
    templates = decode_as(stated, record)
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
    assert PARSERS[stated](record) == record
    assert formats_of(record) == [stated]


@pytest.mark.parametrize("path", _vectors("invalid"), ids=lambda p: p.stem)
def test_invalid_vector_is_refused_for_its_reason_at_its_byte(path: Path) -> None:
    vector = json.loads(path.read_text())
    with pytest.raises(DecodeError) as caught:
        decode_as(_format(vector), bytes.fromhex(vector["record"]))
    assert (caught.value.reason, caught.value.offset) == (vector["reason"], vector["offset"])


@pytest.mark.parametrize("stated", list(RecordFormat)[1:], ids=lambda one: one.name)
def test_an_oversized_record_is_refused_unread(stated: RecordFormat) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_as(stated, bytes(MAX_RECORD_BYTES + 1))
    assert caught.value.reason == "TOO_LARGE"


# --- round trips ---

AREAS = st.lists(
    st.builds(ExtendedArea, st.integers(1, 0xFFFF), st.binary(max_size=40)), max_size=3
).map(tuple)
SIZES, DENSITIES, U16 = st.integers(1, 3000), st.integers(98, 433), st.integers(0, 0xFFFF)


@st.composite
def minutiae(
    draw: st.DrawFn, width: int, height: int, angles: int, special: bool, least: int = 0
) -> Minutiae:
    count = draw(st.integers(least, 255))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    quality = rng.integers(0, 101, count)
    if special:
        quality = np.where(rng.random(count) < 0.1, rng.integers(254, 256, count), quality)
    return Minutiae(
        x=rng.integers(0, width, count).astype(np.uint16),
        y=rng.integers(0, height, count).astype(np.uint16),
        angle=rng.integers(0, angles, count).astype(np.uint8),
        kind=rng.integers(0, 3, count).astype(np.uint8),
        quality=quality.astype(np.uint8),
    )


POSITIONS = st.lists(st.sampled_from(FingerPosition), min_size=1, max_size=4)


@st.composite
def records_2011(draw: st.DrawFn) -> codec_2011.Record:
    certified = draw(st.booleans())
    views: list[codec_2011.Representation] = []
    for position in draw(POSITIONS):
        width, height = draw(SIZES), draw(SIZES)
        size = draw(st.sampled_from([5, 6]))
        found = draw(minutiae(width, height, 256, size == 6, least=1))
        if size == 5:
            found = Minutiae(
                found.x, found.y, found.angle, found.kind, np.zeros(len(found), np.uint8)
            )
        quality = st.builds(codec_2011.QualityBlock, st.integers(0, 100) | st.just(255), U16, U16)
        certificate = st.builds(codec_2011.Certificate, st.integers(1, 0xFFFF), st.integers(1, 3))
        views.append(
            codec_2011.Representation(
                position=position,
                number=sum(view.position == position for view in views),
                width=width,
                height=height,
                minutiae=found,
                x_px_per_cm=draw(DENSITIES),
                y_px_per_cm=draw(DENSITIES),
                impression=draw(st.sampled_from(sorted(codec_2011.IMPRESSIONS))),
                technology=draw(st.integers(0, 20)),
                vendor=draw(U16),
                device=draw(U16),
                qualities=tuple(draw(st.lists(quality, max_size=3))),
                certificates=tuple(draw(st.lists(certificate, max_size=2))) if certified else None,
                ridge_ending=draw(st.integers(0, 1)),
                minutia_bytes=size,
                extended=draw(AREAS),
            )
        )
    return codec_2011.Record(tuple(views))


@st.composite
def records_ansi(draw: st.DrawFn) -> codec_ansi378.Record:
    version = draw(
        st.sampled_from(
            [
                codec_ansi378.VERSION_2004,
                codec_ansi378.VERSION_2009,
                codec_ansi378.VERSION_2009_AM1,
            ]
        )
    )
    old = version == codec_ansi378.VERSION_2004
    image = draw(st.tuples(SIZES, SIZES, DENSITIES, DENSITIES))
    known = codec_ansi378.IMPRESSIONS_2004 if old else codec_ansi378.IMPRESSIONS_2009
    views: list[codec_ansi378.View] = []
    for position in draw(POSITIONS):
        if not old:
            image = draw(st.tuples(SIZES, SIZES, DENSITIES, DENSITIES))
        views.append(
            codec_ansi378.View(
                position=position,
                number=sum(view.position == position for view in views),
                width=image[0],
                height=image[1],
                minutiae=draw(minutiae(image[0], image[1], 180, not old)),
                x_px_per_cm=image[2],
                y_px_per_cm=image[3],
                impression=draw(st.sampled_from(sorted(known))),
                finger_quality=draw(
                    st.integers(0, 100) if old else st.sampled_from([0, 50, 100, 254, 255])
                ),
                quality_vendor=0 if old else draw(U16),
                quality_algorithm=0 if old else draw(U16),
                extended=draw(AREAS),
            )
        )
    return codec_ansi378.Record(
        version,
        tuple(views),
        owner=draw(U16),
        product=draw(U16),
        certifications=draw(st.sampled_from([0, 8])),
        device_id=draw(st.integers(0, 0xFFF if old else 0xFFFF)),
    )


@SETTINGS
@given(records_2011())
def test_every_2011_record_that_can_be_written_is_read_and_written_back(
    record: codec_2011.Record,
) -> None:
    written = codec_2011.serialize(record)
    again = codec_2011.parse(written)
    assert codec_2011.serialize(again) == written
    for before, after in zip(record.views, again.views, strict=True):
        for name in ("x", "y", "angle", "kind", "quality"):
            np.testing.assert_array_equal(
                getattr(before.minutiae, name), getattr(after.minutiae, name)
            )
        assert (before.qualities, before.certificates) == (after.qualities, after.certificates)
        assert before.extended == after.extended
    decode_as(RecordFormat.ISO_19794_2_2011, written)


@SETTINGS
@given(records_ansi())
def test_every_ansi_record_that_can_be_written_is_read_and_written_back(
    record: codec_ansi378.Record,
) -> None:
    written = codec_ansi378.serialize(record)
    old = record.version == codec_ansi378.VERSION_2004
    again = (codec_ansi378.parse_2004 if old else codec_ansi378.parse_2009)(written)
    assert codec_ansi378.serialize(again) == written
    assert (record.owner, record.product) == (again.owner, again.product)
    assert (record.certifications, record.device_id) == (again.certifications, again.device_id)
    for before, after in zip(record.views, again.views, strict=True):
        for name in ("x", "y", "angle", "kind", "quality"):
            np.testing.assert_array_equal(
                getattr(before.minutiae, name), getattr(after.minutiae, name)
            )
        assert before.extended == after.extended
        assert before.finger_quality == after.finger_quality
    stated = RecordFormat.ANSI_INCITS_378_2004 if old else RecordFormat.ANSI_INCITS_378_2009
    decode_as(stated, written)


def same_finger() -> dict[RecordFormat, bytes]:
    """The same minutiae in all four formats, with angles that all of them can say."""
    shared = [(1, 10, 20, 0, 60), (2, 299, 399, 45, 100), (1, 7, 8, 90, 33)]  # 2 degrees a unit
    turns = [(k, x, y, round(a * 2 * 256 / 360), q) for k, x, y, a, q in shared]
    spec = importlib.util.spec_from_file_location(
        "generate_2005", VECTORS.parent / "minutiae_records" / "generate.py"
    )
    assert spec is not None
    assert spec.loader is not None
    older = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(older)
    return {
        RecordFormat.ISO_19794_2_2005: older.record(older.view(turns)),
        RecordFormat.ISO_19794_2_2011: MAKE.record_2011(MAKE.view_2011(turns)),
        RecordFormat.ANSI_INCITS_378_2004: MAKE.record_2004(MAKE.view_2004(shared)),
        RecordFormat.ANSI_INCITS_378_2009: MAKE.record_2009(MAKE.view_2009(shared)),
    }


def equal(a: Template, b: Template) -> bool:
    return all(
        np.allclose(getattr(a, name), getattr(b, name), atol=1e-6)
        for name in ("x", "y", "angle", "kind", "quality", "width", "height", "position")
    )


def test_the_same_finger_is_the_same_template_in_every_format() -> None:
    records = same_finger()
    [first, *others] = [decode_as(stated, record)[0] for stated, record in records.items()]
    assert all(equal(first, other) for other in others)
    for record in records.values():
        assert equal(decode_stored(record)[0], first)


def test_a_record_under_another_formats_name_is_refused_with_its_own() -> None:
    records = same_finger()
    for stated in RecordFormat:
        for actual, record in records.items():
            if stated is actual:
                continue
            with pytest.raises(DecodeError) as caught:
                decode_as(stated, record)
            assert caught.value.reason == "FORMAT_MISMATCH"
            assert actual.standard in str(caught.value)


def test_a_record_of_two_formats_at_once_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from matcher import formats

    [view] = decode_as(RecordFormat.ISO_19794_2_2011, MAKE.record_2011(MAKE.view_2011()))
    decoders = {**formats._DECODERS, RecordFormat.ANSI_INCITS_378_2009: lambda record: [view]}
    monkeypatch.setattr(formats, "_DECODERS", decoders)
    for stated in (RecordFormat.ISO_19794_2_2011, RecordFormat.ANSI_INCITS_378_2009):
        with pytest.raises(DecodeError) as caught:
            decode_as(stated, MAKE.record_2011(MAKE.view_2011()))
        assert caught.value.reason == "FORMAT_AMBIGUOUS"


def test_a_sample_is_read_in_the_format_it_states() -> None:
    for stated, record in same_finger().items():
        sample = common_pb2.Sample(format=common_pb2.SampleFormat.ValueType(stated), data=record)
        assert len(template_from(sample)) == 3
    for unknown in (0, 5, 99):
        sample = common_pb2.Sample(format=common_pb2.SampleFormat.ValueType(unknown), data=b"FMR")
        with pytest.raises(DecodeError) as caught:
            template_from(sample)
        assert caught.value.reason == "FORMAT_UNSPECIFIED"


# --- hostile input ---


def _mutants(rng: np.random.Generator, seeds: list[bytes], count: int) -> Iterator[bytes]:
    for _ in range(count):
        data = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(1, 4)):
            match rng.integers(4):
                case 0:
                    data[rng.integers(len(data))] = rng.integers(256)
                case 1:
                    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
                case 2:
                    del data[rng.integers(1, len(data) + 1) :]
                case _:
                    at = int(rng.integers(len(data)))
                    data[at:at] = rng.bytes(int(rng.integers(1, 8)))
        if rng.random() < 0.6 and len(data) >= 12:  # honest lengths let mutations reach the views
            size = len(data).to_bytes(4, "big")
            data[8:12] = size if data[4:8] != b" 20\0" else size[2:] + data[10:12]
        yield bytes(data)


@pytest.mark.parametrize("stated", list(RecordFormat)[1:], ids=lambda one: one.name)
def test_mutated_records_decode_or_raise_decode_error(stated: RecordFormat) -> None:
    seeds = [
        bytes.fromhex(vector["record"])
        for vector in (json.loads(path.read_text()) for path in _vectors("valid"))
        if _format(vector) is stated
    ]
    outcomes, places = set(), []
    for mutant in _mutants(np.random.default_rng(20261124), seeds, 4_000):
        try:
            decode_as(stated, mutant)
        except DecodeError as error:
            outcomes.add(error.reason)
            places.append((error.offset or 0, len(mutant)))
        else:
            assert PARSERS[stated](mutant) == mutant
            outcomes.add("")
    assert all(0 <= offset <= length for offset, length in places)
    assert outcomes >= {
        "",
        "TRUNCATED",
        "BAD_LENGTH",
        "TRAILING_BYTES",
        "BAD_POSITION",
        "BAD_VIEW_NUMBER",
        "BAD_RESOLUTION",
        "BAD_MINUTIA_TYPE",
        "BAD_RESERVED",
        "OUT_OF_IMAGE",
        "BAD_QUALITY",
        "BAD_EXTENDED_DATA",
    }


def test_every_truncation_is_refused() -> None:
    for path in _vectors("valid"):
        vector = json.loads(path.read_text())
        record = bytes.fromhex(vector["record"])
        for length in range(len(record)):
            with pytest.raises(DecodeError):
                decode_as(_format(vector), record[:length])


@SETTINGS
@given(st.binary(max_size=300), st.sampled_from([b"030\0", b"035\0", b" 20\0"]))
def test_random_bytes_decode_or_raise_decode_error(data: bytes, version: bytes) -> None:
    data = b"FMR\0" + version + (len(data) + 12).to_bytes(4, "big") + data
    for stated in RecordFormat:
        try:
            decode_as(stated, data)
        except DecodeError:
            continue
    try:
        decode_stored(data)
    except DecodeError:
        return


def test_what_cannot_be_written_is_refused() -> None:
    good = codec_2011.parse(MAKE.record_2011(MAKE.view_2011()))
    from dataclasses import replace

    [view] = good.views
    for change in (
        {"impression": 10},
        {"technology": 21},
        {"ridge_ending": 2},
        {"minutia_bytes": 7},
        {"number": 16},
        {"width": 0},
        {"qualities": (codec_2011.QualityBlock(254, 0, 0),)},
        {"certificates": (codec_2011.Certificate(0, 1),)},
    ):
        with pytest.raises(ValueError, match="cannot be written"):
            codec_2011.serialize(codec_2011.Record((replace(view, **change),)))
    with pytest.raises(ValueError, match="or in none"):
        codec_2011.serialize(codec_2011.Record((view, replace(view, number=1, certificates=()))))
    assert view.captured_on is None
