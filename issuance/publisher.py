"""Writes the trust repository: TUF metadata over permit keys, profile and status lists.

Roles (The Update Framework specification 1.0, section 2.1) and what a thief of each key can do:

==============  =======================  ==========================================================
role            says                     stolen key
==============  =======================  ==========================================================
root            which keys are the rest  everything; so it is kept offline and used once a year
targets         permit keys, profile     add a permit key; used when a permit key changes
status          status lists             hide a revocation until the key is replaced
snapshot        versions that belong     nothing alone
timestamp       what is newest           freeze verifiers until the bundle is too old, nothing more
==============  =======================  ==========================================================

`status` is delegated from targets for `status/*` only, so the keys that must be at hand day and
night cannot add a permit key. Every publication signs the lists, snapshot and timestamp anew, which
is what keeps verifiers fresh; root and targets are signed only when they change.

The directory is a TUF repository as any TUF client expects it (consistent snapshots), and
`bundle.anju` is the same in one file. `history/` keeps a bundle every few hours for as long as a
verifier may rely on one; `deltas/` holds what leads from some of them to a recent bundle, with an
`index.json` for those who fetch files.

Targets is what other systems call the office's certification authority: its key, named by the
offline root, vouches for the monthly permit keys, with use and signing period. X.509 would say the
same, and nothing about rollback or freshness. A second office is a second delegated role.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from issuance import bundle, ceremony, delta, profile, status_list
from issuance.errors import IssuanceError, KeyUseError, TrustError
from issuance.keys import KeyInfo, KeyStore, KeyUse, info_to_dict
from issuance.profile import Profile
from issuance.repository import PUBLISHED_FIELD, STATUS_ROLE

BUNDLE_NAME: Final = "bundle.anju"
KEYS_TARGET, PROFILE_TARGET = "keys.json", "profile.json"
TARGETS_LIFE: Final = timedelta(days=365)
# How far apart the bundles are that deltas start from: a verifier that is a day behind is sent the
# changes of a day and six hours at most.
HISTORY_STEP: Final = timedelta(hours=6)
HISTORY, DELTAS = "history", "deltas"
# Ages of verifiers for which deltas are written as files.
_DELTA_AGES: Final = (timedelta(days=1), timedelta(days=7), timedelta(days=14))

_COMPACT: Final = JSONSerializer(compact=True)


@dataclass(frozen=True, slots=True)
class Publication:
    """One state of the trust material.

    Attributes:
        version: grows with every publication.
        bundle: all of it in one file.
    """

    version: int
    published_at: datetime
    bundle: bytes


class Publisher:
    """Owns a trust directory. Safe for use by several threads, by one process.

    Args:
        directory: holds `metadata/`, `targets/` and `bundle.anju`; `create` makes it.
        keys: signs for the online roles; the root key need not be there.
    """

    def __init__(self, directory: Path, keys: KeyStore, clock: Callable[[], datetime]) -> None:
        self._directory = directory
        self._keys = keys
        self._clock = clock
        self._lock = threading.Lock()
        try:
            self._bundle = (directory / BUNDLE_NAME).read_bytes()
        except FileNotFoundError:
            self._bundle = b""
        self._files = bundle.unpack(self._bundle) if self._bundle else {}
        self._deltas: dict[int, delta.Delta] = {}
        self._find_roots()

    def _find_roots(self) -> None:
        """Take up roots that another process has written (`install_root`)."""
        for path in self._directory.glob("metadata/*.root.json"):
            self._files.setdefault(f"metadata/{path.name}", path.read_bytes())

    def create(self, root_keys: KeyStore, threshold: int = 1) -> bytes:
        """Write version 1 of root, signed by every root key of `root_keys`; returns its bytes.

        Raises `TrustError` if there is a root already.
        """
        with self._lock:
            if _version(self._files, Root.type):
                raise TrustError("ROOT_EXISTS", "the trust directory has a root already")
            roots = [info for info in root_keys.infos() if info.use is KeyUse.TRUST_ROOT]
            proposal = ceremony.propose(
                1, roots, threshold, self._keys.infos(), _utc(self._clock())
            )
            return self._write_root(ceremony.sign(proposal, root_keys))

    def renew_root(self, root_keys: KeyStore) -> bytes:
        """Write the next version of root, naming the keys that are in the stores now.

        This is how a root is prolonged and how a lost or stolen online key is replaced: mark the
        old one compromised and generate the new one before. `root_keys` must hold a threshold of
        the last root's keys, since verifiers follow no other way. Publish afterwards. Where the
        root keys are elsewhere, `propose_root`, `ceremony.sign` and `install_root` are the steps.

        Raises `TrustError` if it does not, or if there is no root yet.
        """
        roots = [info for info in root_keys.infos() if info.use is KeyUse.TRUST_ROOT]
        last = self.newest_root()
        role = Metadata[Root].from_bytes(last).signed.roles[Root.type]
        if len({info.kid for info in roots} & set(role.keyids)) < role.threshold:
            raise TrustError("NO_ROOT_KEY", "too few keys of the last root are at hand")
        staying = [info for info in roots if info.signs_at(self._clock())]
        proposal = self.propose_root(staying, role.threshold)
        return self.install_root(ceremony.sign(proposal, root_keys))

    def newest_root(self) -> bytes:
        """The root in force. Raises `TrustError` if there is none."""
        with self._lock:
            self._find_roots()
            number = _version(self._files, Root.type)
            if not number:
                raise TrustError("NO_ROOT", "the trust directory has no root; run init first")
            return self._files[f"metadata/{number}.root.json"]

    def propose_root(self, root_keys: Sequence[KeyInfo], threshold: int) -> bytes:
        """The next version of root, unsigned: it names `root_keys` and the online keys of today."""
        number = Metadata[Root].from_bytes(self.newest_root()).signed.version
        return ceremony.propose(
            number + 1, root_keys, threshold, self._keys.infos(), _utc(self._clock())
        )

    def install_root(self, signed: bytes) -> bytes:
        """Put a signed root in force; publish afterwards. Raises `TrustError` if it is unsound."""
        last = self.newest_root()
        ceremony.check(signed, last)
        with self._lock:
            return self._write_root(signed)

    def _write_root(self, data: bytes) -> bytes:
        version = Metadata[Root].from_bytes(data).signed.version
        name = f"metadata/{version}.root.json"
        self._files = {**self._files, name: data}
        _write(self._directory / name, data)
        return data

    def publish(
        self, keys: Sequence[KeyInfo], rules: Profile, lists: Mapping[int, dict[str, Any]]
    ) -> Publication:
        """Sign and write everything; durable and visible when this returns.

        Args:
            keys: permit and status-list keys that verifiers shall know, retired ones included.
            lists: list number -> StatusList structure, from `status_list.to_value`.

        Raises `KeyUseError` if an online key is missing, `TrustError` before `create`.
        """
        with self._lock:
            return self._publish(keys, rules, lists)

    def current(self) -> Publication:
        """What was published last. Raises `TrustError` before the first publication."""
        with self._lock:
            files = self._files
            if "metadata/timestamp.json" not in files:
                raise TrustError("NOT_PUBLISHED", "nothing has been published yet")
            timestamp = Metadata[Timestamp].from_bytes(files["metadata/timestamp.json"]).signed
            published_at = datetime.fromisoformat(timestamp.unrecognized_fields[PUBLISHED_FIELD])
            return Publication(timestamp.version, published_at, self._bundle)

    def delta_from(self, version: int) -> delta.Delta | None:
        """What leads from a bundle of `version` to the current one, None if nothing kept does."""
        with self._lock:
            for since, _, path in reversed(self._history()):
                if since <= version:
                    return self._delta(since, path)
            return None

    def write_deltas(self) -> None:
        """Renew the files in `deltas/`; takes a moment for a large city, so not at every change.

        Raises `IssuanceError` if they cannot be written.
        """
        with self._lock:
            now = _utc(self._clock())
            history = self._history()
            wanted: dict[int, delta.Delta] = {}
            for age in _DELTA_AGES:
                old_enough = [entry for entry in history if now - entry[1] >= age] or history[:1]
                for since, _, path in old_enough[-1:]:
                    wanted[since] = self._delta(since, path)
            folder = self._directory / DELTAS
            index = [
                {"since": each.since, "version": each.version, "bytes": len(each.data)}
                for _, each in sorted(wanted.items())
            ]
            try:
                for since, each in wanted.items():
                    _write(folder / f"{since}.anju-delta", each.data)
                _write(folder / "index.json", json.dumps({"deltas": index}, indent=1).encode())
                for path in folder.glob("*.anju-delta"):
                    if int(path.stem) not in wanted:
                        path.unlink()
            except OSError as error:
                raise IssuanceError(f"cannot write the deltas: {error.strerror}") from error

    def _delta(self, since: int, path: Path) -> delta.Delta:
        if since not in self._deltas:
            self._deltas[since] = delta.make(path.read_bytes(), self._bundle)
        return self._deltas[since]

    def _history(self) -> list[tuple[int, datetime, Path]]:
        """(version, time of publication, file) of the bundles that were kept, oldest first."""
        found = []
        for path in (self._directory / HISTORY).glob("*-*.anju"):
            version, _, seconds = path.stem.partition("-")
            found.append((int(version), datetime.fromtimestamp(int(seconds), UTC), path))
        return sorted(found)

    def _keep_history(self, version: int, now: datetime, oldest: datetime) -> None:
        history = self._history()
        if not history or now - history[-1][1] >= HISTORY_STEP:
            name = f"{version}-{int(now.timestamp())}.anju"
            _write(self._directory / HISTORY / name, self._bundle)
        for _, published_at, path in history[:-1]:
            if published_at < oldest:
                path.unlink(missing_ok=True)

    def _publish(
        self, keys: Sequence[KeyInfo], rules: Profile, lists: Mapping[int, dict[str, Any]]
    ) -> Publication:
        now = _utc(self._clock())
        max_age = timedelta(seconds=rules.limits.max_age_s)
        until = now + max_age
        self._find_roots()
        old = self._files
        files = {name: data for name, data in old.items() if name.endswith(".root.json")}
        if not files:
            raise TrustError("NO_ROOT", "the trust directory has no root; run init first")
        fixed = {KEYS_TARGET: _keys_json(keys), PROFILE_TARGET: profile.to_json(rules)}
        status = self._sign_lists(lists, rules, now, until)

        targets = self._targets(old, fixed, now)
        delegated = self._signed(
            Targets(_version(old, STATUS_ROLE) + 1, expires=until, targets=_target_files(status)),
            KeyUse.TRUST_STATUS,
        )
        meta = {}
        for role, data in ((Targets.type, targets), (STATUS_ROLE, delegated)):
            version = Metadata[Targets].from_bytes(data).signed.version
            files[f"metadata/{version}.{role}.json"] = data
            meta[f"{role}.json"] = MetaFile(version, len(data), _sha256(data))
        snapshot_version = _version(old, Snapshot.type) + 1
        snapshot = self._signed(
            Snapshot(snapshot_version, expires=until, meta=meta), KeyUse.TRUST_SNAPSHOT
        )
        files[f"metadata/{snapshot_version}.snapshot.json"] = snapshot
        timestamp = Timestamp(
            _version(old, Timestamp.type) + 1,
            expires=until,
            snapshot_meta=MetaFile(snapshot_version, len(snapshot), _sha256(snapshot)),
            unrecognized_fields={PUBLISHED_FIELD: now.isoformat()},
        )
        files["metadata/timestamp.json"] = self._signed(timestamp, KeyUse.TRUST_TIMESTAMP)
        for name, data in {**fixed, **status}.items():
            files[_target_path(name, data)] = data
        self._write_all(old, files)
        self._deltas = {}
        try:
            self._keep_history(timestamp.version, now, now - max_age - timedelta(days=1))
        except OSError as error:
            raise IssuanceError(f"cannot keep the history: {error.strerror}") from error
        return Publication(timestamp.version, now, self._bundle)

    def _sign_lists(
        self, lists: Mapping[int, dict[str, Any]], rules: Profile, now: datetime, until: datetime
    ) -> dict[str, bytes]:
        signer_info = _only(self._keys, KeyUse.STATUS_LIST, now)
        signer = self._keys.signer(signer_info.kid, KeyUse.STATUS_LIST)
        return {
            f"status/{number}": status_list.sign(
                rules.status_uri(number),
                value,
                signer,
                issued_at=now,
                expires_at=until,
                ttl_s=rules.limits.fresh_s,
            )
            for number, value in lists.items()
        }

    def _targets(
        self, old: Mapping[str, bytes], fixed: Mapping[str, bytes], now: datetime
    ) -> bytes:
        """The targets metadata: the old one while it still says what `fixed` holds."""
        version = _version(old, Targets.type)
        status_keys = _of_use(self._keys, KeyUse.TRUST_STATUS, now)
        delegations = Delegations(
            keys={info.kid: ceremony.tuf_key(info) for info in status_keys},
            roles={
                STATUS_ROLE: DelegatedRole(
                    STATUS_ROLE, [info.kid for info in status_keys], 1, True, paths=["status/*"]
                )
            },
        )
        wanted = _target_files(fixed)
        if version:
            data = old[f"metadata/{version}.targets.json"]
            metadata = Metadata[Targets].from_bytes(data)
            current = metadata.signed
            # A new root may have given the role to another key.
            signers = {info.kid for info in self._speaking_for(KeyUse.TRUST_TARGETS)}
            young = current.expires - now > TARGETS_LIFE / 2
            same = current.targets == wanted and current.delegations == delegations
            if same and young and signers == metadata.signatures.keys():
                return data
        return self._signed(
            Targets(
                version + 1, expires=now + TARGETS_LIFE, targets=wanted, delegations=delegations
            ),
            KeyUse.TRUST_TARGETS,
        )

    def _signed(self, signed: Targets | Snapshot | Timestamp, use: KeyUse) -> bytes:
        metadata: Metadata[Any] = Metadata(signed)
        for info in self._speaking_for(use):
            metadata.sign(ceremony.TufKeySigner(self._keys, info), append=True)
        if not metadata.signatures:
            raise KeyUseError(f"there is no key for {use}")
        return metadata.to_bytes(_COMPACT)

    def _speaking_for(self, use: KeyUse) -> list[KeyInfo]:
        """The keys that sign for a role.

        Those that the newest root names, marked compromised or not: until the ceremony verifiers
        believe no others, and a revocation must not wait for it. The thief gains nothing.
        """
        root = (
            Metadata[Root]
            .from_bytes(self._files[f"metadata/{_version(self._files, Root.type)}.root.json"])
            .signed
        )
        for role, of_role in ceremony.ROLE_USES.items():
            if of_role is use:
                named = root.roles[role].keyids
                return [info for info in self._keys.infos() if info.kid in named]
        return _of_use(self._keys, use, _utc(self._clock()))

    def _write_all(self, old: Mapping[str, bytes], files: dict[str, bytes]) -> None:
        """Write new files, the timestamp last, so that a reader never sees half a publication.

        The bundle goes before the timestamp because versions continue from it: a crash in between
        must not lead to two different timestamps of one version.
        """
        packed = bundle.pack(files)
        last = "metadata/timestamp.json"
        try:
            for name in sorted(files.keys() - {last}):
                if old.get(name) != files[name]:
                    _write(self._directory / name, files[name])
            _write(self._directory / BUNDLE_NAME, packed)
            _write(self._directory / last, files[last])
        except OSError as error:
            raise IssuanceError(f"cannot write the trust directory: {error.strerror}") from error
        self._files, self._bundle = files, packed
        for name in old.keys() - files.keys():
            with contextlib.suppress(OSError):
                (self._directory / name).unlink()


def _of_use(store: KeyStore, use: KeyUse, now: datetime) -> list[KeyInfo]:
    return [info for info in store.infos() if info.use is use and info.signs_at(now)]


def _only(store: KeyStore, use: KeyUse, now: datetime) -> KeyInfo:
    fitting = _of_use(store, use, now)
    if not fitting:
        raise KeyUseError(f"no key for {use} is in its signing period")
    return fitting[-1]


def _keys_json(keys: Sequence[KeyInfo]) -> bytes:
    ordered = sorted(keys, key=lambda info: (info.not_before, info.kid))
    document = {"version": 1, "keys": [info_to_dict(info) for info in ordered]}
    return json.dumps(document, sort_keys=True, indent=1).encode()


def _target_files(contents: Mapping[str, bytes]) -> dict[str, TargetFile]:
    return {name: TargetFile.from_data(name, data, ["sha256"]) for name, data in contents.items()}


def _target_path(name: str, data: bytes) -> str:
    """Where a TUF client looks for a target in a consistent snapshot: `dir/HASH.file`."""
    head, slash, tail = name.rpartition("/")
    return f"targets/{head}{slash}{hashlib.sha256(data).hexdigest()}.{tail}"


def _version(files: Mapping[str, bytes], role: str) -> int:
    """The newest version of `role` among `files`, 0 if there is none."""
    if role == Timestamp.type:
        data = files.get("metadata/timestamp.json")
        return Metadata[Timestamp].from_bytes(data).signed.version if data else 0
    suffix = f".{role}.json"
    names = [name for name in files if name.startswith("metadata/") and name.endswith(suffix)]
    return max((int(name.removesuffix(suffix).rpartition("/")[2]) for name in names), default=0)


def _sha256(data: bytes) -> dict[str, str]:
    return {"sha256": hashlib.sha256(data).hexdigest()}


def _utc(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(microsecond=0)


def _write(path: Path, data: bytes) -> None:
    """Replace a file atomically and durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.new")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
