"""Keys in files: `<kid>.pem` (PKCS#8) beside the public facts, mode 0600.

With a passphrase everything secret is encrypted: the keys by PKCS#8's own scheme, the secrets with
AES-256-GCM under a key that scrypt (RFC 7914) makes of the passphrase. Whoever can read the memory
of the process has the keys all the same; a token (`key_tokens`) is for those who cannot have that.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from issuance.errors import KeyStoreError, KeyUseError
from issuance.key_facts import KeyFacts
from issuance.keys import KeyInfo, KeyUse, kid_of
from issuance.signing import Algorithm, Signer

_PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
_SECRET_BYTES: Final = 32
_SALT_BYTES, _NONCE_BYTES = 16, 12
# 32 MiB and about 0.1 s, once at a start: RFC 7914 section 2 with OWASP's parameters.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 15, 8, 1


class FileKeyStore:
    """`KeyStore` on a directory.

    Args:
        directory: made with mode 0700 if missing.
        passphrase: encrypts what it writes and opens what it reads.
    """

    def __init__(self, directory: Path, passphrase: bytes | None = None) -> None:
        self._facts = KeyFacts(directory)
        self._passphrase = passphrase
        self._opened: dict[str, Signer] = {}

    def infos(self) -> tuple[KeyInfo, ...]:
        return self._facts.infos()

    def generate(
        self, use: KeyUse, algorithm: Algorithm, not_before: datetime, not_after: datetime
    ) -> KeyInfo:
        key: _PrivateKey = (
            ed25519.Ed25519PrivateKey.generate()
            if algorithm is Algorithm.EDDSA
            else ec.generate_private_key(ec.SECP256R1())
        )
        public_der = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if self._passphrase:
            encryption = serialization.BestAvailableEncryption(self._passphrase)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
        info = KeyInfo(kid_of(public_der), use, algorithm, not_before, not_after, public_der)
        # The private half first: facts about a key that is nowhere would be chosen for signing.
        self._facts.write(f"{info.kid}.pem", pem, exclusive=True)
        self._facts.add(info)
        return info

    def signer(self, kid: str, use: KeyUse) -> Signer:
        info = self._facts.info(kid, use)
        if kid not in self._opened:
            self._opened[kid] = _FileSigner(kid, info.algorithm, self._open(kid))
        return self._opened[kid]

    def mark_compromised(self, kid: str, at: datetime) -> KeyInfo:
        return self._facts.mark_compromised(kid, at)

    def retire(self, kid: str, at: datetime) -> KeyInfo:
        return self._facts.retire(kid, at)

    def secret(self, name: str) -> bytes:
        file = f"{name}.secret"
        try:
            stored = bytes.fromhex(self._facts.read(file).decode("ascii").strip())
        except FileNotFoundError:
            value = secrets.token_bytes(_SECRET_BYTES)
            self._facts.write(file, self._sealed(value).hex().encode() + b"\n", exclusive=True)
            return value
        except (OSError, ValueError) as error:
            raise KeyStoreError(f"cannot read the secret {name}") from error
        return self._unsealed(name, stored)

    def _sealed(self, value: bytes) -> bytes:
        if not self._passphrase:
            return value
        salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
        cipher = AESGCM(_stretch(self._passphrase, salt))
        return salt + nonce + cipher.encrypt(nonce, value, None)

    def _unsealed(self, name: str, stored: bytes) -> bytes:
        if len(stored) == _SECRET_BYTES:
            return stored
        if not self._passphrase:
            raise KeyStoreError(f"cannot open the secret {name}: it needs a passphrase")
        salt, rest = stored[:_SALT_BYTES], stored[_SALT_BYTES:]
        try:
            cipher = AESGCM(_stretch(self._passphrase, salt))
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError) as error:
            raise KeyStoreError(f"cannot open the secret {name}: wrong passphrase?") from error

    def _open(self, kid: str) -> _PrivateKey:
        try:
            key = serialization.load_pem_private_key(
                self._facts.read(f"{kid}.pem"), self._passphrase
            )
        except FileNotFoundError as error:
            raise KeyUseError(f"the private key {kid} is not here (offline?)") from error
        except (OSError, ValueError, TypeError) as error:
            # Never the library's own text: it may quote the input.
            raise KeyStoreError(f"cannot open the private key {kid}: wrong passphrase?") from error
        if not isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
            raise KeyStoreError(f"the private key {kid} is of an unsupported type")
        return key


class _FileSigner:
    """Handle to a private key in memory."""

    def __init__(self, kid: str, algorithm: Algorithm, key: _PrivateKey) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self._sign = _sign_function(key)

    def sign(self, message: bytes) -> bytes:
        return self._sign(message)


def _sign_function(key: _PrivateKey) -> Callable[[bytes], bytes]:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign
    scheme = ec.ECDSA(hashes.SHA256())

    def sign(message: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(message, scheme))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return sign


def _stretch(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P).derive(passphrase)
