"""Envelope encryption: what is sealed, and under which key.

Each person has a data key of their own (AES-256-GCM), wrapped by a key-encryption key that never
enters the database. Destroying the wrapped data key makes every copy of that person's data
unreadable, in backups too (crypto-erasure, NIST SP 800-88r1 clause 2.6). The associated data binds
each ciphertext to the column and row it belongs to, so that rows cannot be swapped.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from identity.errors import ConfigError, SealError

KEY_BYTES = 32
NONCE_BYTES = 12
KEY_FILES = ("register-kek.key", "document-lookup.key", "index-snapshot.key")


def seal(key: bytes, plaintext: bytes, context: str) -> bytes:
    """Nonce (12 bytes) and AES-256-GCM ciphertext of ``plaintext``, bound to ``context``."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, context.encode())


def unseal(key: bytes, sealed: bytes, context: str) -> bytes:
    """The plaintext that :func:`seal` was given.

    Raises:
        SealError: wrong key, other context, or damage (``SEAL_BROKEN``).
    """
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context.encode())
    except (InvalidTag, ValueError) as error:  # ValueError: not even a whole nonce is left
        raise SealError("SEAL_BROKEN", f"sealed data of {context} cannot be opened") from error


@dataclass(frozen=True)
class Vault:
    """Wraps data keys and blinds document numbers. Holds key bytes: never log or print one."""

    kek: bytes
    lookup_key: bytes
    snapshot_key: bytes

    def __repr__(self) -> str:
        return "Vault(...)"

    def new_data_key(self, key_id: str) -> tuple[bytes, bytes]:
        """A fresh data key: (key, wrapped key for the database)."""
        key = secrets.token_bytes(KEY_BYTES)
        return key, seal(self.kek, key, f"data-key/{key_id}")

    def unwrap(self, key_id: str, wrapped: bytes | None) -> bytes:
        """The data key. Raises SealError (``ERASED``) once its wrapping was destroyed."""
        if wrapped is None:
            raise SealError("ERASED", "this person's data was erased and cannot be read again")
        return unseal(self.kek, wrapped, f"data-key/{key_id}")

    def document_index(self, document_number: str) -> bytes:
        """32 bytes that equal documents share: finds a document without storing its number."""
        return hmac.new(self.lookup_key, document_number.encode(), hashlib.sha256).digest()

    def request_index(self, request_hash: bytes) -> bytes:
        """32 bytes that equal requests share; without the key nobody can try out guesses."""
        return hmac.new(self.lookup_key, b"request/" + request_hash, hashlib.sha256).digest()


def write_secret(path: Path, data: bytes) -> None:
    """Create ``path`` (0600) with ``data`` on disk. Raises FileExistsError, never overwrites."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def create_keys(directory: Path) -> None:
    """Make the register's secret keys in ``directory`` (0700). Never overwrites one."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in KEY_FILES:
        write_secret(directory / name, secrets.token_bytes(KEY_BYTES))


def open_vault(directory: Path) -> Vault:
    """The vault of the keys in ``directory``.

    Raises:
        ConfigError: a key file is missing, of the wrong size, or readable by others.
    """
    return Vault(*(_read_key(directory / name) for name in KEY_FILES))


def _read_key(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode & 0o777
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read key {path.name}: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError(f"key {path.name} has mode {mode:o}; it must be 600")
    if len(key) != KEY_BYTES:
        raise ConfigError(f"key {path.name} has {len(key)} bytes, expected {KEY_BYTES}")
    return key
