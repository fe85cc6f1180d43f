"""Permit numbers: a letter for the kind, twelve digits without meaning, two check digits.

`T482109375516` plus check digits is shown as `T4821 0937 5516 39`. The digits are a keyed
permutation of a counter, so a number tells nothing about its holder, the day of issue, or how many
permits there are, and the next number cannot be guessed from the last. The check digits are
ISO/IEC 7064 MOD 97-10, which finds every single wrong digit and every swap of neighbouring ones.
With the letter in front the number cannot be mistaken for an 18-digit citizen ID number.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from issuance.permutation import Permutation

DIGITS: Final = 12
CAPACITY: Final = 10**DIGITS
LENGTH: Final = 1 + DIGITS + 2


def check_digits(body: str) -> str:
    """Two check digits of ISO/IEC 7064 MOD 97-10 for characters 0-9 and A-Z."""
    number = int("".join(str(int(character, 36)) for character in body))
    return f"{98 - number * 100 % 97:02d}"


def make(prefix: str, serial: int, permutation: Permutation) -> str:
    """The permit number of a journal serial; distinct serials give distinct numbers."""
    body = f"{prefix}{permutation.forward(serial):0{DIGITS}d}"
    return body + check_digits(body)


def is_valid(number: str) -> bool:
    """Whether `number` is canonical, e.g. "T48210937551639", and its check digits are right."""
    return (
        len(number) == LENGTH
        and "A" <= number[0] <= "Z"
        and number[1:].isascii()
        and number[1:].isdigit()
        and number[-2:] == check_digits(number[:-2])
    )


def parse(text: str) -> str | None:
    """Canonical number from what a person typed, or None if it is none.

    Spaces and hyphens are dropped; lower case and full-width characters are accepted.
    """
    folded = unicodedata.normalize("NFKC", text).upper()
    number = "".join(c for c in folded if not c.isspace() and c not in "-‐‑–—")
    return number if is_valid(number) else None


def display(number: str) -> str:
    """Grouped for people: `T4821 0937 5516 39`."""
    return f"{number[:5]} {number[5:9]} {number[9:13]} {number[13:]}"
