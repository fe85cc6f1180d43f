"""Makes a new issuing authority (keys, the first root, the first publication), and publishes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from issuance import profile
from issuance.errors import AuthorityExistsError, IssuanceError, JournalLockedError
from issuance.issuer import REQUEST_NAME, Issuer
from issuance.key_files import FileKeyStore
from issuance.key_office import ONLINE_KEY_LIFE, PERMIT_KEY_LIFE
from issuance.keys import KeyInfo, KeyStore, KeyUse
from issuance.profile import Profile
from issuance.publisher import BUNDLE_NAME, Publisher
from issuance.signing import Algorithm

_ROOT_LIFE: Final = timedelta(days=10 * 365)
_ONLINE_USES: Final = (
    KeyUse.STATUS_LIST,
    KeyUse.TRUST_TARGETS,
    KeyUse.TRUST_STATUS,
    KeyUse.TRUST_SNAPSHOT,
    KeyUse.TRUST_TIMESTAMP,
)


@dataclass(frozen=True, slots=True)
class NewAuthority:
    """What `init_authority` made.

    Attributes:
        root_keys: public facts of the root keys; their private halves lie in `offline`.
        root_fingerprint: SHA-256 of the first root metadata, hexadecimal. Verifiers compare it when
            they trust this authority for the first time.
        root: that metadata, a file that verifiers can be given on a trusted way.
        bundle: the first trust bundle.
    """

    directory: Path
    offline: Path
    root_keys: tuple[KeyInfo, ...]
    permit_key: KeyInfo
    root_fingerprint: str
    root: Path
    bundle: Path


def publish(
    directory: Path,
    clock: Callable[[], datetime],
    keys: KeyStore,
    *,
    patience_s: float = 30.0,
) -> None:
    """Publish the trust material anew: here, or by the server that has the authority open.

    A running server looks for a request every few seconds; this waits until it has answered.

    Raises:
        IssuanceError: nothing could be published, or the server did not within `patience_s`.
    """
    try:
        with Issuer.open(directory, clock, keys=keys) as issuer:
            issuer.ensure_keys()
            issuer.publish_trust(deltas=True)
            return
    except JournalLockedError:
        pass
    request = directory / REQUEST_NAME
    try:
        request.touch(mode=0o600)
        deadline = time.monotonic() + patience_s
        while request.exists():
            if time.monotonic() > deadline:
                raise IssuanceError(
                    "the running server has not published yet; it will when it can, see its log"
                )
            time.sleep(0.1)
    except OSError as error:
        raise IssuanceError(f"cannot ask the server to publish: {error.strerror}") from error


def init_authority(
    directory: Path,
    rules: Profile,
    clock: Callable[[], datetime],
    *,
    algorithm: Algorithm = Algorithm.EDDSA,
    root_keys: int = 1,
    root_threshold: int = 1,
    passphrase: bytes | None = None,
    root_passphrase: bytes | None = None,
    keys: KeyStore | None = None,
) -> NewAuthority:
    """Make keys and a published trust bundle in `directory`; key files have mode 0600.

    Args:
        algorithm: of the permit key. Trust metadata is always signed with Ed25519.
        root_keys, root_threshold: how many root keys, and how many must sign a new root.
        passphrase, root_passphrase: encrypt the online and the root private keys.
        keys: where the online keys shall be, if not in files.

    Raises:
        AuthorityExistsError: there is an authority; nothing is changed.
        IssuanceError: the directory cannot be written.
    """
    if not 1 <= root_threshold <= root_keys:
        raise IssuanceError(f"threshold must be 1 to {root_keys}, got {root_threshold}")
    if keys is not None and keys.infos():
        raise AuthorityExistsError("the key store has keys already; an authority has its own")
    names = ("authority.json", "offline", "journal", "trust", *(() if keys else ("keys",)))
    parts = [directory / name for name in names]
    if found := [part.name for part in parts if part.exists()]:
        raise AuthorityExistsError(f"{found[0]} exists already; an authority is never overwritten")
    now = clock().astimezone(UTC).replace(microsecond=0)
    keys = keys or FileKeyStore(directory / "keys", passphrase)
    offline = FileKeyStore(directory / "offline", root_passphrase)
    roots = tuple(
        offline.generate(KeyUse.TRUST_ROOT, Algorithm.EDDSA, now, now + _ROOT_LIFE)
        for _ in range(root_keys)
    )
    for use in _ONLINE_USES:
        keys.generate(use, Algorithm.EDDSA, now, now + ONLINE_KEY_LIFE)
    permit_key = keys.generate(KeyUse.PERMIT, algorithm, now, now + PERMIT_KEY_LIFE)
    root = Publisher(directory / "trust", keys, clock).create(offline, root_threshold)
    # Last, so that a directory with this file is a complete authority.
    try:
        (directory / "authority.json").write_bytes(profile.to_json(rules))
    except OSError as error:
        raise IssuanceError(f"cannot write the authority: {error.strerror}") from error
    with Issuer.open(directory, clock, keys=keys) as issuer:
        issuer.publish_trust()
    return NewAuthority(
        directory=directory,
        offline=directory / "offline",
        root_keys=roots,
        permit_key=permit_key,
        root_fingerprint=hashlib.sha256(root).hexdigest(),
        root=directory / "trust" / "metadata" / "1.root.json",
        bundle=directory / "trust" / BUNDLE_NAME,
    )
