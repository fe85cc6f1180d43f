"""Private keys behind a port: what is known about each, and a handle to sign with.

The rest of the package asks a `KeyStore` for a `Signer` and never sees key bytes: `key_files` keeps
them in (encrypted) files, `key_tokens` in a PKCS#11 token. Every key has one use and a signing
period; a key of another use is refused, so a stolen status key cannot sign permits.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from issuance.signing import Algorithm, Signer


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

    def retire(self, kid: str, at: datetime) -> KeyInfo:
        """End the signing period at `at`, if it would end later; what it signed stays good."""

    def secret(self, name: str) -> bytes:
        """32 secret bytes of that name, made at the first call and the same ever after."""


def kid_of(public_der: bytes) -> str:
    """The identifier of a public key: the first 8 bytes of its SHA-256, hexadecimal."""
    return hashlib.sha256(public_der).digest()[:8].hex()


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
    if kid_of(info.public_der) != info.kid:
        raise ValueError("kid does not belong to the public key")
    return info


def _aware(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.utcoffset() is None:
        raise ValueError("time without a zone")
    return instant
