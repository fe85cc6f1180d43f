from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pypdfium2
import pytest
from PIL import Image, ImageFilter

from issuance import card_fonts, codec, drawing, envelope, permit_number, qr, signing
from issuance.card import CardFormat, draw_card
from issuance.card_layout import MIN_MODULE_MM
from issuance.errors import CardError, DecodeError, SymbolError, UnprintableCharacterError
from issuance.keys import KeyUse
from issuance.permutation import Permutation
from issuance.profile import OPTIONAL_FIELDS, RESIDENCE, TEMPORARY_RESIDENCE, Profile
from issuance.signing import Algorithm
from issuance.types import Permit, StatusRef
from tests.issuance.kit import RULES, START, SeededKeys, holder

KEYS = SeededKeys("cards")
KEY = KEYS.generate(KeyUse.PERMIT, Algorithm.EDDSA, START, START + timedelta(days=9))
FULL = replace(
    RULES,
    kinds=(replace(TEMPORARY_RESIDENCE, carries=frozenset(OPTIONAL_FIELDS)), RESIDENCE),
)
LONG_RESIDENCE = (
    "示例市虚构区样例街道办事处和谐社区居民委员会幸福路 1288 弄（示例花园小区）第 18 幢 2 单元 "
    "1501 室，靠近示例地铁站 3 号出口北侧"
)


def qr_text(rules: Profile = RULES, kind: str = "temporary-residence", **changes: Any) -> str:
    numbers = Permutation(KEYS.secret("numbers"), b"cards", permit_number.CAPACITY)
    number = permit_number.make(rules.kind(kind).prefix, 3, numbers)
    person = holder(**changes)
    end = START + timedelta(days=365)
    permit = Permit(
        number, kind, rules.issuer, rules.authority, person, START, START, end, StatusRef(1, 77_777)
    )
    signer = KEYS.signer(KEY.kid, KeyUse.PERMIT)
    return envelope.to_text(signing.sign(codec.encode(permit, rules), signer))


def full_text() -> str:
    return qr_text(
        FULL,
        full_name="买买提·示例㛃䶮",
        latin_name="Maimaiti Shili",
        ethnicity="维吾尔族",
        citizen_id="110105199005170015",
        residence_address=LONG_RESIDENCE,
        household_address="示例自治区虚构地区样例县某某镇示范村民委员会第三村民小组 128 号",
    )


def pdf_pages(data: bytes, dpi: int = 300) -> list[tuple[Image.Image, str]]:
    document = pypdfium2.PdfDocument(data)
    return [
        (page.render(scale=dpi / 72).to_pil(), page.get_textpage().get_text_bounded())
        for page in document
    ]


@pytest.mark.parametrize("dpi", [300, 600])
def test_png_card_reads_back_with_its_resolution(dpi: int) -> None:
    text = qr_text()
    data = draw_card(text, RULES, dpi=dpi)
    assert qr.read_picture(data) == [text]
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["dpi"] == pytest.approx((dpi, dpi), abs=0.1)
        assert image.width == round(85.6 * dpi / 25.4)


def test_pdf_card_is_two_id1_pages_with_text_and_symbol() -> None:
    text = qr_text()
    front, back = pdf_pages(draw_card(text, RULES, format=CardFormat.PDF))
    assert front[0].size == pytest.approx((1011, 638), abs=2)
    assert qr.read_image(front[0]) == [text]
    assert qr.read_image(back[0]) == []
    for part in ("暂住证", "张示例", "1990.05.17", "示例街道和平路", "2026.11.24", "示例市公安局"):
        assert part in front[1]
    assert "登记服务站" in back[1]


def test_cards_are_the_same_bytes_every_time() -> None:
    for format_ in CardFormat:
        first, second = (draw_card(qr_text(), RULES, format=format_, dpi=300) for _ in range(2))
        assert first == second


def test_dense_symbol_moves_to_the_back_and_still_reads() -> None:
    text = full_text()
    front, back = pdf_pages(draw_card(text, FULL, format=CardFormat.PDF))
    assert qr.read_image(front[0]) == []
    assert qr.read_image(back[0]) == [text]
    flat = front[1].replace("\r\n", "")
    for part in ("买买提·示例㛃䶮", "维吾尔族", "110105199005170015", "3 号出口北侧"):
        assert part in flat


def test_longest_address_of_the_default_profile_fits() -> None:
    text = qr_text(residence_address="示例市虚构区样例街道" * 20)
    assert qr.read_picture(draw_card(text, RULES, dpi=300)) == [text]


def test_default_permit_leaves_modules_large_enough() -> None:
    symbol = qr.symbol(qr_text(residence_address=LONG_RESIDENCE))
    assert 31.0 / (symbol.size + 8) >= MIN_MODULE_MM


def test_character_without_glyph_is_an_error_or_a_visible_mark() -> None:
    text = qr_text(full_name="𠮷示例")
    with pytest.raises(UnprintableCharacterError) as caught:
        draw_card(text, RULES, dpi=300)
    assert caught.value.characters == "𠮷"
    assert "𠮷" not in str(caught.value)
    data = draw_card(text, RULES, format=CardFormat.PDF, replace_unprintable=True)
    assert "〓示例" in pdf_pages(data)[0][1]


def test_fonts_have_every_unified_han_character_of_unicode_1() -> None:
    characters = "".join(map(chr, range(0x4E00, 0x9FA6)))
    assert card_fonts.printable(characters, replace=False) == characters
    assert card_fonts.printable("㛃䶮·āáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜ", replace=False)


def test_every_mapped_character_draws_something_else_than_the_empty_box() -> None:
    for face in card_fonts.Face:
        font = card_fonts.sized(face, 40)
        box = bytes(font.getmask("\uffff"))
        coverage = sorted(card_fonts._coverage(face))
        for code in coverage[:: max(1, len(coverage) // 400)]:
            if not chr(code).isspace() and code != 0xAD:
                assert bytes(font.getmask(chr(code))) != box, f"{face} U+{code:04X}"


def test_texts_that_cannot_fit_are_refused() -> None:
    with pytest.raises(CardError, match="does not fit"):
        draw_card(qr_text(full_name="示" * 100), RULES)
    carries = frozenset({"residence_address", "household_address"})
    rules = replace(RULES, kinds=(replace(TEMPORARY_RESIDENCE, carries=carries),))
    text = qr_text(rules, residence_address="示" * 200, household_address="例" * 200)
    with pytest.raises(CardError, match="do not fit"):
        draw_card(text, rules)
    with pytest.raises(CardError, match="dpi"):
        draw_card(qr_text(), RULES, dpi=100)


def test_card_of_something_else_is_refused() -> None:
    with pytest.raises(DecodeError):
        draw_card("HELLO", RULES)


def test_card_that_does_not_read_back_is_not_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smudge over a corner of the symbol is what a worn print head does."""
    real = drawing.raster

    def smudged(page: drawing.Page, dpi: int) -> Image.Image:
        image = real(page, dpi)
        image.paste("white", (image.width * 3 // 4, 0, image.width, image.height))
        return image

    monkeypatch.setattr(drawing, "raster", smudged)
    for format_ in CardFormat:
        with pytest.raises(CardError, match="read back"):
            draw_card(qr_text(), RULES, format=format_, dpi=300)


@pytest.mark.parametrize("seed", range(6))
def test_front_reads_after_a_bad_print_and_a_bad_camera(seed: int) -> None:
    """Tilted, blurred, unevenly lit, noisy and compressed, at 300 dpi and with a long address."""
    text = qr_text(residence_address=LONG_RESIDENCE)
    front = Image.open(io.BytesIO(draw_card(text, RULES, dpi=300))).crop((0, 0, 1011, 638))
    random = np.random.default_rng(seed)
    tilted = front.convert("L").rotate(
        random.uniform(-5, 5), Image.Resampling.BICUBIC, expand=True, fillcolor=255
    )
    light = np.asarray(tilted.filter(ImageFilter.GaussianBlur(0.7)), dtype=np.float64)
    light = light * np.linspace(0.6, 1.0, light.shape[1]) + random.normal(0, 12, light.shape)
    photo = io.BytesIO()
    Image.fromarray(light.clip(0, 255).astype(np.uint8)).save(photo, "JPEG", quality=50)
    assert qr.read_picture(photo.getvalue()) == [text]


def test_card_must_also_read_as_a_300_dpi_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    real = qr.read_image

    def only_large(image: Image.Image) -> list[str]:
        return real(image) if image.width > 1500 else []

    monkeypatch.setattr(qr, "read_image", only_large)
    with pytest.raises(CardError, match="read back"):
        draw_card(qr_text(), RULES, dpi=600)


def test_pictures_are_bounded_before_they_are_decoded() -> None:
    huge = Image.new("1", (7_000, 6_000), 1)
    huge.paste(qr.picture(qr.symbol("ANJU"), 20).convert("1"), (100, 100))
    data = io.BytesIO()
    huge.save(data, "PNG")
    with pytest.raises(SymbolError, match="pixels"):
        qr.read_picture(data.getvalue())
    with pytest.raises(SymbolError, match="MiB"):
        qr.read_picture(bytes(qr.MAX_PICTURE_BYTES + 1))
    gif = io.BytesIO()
    qr.picture(qr.symbol("ANJU"), 4).save(gif, "GIF")
    with pytest.raises(SymbolError, match="neither"):
        qr.read_picture(gif.getvalue())


def test_symbol_limits() -> None:
    assert qr.symbol("A" * 4_296, "L").version == 40
    for text, level in (("", "M"), ("A" * 4_297, "L"), ("A" * 4_296, "M"), ("A", "X")):
        with pytest.raises(SymbolError):
            qr.symbol(text, level)
