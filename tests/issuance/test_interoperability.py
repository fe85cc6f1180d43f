"""Other people's libraries read our permits, and we read other people's vectors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import claim169
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from pycose.algorithms import EdDSA, Es256
from pycose.keys.ec2 import EC2Key
from pycose.keys.okp import OKPKey
from pycose.messages.sign1message import Sign1Message

from issuance import codec, envelope, signing
from issuance.errors import DecodeError
from issuance.keys import KeyInfo
from issuance.signing import Algorithm, PublicKey
from issuance.types import Gender, Reason, Stage
from tests.vectors.permits import generate

# Made by the authors of the claim169 library; read in place, never copied.
VECTORS = Path(__file__).parents[3] / "shared" / "data" / "claim169"
needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason="the claim169 vectors are not here")
CITY = generate.City()
CLAIMS = generate.claims(CITY)


def vectors(folder: str) -> list[Any]:
    paths = sorted((VECTORS / folder).glob("*.json"))
    return [pytest.param(json.loads(path.read_bytes()), id=path.stem) for path in paths]


def signed_only(folder: str) -> list[Any]:
    return [case for case in vectors(folder) if "encryption_key" not in case.values[0]]


def raw_key(info: KeyInfo) -> bytes:
    key = load_der_public_key(info.public_der)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_claim169_library_verifies_and_reads_our_permit(algorithm: Algorithm) -> None:
    info = CITY.ed25519 if algorithm is Algorithm.EDDSA else CITY.es256
    decode = (
        claim169.decode_with_ed25519
        if algorithm is Algorithm.EDDSA
        else claim169.decode_with_ecdsa_p256
    )
    text = generate.text(generate.cose(CITY, CLAIMS, info))
    result = decode(text, raw_key(info), validate_timestamps=False)
    assert result.verification_status == "verified"
    assert result.claim169.full_name == "张示例"
    assert result.claim169.date_of_birth == "19900517"
    assert result.claim169.gender == 1
    assert result.claim169.id == CLAIMS[169][1]
    assert result.claim169.address == generate.HOLDER.residence_address
    assert result.cwt_meta.issuer == generate.RULES.issuer
    assert result.cwt_meta.expires_at == CLAIMS[4]


def test_claim169_library_refuses_our_permit_altered() -> None:
    altered = generate.text(generate.cose(CITY, CLAIMS, alter=generate.flip(3)))
    with pytest.raises(claim169.Claim169Exception):
        claim169.decode_with_ed25519(altered, raw_key(CITY.ed25519), validate_timestamps=False)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_pycose_verifies_our_permit(algorithm: Algorithm) -> None:
    info = CITY.ed25519 if algorithm is Algorithm.EDDSA else CITY.es256
    message = Sign1Message.decode(generate.cose(CITY, CLAIMS, info))
    raw = raw_key(info)
    if algorithm is Algorithm.EDDSA:
        message.key = OKPKey(crv="ED25519", x=raw, optional_params={"ALG": EdDSA})
    else:
        message.key = EC2Key(crv="P_256", x=raw[1:33], y=raw[33:], optional_params={"ALG": Es256})
    assert message.verify_signature()
    assert message.payload == codec.encode(generate.permit(CITY), generate.RULES)


NODE = Path(__file__).with_name("node")


@pytest.fixture(scope="module")
def auth0() -> Callable[[list[tuple[str, KeyInfo]]], list[dict[str, Any]]]:
    """Reads (text, key) pairs with @auth0/cose on Node, in one process."""
    problem = None
    if shutil.which("npm") is None:
        problem = "npm is not installed"
    elif not (NODE / "node_modules" / "@auth0").is_dir():
        # Not `npm ci`: without registry addresses npm locks no optional parts of other platforms,
        # and then refuses its own lock. They are not needed; the rest comes as it was locked.
        install = ["npm", "install", "--no-save", "--omit=optional", "--ignore-scripts", "--silent"]
        if subprocess.run(install, cwd=NODE, check=False, timeout=120).returncode:
            problem = "@auth0/cose cannot be installed here"
    if problem is not None:
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)

    def run(pairs: list[tuple[str, KeyInfo]]) -> list[dict[str, Any]]:
        lines = [json.dumps({"text": text, "key": key.public_der.hex()}) for text, key in pairs]
        done = subprocess.run(
            ["node", "read.mjs"],
            cwd=NODE,
            input="\n".join(lines),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_auth0_cose_on_node_verifies_our_permits(
    auth0: Callable[[list[tuple[str, KeyInfo]]], list[dict[str, Any]]],
) -> None:
    keys = {Algorithm.EDDSA: CITY.ed25519, Algorithm.ES256: CITY.es256}
    with_photo = {**CLAIMS, 169: {**CLAIMS[169], 62: [{0: generate.PHOTO, 1: 0, 2: 4}]}}
    texts = [
        (generate.text(generate.cose(CITY, claims, info)), info)
        for claims in (CLAIMS, with_photo)
        for info in keys.values()
    ]
    altered = generate.cose(CITY, CLAIMS, alter=generate.flip(2, 40))
    swapped = (texts[0][0], CITY.stolen)
    answers = auth0([*texts, (generate.text(altered), CITY.ed25519), swapped])
    for number, answer in enumerate(answers[:4]):
        assert answer == {
            "verified": True,
            "issuer": generate.RULES.issuer,
            "expires": CLAIMS[4],
            "name": "张示例",
            "born": "19900517",
            "gender": 1,
            "photo": generate.PHOTO.hex() if number >= 2 else None,
        }
    assert [answer["verified"] for answer in answers[4:]] == [False, False]


def read(text: str) -> tuple[signing.Sign1, codec.Claims]:
    message = signing.parse(envelope.from_text(text))
    return message, codec.read_claims(message.payload)


_KEYS = {
    "id": 1,
    "version": 2,
    "language": 3,
    "fullName": 4,
    "firstName": 5,
    "middleName": 6,
    "lastName": 7,
    "address": 10,
    "email": 11,
    "phone": 12,
    "nationality": 13,
    "maritalStatus": 14,
    "guardian": 15,
    "bestQualityFingers": 18,
    "secondaryFullName": 19,
    "secondaryLanguage": 20,
    "locationCode": 21,
    "legalStatus": 22,
    "countryOfIssuance": 23,
}


@needs_vectors
@pytest.mark.parametrize("vector", signed_only("valid") + signed_only("edge"))
def test_their_vectors_read_as_they_say(vector: dict[str, Any]) -> None:
    _, claims = read(vector["qr_data"])
    expected, meta = vector["expected_claim169"], vector["expected_cwt_meta"]
    for name, key in _KEYS.items():
        assert claims.attributes.get(key) == expected.get(name), name
    if "dateOfBirth" in expected:
        born = codec.birth_date_from(claims.attributes[8])
        assert f"{born:%Y%m%d}" == expected["dateOfBirth"].replace("-", "")
    if "gender" in expected:
        assert codec.gender_from(claims.attributes[9]) is Gender(expected["gender"])
    assert claims.issuer == meta["issuer"]
    assert claims.subject == meta.get("subject")
    assert claims.expires_at == meta.get("expiresAt")
    assert claims.not_before == meta.get("notBefore")
    assert claims.issued_at == meta.get("issuedAt")


@needs_vectors
@pytest.mark.parametrize("name", ["ed25519-signed", "ecdsa-p256-signed"])
def test_their_signatures_verify(name: str) -> None:
    vector = json.loads((VECTORS / "valid" / f"{name}.json").read_bytes())
    raw = bytes.fromhex(vector["signing_key"]["public_key_hex"])
    if vector["signing_key"]["algorithm"] == "EdDSA":
        key = PublicKey("00", Algorithm.EDDSA, ed25519.Ed25519PublicKey.from_public_bytes(raw))
    else:
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
        key = PublicKey("00", Algorithm.ES256, point)
    message, _ = read(vector["qr_data"])
    assert signing.verify_signature(message, key)
    altered = bytearray(envelope.from_text(vector["qr_data"]))
    altered[-1] ^= 1
    assert not signing.verify_signature(signing.parse(bytes(altered)), key)


# `bad-zlib` is base45 of bytes that do not begin like zlib at all: to us that is no permit.
_REFUSALS = {
    "bad-base45": (Stage.READ, Reason.NOT_A_PERMIT),
    "bad-zlib": (Stage.READ, Reason.NOT_A_PERMIT),
    "not-cose": (Stage.PARSE, Reason.NOT_A_PERMIT),
    "missing-169": (Stage.CLAIMS, Reason.NOT_A_PERMIT),
}


@needs_vectors
@pytest.mark.parametrize("vector", vectors("invalid"))
def test_their_invalid_vectors_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(DecodeError) as caught:
        read(vector["qr_data"])
    assert (caught.value.stage, caught.value.reason) == _REFUSALS[vector["name"]]


@needs_vectors
@pytest.mark.parametrize("name", ["encrypted-aes256", "encrypted-signed"])
def test_their_encrypted_vectors_are_not_ours_to_read(name: str) -> None:
    vector = json.loads((VECTORS / "valid" / f"{name}.json").read_bytes())
    with pytest.raises(DecodeError) as caught:
        read(vector["qr_data"])
    assert caught.value.reason is Reason.NOT_A_PERMIT
