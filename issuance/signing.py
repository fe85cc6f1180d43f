"""COSE_Sign1 (RFC 9052 section 4.2): written one way, read strictly.

Signing goes through a `Signer`, a handle that may stand for a file, a token or a service; key bytes
never come here. Reading refuses what libraries let pass:

* `crit` (RFC 9052 section 3.1) naming anything this code does not act upon,
* a header in both buckets, or twice in one,
* an algorithm that is not in the protected header, or not the one the key is meant for. The key
  decides the algorithm, never the message.

The `kid` is written protected. It is read from either bucket: it only chooses which trusted key is
tried, and published status lists have it unprotected.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from issuance import cbor
from issuance.errors import DecodeError
from issuance.types import Reason, Stage

ALG, CRIT, KID, TYP = 1, 2, 4, 16
_UNDERSTOOD: Final = frozenset({ALG, CRIT, KID, TYP})
TAG_SIGN1, TAG_CWT = 18, 61


class Algorithm(enum.IntEnum):
    """COSE algorithms (RFC 9053 section 2)."""

    EDDSA = -8  # with Ed25519
    ES256 = -7  # ECDSA on P-256 with SHA-256


class Signer(Protocol):
    """A handle to one private key."""

    @property
    def kid(self) -> str:
        """Identifier, hexadecimal."""

    @property
    def algorithm(self) -> Algorithm: ...

    def sign(self, message: bytes) -> bytes:
        """64 bytes, for ECDSA `r || s` (RFC 9053 section 2.1). May raise `KeyStoreError`."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures are verified with, for one algorithm only.

    Attributes:
        kid: hexadecimal.
    """

    kid: str
    algorithm: Algorithm
    key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey

    @classmethod
    def from_der(cls, kid: str, der: bytes) -> PublicKey:
        """From a SubjectPublicKeyInfo. Raises ValueError unless Ed25519 or P-256."""
        key = serialization.load_der_public_key(der)
        if isinstance(key, ed25519.Ed25519PublicKey):
            return cls(kid, Algorithm.EDDSA, key)
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            return cls(kid, Algorithm.ES256, key)
        raise ValueError("public key is neither Ed25519 nor P-256")


@dataclass(frozen=True, slots=True)
class Sign1:
    """A COSE_Sign1 whose structure is sound; nothing is said about its signature yet.

    Attributes:
        kid: hexadecimal, None if the message names no key.
        typ: header 16 (RFC 9596), None if absent.
    """

    protected: bytes
    algorithm: Algorithm
    kid: str | None
    typ: str | int | None
    payload: bytes
    signature: bytes


def sign(payload: bytes, signer: Signer, *, typ: str | None = None) -> bytes:
    """COSE_Sign1 of `payload`, tagged 18, deterministic but for the signature itself."""
    headers: dict[int, Any] = {ALG: int(signer.algorithm), KID: bytes.fromhex(signer.kid)}
    if typ is not None:
        headers[TYP] = typ
    protected = cbor.encode(headers)
    signature = signer.sign(_to_be_signed(protected, payload))
    return cbor.encode(cbor.Tagged(TAG_SIGN1, [protected, {}, payload, signature]))


def parse(data: bytes) -> Sign1:
    """Read a COSE_Sign1 with tag 18, with tag 61 around it, or without tags.

    Raises `DecodeError` with stage PARSE: NOT_A_PERMIT when it is something else,
    UNSUPPORTED_CRITICAL, UNSUPPORTED_ALGORITHM, DUPLICATE_KEY or MALFORMED.
    """
    try:
        item = cbor.decode(data)
    except cbor.DuplicateKeyError as error:
        raise _refused(Reason.DUPLICATE_KEY, "a header is given twice") from error
    except cbor.CborError as error:
        raise _refused(Reason.MALFORMED, f"not CBOR: {error}") from error
    for tag in (TAG_CWT, TAG_SIGN1):
        if isinstance(item, cbor.Tagged) and item.tag == tag:
            item = item.value
    if not isinstance(item, list) or len(item) != 4:
        raise _refused(Reason.NOT_A_PERMIT, "not a COSE_Sign1 message")
    match item:
        case [bytes(raw), dict(unprotected), bytes(payload), bytes(signature)]:
            protected = _protected(raw)
        case _:
            raise _refused(Reason.MALFORMED, "not the four parts of a COSE_Sign1 message")
    if protected.keys() & unprotected.keys():
        raise _refused(Reason.DUPLICATE_KEY, "a header is both protected and unprotected")
    _check_critical(protected, unprotected)
    kid = protected.get(KID, unprotected.get(KID))
    typ = protected.get(TYP)
    if not isinstance(kid, bytes | None) or not isinstance(typ, str | int | None):
        raise _refused(Reason.MALFORMED, "kid or typ has the wrong type")
    return Sign1(
        protected=raw,
        algorithm=_algorithm(protected),
        kid=None if kid is None else kid.hex(),
        typ=typ,
        payload=payload,
        signature=signature,
    )


def verify_signature(message: Sign1, key: PublicKey) -> bool:
    """Whether `key` made the signature of `message`. False also if the algorithms differ."""
    if message.algorithm is not key.algorithm or len(message.signature) != 64:
        return False
    signed = _to_be_signed(message.protected, message.payload)
    try:
        if isinstance(key.key, ed25519.Ed25519PublicKey):
            key.key.verify(message.signature, signed)
        else:
            r = int.from_bytes(message.signature[:32], "big")
            s = int.from_bytes(message.signature[32:], "big")
            key.key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    # Sig_structure, RFC 9052 section 4.4; no external data.
    return cbor.encode(["Signature1", protected, b"", payload])


def _protected(raw: bytes) -> dict[Any, Any]:
    try:
        headers = cbor.decode(raw) if raw else {}
    except cbor.DuplicateKeyError as error:
        raise _refused(Reason.DUPLICATE_KEY, "a protected header is given twice") from error
    except cbor.CborError as error:
        raise _refused(Reason.MALFORMED, "the protected header is not CBOR") from error
    if not isinstance(headers, dict):
        raise _refused(Reason.MALFORMED, "the protected header is not a map")
    return headers


def _check_critical(protected: dict[Any, Any], unprotected: dict[Any, Any]) -> None:
    if CRIT in unprotected:
        raise _refused(Reason.MALFORMED, "crit must be protected")
    if CRIT not in protected:
        return
    labels = protected[CRIT]
    if not isinstance(labels, list) or not labels:
        raise _refused(Reason.MALFORMED, "crit is not a list of labels")
    for label in labels:
        if not isinstance(label, int | str) or label not in _UNDERSTOOD:
            raise _refused(
                Reason.UNSUPPORTED_CRITICAL, "demands a feature this verifier does not have"
            )
        if label not in protected:
            raise _refused(Reason.MALFORMED, "crit names a header that is not there")


def _algorithm(protected: dict[Any, Any]) -> Algorithm:
    value = protected.get(ALG)
    if value is None:
        raise _refused(Reason.MALFORMED, "no protected algorithm")
    if isinstance(value, bool) or value not in Algorithm.__members__.values():
        raise _refused(Reason.UNSUPPORTED_ALGORITHM, "algorithm is neither EdDSA nor ES256")
    return Algorithm(value)


def _refused(reason: Reason, message: str) -> DecodeError:
    return DecodeError(Stage.PARSE, reason, message)
