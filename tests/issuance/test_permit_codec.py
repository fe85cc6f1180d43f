from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from issuance import cbor, codec, envelope, permit_number, profile
from issuance.errors import DecodeError, ProfileError
from issuance.permutation import Permutation
from issuance.profile import DEPARTMENTS, OPTIONAL_FIELDS, RESIDENCE, TEMPORARY_RESIDENCE, Profile
from issuance.types import Gender, Holder, Permit, StatusRef
from tests.issuance.kit import HOLDER, RULES, START

FULL = replace(
    RULES, kinds=(replace(TEMPORARY_RESIDENCE, carries=frozenset(OPTIONAL_FIELDS)), RESIDENCE)
)
NUMBERS = Permutation(bytes(16), b"codec", permit_number.CAPACITY)
PERMIT = Permit(
    number=permit_number.make("T", 1, NUMBERS),
    kind="temporary-residence",
    issuer=RULES.issuer,
    authority=RULES.authority,
    holder=HOLDER,
    issued_at=START,
    not_before=START,
    expires_at=START + timedelta(days=365),
    status=StatusRef(1, 42),
)

names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20)
divisions = st.from_regex(r"[0-9]{6}", fullmatch=True).filter(str.isascii)
holders = st.builds(
    Holder,
    full_name=names,
    gender=st.sampled_from(Gender),
    birth_date=st.dates(date(1850, 1, 1), date(2026, 11, 1)),
    residence_address=names,
    residence_division=divisions,
    household_division=divisions,
    household_address=names,
    citizen_id=st.from_regex(r"[0-9]{17}[0-9X]", fullmatch=True).filter(str.isascii),
    ethnicity=names,
    latin_name=names,
)
permits = st.builds(
    replace,
    st.just(PERMIT),
    number=st.integers(0, permit_number.CAPACITY - 1).map(
        lambda serial: permit_number.make("T", serial, NUMBERS)
    ),
    holder=holders,
    expires_at=st.integers(1, 365 * 86_400).map(lambda s: START + timedelta(seconds=s)),
    status=st.builds(StatusRef, st.integers(1, 999), st.integers(0, 2**20 - 1)),
    uses=st.sets(st.sampled_from(sorted(DEPARTMENTS))).map(
        lambda uses: tuple(sorted(uses, key=DEPARTMENTS.__getitem__))
    ),
)


@given(permits)
def test_permit_that_decodes_encodes_to_the_same_bytes(permit: Permit) -> None:
    payload = codec.encode(permit, FULL)
    decoded = codec.permit_from(codec.read_claims(payload), FULL)
    assert decoded == permit
    assert codec.encode(decoded, FULL) == payload
    assert envelope.from_text(envelope.to_text(payload)) == payload


@given(st.binary(max_size=80))
def test_any_payload_is_claims_or_a_decode_error(payload: bytes) -> None:
    try:
        codec.permit_from(codec.read_claims(payload), RULES)
    except DecodeError:
        return


@given(st.text(max_size=60) | st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:", max_size=60))
def test_any_text_is_bytes_or_a_decode_error(text: str) -> None:
    try:
        envelope.from_text(text)
    except DecodeError:
        return


def test_default_profile_encodes_no_more_than_it_says() -> None:
    everything = replace(
        HOLDER,
        household_address="示例省示例县",
        citizen_id="110105199005170015",
        ethnicity="汉族",
        latin_name="Zhang Shili",
    )
    payload = codec.encode(replace(PERMIT, holder=everything), RULES)
    claims = cbor2.loads(payload)
    assert set(claims) == {1, 2, 4, 5, 6, 169, 65535}
    assert set(claims[169]) == {1, 2, 3, 4, 8, 9, 10, 21, 24, 25, 27}
    for secret in ("110105199005170015", "示例省示例县", "汉族"):
        assert secret.encode() not in payload


def test_written_types_are_those_of_the_specification() -> None:
    claims = cbor2.loads(codec.encode(PERMIT, RULES))
    assert claims[169][8] == "19900517"
    assert claims[169][9] == 1
    assert claims[65535] == {"status_list": {"idx": 42, "uri": f"{RULES.issuer}/status/1"}}
    assert claims[4] - claims[5] == 365 * 86_400


def test_holder_is_not_shown_by_repr() -> None:
    assert HOLDER.full_name not in repr(PERMIT)
    assert HOLDER.full_name not in repr(codec.read_claims(codec.encode(PERMIT, RULES)))


@pytest.mark.parametrize(
    "changes",
    [
        {"number": "T00000000000000"},
        {"number": permit_number.make("R", 1, NUMBERS)},
        {"kind": "visitor"},
        {"issuer": "https://elsewhere.example"},
        {"authority": ""},
        {"authority": "局" * 61},
        {"issued_at": START.replace(tzinfo=None)},
        {"not_before": START + timedelta(microseconds=1)},
        {"not_before": START - timedelta(seconds=1)},
        {"expires_at": START},
        {"expires_at": START + timedelta(days=365, seconds=1)},
        {"uses": ("police",)},
    ],
)
def test_permit_outside_the_profile_is_not_encoded(changes: dict[str, Any]) -> None:
    with pytest.raises(ProfileError):
        codec.encode(replace(PERMIT, **changes), RULES)


@pytest.mark.parametrize(
    "changes",
    [
        {"full_name": ""},
        {"full_name": "张" * 101},
        {"full_name": "张\n示例"},
        {"full_name": " 张示例"},
        {"full_name": "张\u202e示例"},
        {"residence_address": None},
        {"residence_address": "x" * 201},
        {"residence_division": "32050X"},
        {"household_division": "3205055"},
        {"citizen_id": "110105"},
        {"birth_date": date(2026, 11, 25)},
        {"birth_date": date(1849, 12, 31)},
    ],
)
def test_ill_formed_holder_is_not_encoded(changes: dict[str, Any]) -> None:
    whole = replace(
        HOLDER,
        household_address="示例县",
        citizen_id="110105199005170015",
        ethnicity="汉族",
        latin_name="Zhang Shili",
    )
    codec.encode(replace(PERMIT, holder=whole), FULL)
    with pytest.raises(ProfileError) as caught:
        codec.encode(replace(PERMIT, holder=replace(whole, **changes)), FULL)
    for value in changes.values():
        assert not value or str(value) not in str(caught.value) or value == "x" * 201


def test_profile_survives_publication() -> None:
    assert profile.from_json(profile.to_json(FULL)) == FULL
    assert profile.to_json(profile.from_json(profile.to_json(FULL))) == profile.to_json(FULL)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"version": 2}', b"[" * 99_999, b"\xff"])
def test_other_bytes_are_no_profile(data: bytes) -> None:
    with pytest.raises(ProfileError):
        profile.from_json(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "anju"},
        {"authority": ""},
        {"utc_offset_h": 99},
        {"kinds": (TEMPORARY_RESIDENCE, TEMPORARY_RESIDENCE)},
        {"disclosure": {"police": ("full_name",)}},
        {"disclosure": {"tax": ("fingerprint",)}},
    ],
)
def test_contradictory_profile_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ProfileError):
        replace(RULES, **changes)


def test_no_kind_lives_longer_than_the_decree_allows() -> None:
    with pytest.raises(ProfileError, match="1 to 365"):
        replace(TEMPORARY_RESIDENCE, max_validity_days=366)


def test_departments_are_shown_no_more_than_their_own() -> None:
    rules: Profile = FULL
    assert "citizen_id" in rules.shown_to("social-security")
    for department in set(DEPARTMENTS) - {"social-security"}:
        assert "citizen_id" not in rules.shown_to(department)
    assert rules.shown_to("general") == ("full_name", "permit_number", "kind", "valid_until")
    assert "residence_address" not in rules.shown_to("health")
    with pytest.raises(ProfileError):
        rules.shown_to("police")


def test_lenient_times() -> None:
    claims = cbor.decode(codec.encode(PERMIT, RULES))
    as_float = b"\xfb\x41\xda" + bytes(6)
    whole = cbor.encode(claims)
    exp = cbor.encode(claims[4])
    read = codec.read_claims(whole.replace(b"\x04" + exp, b"\x04" + as_float, 1))
    assert read.expires_at == 1_744_830_464
    assert datetime.fromtimestamp(read.expires_at, UTC).year == 2025


def test_readme_shows_a_permit_as_it_is_encoded() -> None:
    """The example in diagnostic notation, read back from the README, is what `encode` writes."""
    text = (Path(codec.__file__).parent / "README.md").read_text("utf-8")
    example = text[text.index("  << {\n    1: ") : text.index("h'...64")]
    number = re.findall(r'2: "(T[0-9]{14})"', example)[0]
    index = int(re.findall(r'"idx": ([0-9]+)', example)[0])
    assert permit_number.is_valid(number)
    permit = replace(
        PERMIT,
        number=number,
        status=StatusRef(1, index),
        expires_at=datetime(2027, 11, 23, 16, tzinfo=UTC),
    )
    claims = cbor.decode(codec.encode(permit, RULES))
    in_example = {int(key) for key in re.findall(r"(?:^|[{,] *|\n +)([0-9]+): ", example)}
    assert in_example == set(claims) | set(claims[169])
    for value in (*claims.values(), *claims[169].values()):
        if isinstance(value, str | int):
            assert str(value) in example
