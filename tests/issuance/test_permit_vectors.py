"""Runs `tests/vectors/permits`."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from issuance.trust import TrustStore
from issuance.verifier import verify
from tests.vectors.permits import generate

VECTORS = Path(generate.__file__).parent
NAMES = sorted(path.stem for path in VECTORS.glob("*.json"))


def test_there_are_vectors_for_every_stage() -> None:
    stages = {json.loads((VECTORS / f"{n}.json").read_bytes())["expected"]["stage"] for n in NAMES}
    assert stages == {
        *("read", "parse", "trust", "key", "signature", "claims", "time", "status", "purpose"),
        None,
    }
    assert len(NAMES) >= 70


@pytest.mark.parametrize("name", NAMES)
def test_vector_gets_its_verdict_at_its_stage(name: str) -> None:
    vector: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_bytes())
    trust = TrustStore.load((VECTORS / vector["trust"]).read_bytes())
    if "floor" in vector:
        trust = replace(trust, floor=datetime.fromisoformat(vector["floor"]))
    now = datetime.fromisoformat(vector["now"])
    for data in (vector["text"], vector["text"].encode()):
        verdict = verify(data, trust, now, purpose=vector["purpose"])
        assert {"reason": verdict.reason, "stage": verdict.stage} == vector["expected"]
        assert bool(verdict.shown) is verdict.valid
        digest = verdict.photo and hashlib.sha256(verdict.photo.data).hexdigest()
        assert digest == vector.get("photo_sha256")
        assert verdict.message_en
        assert verdict.message_zh
        assert "{" not in verdict.message_en + verdict.message_zh


def test_regenerating_the_vectors_changes_nothing(tmp_path: Path) -> None:
    # Compressed bytes are part of the vectors, and other builds of zlib compress differently.
    probe = hashlib.sha256(zlib.compress(bytes(range(256)) * 9 + b"anju" * 99, 9)).hexdigest()
    if not probe.startswith("03ab9ce56a6d"):
        pytest.skip("this zlib compresses differently from the one that made the vectors")
    generate.write(tmp_path)
    expected = {p.name: p.read_bytes() for p in VECTORS.iterdir() if p.suffix in (".json", ".anju")}
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == expected
