"""Opaque ids: random, short enough to read out, and saying nothing about the person."""

from __future__ import annotations

import secrets

# Crockford's base32: no I, L, O or U, so nothing is misread.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
RANDOM_CHARS = 16  # 80 bits: no collision to plan for in any register


def new_id(prefix: str) -> str:
    return prefix + "-" + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARS))
