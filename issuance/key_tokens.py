"""Keys in a PKCS#11 token (OASIS PKCS #11 v3.0): they are made there, sign there, and never leave.

The public facts lie in a directory like those of the key files; the token holds each private key
under its kid (CKA_ID), not extractable. The numbering secret is an HMAC by a key of the token, so
it too can only be had with the token and its PIN. Needs python-pkcs11 (extra `hsm`).

A token logs in a process, not a session, and its sessions are not safe for several threads at once:
one session a process and token, behind a lock.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from issuance.errors import KeyStoreError, KeyUseError
from issuance.key_facts import KeyFacts
from issuance.keys import KeyInfo, KeyUse, kid_of
from issuance.signing import Algorithm, Signer

_ED25519_BYTES, _P256_BYTES = 32, 65
_CURVES: Final = {Algorithm.EDDSA: "1.3.101.112", Algorithm.ES256: "secp256r1"}
_sessions: dict[tuple[str, str], Any] = {}
_lock = threading.RLock()


class TokenKeyStore:
    """`KeyStore` on a PKCS#11 token.

    Args:
        directory: of the public facts; made with mode 0700 if missing.
        module: path of the token's PKCS#11 library.
        token: its label.
        pin: of its user.

    Raises:
        KeyStoreError: no such library or token, or the PIN is wrong.
    """

    def __init__(self, directory: Path, module: str, token: str, pin: str) -> None:
        self._facts = KeyFacts(directory)
        self._session = _open_session(module, token, pin)

    def infos(self) -> tuple[KeyInfo, ...]:
        return self._facts.infos()

    def generate(
        self, use: KeyUse, algorithm: Algorithm, not_before: datetime, not_after: datetime
    ) -> KeyInfo:
        public_der = self._generate_pair(algorithm)
        info = KeyInfo(kid_of(public_der), use, algorithm, not_before, not_after, public_der)
        self._facts.add(info)
        return info

    def signer(self, kid: str, use: KeyUse) -> Signer:
        info = self._facts.info(kid, use)
        return _TokenSigner(kid, info.algorithm, self._find(kid))

    def mark_compromised(self, kid: str, at: datetime) -> KeyInfo:
        return self._facts.mark_compromised(kid, at)

    def retire(self, kid: str, at: datetime) -> KeyInfo:
        return self._facts.retire(kid, at)

    def secret(self, name: str) -> bytes:
        import pkcs11

        key_id = self._secret_key_id(name)
        attributes = pkcs11.Attribute
        with _lock:
            try:
                template = {
                    attributes.CLASS: pkcs11.ObjectClass.SECRET_KEY,
                    attributes.ID: key_id,
                }
                key = next(iter(self._session.get_objects(template)), None)
                if key is None:
                    raise KeyUseError(f"the token has no secret {name}: is it another one?")
                return bytes(key.sign(name.encode(), mechanism=pkcs11.Mechanism.SHA256_HMAC))
            except pkcs11.exceptions.PKCS11Error as error:
                raise _failed("use a secret", error) from error

    def _secret_key_id(self, name: str) -> bytes:
        """The CKA_ID of the HMAC key of a secret; made at the first call."""
        import pkcs11

        file = f"{name}.token-secret"
        try:
            return bytes.fromhex(self._facts.read(file).decode("ascii").strip())
        except FileNotFoundError:
            key_id = secrets.token_bytes(8)
        except (OSError, ValueError) as error:
            raise KeyStoreError(f"cannot read {file}") from error
        with _lock:
            try:
                self._session.generate_key(
                    pkcs11.KeyType.GENERIC_SECRET,
                    256,
                    id=key_id,
                    label=f"anju {name}",
                    store=True,
                    capabilities=pkcs11.MechanismFlag.SIGN,
                    template={
                        pkcs11.Attribute.SENSITIVE: True,
                        pkcs11.Attribute.EXTRACTABLE: False,
                    },
                )
            except pkcs11.exceptions.PKCS11Error as error:
                raise _failed("make a secret", error) from error
        self._facts.write(file, key_id.hex().encode() + b"\n", exclusive=True)
        return key_id

    def _generate_pair(self, algorithm: Algorithm) -> bytes:
        """Make a key pair on the token; returns the SubjectPublicKeyInfo."""
        import pkcs11
        from pkcs11.util.ec import encode_named_curve_parameters

        edwards = algorithm is Algorithm.EDDSA
        kind = pkcs11.KeyType.EC_EDWARDS if edwards else pkcs11.KeyType.EC
        mechanism = (
            pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN
            if edwards
            else pkcs11.Mechanism.EC_KEY_PAIR_GEN
        )
        attributes = pkcs11.Attribute
        with _lock:
            try:
                parameters = self._session.create_domain_parameters(
                    kind,
                    {attributes.EC_PARAMS: encode_named_curve_parameters(_CURVES[algorithm])},
                    local=True,
                )
                public, private = parameters.generate_keypair(
                    mechanism=mechanism,
                    store=True,
                    # The kid follows from the public key, which is not known yet.
                    id=secrets.token_bytes(8),
                    private_template={
                        attributes.SENSITIVE: True,
                        attributes.EXTRACTABLE: False,
                    },
                )
                public_der = _spki(algorithm, public[attributes.EC_POINT])
                kid = kid_of(public_der)
                for half in (public, private):
                    half[attributes.ID] = bytes.fromhex(kid)
                    half[attributes.LABEL] = f"anju {kid}"
            except pkcs11.exceptions.PKCS11Error as error:
                raise _failed("make a key", error) from error
        return public_der

    def _find(self, kid: str) -> Any:
        import pkcs11

        template = {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY,
            pkcs11.Attribute.ID: bytes.fromhex(kid),
        }
        with _lock:
            try:
                found = next(iter(self._session.get_objects(template)), None)
            except pkcs11.exceptions.PKCS11Error as error:
                raise _failed("look for a key", error) from error
        if found is None:
            raise KeyUseError(f"the private key {kid} is not on the token (offline?)")
        return found


class _TokenSigner:
    """Handle to a private key on the token."""

    def __init__(self, kid: str, algorithm: Algorithm, key: Any) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self._key = key

    def sign(self, message: bytes) -> bytes:
        import pkcs11

        with _lock:
            try:
                if self.algorithm is Algorithm.EDDSA:
                    return bytes(self._key.sign(message, mechanism=pkcs11.Mechanism.EDDSA))
                # CKM_ECDSA signs a digest and answers r || s, the form that COSE wants.
                digest = hashlib.sha256(message).digest()
                return bytes(self._key.sign(digest, mechanism=pkcs11.Mechanism.ECDSA))
            except pkcs11.exceptions.PKCS11Error as error:
                raise _failed("sign", error) from error


def _open_session(module: str, token: str, pin: str) -> Any:
    try:
        import pkcs11
    except ImportError as error:
        raise KeyStoreError("tokens need python-pkcs11: install anju[hsm]") from error
    with _lock:
        if (module, token) not in _sessions:
            try:
                found = pkcs11.lib(module).get_token(token_label=token)
                _sessions[module, token] = found.open(rw=True, user_pin=pin)
            except (pkcs11.exceptions.PKCS11Error, RuntimeError) as error:
                raise _failed(f"open the token {token!r} of {Path(module).name}", error) from error
        return _sessions[module, token]


def _spki(algorithm: Algorithm, point: bytes) -> bytes:
    """SubjectPublicKeyInfo of a CKA_EC_POINT: an OCTET STRING of the raw point, or the point."""
    size = _ED25519_BYTES if algorithm is Algorithm.EDDSA else _P256_BYTES
    if len(point) not in (size, size + 2):
        raise KeyStoreError("the token describes its public key in a way that is not known here")
    raw = point[-size:]
    public = (
        ed25519.Ed25519PublicKey.from_public_bytes(raw)
        if algorithm is Algorithm.EDDSA
        else ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
    )
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _failed(what: str, error: Exception) -> KeyStoreError:
    # The type says enough, and no text of the library can quote a PIN.
    return KeyStoreError(f"cannot {what}: {type(error).__name__}")
