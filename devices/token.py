"""The provisioning token: what a person types into a new terminal, once.

Forty symbols of Crockford's base 32 (crockford.com/base32.html) in eight groups of five::

    symbols  0-15   80 bits  the secret; the register keeps only its hash
    symbols 16-35  100 bits  the head of SHA-256 over the server's public key
    symbols 36-39   20 bits  the head of SHA-256 over the 36 symbols before: a checksum for typos

The fingerprint is over the SubjectPublicKeyInfo, as in RFC 7469, and not over the certificate, so a
server may renew its certificate while tokens are on their way. An impostor needs a key pair whose
hash begins with the same 100 bits, each try an elliptic curve operation. The secret needs no more
than 80 bits: it can only be tried against the server, which counts, and it dies within a day.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import unicodedata
from dataclasses import dataclass

from devices.errors import TokenInvalidError

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
SECRET_SYMBOLS = 16
FINGERPRINT_SYMBOLS = 20
CHECKSUM_SYMBOLS = 4
SYMBOLS = SECRET_SYMBOLS + FINGERPRINT_SYMBOLS + CHECKSUM_SYMBOLS
GROUP = 5
MAX_TYPED = 200  # characters looked at, spaces and hyphens included

_VALUES = {symbol: value for value, symbol in enumerate(ALPHABET)} | {"O": 0, "I": 1, "L": 1}


@dataclass(frozen=True, repr=False)
class Token:
    """A token's parts. It has no ``repr``, so it cannot slip into a log.

    Attributes:
        secret: 16 symbols.
        fingerprint: 20 symbols, see :func:`fingerprint_of`.
    """

    secret: str
    fingerprint: str

    def text(self) -> str:
        """The token as it is shown and typed: eight groups of five."""
        body = self.secret + self.fingerprint
        symbols = body + _digest_head(body.encode(), CHECKSUM_SYMBOLS)
        return "-".join(symbols[i : i + GROUP] for i in range(0, SYMBOLS, GROUP))


def new_token(fingerprint: str) -> Token:
    """A token with a fresh secret for the server of that fingerprint."""
    return Token("".join(secrets.choice(ALPHABET) for _ in range(SECRET_SYMBOLS)), fingerprint)


def parse_token(typed: str) -> Token:
    """Read a token as typed: any case, hyphens and spaces anywhere, full-width forms, O for 0.

    Raises:
        TokenInvalidError: it is no token; the message says where to look, without quoting it.
    """
    if len(typed) > MAX_TYPED:
        raise TokenInvalidError("this is too long for a provisioning token")
    text = unicodedata.normalize("NFKC", typed).upper()
    kept = [c for c in text if not (c.isspace() or c in "-‐‑‒–—−_")]
    for place, symbol in enumerate(kept, start=1):
        if symbol not in _VALUES:
            raise TokenInvalidError(
                f"the token has a character that no token has, at place {place} of {SYMBOLS} "
                f"(group {(place - 1) // GROUP + 1})"
            )
    symbols = "".join(ALPHABET[_VALUES[c]] for c in kept)
    if len(symbols) != SYMBOLS:
        raise TokenInvalidError(
            f"a token has {SYMBOLS} letters and digits in {SYMBOLS // GROUP} groups of {GROUP}; "
            f"this one has {len(symbols)}"
        )
    body, checksum = symbols[:-CHECKSUM_SYMBOLS], symbols[-CHECKSUM_SYMBOLS:]
    if not hmac.compare_digest(checksum, _digest_head(body.encode(), CHECKSUM_SYMBOLS)):
        raise TokenInvalidError(
            "the token is mistyped: its checksum does not fit; compare it group by group"
        )
    return Token(body[:SECRET_SYMBOLS], body[SECRET_SYMBOLS:])


def secret_hash(token: Token) -> bytes:
    """What the register keeps: 32 bytes, SHA-256 over the secret with a domain of its own.

    A plain hash is enough, as for any secret that was drawn at random and not chosen by a person.
    """
    return hashlib.sha256(b"anju provisioning token\x00" + token.secret.encode()).digest()


def fingerprint_of(public_key_der: bytes) -> str:
    """The first 100 bits of SHA-256 over a SubjectPublicKeyInfo (DER), as 20 symbols."""
    return _digest_head(public_key_der, FINGERPRINT_SYMBOLS)


def _digest_head(data: bytes, symbols: int) -> str:
    value = int.from_bytes(hashlib.sha256(data).digest(), "big") >> (256 - 5 * symbols)
    return "".join(ALPHABET[(value >> shift) & 31] for shift in range(5 * (symbols - 1), -1, -5))
