"""Private keys behind a port, and the store of files that comes with the package.

The rest of the package asks a `KeyStore` for a `Signer` and never sees key bytes, so a PKCS#11
token or a key service can take the place of the files. Every key has one use and, for permit keys,
a signing period; a key of another use is refused, so a stolen status key cannot sign permits.

`FileKeyStore` keeps `<kid>.pem` (PKCS#8, encrypted if a passphrase is given) and `<kid>.json`
(public facts) in a directory of mode 0700, files 0600.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from issuance.errors import KeyStoreError, KeyUseError
from issuance.signing import Algorithm, Signer

_PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
_SECRET_BYTES: Final = 32


class KeyUse(enum.StrEnum):
    """What a key signs, and nothing else."""

    PERMIT = "permit"
    STATUS_LIST = "status-list"
    TRUST_ROOT = "trust-root"  # offline
    TRUST_TARGETS = "trust-targets"  # which keys are permit keys; once a month
    TRUST_STATUS = "trust-status"  # status lists, on every change
    TRUST_SNAPSHOT = "trust-snapshot"
    TRUST_TIMESTAMP = "trust-timestamp"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The public facts about a key.

    Attributes:
        kid: first 8 bytes of SHA-256 over `public_der`, hexadecimal.
        not_before, not_after: it signs at not_before <= t < not_after.
        public_der: SubjectPublicKeyInfo.
        compromised_at: since when others may have had the key; None while it is safe.
    """

    kid: str
    use: KeyUse
    algorithm: Algorithm
    not_before: datetime
    not_after: datetime
    public_der: bytes
    compromised_at: datetime | None = None

    def signs_at(self, instant: datetime) -> bool:
        return self.compromised_at is None and self.not_before <= instant < self.not_after


class KeyStore(Protocol):
    """Where private keys live. Implementations are safe for use by several threads."""

    def infos(self) -> tuple[KeyInfo, ...]:
        """All keys, oldest `not_before` first, ties by kid."""

    def generate(
        self, use: KeyUse, algorithm: Algorithm, not_before: datetime, not_after: datetime
    ) -> KeyInfo:
        """Make a key; it is durable when this returns. Raises `KeyStoreError`."""

    def signer(self, kid: str, use: KeyUse) -> Signer:
        """Handle for `kid`. Raises `KeyUseError` if unknown or meant for another use."""

    def mark_compromised(self, kid: str, at: datetime) -> KeyInfo:
        """Record that others may have had `kid` since `at`; it signs no more."""

    def secret(self, name: str) -> bytes:
        """32 secret bytes of that name, made at the first call and the same ever after."""


class FileKeyStore:
    """`KeyStore` on a directory.

    Args:
        directory: made with mode 0700 if missing.
        passphrase: encrypts the private keys it writes and opens those it reads.
    """

    def __init__(self, directory: Path, passphrase: bytes | None = None) -> None:
        self._directory = directory
        self._passphrase = passphrase
        self._opened: dict[str, Signer] = {}
        self._cached: tuple[int, tuple[KeyInfo, ...]] | None = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise KeyStoreError(f"cannot make the key directory: {error.strerror}") from error

    def infos(self) -> tuple[KeyInfo, ...]:
        # Another process may add or mark a key; every write renames a file and so touches the
        # directory's modification time.
        try:
            changed_ns = self._directory.stat().st_mtime_ns
        except OSError as error:
            raise KeyStoreError(f"cannot read the key directory: {error.strerror}") from error
        if self._cached is None or self._cached[0] != changed_ns:
            infos = [self._read_info(path) for path in self._directory.glob("*.json")]
            ordered = tuple(sorted(infos, key=lambda info: (info.not_before, info.kid)))
            self._cached = (changed_ns, ordered)
        return self._cached[1]

    def generate(
        self, use: KeyUse, algorithm: Algorithm, not_before: datetime, not_after: datetime
    ) -> KeyInfo:
        if not_before >= not_after:
            raise KeyStoreError("a key's period must end after it begins")
        key: _PrivateKey = (
            ed25519.Ed25519PrivateKey.generate()
            if algorithm is Algorithm.EDDSA
            else ec.generate_private_key(ec.SECP256R1())
        )
        public_der = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        kid = hashlib.sha256(public_der).digest()[:8].hex()
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if self._passphrase:
            encryption = serialization.BestAvailableEncryption(self._passphrase)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
        info = KeyInfo(kid, use, algorithm, not_before, not_after, public_der)
        self._write(f"{kid}.pem", pem, exclusive=True)
        self._write(f"{kid}.json", _info_to_json(info), exclusive=True)
        return info

    def signer(self, kid: str, use: KeyUse) -> Signer:
        info = self._info(kid)
        if info.use is not use:
            raise KeyUseError(f"key {kid} is for {info.use}, not for {use}")
        if kid not in self._opened:
            self._opened[kid] = _FileSigner(kid, info.algorithm, self._open(kid))
        return self._opened[kid]

    def mark_compromised(self, kid: str, at: datetime) -> KeyInfo:
        info = replace(self._info(kid), compromised_at=at)
        self._write(f"{kid}.json", _info_to_json(info), exclusive=False)
        return info

    def secret(self, name: str) -> bytes:
        path = self._directory / f"{name}.secret"
        try:
            return bytes.fromhex(path.read_text("ascii").strip())
        except FileNotFoundError:
            value = secrets.token_bytes(_SECRET_BYTES)
            self._write(path.name, value.hex().encode() + b"\n", exclusive=True)
            return value
        except (OSError, ValueError) as error:
            raise KeyStoreError(f"cannot read the secret {name}") from error

    def _info(self, kid: str) -> KeyInfo:
        for info in self.infos():
            if info.kid == kid:
                return info
        raise KeyUseError(f"there is no key {kid}")

    def _read_info(self, path: Path) -> KeyInfo:
        try:
            info = info_from_json(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeyStoreError(f"cannot read {path.name}: {type(error).__name__}") from error
        if path.stem != info.kid:
            raise KeyStoreError(f"{path.name} describes the key {info.kid}")
        return info

    def _open(self, kid: str) -> _PrivateKey:
        try:
            key = serialization.load_pem_private_key(
                (self._directory / f"{kid}.pem").read_bytes(), self._passphrase
            )
        except FileNotFoundError as error:
            raise KeyUseError(f"the private key {kid} is not here (offline?)") from error
        except (OSError, ValueError, TypeError) as error:
            # Never the library's own text: it may quote the input.
            raise KeyStoreError(f"cannot open the private key {kid}: wrong passphrase?") from error
        if not isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
            raise KeyStoreError(f"the private key {kid} is of an unsupported type")
        return key

    def _write(self, name: str, data: bytes, *, exclusive: bool) -> None:
        """Write durably with mode 0600; `exclusive` refuses to replace a file."""
        path = self._directory / name
        partial = path.with_name(f".{name}.{secrets.token_hex(4)}")
        try:
            if exclusive and path.exists():
                raise KeyStoreError(f"{name} exists and is not overwritten")
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            _sync_directory(self._directory)
        except OSError as error:
            raise KeyStoreError(f"cannot write {name}: {error.strerror}") from error


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


def info_to_dict(info: KeyInfo) -> dict[str, Any]:
    """Public facts as JSON values, the form that key files and trust bundles share."""
    return {
        "kid": info.kid,
        "use": info.use.value,
        "algorithm": info.algorithm.name,
        "not_before": info.not_before.isoformat(),
        "not_after": info.not_after.isoformat(),
        "public_der": info.public_der.hex(),
        "compromised_at": info.compromised_at and info.compromised_at.isoformat(),
    }


def info_from_json(document: Any) -> KeyInfo:
    """Inverse of `info_to_dict`. Raises KeyError, TypeError or ValueError."""
    compromised_at = document["compromised_at"]
    info = KeyInfo(
        kid=document["kid"],
        use=KeyUse(document["use"]),
        algorithm=Algorithm[document["algorithm"]],
        not_before=_aware(document["not_before"]),
        not_after=_aware(document["not_after"]),
        public_der=bytes.fromhex(document["public_der"]),
        compromised_at=None if compromised_at is None else _aware(compromised_at),
    )
    if hashlib.sha256(info.public_der).digest()[:8].hex() != info.kid:
        raise ValueError("kid does not belong to the public key")
    return info


def _aware(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.utcoffset() is None:
        raise ValueError("time without a zone")
    return instant


def _info_to_json(info: KeyInfo) -> bytes:
    return json.dumps(info_to_dict(info), indent=1).encode() + b"\n"


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
