from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pypdfium2
import pytest
from PIL import Image, ImageFilter

from issuance import (
    card_fonts,
    card_layout,
    codec,
    drawing,
    envelope,
    permit_number,
    photo,
    qr,
    signing,
)
from issuance.card import CardFormat, Paper, draw_batch, draw_card
from issuance.errors import (
    CardError,
    DecodeError,
    PhotoError,
    SymbolError,
    UnprintableCharacterError,
)
from issuance.keys import KeyUse
from issuance.layout_parts import MIN_MODULE_MM
from issuance.permutation import Permutation
from issuance.profile import OPTIONAL_FIELDS, RESIDENCE, TEMPORARY_RESIDENCE, Profile
from issuance.signing import Algorithm
from issuance.types import Gender, Permit, StatusRef
from tests.issuance.kit import RULES, START, WITH_PHOTO, SeededKeys, holder, portrait

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


def permit_in(text: str, rules: Profile) -> Permit:
    return codec.permit_from(
        codec.read_claims(signing.parse(envelope.from_text(text)).payload), rules
    )


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


FACE = photo.make(portrait())


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
    text = qr_text(WITH_PHOTO, photo=FACE)
    for format_ in CardFormat:
        for paper in Paper:
            first, second = (
                draw_card(text, WITH_PHOTO, format=format_, dpi=300, paper=paper) for _ in range(2)
            )
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


def seen_by_a_phone(front: Image.Image, seed: int) -> bytes:
    """Tilted, in perspective, blurred, unevenly lit, noisy and compressed: a phone's photograph."""
    random = np.random.default_rng(seed)
    grey = front.convert("L")
    tilted = grey.rotate(
        random.uniform(-5, 5), Image.Resampling.BICUBIC, expand=True, fillcolor=255
    )
    width, height = tilted.size
    shift = random.uniform(-0.03, 0.03, 8) * np.array([width, height] * 4)
    corners = np.array([0, 0, 0, height, width, height, width, 0]) + shift
    seen = tilted.transform(
        tilted.size, Image.Transform.QUAD, list(corners), Image.Resampling.BICUBIC, fillcolor=255
    )
    light = np.asarray(seen.filter(ImageFilter.GaussianBlur(0.7)), dtype=np.float64)
    light = light * np.linspace(0.6, 1.0, light.shape[1]) + random.normal(0, 12, light.shape)
    photograph = io.BytesIO()
    Image.fromarray(light.clip(0, 255).astype(np.uint8)).save(photograph, "JPEG", quality=50)
    return photograph.getvalue()


def printed_and_scanned(front: Image.Image, seed: int) -> bytes:
    """Printed at 300 dpi with ink that spreads, and scanned at 300 dpi a little askew."""
    random = np.random.default_rng(seed)
    grey = front.convert("L").filter(
        ImageFilter.MinFilter(3) if seed % 2 else ImageFilter.BoxBlur(0.5)
    )
    soft = Image.blend(front.convert("L"), grey, 0.35)
    askew = soft.rotate(random.uniform(-1, 1), Image.Resampling.BICUBIC, fillcolor=255)
    scan = np.asarray(askew.filter(ImageFilter.GaussianBlur(0.6)), dtype=np.float64)
    scan = 40 + scan * 0.75 + random.normal(0, 6, scan.shape)
    picture = io.BytesIO()
    Image.fromarray(scan.clip(0, 255).astype(np.uint8)).save(picture, "PNG")
    return picture.getvalue()


def side(data: bytes, number: int) -> Image.Image:
    top = number * (638 + round(4 * 300 / 25.4))
    return Image.open(io.BytesIO(data)).crop((0, top, 1011, top + 638))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spoil", [seen_by_a_phone, printed_and_scanned])
def test_front_reads_after_a_bad_print_and_a_bad_camera(
    seed: int, spoil: Callable[[Image.Image, int], bytes]
) -> None:
    text = qr_text(residence_address=LONG_RESIDENCE)
    front = side(draw_card(text, RULES, dpi=300), 0)
    assert qr.read_picture(spoil(front, seed)) == [text]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spoil", [seen_by_a_phone, printed_and_scanned])
def test_symbol_with_a_photograph_reads_after_them_too(
    seed: int, spoil: Callable[[Image.Image, int], bytes]
) -> None:
    text = qr_text(WITH_PHOTO, photo=FACE)
    back = side(draw_card(text, WITH_PHOTO, dpi=300), 1)
    assert qr.read_picture(spoil(back, seed)) == [text]


def test_photograph_is_on_the_front_and_the_symbol_on_the_back() -> None:
    text = qr_text(WITH_PHOTO, photo=FACE)
    data = draw_card(text, WITH_PHOTO, dpi=300)
    assert qr.read_image(side(data, 0)) == []
    assert qr.read_image(side(data, 1)) == [text]
    printed = side(data, 0).crop((674, 154, 957, 508)).convert("L").resize((48, 60))
    assert photo._difference(printed, photo.open_photo(FACE)) < 12
    better = draw_card(text, WITH_PHOTO, dpi=300, portrait=portrait())
    assert better != data
    for wrong in (portrait(hair=240), b"junk"):
        with pytest.raises(PhotoError):
            draw_card(text, WITH_PHOTO, dpi=300, portrait=wrong)
    with pytest.raises(CardError, match="no photograph"):
        draw_card(qr_text(), RULES, dpi=300, portrait=portrait())


def test_card_with_photograph_has_room_for_a_long_address_and_name() -> None:
    text = qr_text(
        WITH_PHOTO,
        photo=FACE,
        full_name="阿卜杜热合曼·示例艾山江",
        residence_address=LONG_RESIDENCE,
    )
    assert qr.read_image(side(draw_card(text, WITH_PHOTO, dpi=300), 1)) == [text]


@pytest.mark.parametrize("text", [qr_text(), full_text(), qr_text(WITH_PHOTO, photo=FACE)])
def test_certificate_is_one_a4_page_with_everything(text: str) -> None:
    rules = FULL if text == full_text() else WITH_PHOTO
    ((picture, words),) = pdf_pages(
        draw_card(text, rules, format=CardFormat.PDF, paper=Paper.CERTIFICATE), 150
    )
    assert picture.size == pytest.approx((1240, 1754), abs=2)
    assert qr.read_image(picture) == [text]
    permit = permit_in(text, rules)
    flat = words.replace("\r\n", "")
    for part in (
        "暂住证",
        permit.holder.full_name,
        permit_number.display(permit.number),
        "1990.05.17",
        "示例市公安局",
    ):
        assert part in flat
    png = draw_card(text, rules, dpi=300, paper=Paper.CERTIFICATE)
    assert qr.read_picture(png) == [text]


def test_certificate_holds_what_no_card_can() -> None:
    carries = frozenset({"residence_address", "household_address"})
    rules = replace(RULES, kinds=(replace(TEMPORARY_RESIDENCE, carries=carries),))
    text = qr_text(rules, residence_address="示" * 200, household_address="例" * 200)
    with pytest.raises(CardError, match="do not fit"):
        draw_card(text, rules)
    data = draw_card(text, rules, dpi=300, paper=Paper.CERTIFICATE)
    assert qr.read_picture(data) == [text]


@pytest.mark.parametrize("paper", Paper)
def test_svg_shows_the_same_symbol_and_words_without_a_font(paper: Paper) -> None:
    text = qr_text(WITH_PHOTO, photo=FACE)
    data = draw_card(text, WITH_PHOTO, format=CardFormat.SVG, paper=paper)
    root = ElementTree.fromstring(data)
    svg = "{http://www.w3.org/2000/svg}"
    assert root.get("width") == ("85.6mm" if paper is Paper.CARD else "210mm")
    (symbol,) = (path for path in root.iter(f"{svg}path") if path.get("id") == "symbol")
    runs = re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", symbol.get("d") or "")
    size = qr.symbol(text).size
    grid = Image.new("L", (size, size), 255)
    for x, y, length in runs:
        grid.paste(0, (int(x), int(y), int(x) + int(length), int(y) + 1))
    framed = Image.new("L", (size + 8, size + 8), 255)
    framed.paste(grid, (4, 4))
    assert qr.read_image(framed.resize((4 * (size + 8),) * 2, Image.Resampling.NEAREST)) == [text]
    titles = {title.text for title in root.iter(f"{svg}title")}
    assert "张示例" in titles
    defined = {path.get("id") for path in root.iter(f"{svg}path")}
    href = "{http://www.w3.org/1999/xlink}href"
    used = {(use.get(href) or "").removeprefix("#") for use in root.iter(f"{svg}use")}
    assert used <= defined
    assert not list(root.iter(f"{svg}text"))
    assert b"<script" not in data


def test_svg_escapes_what_a_name_may_hold() -> None:
    text = qr_text(full_name="A<b>&amp;\"'")
    root = ElementTree.fromstring(draw_card(text, RULES, format=CardFormat.SVG))
    titles = {title.text for title in root.iter("{http://www.w3.org/2000/svg}title")}
    assert "A<b>&amp;\"'" in titles


@pytest.mark.parametrize("paper", Paper)
def test_batch_prints_all_and_names_those_it_cannot(paper: Paper) -> None:
    good = [qr_text(full_name=name) for name in ("示例甲", "示例乙")]
    made = draw_batch([good[0], "JUNK", qr_text(full_name="𠮷"), good[1]], RULES, paper=paper)
    assert made.drawn == 2
    assert [position for position, _ in made.problems] == [1, 2]
    assert isinstance(made.problems[0][1], DecodeError)
    assert isinstance(made.problems[1][1], UnprintableCharacterError)
    pages = pdf_pages(made.pdf, 200)
    sides = 2 if paper is Paper.CARD else 1
    assert len(pages) == 2 * sides
    assert [qr.read_image(image) for image, _ in pages[::sides]] == [[text] for text in good]
    assert "示例乙" in pages[sides][1]
    assert draw_batch(["JUNK"], RULES).pdf == b""


def test_batch_stores_what_cards_share_once() -> None:
    few, many = (draw_batch([qr_text()] * count, RULES).pdf for count in (5, 45))
    alone = draw_card(qr_text(), RULES, format=CardFormat.PDF)
    assert (len(many) - len(few)) / 40 < len(alone) / 3


def test_batch_reads_every_card_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something drawn over the symbol is noticed, though only its surroundings are drawn."""
    real = drawing.raster_around

    def compare(page: drawing.Page, code: drawing.Code, dpi: int, margin: float) -> Image.Image:
        x, y = code.x + code.side / 2, code.y + code.side / 2
        blot = drawing.Box(x, y, 9, 14, drawing.Color(0, 0, 0))
        hidden = replace(page, ground=(*page.ground, blot))
        visible = real(hidden, code, dpi, margin)
        # A symbol is drawn last, so a blot must come after it to matter.
        visible.paste(0, (visible.width // 2, visible.height // 3, visible.width, visible.height))
        return visible

    monkeypatch.setattr(drawing, "raster_around", compare)
    made = draw_batch([qr_text()] * 2, RULES)
    assert made.drawn == 0
    assert all("read back" in str(error) for _, error in made.problems)


def test_long_titles_and_ethnicities_run_into_nothing() -> None:
    kind = replace(
        TEMPORARY_RESIDENCE,
        title_zh="临时居住登记证明",
        title_en="Certificate of Temporary Residence Registration",
        carries=TEMPORARY_RESIDENCE.carries | {"ethnicity"},
    )
    rules = replace(
        RULES, authority="示例市公安局人口与出入境管理支队流动人口管理处", kinds=(kind,)
    )
    text = qr_text(rules, ethnicity="柯尔克孜族", gender=Gender.OTHER, full_name="示" * 9)
    permit = permit_in(text, rules)
    for portrait_ in (None, drawing.Picture(0, 0, 0, 0, 48, 60, bytes(2_880))):
        for page in card_layout.pages(
            permit, qr.symbol(text), rules, KEY.kid, replace=False, portrait=portrait_
        ):
            labels = [m for m in (*page.ground, *page.marks) if isinstance(m, drawing.Label)]
            for one in labels:
                assert ends(one) <= card_layout.WIDTH - 4.4, one
            for one, other in itertools.permutations(labels, 2):
                beside = one.x <= other.x < ends(one)
                above = one.y - 0.8 * one.size < other.y and other.y - 0.8 * other.size < one.y
                assert not (beside and above), (one, other)


def ends(label: drawing.Label) -> float:
    wide = card_fonts.width(label.text, bold=label.bold) * label.size
    return label.x + wide + label.spacing * (len(label.text) - 1)


@pytest.mark.parametrize("spacing", [0.0, 0.12])
def test_text_is_as_wide_in_a_picture_as_in_the_pdf(spacing: float) -> None:
    text, size, dpi = "TEMPORARY RESIDENCE PERMIT", 1.75, 300
    label = drawing.Label(2, 5, size, text, drawing.Color(0, 0, 0), spacing=spacing)
    right = 2 + card_fonts.width(text) * size + spacing * (len(text) - 1)
    grey = drawing.raster(drawing.Page(60, 8, (), (label,)), dpi).convert("L")
    columns = np.flatnonzero((np.asarray(grey) < 128).any(axis=0))
    assert columns[-1] * 25.4 / dpi == pytest.approx(right, abs=0.3)


def test_surroundings_of_a_symbol_are_those_of_the_whole_page() -> None:
    text = qr_text(residence_address=LONG_RESIDENCE)
    permit = permit_in(text, RULES)
    front, _ = card_layout.pages(permit, qr.symbol(text), RULES, KEY.kid, replace=False)
    (code,) = front.codes()
    around = np.asarray(drawing.raster_around(front, code, 600, 3.0), dtype=np.int16)
    k = 600 / 25.4
    x, y = round((code.x - 3) * k), round((code.y - 3) * k)
    whole = np.asarray(drawing.raster(front, 600), dtype=np.int16)
    height, width = around.shape[:2]
    part = whole[y : y + height, x : x + width]
    assert np.abs(part - around).mean() < 1


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
