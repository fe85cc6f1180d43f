"""Base45 (RFC 9285), strictly.

Two bytes are three digits, least significant first. The libraries at hand accept three digits that
stand for more than two bytes, which section 6 of the RFC forbids: then several texts would stand
for one permit, and a damaged one could pass as well-formed.
"""

from __future__ import annotations

from typing import Final

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}
# 45 * 45 pairs of digits, so that encoding looks up two digits at a time.
_PAIRS: Final = tuple(_DIGITS[n % 45] + _DIGITS[n // 45] for n in range(45 * 45))


def encode(data: bytes) -> str:
    """The digits of `data`: 3 for every 2 bytes, 2 for a last odd one."""
    even = len(data) & ~1
    parts = []
    for at in range(0, even, 2):
        high, low = divmod(data[at] << 8 | data[at + 1], 2025)
        parts.append(_PAIRS[low] + _DIGITS[high])
    if len(data) > even:
        parts.append(_PAIRS[data[-1]])
    return "".join(parts)


def decode(text: str) -> bytes:
    """Inverse of `encode`. Raises ValueError for any text that `encode` does not write."""
    try:
        values = [_VALUES[digit] for digit in text]
    except KeyError as error:
        raise ValueError("not a base45 digit") from error
    whole = len(values) - len(values) % 3
    data = bytearray()
    for at in range(0, whole, 3):
        number = values[at] + values[at + 1] * 45 + values[at + 2] * 2025
        if number > 0xFFFF:
            raise ValueError("three digits exceed two bytes")
        data += number.to_bytes(2, "big")
    if len(values) - whole == 1:
        raise ValueError("one digit is left over")
    if len(values) - whole == 2:
        number = values[-2] + values[-1] * 45
        if number > 0xFF:
            raise ValueError("two digits exceed a byte")
        data.append(number)
    return bytes(data)
