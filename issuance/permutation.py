"""Numbers that look random and never repeat: a keyed permutation of a counter.

A permit number or a status index that counted upwards would tell everybody how many permits the
city issued and in which order. One drawn at random could be drawn twice. A keyed permutation of the
journal's counter is neither: distinct counters give distinct numbers, and only the key's owner can
tell which came first.

The construction is a balanced Feistel network of ten rounds, as many as NIST SP 800-38G uses in
FF1, over the next even number of bits, walked until it falls into the domain (Black and Rogaway,
"Ciphers with Arbitrary Finite Domains", 2002). The round function is keyed BLAKE2b (RFC 7693).
"""

from __future__ import annotations

import hashlib
from typing import Final

_ROUNDS: Final = 10
MIN_KEY_BYTES: Final = 16


class Permutation:
    """A permutation of range(size), fixed by `key` and `label`.

    Args:
        key: secret, 16 to 64 bytes.
        label: separates permutations under one key; at most 16 bytes.
        size: number of elements, 2 to 2**62. The walk takes fewer than four steps on average.
    """

    def __init__(self, key: bytes, label: bytes, size: int) -> None:
        if not MIN_KEY_BYTES <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise ValueError(f"key must have 16 to 64 bytes, got {len(key)}")
        if not 2 <= size <= 1 << 62:
            raise ValueError(f"size must be 2 to 2**62, got {size}")
        self._key = key
        self._label = label.ljust(hashlib.blake2b.PERSON_SIZE, b"\0")
        self._size = size
        self._half_bits = ((size - 1).bit_length() + 1) // 2
        self._mask = (1 << self._half_bits) - 1

    def forward(self, value: int) -> int:
        """The element at position `value`, 0 <= value < size."""
        return self._walk(value, range(_ROUNDS), inverse=False)

    def inverse(self, element: int) -> int:
        """The position of `element`, 0 <= element < size."""
        return self._walk(element, range(_ROUNDS - 1, -1, -1), inverse=True)

    def _walk(self, value: int, rounds: range, *, inverse: bool) -> int:
        if not 0 <= value < self._size:
            raise ValueError(f"value must be 0 to {self._size - 1}, got {value}")
        while True:
            left, right = value >> self._half_bits, value & self._mask
            for number in rounds:
                if inverse:
                    left, right = right ^ self._round(number, left), left
                else:
                    left, right = right, left ^ self._round(number, right)
            value = left << self._half_bits | right
            if value < self._size:
                return value

    def _round(self, number: int, half: int) -> int:
        digest = hashlib.blake2b(
            bytes([number]) + half.to_bytes(8, "big"),
            key=self._key,
            person=self._label,
            digest_size=8,
        ).digest()
        return int.from_bytes(digest, "big") & self._mask
