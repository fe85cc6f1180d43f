"""How fast are permits signed, drawn, read and verified on one core, and beside what?

    python -m benchmarks.issuance [--json FILE] [--quick]

Each row is checked for the right answer before it is timed. Baselines do the obvious thing with
libraries: pycose, cbor2 and zlib for verification without our refusals, the `claim169` library
(compiled Rust) for the same, `qrcode` as reportlab has it for drawing, and a card drawn with
reportlab one by one. Rates are per second of processor time, because other work on the machine is
none of the code's business; rows that wait for a disk are per second of the clock.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import b45
import cbor2
import claim169
import numpy as np
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from PIL import Image
from pycose.algorithms import EdDSA
from pycose.headers import KID
from pycose.headers import Algorithm as AlgorithmHeader
from pycose.keys.okp import OKPKey
from pycose.messages.sign1message import Sign1Message
from reportlab.graphics.barcode.qr import QrCodeWidget

from benchmarks.common import environment, spread, timed, write_json
from issuance import codec, delta, envelope, photo, qr, signing, status_list
from issuance.authority import init_authority
from issuance.card import CardFormat, draw_batch, draw_card
from issuance.issuer import Issuer
from issuance.key_files import FileKeyStore
from issuance.keys import KeyInfo, KeyUse
from issuance.profile import Profile
from issuance.publisher import Publisher
from issuance.signing import Algorithm
from issuance.trust import TrustStore
from issuance.types import Gender, Holder, IssuedPermit, Permit, PermitStatus
from issuance.verifier import verify

RULES: Final = Profile("https://anju.example.cn", "示例市公安局")
HOLDER: Final = Holder(
    full_name="张示例",
    gender=Gender.MALE,
    birth_date=date(1990, 5, 17),
    residence_address="示例街道和平路 100 号 3 幢 2 单元 501 室",
    residence_division="320505",
    household_division="341225",
)


@dataclass(frozen=True)
class Row:
    """One question: `work` runs `batch` operations and returns what `right` accepts."""

    name: str
    batch: int
    work: Callable[[], object]
    right: Callable[[Any], bool] = bool
    baseline_of: str | None = None
    waits: bool = False


def _now() -> datetime:
    return datetime.now(UTC)


def _repeat(times: int, function: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        for _ in range(times - 1):
            function()
        return function()

    return run


def _raw(info: KeyInfo) -> bytes:
    key = load_der_public_key(info.public_der)
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _naive_verify(text: str, raw_key: bytes) -> dict[int, Any]:
    """What a reader of three manuals writes: no bounds, no crit, no duplicates, no status."""
    message = Sign1Message.decode(zlib.decompress(b45.decode(text)))
    message.key = OKPKey(crv="ED25519", x=raw_key, optional_params={"ALG": EdDSA})
    if not message.verify_signature():
        raise ValueError("signature")
    claims: dict[int, Any] = cbor2.loads(message.payload or b"")
    if claims[4] <= _now().timestamp():
        raise ValueError("expired")
    return claims


def _naive_sign(claims: dict[int, Any], key: OKPKey) -> str:
    message = Sign1Message(phdr={AlgorithmHeader: EdDSA, KID: b"12345678"})
    message.payload = cbor2.dumps(claims)
    message.key = key
    return str(b45.encode(zlib.compress(message.encode(), 9)))


def _portrait() -> bytes:
    pixels = np.random.default_rng(1).normal(160, 20, (441, 358))
    rows, columns = np.mgrid[:441, :358]
    pixels[(rows - 150) ** 2 / 100**2 + (columns - 179) ** 2 / 70**2 < 1] -= 70
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def _reportlab_symbol(text: str) -> int:
    encoder: Any = QrCodeWidget(text, barLevel="M")
    encoder.qr.make()
    return int(encoder.qr.getModuleCount())


def _issue_in_threads(issuer: Issuer, threads: int, each: int) -> int:
    done: list[IssuedPermit] = []

    def work() -> None:
        done.extend(issuer.issue(HOLDER) for _ in range(each))

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return len({permit.permit_number for permit in done})


def rows(issuer: Issuer, keys: FileKeyStore, permit_key: KeyInfo) -> list[Row]:
    issued = issuer.issue(HOLDER)
    payload = codec.encode(issued.permit, RULES)
    signer = keys.signer(permit_key.kid, KeyUse.PERMIT)
    bundle = issuer.publish_trust().bundle
    trust = TrustStore.load(bundle)
    text, raw = issued.qr_text, _raw(permit_key)
    symbol = qr.symbol(text)
    picture = io.BytesIO()
    qr.picture(symbol, 4).save(picture, "PNG")
    image = Image.open(picture).convert("L")
    revoked = range(0, status_list.ENTRIES, 100)
    million = status_list.make((index, PermitStatus.REVOKED) for index in revoked)

    payload_map = cbor2.loads(payload)
    pycose_key = OKPKey(crv="ED25519", d=bytes(range(32)), x=raw, optional_params={"ALG": EdDSA})
    face = _portrait()

    def sign_and_encode(permit: Permit) -> str:
        return envelope.to_text(signing.sign(codec.encode(permit, RULES), signer))

    def drawn(permit: Permit) -> Image.Image:
        return qr.picture(qr.symbol(sign_and_encode(permit)), 4)

    def card(format_: CardFormat, dpi: int) -> Callable[[], object]:
        return lambda: draw_card(text, RULES, format=format_, dpi=dpi)

    return [
        Row("encode claims (CBOR)", 200, _repeat(200, lambda: codec.encode(issued.permit, RULES))),
        Row("sign (Ed25519 COSE)", 200, _repeat(200, lambda: signing.sign(payload, signer))),
        Row("zlib + base45", 200, _repeat(200, lambda: envelope.to_text(issued.cose))),
        Row(
            "sign + encode (claims to text)",
            200,
            _repeat(200, lambda: sign_and_encode(issued.permit)),
        ),
        Row(
            "  baseline: pycose + cbor2 + b45",
            200,
            _repeat(200, lambda: _naive_sign(payload_map, pycose_key)),
            bool,
            "sign + encode (claims to text)",
        ),
        Row("permit with drawn symbol", 50, _repeat(50, lambda: drawn(issued.permit))),
        Row(
            "issue, journal synced, 1 thread",
            20,
            _repeat(20, lambda: issuer.issue(HOLDER)),
            waits=True,
        ),
        Row(
            "issue, journal synced, 8 threads",
            80,
            lambda: _issue_in_threads(issuer, 8, 10),
            lambda distinct: distinct == 80,
            waits=True,
        ),
        Row(
            "verify text -> verdict",
            100,
            _repeat(100, lambda: verify(text, trust, _now())),
            lambda verdict: bool(verdict.valid),
        ),
        Row(
            "  baseline: pycose + cbor2",
            100,
            _repeat(100, lambda: _naive_verify(text, raw)),
            lambda claims: claims[169][4] == HOLDER.full_name,
            "verify text -> verdict",
        ),
        Row(
            "  baseline: claim169 (Rust)",
            100,
            _repeat(100, lambda: claim169.decode_with_ed25519(text, raw)),
            lambda result: result.verification_status == "verified",
            "verify text -> verdict",
        ),
        Row("draw symbol", 10, _repeat(10, lambda: qr.symbol(text))),
        Row(
            "  baseline: reportlab",
            1,
            lambda: _reportlab_symbol(text),
            lambda modules: modules == symbol.size,
            "draw symbol",
        ),
        Row(
            "read symbol from picture",
            5,
            _repeat(5, lambda: qr.read_image(image)),
            lambda texts: texts == [text],
        ),
        Row("card PNG 300 dpi, read back", 1, card(CardFormat.PNG, 300)),
        Row("card PNG 600 dpi, read back", 1, card(CardFormat.PNG, 600)),
        Row("card PDF, read back", 1, card(CardFormat.PDF, 300)),
        Row("card SVG, read back", 1, card(CardFormat.SVG, 300)),
        Row(
            "batch of 200 cards, PDF, each read back",
            200,
            lambda: draw_batch([text] * 200, RULES),
            lambda batch: batch.drawn == 200,
        ),
        Row(
            "  baseline: a PDF each",
            5,
            _repeat(5, card(CardFormat.PDF, 300)),
            bool,
            "batch of 200 cards, PDF, each read back",
        ),
        Row("photograph from a portrait", 5, _repeat(5, lambda: photo.make(face))),
        Row(
            "revoke and publish",
            1,
            lambda: (issuer.revoke(issuer.issue(HOLDER).status), issuer.publish_trust())[1].bundle,
        ),
        Row("load trust bundle", 1, lambda: TrustStore.load(bundle)),
        Row(
            "pack list of 1M, 1 % revoked",
            1,
            lambda: status_list.to_value(million),
            lambda value: len(value["lst"]) < 30_000,
        ),
    ]


def _timed(work: Callable[[], object], repeats: int, clock: Callable[[], float]) -> list[float]:
    work()
    seconds = []
    for _ in range(repeats):
        begin = clock()
        work()
        seconds.append(max(clock() - begin, 1e-9))
    return seconds


def city() -> dict[str, Any]:
    """Trust material of 10 million permits, one in a hundred fallen, 300 changes in a day.

    Beside what a naive publisher sends: lists packed by zlib, all of them again every day.
    """
    numbers = random.Random(10)
    entries = status_list.ENTRIES
    now = datetime.now(UTC).replace(microsecond=0)
    with tempfile.TemporaryDirectory() as directory:
        made = init_authority(Path(directory) / "authority", RULES, lambda: now)
        keys = FileKeyStore(made.directory / "keys")
        for month in range(1, 13):
            begin = now - timedelta(days=31 * month)
            keys.generate(KeyUse.PERMIT, Algorithm.EDDSA, begin, begin + timedelta(days=31))
        publisher = Publisher(made.directory / "trust", keys, lambda: now)
        uses = (KeyUse.PERMIT, KeyUse.STATUS_LIST)
        known = [info for info in keys.infos() if info.use in uses]
        lists = [
            dict.fromkeys(numbers.sample(range(entries), entries // 100), PermitStatus.REVOKED)
            for _ in range(10)
        ]

        def values() -> dict[int, dict[str, Any]]:
            return {
                number: status_list.to_value(status_list.make(statuses.items()))
                for number, statuses in enumerate(lists, start=1)
            }

        old = publisher.publish(known, RULES, values()).bundle
        for _ in range(300):
            lists[numbers.randrange(10)][numbers.randrange(entries)] = PermitStatus.REVOKED
        new = publisher.publish(known, RULES, values()).bundle
    day = delta.make(old, new)
    if delta.apply(old, day.data) != new:
        raise SystemExit("wrong answer from the delta")
    store = TrustStore.load(new)
    packed = [zlib.compress(entries.data, 9) for entries in store.lists.values()]
    return {
        "bundle_bytes": len(new),
        "delta_bytes": len(day.data),
        "zlib_lists_bytes": sum(map(len, packed)),
        "pack_lists_s": spread(timed(values, 3)),
        "load_s": spread(timed(lambda: TrustStore.load(new), 3)),
        "make_delta_s": spread(timed(lambda: delta.make(old, new), 3)),
        "apply_delta_s": spread(timed(lambda: delta.apply(old, day.data), 3)),
    }


def measure(repeats: int) -> dict[str, dict[str, Any]]:
    """Name -> operations per second (spread over `repeats` batches)."""
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as directory:
        made = init_authority(Path(directory) / "authority", RULES, _now)
        keys = FileKeyStore(made.directory / "keys")
        with Issuer.open(made.directory, _now) as issuer:
            for row in rows(issuer, keys, made.permit_key):
                if not row.right(row.work()):
                    raise SystemExit(f"wrong answer from {row.name}")
                clock = time.perf_counter if row.waits else time.process_time
                rates = [row.batch / seconds for seconds in _timed(row.work, repeats, clock)]
                results[row.name] = {"per_second": spread(rates), "baseline_of": row.baseline_of}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--quick", action="store_true", help="3 batches instead of 15")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    results = measure(3 if arguments.quick else 15)
    print(f"{'':40} {'per second':>11} {'p25':>9} {'p75':>9}")
    for name, row in results.items():
        rate = row["per_second"]
        print(f"{name:40} {rate['median']:11,.1f} {rate['p25']:9,.1f} {rate['p75']:9,.1f}")
    trust = city()
    print("\n10 million permits, 1 % fallen, 300 changes a day")
    for name, figure in trust.items():
        shown = f"{figure:,}" if isinstance(figure, int) else f"{figure['median']:.3f}"
        print(f"{name:34} {shown:>11}")
    if arguments.json:
        figures = {"environment": environment(), "issuance": results, "city": trust}
        write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
