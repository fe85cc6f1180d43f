"""The verifier beyond its vectors: hostile input, what it shows, what it imports."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
import zlib
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from issuance import base45, cbor, codec, envelope, signing
from issuance.errors import ProfileError
from issuance.issuer import Issuer
from issuance.keys import KeyUse
from issuance.profile import DEPARTMENTS, SHOWABLE_FIELDS
from issuance.trust import TrustStore
from issuance.types import Freshness, Reason, Stage
from issuance.verifier import verify
from tests.issuance.kit import HOLDER, START, Clock
from tests.vectors.permits import generate

CITY = generate.City()
TRUST = TrustStore.load(CITY.bundle)
NOW = generate.CHECK
CLAIMS = generate.claims(CITY)
GOOD = generate.cose(CITY, CLAIMS)
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=400), st.text(max_size=300), st.text(ALPHABET, max_size=300)))
def test_any_input_gets_a_refusal_and_no_exception(data: bytes | str) -> None:
    verdict = verify(data, TRUST, NOW)
    assert not verdict.valid
    assert verdict.reason is not Reason.INTERNAL


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_compressed_bytes_get_a_refusal(data: bytes) -> None:
    verdict = verify(base45.encode(zlib.compress(data)), TRUST, NOW)
    assert verdict.reason not in (Reason.VALID, Reason.INTERNAL)


@settings(max_examples=400)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(at: int, bits: int) -> None:
    changed = bytearray(GOOD)
    changed[at] ^= bits
    verdict = verify(envelope.to_text(bytes(changed)), TRUST, NOW)
    assert verdict.reason not in (Reason.VALID, Reason.INTERNAL)


@settings(max_examples=200)
@given(
    st.recursive(
        st.one_of(st.integers(), st.text(max_size=8), st.binary(max_size=8), st.none()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.sampled_from([1, 2, 4, 5, 6, 8, 9, 24, 169, 65535]), inner),
        ),
        max_leaves=20,
    )
)
def test_any_signed_claims_get_a_refusal(value: object) -> None:
    """Even what a known key signed is read with care."""
    verdict = verify(generate.text(generate.cose(CITY, cbor.encode(value))), TRUST, NOW)
    assert verdict.stage is Stage.CLAIMS
    assert verdict.reason is not Reason.INTERNAL


anything = st.recursive(
    st.one_of(
        st.integers(-(2**64), 2**64 - 1),
        st.text(max_size=8),
        st.binary(max_size=8),
        st.none(),
        st.booleans(),
        st.builds(cbor.Tagged, st.integers(0, 2**32), st.integers()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.integers(-4, 70), st.text(max_size=3)), inner, max_size=3),
    ),
    max_leaves=6,
)


@settings(max_examples=400)
@given(st.sampled_from(sorted(CLAIMS)), st.sampled_from([None, *sorted(CLAIMS[169]), 62]), anything)
def test_any_value_in_any_claim_of_a_known_signer_gets_a_verdict(
    claim: int, attribute: int | None, value: object
) -> None:
    """A permit is one wrong field away from a good one: the worst that a signer's bug can do."""
    changed = dict(CLAIMS)
    if attribute is None:
        changed[claim] = value
    else:
        changed[169] = {**changed[169], attribute: value}
    verdict = verify(generate.text(generate.cose(CITY, changed)), TRUST, NOW)
    assert verdict.reason is not Reason.INTERNAL
    assert verdict.stage in (None, Stage.CLAIMS, Stage.TIME, Stage.STATUS)


@settings(max_examples=400)
@given(
    st.dictionaries(st.one_of(st.integers(-3, 40), st.text(max_size=2)), anything, max_size=4),
    st.dictionaries(st.one_of(st.integers(-3, 40), st.text(max_size=2)), anything, max_size=3),
    st.booleans(),
)
def test_any_headers_get_a_verdict(
    protected: dict[object, object], unprotected: dict[object, object], keep: bool
) -> None:
    honest = {1: -8, 4: bytes.fromhex(CITY.ed25519.kid)} if keep else {}
    message = generate.cose(
        CITY, CLAIMS, protected={**protected, **honest}, unprotected=unprotected
    )
    verdict = verify(generate.text(message), TRUST, NOW)
    assert verdict.reason is not Reason.INTERNAL
    # Valid only if both the algorithm and the key are those that signed.
    assert not verdict.valid or keep or protected.get(1) == -8


def test_every_vector_is_judged_within_fifty_milliseconds() -> None:
    made = generate.vectors(CITY)
    texts = [vector["text"] for vector in made.values()]
    texts += ["A" * 4_296, ":" * 4_296, generate.text(b"\xa1" * 2_000), "\U0001f600" * 4_296]
    for text in texts:
        fastest = min(_timed(text) for _ in range(3))
        assert fastest < 0.05, text[:40]


def _timed(text: str) -> float:
    begin = time.process_time()
    verify(text, TRUST, NOW)
    return time.process_time() - begin


def test_memory_is_bounded_for_bombs() -> None:
    bomb = base45.encode(zlib.compress(bytes(2_800_000), 9))
    nested = generate.text(b"\x84" * 5_000)
    tracemalloc.start()
    for text in (bomb, nested, "A" * 4_296):
        verify(text, TRUST, NOW)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_work_is_bounded_for_the_worst_inputs() -> None:
    worst: list[bytes | str] = [
        "A" * 10_000_000,
        b"\xff" * 10_000_000,
        base45.encode(zlib.compress(bytes(2_800_000), 9)),
        generate.text(b"\x81" * 16_000),
        generate.text(b"\xbb" + b"\xff" * 8 + bytes(8_000)),
        generate.text(b"\x9a\x00\x00\x3e\x00" + bytes(16_000)),
    ]
    begin = time.perf_counter()
    for data in worst:
        assert not verify(data, TRUST, NOW).valid
    assert time.perf_counter() - begin < 2


def test_bug_in_the_verifier_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(payload: bytes) -> None:
        raise ZeroDivisionError(HOLDER.full_name)

    monkeypatch.setattr(codec, "read_claims", broken)
    verdict = verify(generate.text(GOOD), TRUST, NOW)
    assert verdict.reason is Reason.INTERNAL
    assert not verdict.valid


@pytest.mark.parametrize("purpose", ["general", *DEPARTMENTS])
def test_department_is_shown_its_fields_in_order_and_no_others(purpose: str) -> None:
    shown = verify(generate.text(GOOD), TRUST, NOW, purpose=purpose).shown
    allowed = generate.RULES.shown_to(purpose)
    assert set(shown) <= set(allowed)
    assert list(shown) == sorted(shown, key=SHOWABLE_FIELDS.index)
    assert shown["full_name"] == "张示例"
    assert shown["valid_until"] == "2027-11-23"
    assert ("residence_address" in shown) is ("residence_address" in allowed)


def test_refused_permit_shows_nothing() -> None:
    revoked = generate.cose(CITY, generate.claims(CITY, generate.REVOKED))
    verdict = verify(generate.text(revoked), TRUST, NOW, purpose="civil-affairs")
    assert verdict.reason is Reason.REVOKED
    assert verdict.shown == {}
    assert "张" not in verdict.message_zh + verdict.message_en


def test_caller_errors_are_raised_and_not_blamed_on_the_permit() -> None:
    with pytest.raises(ProfileError, match="police"):
        verify("", TRUST, NOW, purpose="police")
    with pytest.raises(ValueError, match="aware"):
        verify("", TRUST, datetime(2026, 11, 25))


def test_age_of_trust_comes_with_every_verdict() -> None:
    stale = verify("junk", TRUST, START + timedelta(days=5))
    assert stale.trust is not None
    assert stale.trust.freshness is Freshness.STALE
    assert stale.trust.age_s == 5 * 86_400
    assert stale.warnings == ("TRUST_STALE",)
    assert verify("junk", TRUST, START - timedelta(days=5)).trust is None


def test_expiry_of_trust_metadata_counts_even_within_the_age_limit() -> None:
    early = replace(TRUST, expires_at=NOW)
    assert verify(generate.text(GOOD), early, NOW).reason is Reason.TRUST_TOO_OLD


def test_revocation_reaches_a_verifier_with_the_next_bundle(issuer: Issuer, clock: Clock) -> None:
    issued = issuer.issue(HOLDER)
    before = TrustStore.load(issuer.publish_trust().bundle)
    assert verify(issued.qr_text, before, clock()).valid
    issuer.revoke(issued.status)
    assert verify(issued.qr_text, before, clock()).valid
    after = TrustStore.load(issuer.publish_trust().bundle, before.memory)
    assert verify(issued.qr_text, after, clock()).reason is Reason.REVOKED


def test_permit_outlives_the_key_that_signed_it(issuer: Issuer, clock: Clock) -> None:
    issued = issuer.issue(HOLDER)
    clock.advance(days=60)
    issuer.ensure_keys()
    trust = TrustStore.load(issuer.publish_trust().bundle)
    assert verify(issued.qr_text, trust, clock()).valid


def test_retired_key_is_published_for_as_long_as_its_permits_can_live(
    issuer: Issuer, clock: Clock
) -> None:
    first = issuer.issue(HOLDER).kid
    for _ in range(14):
        clock.advance(days=28)
        issuer.ensure_keys()
        trust = TrustStore.load(issuer.publish_trust().bundle)
        last_end = trust.keys[first].info.not_after if first in trust.keys else None
    assert last_end is not None
    assert clock() < last_end + timedelta(days=365)
    clock.advance(days=10)
    assert first not in TrustStore.load(issuer.publish_trust().bundle).keys


def test_control_characters_are_not_shown() -> None:
    claims = generate.changed(generate.claims(CITY), 169, 4, to="张\x1b[2J示例\nVALID")
    verdict = verify(generate.text(generate.cose(CITY, claims)), TRUST, NOW)
    assert verdict.shown["full_name"] == "张\ufffd[2J示例\ufffdVALID"


def test_backdated_permit_of_a_stolen_key_is_refused(issuer: Issuer, clock: Clock) -> None:
    issued = issuer.issue(HOLDER)
    clock.advance(days=3)
    issuer.mark_compromised(issued.kid)
    issuer.ensure_keys()
    trust = TrustStore.load(issuer.publish_trust().bundle)
    assert verify(issued.qr_text, trust, clock()).reason is Reason.KEY_COMPROMISED


def test_key_of_another_algorithm_never_verifies() -> None:
    message = signing.parse(GOOD)
    es256 = signing.PublicKey.from_der(CITY.es256.kid, CITY.es256.public_der)
    assert not signing.verify_signature(message, es256)
    assert CITY.keys.infos()[0].use in KeyUse


_ISOLATED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not installed here")

BLOCKED = {"grpc", "faiss", "sqlalchemy", "numpy", "numba", "reportlab", "anju", "google",
           "structlog", "alembic", "ray", "b45", "matcher", "devices", "identity", "fontTools",
           "pkcs11", "asn1crypto"}
sys.meta_path.insert(0, Blocker())
import issuance.verifier, issuance.trust, issuance.qr, issuance.memory, issuance.cli
sys.argv = ["anju", "verify", sys.argv[1], "--trust", sys.argv[2], "--state", sys.argv[3],
            "--now", "2026-11-25T08:00:00+00:00"]
issuance.cli.main()
"""


def test_verifier_works_with_the_base_dependencies_alone(tmp_path: Path) -> None:
    (tmp_path / "permit.txt").write_text(generate.text(GOOD) + "\n")
    (tmp_path / "bundle.anju").write_bytes(CITY.bundle)
    files = [str(tmp_path / name) for name in ("permit.txt", "bundle.anju", "state.json")]
    done = subprocess.run(
        [sys.executable, "-c", _ISOLATED, *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "VALID" in done.stdout
