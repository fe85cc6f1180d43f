from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.errors import TokenInvalidError
from devices.token import ALPHABET, SYMBOLS, Token, new_token, parse_token, secret_hash

symbols = st.text(ALPHABET, min_size=16, max_size=16)
fingerprints = st.text(ALPHABET, min_size=20, max_size=20)
tokens = st.builds(Token, symbols, fingerprints)


@given(tokens)
def test_a_token_reads_back_as_it_was_shown(token: Token) -> None:
    assert parse_token(token.text()) == token


@pytest.mark.parametrize(
    "typed_as",
    [
        str.lower,
        lambda text: text.replace("-", ""),
        lambda text: text.replace("-", " "),
        lambda text: text.replace("0", "o").replace("1", "l"),
        lambda text: "".join(
            chr(ord(c) + 0xFEE0) if c != "-" else "－" for c in text
        ),  # full width
        lambda text: f"\t{text}\n",
    ],
)
def test_a_token_may_be_typed_in_many_ways(typed_as: object) -> None:
    token = new_token("01ABCDEFGH0123456789")
    assert callable(typed_as)
    assert parse_token(typed_as(token.text())) == token


@given(tokens, st.integers(0, SYMBOLS - 1), st.sampled_from(ALPHABET))
def test_one_wrong_symbol_is_noticed(token: Token, place: int, symbol: str) -> None:
    typed = token.text().replace("-", "")
    wrong = typed[:place] + symbol + typed[place + 1 :]
    if wrong == typed:
        return
    with pytest.raises(TokenInvalidError, match="mistyped"):
        parse_token(wrong)


@given(tokens, st.integers(0, SYMBOLS - 2))
def test_swapped_neighbours_are_noticed(token: Token, place: int) -> None:
    typed = token.text().replace("-", "")
    wrong = typed[:place] + typed[place + 1] + typed[place] + typed[place + 2 :]
    if wrong == typed:
        return
    with pytest.raises(TokenInvalidError, match="mistyped"):
        parse_token(wrong)


@given(st.text(max_size=300))
def test_any_text_is_a_token_or_refused(typed: str) -> None:
    with contextlib.suppress(TokenInvalidError):
        parse_token(typed)


def test_a_short_token_is_told_its_length() -> None:
    with pytest.raises(TokenInvalidError, match=r"40 letters and digits.*this one has 5"):
        parse_token("ABCDE")


def test_a_foreign_character_is_told_its_place() -> None:
    text = new_token("0" * 20).text()
    with pytest.raises(TokenInvalidError, match=r"place 8 of 40 \(group 2\)"):
        parse_token(text[:8] + "U" + text[9:])


def test_neither_repr_nor_hash_shows_the_secret() -> None:
    token = new_token("0" * 20)
    assert token.secret not in repr(token)
    assert secret_hash(token) != secret_hash(new_token("0" * 20))
    assert len(secret_hash(token)) == 32
