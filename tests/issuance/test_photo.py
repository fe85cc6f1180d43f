from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from issuance import codec, envelope, photo, qr, signing
from issuance.authority import init_authority
from issuance.errors import PhotoError, ProfileError
from issuance.issuer import Issuer
from issuance.trust import TrustStore
from issuance.types import IssuedPermit, Photo
from issuance.verifier import verify
from tests.issuance.kit import HOLDER, WITH_PHOTO, Clock, portrait


def attributes(permit: IssuedPermit) -> Mapping[int, Any]:
    message = signing.parse(envelope.from_text(permit.qr_text))
    return codec.read_claims(message.payload).attributes


@pytest.mark.parametrize("size", [(358, 441), (96, 120), (600, 800), (480, 480), (2400, 3200)])
@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_portrait_becomes_half_a_kilobyte_of_grey(size: tuple[int, int], format_: str) -> None:
    made = photo.make(portrait(*size, format=format_))
    assert made.media_type == "image/webp"
    assert 150 < len(made.data) <= photo.TARGET_BYTES
    image = photo.open_photo(made)
    assert (image.mode, image.size) == ("L", (48, 60))
    # Dark hair above a lighter face, on a light ground.
    assert image.getpixel((24, 12)) < 90 < image.getpixel((24, 28))  # type: ignore[operator]
    assert image.getpixel((3, 3)) > 200  # type: ignore[operator]


def test_top_of_the_picture_is_never_cut() -> None:
    """A line along the top edge survives every shape that is accepted."""
    for width, height in ((600, 1000), (600, 800), (640, 800), (700, 800), (800, 800)):
        image = Image.new("L", (width, height), 200)
        image.paste(90, (width // 2 - 30, 0, width // 2 + 30, height // 2))
        image.paste(0, (0, 0, width, height // 12))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        small = photo.open_photo(photo.make(buffer.getvalue()))
        assert small.getpixel((24, 0)) < 60  # type: ignore[operator]
        columns = [small.getpixel((x, 20)) for x in range(48)]
        dark = [x for x, level in enumerate(columns) if level < 150]  # type: ignore[operator]
        assert sum(dark) / len(dark) == pytest.approx(23.5, abs=1.5), "the middle stays the middle"


def test_picture_of_another_shape_is_refused() -> None:
    for size in ((800, 600), (300, 900), (1000, 950)):
        with pytest.raises(PhotoError, match="taller than wide"):
            photo.make(portrait(*size))


def test_turned_and_transparent_pictures_are_set_right() -> None:
    upright = Image.open(io.BytesIO(portrait(400, 500)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned = io.BytesIO()
    upright.rotate(90, expand=True).save(turned, "JPEG", exif=exif, quality=95)
    straight = photo.open_photo(photo.make(portrait(400, 500)))
    assert photo._difference(photo.open_photo(photo.make(turned.getvalue())), straight) < 6
    clear = Image.new("RGBA", (400, 500), (0, 0, 0, 0))
    clear.paste(upright.crop((100, 60, 300, 300)), (100, 60))
    see_through = io.BytesIO()
    clear.save(see_through, "PNG")
    made = photo.open_photo(photo.make(see_through.getvalue()))
    assert made.getpixel((2, 2)) > 200, "nothing is white, not black"  # type: ignore[operator]


def test_nothing_but_pixels_gets_into_the_permit() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "taken at 示例路 7")
    tagged = portrait(format="PNG", pnginfo=info)
    assert b"Comment" in tagged
    made = photo.make(tagged)
    assert made == photo.make(portrait(format="PNG"))
    assert "webp" in repr(made)
    assert str(made.data[:8]) not in repr(made)


def test_what_is_no_portrait_is_refused_before_it_is_decoded() -> None:
    bomb = io.BytesIO()
    Image.new("1", (6_000, 7_000)).save(bomb, "PNG")
    gif = io.BytesIO()
    Image.new("L", (400, 500)).save(gif, "GIF")
    cases = {
        "pixels": bomb.getvalue(),
        "MiB": bytes(photo.MAX_PORTRAIT_BYTES + 1),
        "neither": gif.getvalue(),
        "damaged": portrait()[:-2_000],
        "smaller": portrait(80, 100),
    }
    for said, data in {**cases, "either": b""}.items():
        with pytest.raises(PhotoError, match=said):
            photo.make(data)


@settings(max_examples=100)
@given(st.binary(max_size=200), st.sampled_from([*photo.MEDIA_TYPES.values(), "image/x"]))
def test_any_bytes_in_a_symbol_are_a_picture_or_an_error(data: bytes, media_type: str) -> None:
    with contextlib.suppress(PhotoError):
        photo.open_photo(Photo(media_type, data))


def test_large_picture_in_a_symbol_is_not_decoded() -> None:
    buffer = io.BytesIO()
    Image.new("L", (4_000, 4_000)).save(buffer, "PNG")
    with pytest.raises(PhotoError):
        photo.open_photo(Photo("image/png", buffer.getvalue()))
    small = io.BytesIO()
    Image.new("1", (600, 600)).save(small, "PNG")
    assert len(small.getvalue()) < photo.MAX_BYTES
    with pytest.raises(PhotoError, match="pixels on a side"):
        photo.open_photo(Photo("image/png", small.getvalue()))


def test_photograph_travels_from_the_portrait_to_the_verdict(
    tmp_path_factory: pytest.TempPathFactory, clock: Clock
) -> None:
    home = tmp_path_factory.mktemp("photo") / "authority"
    init_authority(home, WITH_PHOTO, clock)
    with Issuer.open(home, clock) as issuer:
        issued = issuer.issue(HOLDER, portrait=portrait())
        plain = issuer.issue(HOLDER)
        other = issuer.issue(HOLDER, kind="residence", portrait=portrait())
        trust = TrustStore.load(issuer.publish_trust().bundle)
        with pytest.raises(PhotoError):
            issuer.issue(HOLDER, portrait=b"junk")
        with pytest.raises(ProfileError, match="larger"):
            issuer.issue(replace(HOLDER, photo=Photo("image/webp", bytes(641))))
        with pytest.raises(ProfileError, match="WebP"):
            issuer.issue(replace(HOLDER, photo=Photo("image/png", bytes(64))))
        assert len(issuer.unfinished) == 0
    verdict = verify(issued.qr_text, trust, clock())
    assert verdict.photo == photo.make(portrait()) == issued.permit.holder.photo
    assert qr.symbol(issued.qr_text).version <= 26
    assert attributes(issued)[62] == [{0: photo.make(portrait()).data, 1: 0, 2: 4}]
    for permit in (plain, other):
        assert verify(permit.qr_text, trust, clock()).photo is None
        assert codec.FACE not in attributes(permit)


def test_refused_permit_shows_no_face(
    tmp_path_factory: pytest.TempPathFactory, clock: Clock
) -> None:
    home = tmp_path_factory.mktemp("photo") / "authority"
    init_authority(home, WITH_PHOTO, clock)
    with Issuer.open(home, clock) as issuer:
        issued = issuer.issue(HOLDER, portrait=portrait())
        issuer.revoke(issued.status)
        trust = TrustStore.load(issuer.publish_trust().bundle)
    assert verify(issued.qr_text, trust, clock()).photo is None


def test_print_picture_must_be_of_the_same_portrait() -> None:
    made = photo.make(portrait())
    large = photo.print_picture(portrait(), made)
    assert large.size == (384, 480)
    assert photo._difference(large.resize((48, 60)), photo.open_photo(made)) < 10
    with pytest.raises(PhotoError, match="not the one"):
        photo.print_picture(portrait(hair=240), made)
