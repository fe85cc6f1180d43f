"""Base45 (RFC 9285), strictly.

Two bytes are three digits, least significant first. The libraries at hand accept three digits that
stand for more than two bytes, which section 6 of the RFC forbids: then several texts would stand
for one permit, and a damaged one could pass as well-formed.
"""

from __future__ import annotations

import struct
from typing import Final

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
_INVALID: Final = 255
# For `bytes.translate`: character code -> digit value.
_VALUES: Final = bytes(
    _DIGITS.index(chr(code)) if chr(code) in _DIGITS else _INVALID for code in range(256)
)
# 45 * 45 pairs of digits, so that encoding looks up two digits at a time.
_PAIRS: Final = tuple(_DIGITS[n % 45] + _DIGITS[n // 45] for n in range(45 * 45))


def encode(data: bytes) -> str:
    """The digits of `data`: 3 for every 2 bytes, 2 for a last odd one."""
    numbers = struct.unpack_from(f">{len(data) // 2}H", data)
    text = "".join([_PAIRS[number % 2025] + _DIGITS[number // 2025] for number in numbers])
    return text + _PAIRS[data[-1]] if len(data) % 2 else text


def decode(text: str) -> bytes:
    """Inverse of `encode`. Raises ValueError for any text that `encode` does not write."""
    try:
        values = text.encode("latin-1").translate(_VALUES)
    except UnicodeEncodeError as error:
        raise ValueError("not a base45 digit") from error
    if _INVALID in values:
        raise ValueError("not a base45 digit")
    whole = len(values) - len(values) % 3
    triples = zip(values[0:whole:3], values[1:whole:3], values[2:whole:3], strict=True)
    numbers = [low + middle * 45 + high * 2025 for low, middle, high in triples]
    if numbers and max(numbers) > 0xFFFF:
        raise ValueError("three digits exceed two bytes")
    data = struct.pack(f">{len(numbers)}H", *numbers)
    if len(values) - whole == 1:
        raise ValueError("one digit is left over")
    if len(values) - whole == 2:
        number = values[-2] + values[-1] * 45
        if number > 0xFF:
            raise ValueError("two digits exceed a byte")
        data += bytes([number])
    return data
