"""The root of trust is renewed by people: propose, look, sign, install.

A root says which keys the other roles have, and how many root keys must agree on the next root. The
root keys are never on the machine that issues permits. So a new root is proposed there, carried to
where each root key is, looked at and signed, and carried back. `CEREMONY.md` has the steps.

Nothing here needs more than the base dependencies: the machine with a root key has no network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key
from securesystemslib.exceptions import Error as SignatureError
from securesystemslib.signer import Key, SecretsHandler, Signature, SSlibKey
from securesystemslib.signer import Signer as TufSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from issuance.errors import TrustError
from issuance.keys import KeyInfo, KeyStore, KeyUse
from issuance.signing import Algorithm

ROOT_LIFE: Final = timedelta(days=3 * 365)
ROLE_USES: Final[Mapping[str, KeyUse]] = {
    Root.type: KeyUse.TRUST_ROOT,
    Targets.type: KeyUse.TRUST_TARGETS,
    Snapshot.type: KeyUse.TRUST_SNAPSHOT,
    Timestamp.type: KeyUse.TRUST_TIMESTAMP,
}
_COMPACT: Final = JSONSerializer(compact=True)


@dataclass(frozen=True, slots=True)
class RootSummary:
    """What the people at a ceremony look at before they sign.

    Attributes:
        keys: role -> identifiers of its keys.
        threshold: how many root keys must sign the next root.
        signed_by: root keys whose signature is on it and holds.
        fingerprint: SHA-256 of what is signed, hexadecimal: the same for every signer.
    """

    version: int
    expires_at: datetime
    keys: Mapping[str, tuple[str, ...]]
    threshold: int
    signed_by: tuple[str, ...]
    fingerprint: str


def propose(
    version: int,
    root_keys: Sequence[KeyInfo],
    threshold: int,
    online_keys: Sequence[KeyInfo],
    now: datetime,
) -> bytes:
    """An unsigned root: `root_keys`, and of the online keys those that sign now.

    Raises `TrustError` if a role would have no key, or the threshold is not 1 to their number.
    """
    root = Root(version, expires=now + ROOT_LIFE, consistent_snapshot=True)
    for role, use in ROLE_USES.items():
        among = root_keys if role == Root.type else online_keys
        chosen = [info for info in among if info.use is use and info.signs_at(now)]
        if not chosen:
            raise TrustError("NO_KEY_FOR_ROLE", f"no key for the role {role} signs today")
        for info in chosen:
            root.add_key(tuf_key(info), role)
    if not 1 <= threshold <= len(root.roles[Root.type].keyids):
        raise TrustError("BAD_THRESHOLD", f"{threshold} root keys cannot be asked to sign")
    root.roles[Root.type].threshold = threshold
    return Metadata(root).to_bytes(_COMPACT)


def sign(proposal: bytes, root_keys: KeyStore) -> bytes:
    """The proposal with the signatures of all root keys of the store added.

    A key that the new root no longer names signs too: the last root's verifiers ask for it.
    """
    metadata = _load(proposal)
    for info in root_keys.infos():
        if info.use is KeyUse.TRUST_ROOT:
            metadata.sign(TufKeySigner(root_keys, info), append=True)
    return metadata.to_bytes(_COMPACT)


def summary(data: bytes, last: bytes | None = None) -> RootSummary:
    """What a proposed or signed root says; signatures by keys of `last` are recognised too.

    Raises `TrustError` with BAD_ROOT if it is none.
    """
    metadata = _load(data)
    root = metadata.signed
    known = dict(root.keys)
    if last is not None:
        known = {**_load(last).signed.keys, **known}
    signers = []
    for kid, signature in metadata.signatures.items():
        try:
            known[kid].verify_signature(signature, metadata.signed_bytes)
            signers.append(kid)
        except (KeyError, SignatureError):
            continue
    return RootSummary(
        version=root.version,
        expires_at=root.expires,
        keys={role: tuple(root.roles[role].keyids) for role in ROLE_USES},
        threshold=root.roles[Root.type].threshold,
        signed_by=tuple(signers),
        fingerprint=hashlib.sha256(metadata.signed_bytes).hexdigest(),
    )


def check(signed: bytes, last: bytes) -> None:
    """Raise `TrustError` unless verifiers who trust `last` will follow it to `signed`."""
    old, new = _load(last), _load(signed)
    if new.signed.version != old.signed.version + 1:
        raise TrustError(
            "WRONG_VERSION",
            f"root {new.signed.version} does not follow root {old.signed.version}; propose anew",
        )
    for which, root in (("last", old.signed), ("new", new.signed)):
        try:
            root.verify_delegate(Root.type, new.signed_bytes, new.signatures)
        except (RepositoryError, SignatureError) as error:
            raise TrustError(
                "TOO_FEW_SIGNATURES",
                f"the root needs {root.roles[Root.type].threshold} signatures by keys of the "
                f"{which} root",
            ) from error


class TufKeySigner(TufSigner):
    """A key store's handle, as python-tuf wants its signers."""

    def __init__(self, store: KeyStore, info: KeyInfo) -> None:
        self._signer = store.signer(info.kid, info.use)
        self._algorithm = info.algorithm
        self._key = tuf_key(info)

    @property
    def public_key(self) -> Key:
        return self._key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> TufSigner:
        raise NotImplementedError("handles come from a KeyStore")

    def sign(self, payload: bytes) -> Signature:
        signature = self._signer.sign(payload)
        if self._algorithm is Algorithm.ES256:
            # COSE has ECDSA signatures as r and s side by side (RFC 9053 section 2.1), TUF as the
            # DER sequence of RFC 3279 section 2.2.3.
            half = len(signature) // 2
            r, s = (int.from_bytes(part) for part in (signature[:half], signature[half:]))
            signature = encode_dss_signature(r, s)
        return Signature(self._key.keyid, signature.hex())


def tuf_key(info: KeyInfo) -> SSlibKey:
    """The public half, as TUF metadata names it."""
    return SSlibKey.from_crypto(load_der_public_key(info.public_der), info.kid)


def _load(data: bytes) -> Metadata[Root]:
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
    except (DeserializationError, ValueError, RecursionError) as error:
        raise TrustError("BAD_ROOT", "the file is not root metadata") from error
    if not isinstance(metadata.signed, Root):
        raise TrustError("BAD_ROOT", "the file is metadata of another role")
    return metadata
