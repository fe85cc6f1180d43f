"""Operators' passwords: Argon2id (RFC 9106) in PHC form.

Parameters are OWASP's (Password Storage Cheat Sheet, 2024: 19 MiB, 2 passes, 1 lane); they are
inside each hash, so they can be raised later. The length follows NIST SP 800-63B-4 for a password
that is not the only factor (a terminal's certificate is always there too): 8 at least, 10 here; no
rules about kinds of characters.
"""

from __future__ import annotations

import os
import secrets
import threading
import unicodedata

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from devices.errors import ArgumentInvalidError
from devices.token import ALPHABET

MIN_CHARACTERS, MAX_CHARACTERS = 10, 128
_MEMORY_KIB, _PASSES, _LANES, _HASH_BYTES, _SALT_BYTES = 19_456, 2, 1, 32, 16
_FIRST_SYMBOLS, _GROUP = 16, 4  # 80 bits

# A morning's logins must not take the memory and the cores of everything else.
_at_a_time = threading.Semaphore(2)


def check_password(password: str, operator_id: str) -> None:
    """Raises ArgumentInvalidError unless the password may be chosen."""
    if not MIN_CHARACTERS <= len(password) <= MAX_CHARACTERS:
        raise ArgumentInvalidError(
            f"a password has {MIN_CHARACTERS} to {MAX_CHARACTERS} characters, not {len(password)}"
        )
    if len(set(password)) < 4 or operator_id in password:
        raise ArgumentInvalidError(
            "choose a password of more than three different characters, without your operator id"
        )


def first_password() -> str:
    """A random password to be replaced at once, in four groups of four."""
    symbols = "".join(secrets.choice(ALPHABET) for _ in range(_FIRST_SYMBOLS))
    return "-".join(symbols[i : i + _GROUP] for i in range(0, _FIRST_SYMBOLS, _GROUP))


def hash_password(password: str) -> str:
    kdf = Argon2id(
        salt=os.urandom(_SALT_BYTES),
        length=_HASH_BYTES,
        iterations=_PASSES,
        lanes=_LANES,
        memory_cost=_MEMORY_KIB,
    )
    with _at_a_time:
        return kdf.derive_phc_encoded(_prepared(password))


def password_fits(password: str, phc: str) -> bool:
    """Whether the password is the one. Takes as long where there is none (an empty ``phc``)."""
    if not phc or len(password) > MAX_CHARACTERS:
        hash_password("")
        return False
    try:
        with _at_a_time:
            Argon2id.verify_phc_encoded(_prepared(password), phc)
    except InvalidKey:
        return False
    return True


def _prepared(password: str) -> bytes:
    # SP 800-63B-4 section 3.1.1.2: the same characters, however a keyboard composes them.
    return unicodedata.normalize("NFKC", password).encode()
