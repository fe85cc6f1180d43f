"""The web page in a real browser: the same verdicts as `issuance.verifier`, and all its ways in.

Needs Chromium, and Node for the rebuild. Where either is missing the tests skip, except in CI.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import io
import json
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from issuance import bundle as bundles
from issuance import cbor, cli, codec, delta, page, photo, status_list
from issuance.authority import init_authority
from issuance.card import draw_card
from issuance.errors import TrustError
from issuance.issuer import Issuer
from issuance.keys import KeyUse
from issuance.memory import Memory
from issuance.page_command import page_command
from issuance.profile import DISCLOSURE
from issuance.publisher import Publisher
from issuance.signing import Algorithm
from issuance.trust import TrustStore
from issuance.types import IssuedPermit, PermitStatus
from issuance.verifier import verify
from tests.issuance import chromium
from tests.issuance.chromium import Browser, Page
from tests.issuance.kit import RULES, WITH_PHOTO, Clock, SeededKeys, holder, portrait
from tests.vectors.permits import generate

VECTORS: Final = Path(generate.__file__).parent
WEB: Final = Path(page.__file__).parent / "web"
HOSTILE: Final = "<img src=x onerror=document.title='owned'><b>张</b>&amp;"
PLAIN_HOST: Final = "counter.test"
REASON: Final = "document.querySelector('#verdict').dataset.reason"
STATE: Final = "document.body.dataset.state"


def _needs(tool: str | None, name: str) -> pytest.MarkDecorator:
    """Skip without the tool; in CI run and fail, so that no green run hides a missing browser."""
    return pytest.mark.skipif(
        tool is None and not os.environ.get("CI"),
        reason=f"{name} is not installed; .ci/run installs it and runs these",
    )


needs_browser = _needs(chromium.find(), "chromium")
needs_node = _needs(shutil.which("npm"), "npm")


@dataclass(frozen=True)
class City:
    """An authority at the present time, since the page goes by the real clock."""

    directory: Path
    valid: IssuedPermit
    revoked: IssuedPermit
    hostile: IssuedPermit
    card: Path
    older_bundle: bytes
    bundle: bytes
    film: Path


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    directory = tmp_path_factory.mktemp("city")
    clock = Clock(datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=2))
    init_authority(directory / "authority", RULES, clock)
    with Issuer.open(directory / "authority", clock) as issuer:
        valid, revoked = issuer.issue(holder(full_name="癸示例亥子")), issuer.issue(holder())
        hostile = issuer.issue(holder(full_name=HOSTILE, residence_address=HOSTILE))
        older = issuer.publish_trust().bundle
        issuer.revoke(revoked.status)
        clock.advance(minutes=1)
        newest = issuer.publish_trust().bundle
    card, film = directory / "card.png", directory / "film.mjpeg"
    card.write_bytes(draw_card(valid.qr_text, RULES, dpi=300))
    film.write_bytes(_film(card))
    return City(directory, valid, revoked, hostile, card, older, newest, film)


def _film(card: Path) -> bytes:
    """What a camera sees of a card on a desk: MJPEG is JPEG pictures one after another."""
    with Image.open(card) as sheet:
        front = sheet.convert("RGB").crop((0, 0, sheet.width, round(sheet.width * 53.98 / 85.60)))
    desk = (104, 92, 80)
    frame = Image.new("RGB", (1280, 720), desk)
    front = front.resize((820, 517)).rotate(-4, expand=True, fillcolor=desk)
    frame.paste(front, (210, 60))
    buffer = io.BytesIO()
    frame.save(buffer, "JPEG", quality=80)
    return buffer.getvalue() * 3


@pytest.fixture(scope="module")
def browser(city: City, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if chromium.find() is None:
        pytest.fail("chromium is not installed: run .ci/run, which installs it")
    with chromium.running(
        tmp_path_factory.mktemp("profile"),
        # A name that, unlike localhost, gives no secure context over http.
        f"--host-resolver-rules=MAP {PLAIN_HOST} 127.0.0.1",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={city.film}",
    ) as running:
        yield running


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Site:
    """A static web server; every one has a port and so an origin and a storage of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        handler = functools.partial(_Handler, directory=str(directory))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.origin = f"http://localhost:{self._server.server_port}"
        self.url = f"{self.origin}/{page.PAGE_NAME}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def site(city: City, tmp_path: Path) -> Iterator[Site]:
    """A server with page and bundle."""
    page.write_page(tmp_path / "site", city.bundle)
    served = Site(tmp_path / "site")
    yield served
    served.close()


@pytest.fixture
def bare_site(tmp_path: Path) -> Iterator[Site]:
    """A server with the page alone."""
    page.write_page(tmp_path / "bare")
    served = Site(tmp_path / "bare")
    yield served
    served.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    opened = browser.page()
    yield opened
    opened.close()


def _verdict(tab: Page) -> str:
    """The reason on the screen, once there is one."""
    return str(tab.wait(REASON))


def _shown(tab: Page) -> dict[str, str]:
    """Field name -> text, as people see it."""
    script = """Object.fromEntries([...document.querySelectorAll('.field')].map(
        (field) => [field.classList[1], field.querySelector('dd').textContent]))"""
    fields: dict[str, str] = tab.run(script)
    return fields


# --- the same verdicts -------------------------------------------------------------------------


def _judge(tab: Page, bundle: bytes, cases: list[dict[str, Any]], *, native: bool) -> list[Any]:
    """What the page's verifier answers to each case, and its best time of three, in ms.

    `now` and `floor` of a case are in ms too.
    """
    script = f"""(async () => {{
      anju.useNative({json.dumps(native)});
      const packed = atob("{base64.b64encode(bundle).decode()}");
      const opened = await anju.open(Uint8Array.from(packed, (c) => c.charCodeAt(0)));
      const answers = [];
      for (const c of {json.dumps(cases)}) {{
        let verdict, ms = Infinity;
        for (let turn = 0; turn < 3; turn += 1) {{
          const begun = performance.now();
          verdict = await opened.judge(c.text, c.now, c.purpose, c.floor);
          ms = Math.min(ms, performance.now() - begun);
        }}
        answers.push([verdict, ms]);
      }}
      anju.useNative(true);
      return answers.map(([v, ms]) => ({{valid: v.valid, reason: v.reason, stage: v.stage,
        message_en: v.message_en, message_zh: v.message_zh, shown: v.shown, warnings: v.warnings,
        freshness: v.trust && v.trust.freshness, ms,
        photo: v.photo && {{media_type: v.photo.mediaType,
          base64: btoa(String.fromCharCode(...v.photo.data))}}}}));
    }})()"""
    answers: list[Any] = tab.run(script)
    return answers


def _python(trust: TrustStore, case: dict[str, Any]) -> dict[str, Any]:
    if case["floor"] is not None:
        trust = replace(trust, floor=datetime.fromtimestamp(case["floor"] / 1000, UTC))
    now = datetime.fromtimestamp(case["now"] / 1000, UTC)
    verdict = cli.to_dict(verify(case["text"], trust, now, purpose=case["purpose"]))
    age = verdict.pop("trust")
    assert age is None or isinstance(age, dict)
    return {**verdict, "freshness": age and age["freshness"]}


def _ms(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp() * 1000


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("native", [True, False], ids=["webcrypto", "javascript"])
def test_every_vector_gets_the_same_verdict_as_in_python(
    tab: Page, bare_site: Site, native: bool
) -> None:
    tab.open(bare_site.url)
    vectors = {path.stem: json.loads(path.read_bytes()) for path in VECTORS.glob("*.json")}
    by_bundle: dict[str, dict[str, dict[str, Any]]] = {}
    for name, vector in vectors.items():
        by_bundle.setdefault(vector["trust"], {})[name] = {
            "text": vector["text"],
            "now": _ms(vector["now"]),
            "floor": _ms(vector.get("floor")),
            "purpose": vector["purpose"],
        }
    judged = 0
    for bundle_name, cases in by_bundle.items():
        bundle = (VECTORS / bundle_name).read_bytes()
        trust = TrustStore.load(bundle)
        answers = _judge(tab, bundle, list(cases.values()), native=native)
        for (name, case), answer in zip(cases.items(), answers, strict=True):
            assert answer.pop("ms") < 50, name
            assert answer == _python(trust, case), name
            expected = vectors[name]["expected"]
            assert {"reason": answer["reason"], "stage": answer["stage"]} == expected, name
            judged += 1
    assert judged == len(vectors) >= 70


@pytest.mark.browser
@needs_browser
def test_mutated_permits_get_the_same_verdict_as_in_python(tab: Page, bare_site: Site) -> None:
    tab.open(bare_site.url)
    chance = random.Random(20261124)
    town = generate.City()
    good = generate.claims(town)
    texts = [generate.text(_mutated(chance, town, good)) for _ in range(500)]
    valid_text = generate.text(generate.cose(town, good))
    for _ in range(300):
        characters = list(valid_text)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(characters))
            characters[at : at + chance.randrange(2)] = chance.choice("0AZ $%*+-./:a\né")
        texts.append("".join(characters))
    now = generate.CHECK.timestamp() * 1000
    purposes = sorted(DISCLOSURE)
    cases = [
        {"text": t, "now": now, "floor": None, "purpose": chance.choice(purposes)} for t in texts
    ]
    trust = TrustStore.load(town.bundle)
    reasons = set()
    for case, answer in zip(cases, _judge(tab, town.bundle, cases, native=True), strict=True):
        answer.pop("ms")
        assert answer == _python(trust, case), case
        reasons.add(answer["reason"])
    assert reasons >= {"VALID", "MALFORMED", "NOT_A_PERMIT", "DUPLICATE_KEY", "UNKNOWN_KEY"}
    assert "INTERNAL" not in reasons


_ODD_ITEMS: Final = """
    00 01 02 03 18ff 1a7fffffff 1bffffffffffffffff 1b001fffffffffffff 1b0020000000000000 20 27
    3bffffffffffffffff 40 43010203 60 6131 6162 623120 80 a0 f4 f5 f6 f7 f93c00 f97e00 f97c00
    fa3f800000 fb7ff0000000000000 fb41d8dc0b40000000 c100 d83d00 81a0 a10101 a201010102 a2f50101f5
    683139393030353137 6a313939302d30352d3137 683139393030323330 5f4101ff 62c328 fc
    81a3004301020301000204 a3004301020301f40200 81a3004301020301010204 81a2004101021863 81
"""
_ODD: Final = [bytes.fromhex(item) for item in _ODD_ITEMS.split()]


def _mutated(chance: random.Random, town: generate.City, good: dict[Any, Any]) -> bytes:
    """A permit, rightly signed, with something odd in its claims, attributes or headers."""
    pairs = {key: cbor.encode(value) for key, value in good.items() if key != codec.CLAIM_169}
    attributes = {k: cbor.encode(v) for k, v in good[codec.CLAIM_169].items()}
    headers = {1: b"\x27", 4: cbor.encode(bytes.fromhex(town.ed25519.kid))}
    known = [*pairs, *attributes, *([codec.FACE] * 4)]
    for _ in range(chance.randrange(1, 3)):
        where = chance.choice([pairs, attributes, attributes, headers])
        key = chance.choice([*where, chance.choice(known)])
        match chance.randrange(4):
            case 0:
                where.pop(key, None)
            case _:
                where[key] = chance.choice(_ODD)
    doubled = chance.choice([(), (), (), tuple(attributes.items())[:1]])
    inner = _raw_map([*attributes.items(), *doubled])
    if chance.random() < 0.1:
        inner = cbor.encode(inner)
    payload = _raw_map([*pairs.items(), (codec.CLAIM_169, inner)])
    if chance.random() < 0.1:
        payload = bytes([0xD8, 61]) + payload
    return generate.cose(town, payload, protected=_raw_map(list(headers.items())))


def _raw_map(pairs: list[tuple[int, bytes]]) -> bytes:
    assert len(pairs) < 24
    return bytes([0xA0 | len(pairs)]) + b"".join(cbor.encode(k) + v for k, v in pairs)


def test_words_and_fields_of_the_page_are_those_of_the_package() -> None:
    written = json.loads((WEB / "src" / "texts.json").read_bytes())
    assert written == json.loads(json.dumps(page.texts())), (
        "write issuance.page.texts() to web/src/texts.json and rebuild the page"
    )


# --- ways in -----------------------------------------------------------------------------------


@pytest.mark.browser
@needs_browser
def test_scanner_that_types_is_understood_whatever_has_the_focus(
    tab: Page, site: Site, city: City
) -> None:
    tab.open(site.url)
    tab.type(city.valid.qr_text + "\n")
    assert _verdict(tab) == "VALID"
    assert _shown(tab)["full_name"] == "癸示例亥子"
    spoken = tab.run("document.querySelector('[aria-live=assertive]').textContent")
    assert spoken.startswith("有效. 证件有效，有效期至 ")
    tab.type("\x1b")
    tab.wait(f"{STATE} === 'idle'")
    assert not _shown(tab)
    # A base45 space would press the button, Enter would too, and letters would choose a purpose.
    for focused in ("#camera", "#purpose", "#language"):
        tab.run(f"document.querySelector('{focused}').focus()")
        tab.type(city.revoked.qr_text + "\n")
        assert _verdict(tab) == "REVOKED"
        assert tab.run("document.querySelector('#viewfinder').dataset.camera") == "off"
        assert tab.run("document.querySelector('#purpose').value") == "general"
        assert tab.run("document.documentElement.lang") == "zh-CN"
        tab.type("\x1b")
    # Some scanners send no Enter.
    tab.type(city.valid.qr_text)
    assert _verdict(tab) == "VALID"


@pytest.mark.browser
@needs_browser
def test_picture_of_a_card_is_read(tab: Page, site: Site, city: City) -> None:
    tab.open(site.url)
    tab.choose_file("#file", city.card)
    assert _verdict(tab) == "VALID"


@pytest.mark.browser
@needs_browser
def test_picture_without_a_symbol_and_a_file_of_another_kind_are_told_apart(
    tab: Page, site: Site, tmp_path: Path
) -> None:
    tab.open(site.url)
    Image.new("RGB", (400, 300), "white").save(tmp_path / "white.png")
    (tmp_path / "note.bin").write_bytes(b"\x00\x01nothing")
    toast = "document.querySelector('#toast').textContent"
    tab.choose_file("#file", tmp_path / "white.png")
    tab.wait(f"{toast}.includes('没有可识别的二维码')")
    tab.choose_file("#file", tmp_path / "note.bin")
    tab.wait(f"{toast}.includes('不是图片')")
    assert tab.run(STATE) == "idle"


@pytest.mark.browser
@needs_browser
def test_camera_reads_a_card_once_until_it_is_taken_away(tab: Page, site: Site) -> None:
    tab.open(site.url)
    tab.run("document.querySelector('#camera').click()")
    assert _verdict(tab) == "VALID"
    assert tab.run("document.querySelector('#viewfinder').dataset.camera") == "on"
    tab.type("\x1b")
    tab.wait(f"{STATE} === 'idle'")
    # The card still lies there; three seconds of it are some thirty frames.
    with pytest.raises(chromium.BrowserError):
        tab.wait(REASON, timeout_s=2.0)
    tab.run("document.querySelector('#camera').click()")
    assert tab.run("document.querySelector('#video').srcObject") is None


# --- with and without a network ------------------------------------------------------------------


@pytest.mark.browser
@needs_browser
def test_page_works_after_its_server_is_gone(tab: Page, site: Site, city: City) -> None:
    tab.open(site.url)
    tab.wait("document.body.dataset.offline === 'ready'")
    site.close()
    tab.open(site.url + "?again")
    tab.type(city.valid.qr_text + "\n")
    assert _verdict(tab) == "VALID"
    tab.type("\x1b")
    tab.choose_file("#file", city.card)
    assert _verdict(tab) == "VALID"


@pytest.mark.browser
@needs_browser
def test_page_works_over_plain_http_without_the_camera(tab: Page, site: Site, city: City) -> None:
    tab.open(site.url.replace("localhost", PLAIN_HOST))
    assert not tab.run("isSecureContext || Boolean(crypto.subtle)")
    tab.type(city.valid.qr_text + "\n")
    assert _verdict(tab) == "VALID"
    tab.type("\x1b")
    tab.choose_file("#file", city.card)
    assert _verdict(tab) == "VALID"
    tab.run("document.querySelector('#camera').click()")
    assert "https" in tab.run("document.querySelector('#hint').textContent")
    assert not tab.complaints


@pytest.mark.browser
@needs_browser
def test_one_file_on_a_stick_brings_its_trust_with_it(
    tab: Page, city: City, tmp_path: Path
) -> None:
    [file] = page.write_page(tmp_path / "stick.html", city.bundle)
    tab.open(file.as_uri())
    tab.type(city.valid.qr_text + "\n")
    assert _verdict(tab) == "VALID"
    tab.type("\x1b")
    tab.choose_file("#file", city.card)
    assert _verdict(tab) == "VALID"
    tab.type("\x1b")
    tab.run("document.querySelector('#camera').click()")
    assert _verdict(tab) == "VALID"
    assert not tab.complaints
    tab.run("indexedDB.deleteDatabase('anju-verifier')")


@pytest.mark.browser
@needs_browser
def test_newer_bundle_of_the_server_is_taken_and_an_older_one_ignored(
    tab: Page, site: Site, city: City
) -> None:
    served = site.directory / page.BUNDLE_NAME
    for visit, (bundle, reason) in enumerate(
        [(city.older_bundle, "VALID"), (city.bundle, "REVOKED"), (city.older_bundle, "REVOKED")]
    ):
        served.write_bytes(bundle)
        # A server tells versions apart by the second.
        os.utime(served, (visit * 10 + 1_800_000_000,) * 2)
        tab.open(f"{site.url}?{visit}")
        tab.type(city.revoked.qr_text + "\n")
        assert _verdict(tab) == reason


# --- trust ---------------------------------------------------------------------------------------


def _offer(tab: Page, path: Path, bundle: bytes) -> None:
    path.write_bytes(bundle)
    tab.choose_file("#file", path)


def _answer(tab: Page, value: str) -> None:
    tab.wait("document.querySelector('#compare').open")
    tab.run(f"document.querySelector('#compare button[value={value}]').click()")


@pytest.mark.browser
@needs_browser
def test_first_bundle_from_a_file_needs_its_fingerprint_compared(
    tab: Page, bare_site: Site, city: City, tmp_path: Path
) -> None:
    tab.open(bare_site.url)
    assert tab.run(STATE) == "untrusted"
    tab.type(city.valid.qr_text + "\n")
    tab.wait("!document.querySelector('#toast').hidden")
    assert tab.run(REASON) is None
    file = tmp_path / "trust.anju"
    _offer(tab, file, city.bundle)
    tab.wait("document.querySelector('#compare').open")
    fingerprint = tab.run("document.querySelector('#compare .fingerprint').textContent")
    assert fingerprint == TrustStore.load(city.bundle).root_fingerprint
    _answer(tab, "different")
    assert tab.run(STATE) == "untrusted"
    _offer(tab, file, city.bundle)
    _answer(tab, "same")
    tab.wait(f"{STATE} === 'idle'")
    # Remembered: no question after a reload, nor for a newer bundle of the same root.
    tab.open(bare_site.url + "?again")
    tab.type(city.revoked.qr_text + "\n")
    assert _verdict(tab) == "REVOKED"


@pytest.mark.browser
@needs_browser
def test_bundle_that_is_older_foreign_or_damaged_changes_nothing(
    tab: Page, site: Site, city: City, tmp_path: Path
) -> None:
    tab.open(site.url)
    toast = "document.querySelector('#toast').textContent"
    cut, flipped = city.bundle[: len(city.bundle) // 2], bytearray(city.bundle)
    flipped[len(flipped) // 2] ^= 1
    foreign = (VECTORS / "trust.anju").read_bytes()
    for bundle, said in (
        (city.older_bundle, "比本机用过的旧"),
        (foreign, "属于另一机关"),
        (cut, "不是信任数据"),
        (bytes(flipped), "不是信任数据"),
        (_resigned(city.bundle), "未通过验证"),
    ):
        _offer(tab, tmp_path / "offered.anju", bundle)
        tab.wait(f"{toast}.includes('{said}')")
    tab.type(city.revoked.qr_text + "\n")
    assert _verdict(tab) == "REVOKED"


def _resigned(bundle: bytes) -> bytes:
    """A bundle whose archive is whole and whose timestamp is not what was signed."""
    files = bundles.unpack(bundle)
    timestamp = json.loads(files["metadata/timestamp.json"])
    timestamp["signed"]["version"] += 1
    return bundles.pack({**files, "metadata/timestamp.json": json.dumps(timestamp).encode()})


@pytest.mark.browser
@needs_browser
def test_changes_of_a_day_are_taken_from_a_stick(
    tab: Page, site: Site, city: City, tmp_path: Path
) -> None:
    (site.directory / page.BUNDLE_NAME).write_bytes(city.older_bundle)
    tab.open(site.url)
    changes = delta.make(city.older_bundle, city.bundle).data
    assert len(changes) < 10_000
    damaged, path = bytearray(changes), tmp_path / "day.delta"
    damaged[40] ^= 1
    _offer(tab, path, bytes(damaged))
    tab.wait("document.querySelector('#toast').textContent.includes('增量文件已损坏')")
    _offer(tab, path, changes)
    tab.wait("document.querySelector('#toast').textContent.includes('已更新')")
    tab.type(city.revoked.qr_text + "\n")
    assert _verdict(tab) == "REVOKED"


@pytest.mark.browser
@needs_browser
def test_changes_lead_to_the_very_bytes_that_were_published(
    tab: Page, bare_site: Site, tmp_path: Path
) -> None:
    tab.open(bare_site.url)
    old, new = _two_days_of_a_large_city(tmp_path)
    packed = [base64.b64encode(data).decode() for data in (old, delta.make(old, new).data)]
    digest = tab.run(
        f"""(async () => {{
          const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          const made = await anju.applyDelta(...{json.dumps(packed)}.map(bytes));
          const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', made));
          return [...hash].map((byte) => byte.toString(16).padStart(2, '0')).join('');
        }})()"""
    )
    assert digest == hashlib.sha256(new).hexdigest()


def _two_days_of_a_large_city(directory: Path) -> tuple[bytes, bytes]:
    """Bundles with three lists of a million permits, one in a hundred revoked, a day apart."""
    chance = random.Random(7)
    town = generate.City()
    root = SeededKeys("large city")
    start, end = generate.START - timedelta(days=1), generate.START + timedelta(days=900)
    root.generate(KeyUse.TRUST_ROOT, Algorithm.EDDSA, start, end)
    clock = Clock(generate.START)
    publisher = Publisher(directory / "trust", town.keys, clock)
    publisher.create(root)
    lists: list[dict[int, PermitStatus]] = [{} for _ in range(3)]
    bundles_made = []
    for revoked in (10_000, 30):
        for entries in lists:
            for _ in range(revoked):
                entries[chance.randrange(status_list.ENTRIES)] = PermitStatus.REVOKED
        values = {
            n: status_list.to_value(status_list.make(entries.items()))
            for n, entries in enumerate(lists, start=1)
        }
        known = [town.ed25519, town.status_key]
        bundles_made.append(publisher.publish(known, generate.RULES, values).bundle)
        clock.advance(days=1)
    old, new = bundles_made
    return old, new


@pytest.mark.browser
@needs_browser
def test_mixed_and_damaged_bundles_are_taken_or_refused_as_in_python(
    tab: Page, bare_site: Site, tmp_path: Path
) -> None:
    tab.open(bare_site.url)
    chance = random.Random(11)
    published = _publications(tmp_path)
    memories = [None, *(TrustStore.load(data).memory for data in published)]
    files = [bundles.unpack(data) for data in published]
    cases: list[tuple[bytes, Memory | None]] = [(d, m) for d in published for m in memories]
    for _ in range(300):
        mixed = dict(chance.choice(files))
        for _ in range(chance.randrange(3)):
            name = chance.choice(sorted({name for some in files for name in some}))
            mixed.pop(name, None)
            if other := chance.choice(files).get(name):
                mixed[name] = other
        if chance.random() < 0.6:
            name = chance.choice(sorted(mixed))
            mixed[name] = _damaged(chance, mixed[name])
        cases.append((bundles.pack(mixed), chance.choice(memories)))
    script = f"""(async () => {{
      const outcomes = [];
      for (const [text, memory] of {json.dumps([_packed(*case) for case in cases])}) {{
        const data = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        try {{
          outcomes.push((await anju.open(data, memory)).memory);
        }} catch (error) {{
          outcomes.push(error.reason ?? String(error));
        }}
      }}
      return outcomes;
    }})()"""
    expected = [_loaded(*case) for case in cases]
    assert tab.run(script) == expected
    refused = {outcome for outcome in expected if isinstance(outcome, str)}
    assert refused >= {"BAD_TRUST", "ROLLBACK", "WRONG_ROOT"}
    assert sum(isinstance(outcome, dict) for outcome in expected) >= 30


def _publications(directory: Path) -> list[bytes]:
    """Four of one authority, with a new timestamp key and root between, and one of another."""
    made = []
    for seed in ("one", "other"):
        clock, keys, root = Clock(generate.START), SeededKeys(seed), SeededKeys(f"{seed} root")
        period = (generate.START - timedelta(days=1), generate.START + timedelta(days=900))
        root.generate(KeyUse.TRUST_ROOT, Algorithm.EDDSA, *period)
        for use in KeyUse:
            if use is not KeyUse.TRUST_ROOT:
                keys.generate(use, Algorithm.EDDSA, *period)
        publisher = Publisher(directory / seed, keys, clock)
        publisher.create(root)
        known = [k for k in keys.infos() if k.use in (KeyUse.PERMIT, KeyUse.STATUS_LIST)]
        for round_ in range(4 if seed == "one" else 1):
            clock.advance(hours=1)
            if round_ == 2:
                [timestamp] = [k for k in keys.infos() if k.use is KeyUse.TRUST_TIMESTAMP]
                keys.mark_compromised(timestamp.kid, clock())
                keys.generate(KeyUse.TRUST_TIMESTAMP, Algorithm.EDDSA, *period)
                publisher.renew_root(root)
            revoked = [(round_, PermitStatus.REVOKED)]
            lists = {1: status_list.to_value(status_list.make(revoked, 1024))}
            made.append(publisher.publish(known, RULES, lists).bundle)
    return made


def _damaged(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    at = chance.randrange(len(changed))
    match chance.randrange(3):
        case 0:
            changed[at] ^= 1 << chance.randrange(8)
        case 1:
            del changed[at:]
        case _:
            changed[at:at] = chance.choice([b"0", b" ", b'"', b"{", b"\xff", b"\n"])
    return bytes(changed)


def _packed(data: bytes, known: Memory | None) -> tuple[str, dict[str, Any] | None]:
    return base64.b64encode(data).decode(), _as_the_page_has_it(known) if known else None


def _as_the_page_has_it(known: Memory) -> dict[str, Any]:
    return {
        "rootVersion": known.root_version,
        "rootSha256": known.root_sha256,
        "floor": known.floor.timestamp() * 1000,
        "versions": dict(known.versions),
    }


def _loaded(data: bytes, known: Memory | None) -> dict[str, Any] | str:
    """What to remember from now on, or the reason of the refusal."""
    try:
        return _as_the_page_has_it(TrustStore.load(data, known).memory)
    except TrustError as error:
        return error.reason


@pytest.mark.browser
@needs_browser
def test_age_of_the_trust_data_and_a_slow_clock_are_told(browser: Browser, tmp_path: Path) -> None:
    for days, reason, said in (
        (5, "VALID", "较旧"),
        (20, "TRUST_TOO_OLD", "已过期"),
        (-1, "CLOCK_BEFORE_TRUST", "时间有误"),
    ):
        clock = Clock(datetime.now(UTC).replace(microsecond=0) - timedelta(days=days))
        init_authority(tmp_path / str(days), RULES, clock)
        with Issuer.open(tmp_path / str(days), clock) as issuer:
            permit, bundle = issuer.issue(holder()), issuer.publish_trust().bundle
        page.write_page(tmp_path / f"site{days}", bundle)
        served = Site(tmp_path / f"site{days}")
        tab = browser.page()
        tab.open(served.url)
        tab.type(permit.qr_text + "\n")
        assert _verdict(tab) == reason
        assert said in tab.run("document.querySelector('#trust-state').textContent")
        # The floor outlives the page: what a slow clock hid does not come back after a restart.
        tab.open(served.url + "?again")
        tab.type(permit.qr_text + "\n")
        assert _verdict(tab) == reason
        tab.close()
        served.close()


# --- what is shown, and what cannot happen -------------------------------------------------------


@pytest.mark.browser
@needs_browser
def test_each_purpose_shows_its_fields_and_no_others(tab: Page, site: Site, city: City) -> None:
    tab.open(site.url)
    tab.type(city.valid.qr_text + "\n")
    _verdict(tab)
    trust, now = TrustStore.load(city.bundle), datetime.now(UTC)
    for purpose in DISCLOSURE:
        tab.run(
            f"document.querySelector('#purpose').value = '{purpose}';"
            "document.querySelector('#purpose').dispatchEvent(new Event('change'))"
        )
        expected = verify(city.valid.qr_text, trust, now, purpose=purpose).shown
        script = "[...document.querySelectorAll('.field')].map((f) => f.classList[1]).join()"
        tab.wait(f"{script} === '{','.join(expected)}'")
        assert _shown(tab) == dict(expected)


@pytest.mark.browser
@needs_browser
def test_photograph_of_a_permit_is_shown(tab: Page, tmp_path: Path) -> None:
    face = photo.make(portrait())
    clock = Clock(datetime.now(UTC).replace(microsecond=0))
    init_authority(tmp_path / "authority", WITH_PHOTO, clock)
    with Issuer.open(tmp_path / "authority", clock) as issuer:
        permit, bundle = issuer.issue(holder(photo=face)), issuer.publish_trust().bundle
    page.write_page(tmp_path / "site", bundle)
    served = Site(tmp_path / "site")
    tab.open(served.url)
    tab.type(permit.qr_text + "\n")
    assert _verdict(tab) == "VALID"
    picture = "document.querySelector('#verdict img.photo')"
    assert tab.wait(f"{picture}.complete && {picture}.naturalWidth") == photo.COLUMNS
    tab.type("\x1b")
    assert tab.run(picture) is None
    served.close()


@pytest.mark.browser
@needs_browser
def test_markup_in_a_permit_is_shown_as_text(tab: Page, site: Site, city: City) -> None:
    tab.open(site.url)
    tab.run("document.querySelector('#purpose').value = 'housing'")
    tab.run("document.querySelector('#purpose').dispatchEvent(new Event('change'))")
    tab.type(city.hostile.qr_text + "\n")
    assert _verdict(tab) == "VALID"
    assert _shown(tab)["full_name"] == HOSTILE
    assert _shown(tab)["residence_address"] == HOSTILE
    assert tab.run("document.querySelectorAll('#verdict img, #verdict b').length") == 0
    assert "owned" not in tab.run("document.title")


@pytest.mark.browser
@needs_browser
def test_nothing_is_fetched_but_from_the_own_server_and_nothing_is_evaluated(
    tab: Page, site: Site, city: City
) -> None:
    tab.open(site.url)
    tab.choose_file("#file", city.card)
    _verdict(tab)
    allowed = (site.origin, "blob:", "data:image/svg+xml")
    assert [url for url in tab.requests if not url.startswith(allowed)] == []
    assert not tab.complaints
    # And could not be: the policy refuses every way out, and every way to run words as code.
    violated = tab.run(
        """(async () => {
          const seen = [];
          addEventListener('securitypolicyviolation', (e) => seen.push(e.effectiveDirective));
          await fetch('https://example.com/').catch(() => {});
          new Image().src = 'https://example.com/x.png';
          const script = document.createElement('script');
          script.textContent = 'document.title = "owned"';
          document.body.append(script);
          const handler = document.createElement('p');
          handler.setAttribute('onclick', 'document.title = "owned"');
          handler.click();
          const form = document.createElement('form');
          form.action = 'https://example.com/';
          document.body.append(form);
          form.submit();
          await new Promise((done) => setTimeout(done, 200));
          return seen.sort().join();
        })()"""
    )
    assert set(violated.split(",")) >= {
        "connect-src",
        "img-src",
        "script-src-elem",
        "script-src-attr",
        "form-action",
    }
    assert "owned" not in tab.run("document.title")
    assert [url for url in tab.requests if "example.com" in url] == []


@pytest.mark.browser
@needs_browser
def test_screen_clears_itself_and_english_is_one_button_away(
    tab: Page, site: Site, city: City
) -> None:
    tab.open(site.url)
    tab.run("localStorage.setItem('anju-verifier-settings', JSON.stringify({resetS: 1}))")
    tab.open(site.url + "?again")
    tab.run("document.querySelector('#language').click()")
    tab.type(city.revoked.qr_text + "\n")
    assert _verdict(tab) == "REVOKED"
    assert tab.run("document.querySelector('#headline').textContent") == "NOT ACCEPTED"
    assert tab.run("document.documentElement.lang") == "en"
    tab.wait(f"{STATE} === 'idle'", timeout_s=3)
    assert tab.run(REASON) is None


# --- the files -----------------------------------------------------------------------------------


def test_page_is_written_for_a_server_and_for_a_stick(city: City, tmp_path: Path) -> None:
    served = page.write_page(tmp_path / "www", city.bundle)
    assert sorted(path.name for path in served) == ["sw.js", "trust.anju", "verify.html"]
    assert (tmp_path / "www" / "trust.anju").read_bytes() == city.bundle
    [single] = page.write_page(tmp_path / "stick.html", city.bundle)
    assert base64.b64encode(city.bundle) in single.read_bytes()
    assert page.page() == (WEB / "dist" / "verify.html").read_bytes()
    with pytest.raises(TrustError):
        page.write_page(tmp_path / "bad.html", b"PK nothing")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stick.html", "www"]


def test_page_command_writes_both_forms_and_says_what_is_wrong(city: City, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(page_command)
    bundle = tmp_path / "trust.anju"
    bundle.write_bytes(city.bundle)
    run = functools.partial(CliRunner().invoke, app)
    assert run([str(tmp_path / "stick.html"), "--trust", str(bundle)]).exit_code == 0
    served = run([str(tmp_path / "www"), "--trust", str(bundle)])
    assert served.exit_code == 0
    assert "verify.html" in served.output
    bundle.write_bytes(city.bundle[:99])
    refused = run([str(tmp_path / "other.html"), "--trust", str(bundle)])
    assert refused.exit_code == 2
    assert "not a trust bundle" in refused.output
    assert run([str(tmp_path / "x.html"), "--trust", str(tmp_path / "none")]).exit_code == 2


def test_built_page_names_no_host_and_the_lock_no_registry() -> None:
    built = (WEB / "dist" / "verify.html").read_text()
    head = built[: built.index("<style>")]
    assert "default-src 'none'" in head
    assert "unsafe-inline" not in head
    assert "'unsafe-eval'" not in head
    assert "npm/" not in built
    lock = json.loads((WEB / "package-lock.json").read_bytes())
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]
    assert all("integrity" in entry for name, entry in lock["packages"].items() if name)


@needs_node
def test_page_is_what_its_sources_build(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.fail("npm is not installed: run .ci/run, which installs it")
    copy = tmp_path / "issuance" / "web"
    shutil.copytree(WEB, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
    shutil.copy(WEB.parents[1] / "LICENSE", tmp_path)
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(install, cwd=copy, check=True, timeout=120)
    subprocess.run(["npm", "run", "build", "--silent"], cwd=copy, check=True, timeout=60)
    for name in ("verify.html", "sw.js"):
        assert (copy / "dist" / name).read_bytes() == (WEB / "dist" / name).read_bytes(), name
