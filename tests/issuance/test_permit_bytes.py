"""base45, CBOR, permit numbers and the permutation: the small formats below a permit."""

from __future__ import annotations

import itertools

import b45
import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from issuance import base45, cbor, permit_number
from issuance.permutation import Permutation

KEY = bytes(range(32))


@given(st.binary(max_size=200))
def test_base45_agrees_with_another_implementation(data: bytes) -> None:
    text = base45.encode(data)
    assert text == b45.encode(data)
    assert base45.decode(text) == data


# RFC 9285 section 4.3 and 4.4.
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"AB", "BB8"),
        (b"Hello!!", "%69 VD92EX0"),
        (b"base-45", "UJCLQE7W581"),
        (b"ietf!", "QED8WEX0"),
    ],
)
def test_base45_examples_of_the_rfc(data: bytes, text: str) -> None:
    assert base45.encode(data) == text
    assert base45.decode(text) == data


@pytest.mark.parametrize("text", ["A", "AAAA", ":::", "::", "a", "GGX", "É00", "\n00"])
def test_base45_refuses_what_it_would_not_write(text: str) -> None:
    with pytest.raises(ValueError, match="digit"):
        base45.decode(text)


KEYS = st.one_of(st.integers(-(2**64), 2**64 - 1), st.text(max_size=30), st.binary(max_size=8))
VALUES = st.recursive(
    st.one_of(KEYS, st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=12,
)


@given(VALUES)
def test_cbor_reads_what_it_writes(value: object) -> None:
    data = cbor.encode(value)
    assert cbor.decode(data) == value
    assert cbor2.loads(data) == value


@given(st.dictionaries(KEYS, st.integers(), max_size=12))
def test_cbor_map_keys_are_in_bytewise_order(value: dict[int | str | bytes, int]) -> None:
    keys = [cbor2.dumps(key) for key in cbor.decode(cbor.encode(value))]
    assert keys == sorted(keys)


@given(st.binary(max_size=60))
def test_cbor_decodes_or_raises_its_own_error(data: bytes) -> None:
    try:
        cbor.decode(data)
    except cbor.CborError:
        return


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("", cbor.CborError),
        ("0000", cbor.CborError),  # two items
        ("18", cbor.CborError),
        ("1c", cbor.CborError),
        ("9f01ff", cbor.CborError),  # indefinite array
        ("5f41aaff", cbor.CborError),  # indefinite string
        ("62c328", cbor.CborError),  # not UTF-8
        ("9b7fffffffffffffff", cbor.CborError),
        ("bb7fffffffffffffff", cbor.CborError),
        ("5b7fffffffffffffff", cbor.CborError),
        ("a1f500", cbor.CborError),  # key true
        ("a1810000", cbor.CborError),  # key array
        ("f7", cbor.CborError),  # undefined
        ("a2010001001", cbor.CborError),
        ("a201000100", cbor.DuplicateKeyError),
        ("a20100180100", cbor.DuplicateKeyError),  # 1 and 1 in two bytes
        ("81" * 17 + "00", cbor.CborError),
    ],
)
def test_cbor_refuses(data: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        cbor.decode(bytes.fromhex(data if len(data) % 2 == 0 else data + "0"))


def test_cbor_writes_no_floats() -> None:
    with pytest.raises(TypeError):
        cbor.encode({1: 1.5})


@given(st.integers(2, 3000), st.binary(min_size=16, max_size=64))
def test_permutation_is_one_and_has_an_inverse(size: int, key: bytes) -> None:
    permutation = Permutation(key, b"test", size)
    sample = range(size) if size < 300 else range(0, size, 17)
    images = [permutation.forward(value) for value in sample]
    assert len(set(images)) == len(images)
    assert all(0 <= image < size for image in images)
    assert [permutation.inverse(image) for image in images] == list(sample)


def test_permutation_depends_on_key_and_label_and_hides_the_order() -> None:
    size = 1 << 20
    orders = [
        [Permutation(key, label, size).forward(value) for value in range(500)]
        for key, label in ((KEY, b"a"), (KEY, b"b"), (KEY[::-1], b"a"))
    ]
    assert len({tuple(order) for order in orders}) == 3
    for order in orders:
        rises = sum(x < y for x, y in itertools.pairwise(order))
        # Half of 499 steps rise by chance, with a standard deviation of about 6.5.
        assert 215 <= rises <= 285
        assert max(order) > size * 0.98
        assert min(order) < size * 0.02


def test_permutation_refuses_weak_keys_and_values_outside() -> None:
    with pytest.raises(ValueError, match="16 to 64 bytes"):
        Permutation(b"short", b"", 10)
    with pytest.raises(ValueError, match="0 to 9"):
        Permutation(KEY, b"", 10).forward(10)


NUMBERS = Permutation(KEY, b"numbers", permit_number.CAPACITY)


@given(st.integers(0, permit_number.CAPACITY - 1))
def test_permit_number_reads_back_however_it_is_typed(serial: int) -> None:
    number = permit_number.make("T", serial, NUMBERS)
    assert permit_number.is_valid(number)
    shown = permit_number.display(number)
    full_width = shown.translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789T"})
    for typed in (number, shown, shown.lower(), f" {shown.replace(' ', '-')} ", full_width):
        assert permit_number.parse(typed) == number


def test_check_digits_are_those_of_the_standard() -> None:
    # ISO/IEC 7064 leaves remainder 1; 794 with check digits 44 is its worked example.
    assert permit_number.check_digits("794") == "44"


def test_every_wrong_digit_and_swap_is_noticed() -> None:
    number = permit_number.make("R", 12345, NUMBERS)
    for at in range(1, len(number)):
        for digit in "0123456789":
            changed = number[:at] + digit + number[at + 1 :]
            assert permit_number.is_valid(changed) is (changed == number)
    for at in range(1, len(number) - 1):
        swapped = number[:at] + number[at + 1] + number[at] + number[at + 2 :]
        assert permit_number.is_valid(swapped) is (swapped == number)
    for other in (
        "",
        "T",
        number[:-1],
        number + "0",
        "1" + number[1:],
        number[:5] + "٣" + number[6:],
    ):
        assert not permit_number.is_valid(other)
        assert permit_number.parse(other) is None or other.isascii() is False
