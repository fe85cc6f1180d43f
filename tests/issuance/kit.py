"""A clock, a city and a holder for the tests of `issuance`. Every name is invented."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from PIL import Image, ImageDraw

from issuance.keys import KeyInfo, KeyUse
from issuance.profile import PHOTO, RESIDENCE, TEMPORARY_RESIDENCE, Profile
from issuance.signing import Algorithm
from issuance.types import Gender, Holder

# 10:00 on a Tuesday in Shanghai.
START: Final = datetime(2026, 11, 24, 2, 0, 0, tzinfo=UTC)
RULES: Final = Profile("https://anju.example.cn", "示例市公安局")
# The same city, where a temporary permit may carry a photograph.
WITH_PHOTO: Final = replace(
    RULES,
    kinds=(replace(TEMPORARY_RESIDENCE, carries=TEMPORARY_RESIDENCE.carries | {PHOTO}), RESIDENCE),
)
HOLDER: Final = Holder(
    full_name="张示例",
    gender=Gender.MALE,
    birth_date=date(1990, 5, 17),
    residence_address="示例街道和平路 100 号 3 幢 2 单元 501 室",
    residence_division="320505",
    household_division="341225",
)


class Clock:
    """A clock that a test sets; callable like the real ones."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **parts: float) -> datetime:
        self.now += timedelta(**parts)
        return self.now


def holder(**changes: Any) -> Holder:
    return replace(HOLDER, **changes)


class SeededKeys:
    """A `KeyStore` in memory whose keys follow from a seed, so that vectors never change."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._infos: dict[str, KeyInfo] = {}
        self._signers: dict[str, SeededSigner] = {}

    def infos(self) -> tuple[KeyInfo, ...]:
        return tuple(sorted(self._infos.values(), key=lambda info: (info.not_before, info.kid)))

    def generate(
        self, use: KeyUse, algorithm: Algorithm, not_before: datetime, not_after: datetime
    ) -> KeyInfo:
        seed = hashlib.sha256(f"{self._seed}/{len(self._infos)}".encode()).digest()
        key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
        if algorithm is Algorithm.EDDSA:
            key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        else:
            key = ec.derive_private_key(int.from_bytes(seed[:31], "big") + 1, ec.SECP256R1())
        public_der = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        kid = hashlib.sha256(public_der).digest()[:8].hex()
        info = KeyInfo(kid, use, algorithm, not_before, not_after, public_der)
        self._infos[kid], self._signers[kid] = info, SeededSigner(kid, algorithm, key)
        return info

    def signer(self, kid: str, use: KeyUse) -> SeededSigner:
        assert self._infos[kid].use is use
        return self._signers[kid]

    def mark_compromised(self, kid: str, at: datetime) -> KeyInfo:
        self._infos[kid] = replace(self._infos[kid], compromised_at=at)
        return self._infos[kid]

    def retire(self, kid: str, at: datetime) -> KeyInfo:
        self._infos[kid] = replace(self._infos[kid], not_after=at)
        return self._infos[kid]

    def secret(self, name: str) -> bytes:
        return hashlib.sha256(f"{self._seed}/{name}".encode()).digest()


@dataclass(frozen=True)
class SeededSigner:
    kid: str
    algorithm: Algorithm
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

    def sign(self, message: bytes) -> bytes:
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(message)
        scheme = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        r, s = decode_dss_signature(self.key.sign(message, scheme))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def portrait(
    width: int = 358, height: int = 441, *, format: str = "JPEG", hair: int = 40, **options: Any
) -> bytes:
    """A drawn face as GA 461 asks for it: upright, light ground, head in the upper half."""
    image = Image.new("RGB", (358, 441), (235, 236, 240))
    pen = ImageDraw.Draw(image)
    pen.ellipse((60, 280, 300, 620), fill=(60, 70, 90))
    pen.ellipse((110, 50, 250, 250), fill=(225, 190, 165))
    pen.pieslice((100, 30, 260, 220), 180, 360, fill=(hair, hair - 5, hair - 5))
    for eye in (145, 195):
        pen.ellipse((eye, 140, eye + 20, 152), fill=(20, 20, 20))
    pen.arc((150, 180, 210, 215), 20, 160, fill=(150, 60, 60), width=5)
    buffer = io.BytesIO()
    image.resize((width, height)).save(buffer, format, **options)
    return buffer.getvalue()
