"""The client's half of The Update Framework, for a repository that is all in memory.

Theory of operation (TUF specification 1.0, section 5). Trust starts at a root metadata file that
the verifier already holds, and walks forward: each newer root must be signed by a threshold of the
keys of the one before *and* of its own. The last root names the keys of the timestamp, which pins
the snapshot by version, length and hash, which pins the targets roles, which pin the files. Every
version must be at least the one remembered. Expiry is collected, not judged: a long-running
verifier loads once and must notice on Friday that Monday's bundle has expired.

python-tuf's own client does these steps against a directory and the machine's clock; this one takes
both from its caller, and uses python-tuf for parsing, signatures and hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from securesystemslib.exceptions import Error as SignatureError
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    BaseFile,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError, SerializationError

from issuance.errors import RollbackError, TrustError
from issuance.memory import Memory

STATUS_ROLE: Final = "status"
PUBLISHED_FIELD: Final = "x-anju-published"
# One root a year lasts longer than any of us.
_MAX_ROOTS: Final = 256

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True)
class VerifiedRepository:
    """A repository whose signatures, versions and hashes hold.

    Attributes:
        files: target path -> content; every target that the metadata names.
        published_at: signed time of the publication.
        expires_at: when the first of the roles expires.
        version: of the timestamp; grows with every publication.
        first_root_sha256: fingerprint by which people know the authority.
        anchored: whether a root known beforehand vouched for it; False on first use.
        memory: what to remember from now on.
    """

    files: Mapping[str, bytes]
    published_at: datetime
    expires_at: datetime
    version: int
    first_root_sha256: str
    anchored: bool
    memory: Memory


def verify_repository(
    files: Mapping[str, bytes], memory: Memory | None = None, root: bytes | None = None
) -> VerifiedRepository:
    """Check `files` (paths as `publisher` writes them) against what is known.

    Args:
        memory: what this verifier remembers; None on first use.
        root: root metadata that reached the verifier on a trusted way, if any.

    Raises:
        RollbackError: older than what the verifier has used.
        TrustError: BAD_TRUST, or WRONG_ROOT for another authority.
    """
    try:
        return _verify(files, memory, root)
    except TrustError:
        raise
    except (RepositoryError, DeserializationError, SerializationError, SignatureError) as error:
        raise _bad(f"{type(error).__name__} in the trust metadata") from error
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _bad("the trust metadata is malformed or incomplete") from error


def _verify(
    files: Mapping[str, bytes], memory: Memory | None, root: bytes | None
) -> VerifiedRepository:
    roots = _roots(files)
    anchors = _anchors(memory, root)
    newest = _walk_roots(roots, anchors)
    known = _known_versions(roots, newest, memory)

    timestamp = _load(Timestamp, files["metadata/timestamp.json"], newest, Timestamp.type)
    _not_older(Timestamp.type, timestamp.version, known)
    pin = timestamp.snapshot_meta
    snapshot = _load_pinned(Snapshot, files, Snapshot.type, pin, newest)
    _not_older(Snapshot.type, snapshot.version, known)
    targets = _load_pinned(
        Targets, files, Targets.type, snapshot.meta[f"{Targets.type}.json"], newest
    )
    status = _load_pinned(
        Targets, files, STATUS_ROLE, snapshot.meta[f"{STATUS_ROLE}.json"], targets
    )
    _not_older(Targets.type, targets.version, known)
    _not_older(STATUS_ROLE, status.version, known)

    contents = _contents(files, targets, status)
    published_at = datetime.fromisoformat(timestamp.unrecognized_fields[PUBLISHED_FIELD])
    if published_at.utcoffset() is None or published_at > timestamp.expires:
        raise _bad("the time of publication makes no sense")
    rotated = memory is not None and not known
    floor = published_at if memory is None or rotated else max(memory.floor, published_at)
    versions = {
        Timestamp.type: timestamp.version,
        Snapshot.type: snapshot.version,
        Targets.type: targets.version,
        STATUS_ROLE: status.version,
    }
    return VerifiedRepository(
        files=contents,
        published_at=published_at,
        expires_at=min(x.expires for x in (newest, timestamp, snapshot, targets, status)),
        version=timestamp.version,
        first_root_sha256=_sha256(roots[1]),
        anchored=bool(anchors),
        memory=Memory(newest.version, _sha256(roots[newest.version]), floor, versions),
    )


def _roots(files: Mapping[str, bytes]) -> dict[int, bytes]:
    roots: dict[int, bytes] = {}
    while (data := files.get(f"metadata/{len(roots) + 1}.root.json")) is not None:
        roots[len(roots) + 1] = data
        if len(roots) > _MAX_ROOTS:
            raise _bad("too many roots")
    if not roots:
        raise _bad("there is no root metadata")
    return roots


def _anchors(memory: Memory | None, root: bytes | None) -> dict[int, str]:
    """Version -> fingerprint of roots that are trusted beforehand."""
    anchors: dict[int, str] = {}
    if root is not None:
        anchors[Metadata[Root].from_bytes(root).signed.version] = _sha256(root)
    if memory is not None:
        if anchors.get(memory.root_version, memory.root_sha256) != memory.root_sha256:
            raise _wrong_root()
        anchors[memory.root_version] = memory.root_sha256
    return anchors


def _walk_roots(roots: Mapping[int, bytes], anchors: Mapping[int, str]) -> Root:
    for version, fingerprint in anchors.items():
        if version > len(roots):
            raise RollbackError("ROLLBACK", "the bundle is older than one used here before (root)")
        if _sha256(roots[version]) != fingerprint:
            raise _wrong_root()
    start = max(anchors, default=1)
    metadata = Metadata[Root].from_bytes(roots[start])
    current = metadata.signed
    current.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    if current.version != start:
        raise _bad("a root has the wrong version")
    for version in range(start + 1, len(roots) + 1):
        metadata = Metadata[Root].from_bytes(roots[version])
        current.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
        current = metadata.signed
        current.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
        if current.version != version:
            raise _bad("a root has the wrong version")
    return current


def _known_versions(
    roots: Mapping[int, bytes], newest: Root, memory: Memory | None
) -> Mapping[str, int]:
    """Versions that must not be undercut; none once the online keys have been replaced.

    A thief of those keys could have counted up to the largest version there is. Section 5.3.11:
    after their rotation versions start anew, or the verifier would be stuck for ever.
    """
    if memory is None:
        return {}
    before = Metadata[Root].from_bytes(roots[memory.root_version]).signed
    for role in (Timestamp.type, Snapshot.type):
        if before.roles[role].keyids != newest.roles[role].keyids:
            return {}
    return memory.versions


def _load(kind: type[T], data: bytes, delegator: Root | Targets, role: str) -> T:
    metadata: Metadata[Any] = Metadata.from_bytes(data)
    if not isinstance(metadata.signed, kind):
        raise _bad(f"{role} is metadata of another type")
    delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    return metadata.signed


def _load_pinned(
    kind: type[T], files: Mapping[str, bytes], role: str, pin: MetaFile, delegator: Root | Targets
) -> T:
    data = files[f"metadata/{pin.version}.{role}.json"]
    _check_file(pin, data, role)
    signed = _load(kind, data, delegator, role)
    if signed.version != pin.version:
        raise _bad(f"{role} has another version than promised")
    return signed


def _check_file(pin: BaseFile, data: bytes, name: str) -> None:
    # In TUF hashes are optional; here they are not.
    if not isinstance(pin, MetaFile | TargetFile) or not pin.hashes or pin.length is None:
        raise _bad(f"{name} is not pinned by length and hash")
    pin.verify_length_and_hashes(data)


def _not_older(role: str, version: int, known: Mapping[str, int]) -> None:
    if version < known.get(role, 0):
        raise RollbackError(
            "ROLLBACK",
            f"the bundle is older than one used here before ({role} {version}, seen "
            f"{known[role]}); fetch the newest",
        )


def _contents(files: Mapping[str, bytes], targets: Targets, status: Targets) -> dict[str, bytes]:
    delegation = targets.delegations
    if delegation is None or delegation.roles is None:
        raise _bad("status lists are not delegated")
    named = dict(targets.targets)
    for path, pin in status.targets.items():
        # The status key speaks for status lists only, whatever it signs.
        if path in named or not delegation.roles[STATUS_ROLE].is_delegated_path(path):
            raise _bad("the status role names a file that is not its own")
        named[path] = pin
    contents = {}
    for path, pin in named.items():
        head, slash, tail = path.rpartition("/")
        data = files[f"targets/{head}{slash}{pin.hashes['sha256']}.{tail}"]
        _check_file(pin, data, path)
        contents[path] = data
    return contents


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _bad(why: str) -> TrustError:
    return TrustError("BAD_TRUST", f"the trust bundle is not sound: {why}")


def _wrong_root() -> TrustError:
    return TrustError(
        "WRONG_ROOT",
        "the trust bundle belongs to another authority than the one trusted here; "
        "if that is meant, start with a new verifier state and compare the root fingerprint",
    )
