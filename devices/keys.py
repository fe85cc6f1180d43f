"""Keys that people and sessions sign with: Ed25519, or ECDSA on P-256 and P-384 with SHA-256.

Public keys travel as SubjectPublicKeyInfo (DER); ECDSA signatures in DER, Ed25519's as in RFC 8032.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from devices.errors import ArgumentInvalidError

MAX_PUBLIC_KEY_BYTES = 256  # P-384 has 120
CURVES = (ec.SECP256R1, ec.SECP384R1)

PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def public_key(der: bytes) -> Ed25519PublicKey | ec.EllipticCurvePublicKey:
    """A public key that signatures can be checked with.

    Raises:
        ArgumentInvalidError: it is unreadable, or of another kind.
    """
    try:
        if len(der) > MAX_PUBLIC_KEY_BYTES:
            raise ValueError
        key = load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ArgumentInvalidError("a key must be a SubjectPublicKeyInfo in DER") from error
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, CURVES):
        return key
    raise ArgumentInvalidError("a key must be Ed25519, or on the curve P-256 or P-384")


def public_bytes(key: PrivateKey) -> bytes:
    """The public half: SubjectPublicKeyInfo, DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign(key: PrivateKey, message: bytes) -> bytes:
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    return key.sign(message, ec.ECDSA(SHA256()))


def verify_signature(der: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the key's holder signed that message.

    Raises:
        ArgumentInvalidError: the key is not acceptable.
    """
    key = public_key(der)
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
