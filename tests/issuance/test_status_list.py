from __future__ import annotations

import base64
import json
import re
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issuance import cbor, signing, status_list
from issuance.errors import DecodeError
from issuance.keys import KeyUse
from issuance.signing import Algorithm, PublicKey
from issuance.status_list import StatusList
from issuance.types import PermitStatus, Reason
from tests.issuance.kit import START, SeededKeys

# Published with the IETF draft; see shared/data/README.md. Read in place, never copied.
EXAMPLES = Path(__file__).parents[3] / "shared" / "data" / "status-list" / "examples"
needs_examples = pytest.mark.skipif(
    not EXAMPLES.is_dir(), reason="the draft's examples are not here"
)

# From the draft's text, sections "Compressed Byte Array" and "Test vectors": status by index.
ONE_BIT = [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]
TWO_BITS = [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3]
# The long vectors have 2**20 entries, zero but for these.
LONG_2 = {
    0: 1, 1993: 2, 25460: 1, 159495: 3, 495669: 1, 554353: 1, 645645: 2, 723232: 1, 854545: 1,
    934534: 2, 1000345: 3,
}  # fmt: skip


def example(name: str) -> str:
    return (EXAMPLES / f"{name}.md").read_text()


def example_bytes(name: str) -> bytes:
    return bytes.fromhex("".join(re.findall(r"^[0-9a-f]+$", example(name), re.MULTILINE)))


def from_json(name: str) -> StatusList:
    text = example(name)
    document = json.loads(text[text.index("{") :].replace("\n  ", "").replace("\n", ""))
    packed = base64.urlsafe_b64decode(document["lst"] + "==")
    return status_list.from_value({"bits": document["bits"], "lst": packed})


@needs_examples
@pytest.mark.parametrize(
    ("name", "bits", "expected"),
    [("status_list_encoding", 1, ONE_BIT), ("status_list_encoding2", 2, TWO_BITS)],
)
def test_examples_of_the_draft_read_as_given(name: str, bits: int, expected: list[int]) -> None:
    from_cbor = status_list.from_value(cbor.decode(example_bytes(f"{name}_cbor")))
    for statuses in (from_cbor, from_json(f"{name}_json")):
        assert statuses.bits == bits
        assert [statuses[index] for index in range(len(statuses))] == expected


@needs_examples
@pytest.mark.parametrize("width", ["1_long", "2_long", "4", "8"])
def test_long_examples_of_the_draft_are_alike_in_both_forms(width: str) -> None:
    from_cbor = status_list.from_value(
        cbor.decode(example_bytes(f"status_list_encoding{width}_cbor"))
    )
    assert from_cbor == from_json(f"status_list_encoding{width}_json")
    assert len(from_cbor) == 1 << 20 or width == "8"
    assert len(from_cbor.data) >= 256


@needs_examples
def test_sparse_two_bit_example_has_the_drafts_entries() -> None:
    statuses = from_json("status_list_encoding2_long_json")
    assert {i: statuses[i] for i in range(len(statuses)) if statuses[i]} == LONG_2


@needs_examples
def test_token_example_of_the_draft_reads() -> None:
    token = status_list.read(example_bytes("status_list_cwt"))
    assert token.uri == "https://example.com/statuslists/1"
    assert token.ttl_s == 43_200
    assert int(token.issued_at.timestamp()) == 1_686_920_170
    assert [token.statuses[index] for index in range(16)] == ONE_BIT


@given(st.dictionaries(st.integers(0, 255), st.sampled_from(PermitStatus)))
def test_list_gives_back_what_was_put_in(statuses: dict[int, PermitStatus]) -> None:
    made = status_list.make(statuses.items(), entries=256)
    read = status_list.from_value(cbor.decode(cbor.encode(status_list.to_value(made))))
    assert read == made
    assert all(read[index] == statuses.get(index, 0) for index in range(256))
    with pytest.raises(IndexError):
        read[256]


def test_million_permits_with_one_in_a_hundred_revoked_stay_small() -> None:
    revoked = ((index, PermitStatus.REVOKED) for index in range(0, status_list.ENTRIES, 100))
    assert len(status_list.to_value(status_list.make(revoked))["lst"]) < 24_000


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reason.MALFORMED),
        ({"bits": 3, "lst": b""}, Reason.MALFORMED),
        ({"bits": 2}, Reason.MALFORMED),
        ({"bits": 2, "lst": "text"}, Reason.MALFORMED),
        ({"bits": 2, "lst": b"nonsense"}, Reason.MALFORMED),
        ({"bits": 2, "lst": zlib.compress(b"x" * 99)[:-3]}, Reason.MALFORMED),
        ({"bits": 2, "lst": zlib.compress(b"x") + b"y"}, Reason.MALFORMED),
        ({"bits": 2, "lst": zlib.compress(bytes(1 << 23))}, Reason.TOO_LARGE),
    ],
)
def test_malformed_lists_are_refused(value: Any, reason: Reason) -> None:
    with pytest.raises(DecodeError) as caught:
        status_list.from_value(value)
    assert caught.value.reason is reason


KEYS = SeededKeys("status")
KEY = KEYS.generate(KeyUse.STATUS_LIST, Algorithm.EDDSA, START, START + timedelta(days=9))
PUBLIC = PublicKey.from_der(KEY.kid, KEY.public_der)


def token(**changes: Any) -> bytes:
    value = status_list.to_value(status_list.make([(3, PermitStatus.REVOKED)], 64))
    arguments = {
        "issued_at": START,
        "expires_at": START + timedelta(days=1),
        "ttl_s": 60,
        **changes,
    }
    return status_list.sign(
        "https://x.example/1", value, KEYS.signer(KEY.kid, KEY.use), **arguments
    )


def test_signed_token_reads_back_and_names_its_key() -> None:
    read = status_list.read(token(), PUBLIC)
    assert (read.uri, read.ttl_s, read.issued_at) == ("https://x.example/1", 60, START)
    assert read.expires_at == START + timedelta(days=1)
    assert read.statuses[3] == PermitStatus.REVOKED
    assert status_list.kid_of(token()) == KEY.kid


def test_altered_token_is_refused() -> None:
    data = bytearray(token())
    data[-1] ^= 1
    with pytest.raises(DecodeError) as caught:
        status_list.read(bytes(data), PUBLIC)
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_permit_cannot_pass_for_a_status_list() -> None:
    other = signing.sign(cbor.encode({2: "x", 6: 1}), KEYS.signer(KEY.kid, KEY.use))
    with pytest.raises(DecodeError, match="typ"):
        status_list.read(other, PUBLIC)
