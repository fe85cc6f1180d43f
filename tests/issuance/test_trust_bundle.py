from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata, Root
from tuf.ngclient import FetcherInterface, Updater
from tuf.ngclient.config import UpdaterConfig

from issuance import bundle, ceremony, memory, status_list
from issuance.authority import NewAuthority, init_authority
from issuance.errors import KeyUseError, RollbackError, TrustError
from issuance.issuer import Issuer
from issuance.key_files import FileKeyStore
from issuance.keys import KeyUse
from issuance.publisher import Publisher
from issuance.signing import Algorithm
from issuance.trust import TrustStore
from issuance.types import Freshness, PermitStatus
from tests.issuance.kit import HOLDER, RULES, START, Clock


def test_publication_shows_every_status(issuer: Issuer) -> None:
    valid, revoked, suspended = (issuer.issue(HOLDER).status for _ in range(3))
    issuer.revoke(revoked)
    issuer.suspend(suspended)
    store = TrustStore.load(issuer.publish_trust().bundle)
    assert store.status(valid) is PermitStatus.VALID
    assert store.status(revoked) is PermitStatus.REVOKED
    assert store.status(suspended) is PermitStatus.SUSPENDED
    issuer.reinstate(suspended)
    assert TrustStore.load(issuer.publish_trust().bundle).status(suspended) is PermitStatus.VALID


def test_publication_is_the_same_in_memory_and_on_disk(
    issuer: Issuer, authority: NewAuthority
) -> None:
    published = issuer.publish_trust()
    assert authority.bundle.read_bytes() == published.bundle == issuer.trust().bundle
    on_disk = {
        str(path.relative_to(authority.directory / "trust")): path.read_bytes()
        for path in (authority.directory / "trust").rglob("*")
        if path.is_file() and path.parent.name not in ("trust", "history", "deltas")
    }
    assert bundle.unpack(published.bundle) == on_disk


def test_versions_go_on_after_a_restart(authority: NewAuthority, clock: Clock) -> None:
    with Issuer.open(authority.directory, clock) as first:
        version = first.publish_trust().version
    with Issuer.open(authority.directory, clock) as second:
        assert second.trust().version == version
        assert second.publish_trust().version == version + 1


def test_targets_key_is_needed_only_when_the_permit_keys_change(
    issuer: Issuer, authority: NewAuthority
) -> None:
    keys = authority.directory / "keys"
    infos = FileKeyStore(keys).infos()
    targets_key = next(info for info in infos if info.use is KeyUse.TRUST_TARGETS)
    (keys / f"{targets_key.kid}.pem").rename(authority.offline / "away.pem")
    issuer.publish_trust()
    issuer.mark_compromised(authority.permit_key.kid)
    with pytest.raises(KeyUseError, match="offline"):
        issuer.publish_trust()


def test_age_is_judged_by_the_limits_in_the_bundle(issuer: Issuer) -> None:
    store = TrustStore.load(issuer.publish_trust().bundle)
    limits = RULES.limits
    for age_s, freshness in (
        (0, Freshness.FRESH),
        (limits.fresh_s, Freshness.FRESH),
        (limits.fresh_s + 1, Freshness.STALE),
        (limits.max_age_s - 1, Freshness.STALE),
        (limits.max_age_s, Freshness.TOO_OLD),
    ):
        assert store.age(START + timedelta(seconds=age_s)).freshness is freshness


def test_older_bundle_is_refused_after_a_newer_one(issuer: Issuer) -> None:
    old = issuer.publish_trust().bundle
    new = TrustStore.load(issuer.publish_trust().bundle)
    with pytest.raises(RollbackError):
        TrustStore.load(old, new.memory)
    assert TrustStore.load(issuer.trust().bundle, new.memory).anchored


def test_floor_rises_with_what_was_seen_and_survives_on_disk(
    issuer: Issuer, clock: Clock, tmp_path: Path
) -> None:
    first = TrustStore.load(issuer.publish_trust().bundle)
    clock.advance(days=1)
    second = TrustStore.load(issuer.publish_trust().bundle, first.memory)
    memory.save(tmp_path / "state" / "seen.json", second.memory)
    assert memory.load(tmp_path / "state" / "seen.json") == second.memory
    assert second.floor == START + timedelta(days=1)
    assert not second.clock_is_plausible(START)
    assert second.clock_is_plausible(START + timedelta(days=1, seconds=-300))
    assert not second.clock_is_plausible(START + timedelta(days=1, seconds=-301))


def test_damaged_memory_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    assert memory.load(tmp_path / "none.json") is None
    naive = '{"floor": "2026-01-01T00:00", "root_version": 1, "root_sha256": "", "versions": {}}'
    for text in ("", "{}", "[]", naive, "\x00"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(TrustError) as caught:
            memory.load(tmp_path / "bad.json")
        assert caught.value.reason == "BAD_STATE"


def test_other_authority_is_refused_once_one_is_trusted(
    issuer: Issuer, authority: NewAuthority, tmp_path: Path, clock: Clock
) -> None:
    other = init_authority(tmp_path / "other", RULES, clock)
    known = TrustStore.load(issuer.publish_trust().bundle)
    for remembered, root in ((known.memory, None), (None, authority.root.read_bytes())):
        with pytest.raises(TrustError) as caught:
            TrustStore.load(other.bundle.read_bytes(), remembered, root)
        assert caught.value.reason == "WRONG_ROOT"


def test_root_file_anchors_the_first_use(issuer: Issuer, authority: NewAuthority) -> None:
    data = issuer.publish_trust().bundle
    assert not TrustStore.load(data).anchored
    store = TrustStore.load(data, root=authority.root.read_bytes())
    assert store.anchored
    assert store.root_fingerprint == authority.root_fingerprint


def test_replaced_online_key_is_followed_through_a_new_root(
    issuer: Issuer, authority: NewAuthority, clock: Clock
) -> None:
    before = TrustStore.load(issuer.publish_trust().bundle)
    keys = FileKeyStore(authority.directory / "keys")
    stolen = next(info for info in keys.infos() if info.use is KeyUse.TRUST_TIMESTAMP)
    keys.mark_compromised(stolen.kid, clock())
    keys.generate(KeyUse.TRUST_TIMESTAMP, Algorithm.EDDSA, START, START + timedelta(days=9))
    issuer.close()

    publisher = Publisher(authority.directory / "trust", keys, clock)
    publisher.renew_root(FileKeyStore(authority.offline))
    with Issuer.open(authority.directory, clock) as reopened:
        after = TrustStore.load(reopened.publish_trust().bundle, before.memory)
    assert after.memory.root_version == 2
    assert after.root_fingerprint == before.root_fingerprint
    # The thief's last words: a bundle with the stolen key is an older root's, and refused.
    with pytest.raises(RollbackError):
        TrustStore.load(_without_root(authority, 2), after.memory)


def _without_root(authority: NewAuthority, version: int) -> bytes:
    files = bundle.unpack(authority.bundle.read_bytes())
    del files[f"metadata/{version}.root.json"]
    return bundle.pack(files)


def test_new_root_needs_the_last_roots_keys(
    issuer: Issuer, authority: NewAuthority, tmp_path: Path, clock: Clock
) -> None:
    thief = FileKeyStore(tmp_path / "thief")
    thief.generate(KeyUse.TRUST_ROOT, Algorithm.EDDSA, START, START + timedelta(days=9))
    publisher = Publisher(
        authority.directory / "trust", FileKeyStore(authority.directory / "keys"), clock
    )
    with pytest.raises(TrustError) as caught:
        publisher.renew_root(thief)
    assert caught.value.reason == "NO_ROOT_KEY"


Change = Callable[[dict[str, bytes]], None]


def _drop(pattern: str) -> Change:
    def change(files: dict[str, bytes]) -> None:
        for name in [name for name in files if re.search(pattern, name)]:
            del files[name]

    return change


def _edit(pattern: str, old: bytes, new: bytes) -> Change:
    def change(files: dict[str, bytes]) -> None:
        (name,) = (name for name in files if re.search(pattern, name))
        assert old in files[name]
        files[name] = files[name].replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _drop("root"),
        _drop("timestamp"),
        _drop("snapshot"),
        _drop("status.json"),
        _drop("keys.json"),
        _drop("targets/status/"),
        _edit("timestamp", b'"version":2', b'"version":9'),
        _edit("timestamp", b"2026-12-08", b"2036-12-08"),
        _edit("1.root", b'"threshold":1', b'"threshold":0'),
        _edit("snapshot", b'"length"', b'"lengte"'),
        _edit("keys.json", b'"compromised_at": null', b'"compromised_at": false'),
        _edit("profile.json", b'"max_age_s": 1209600', b'"max_age_s": 9999999'),
        _edit("timestamp", b"{", b"[" * 100_000),
        lambda files: files.update({"metadata/timestamp.json": b""}),
        lambda files: files.update({"metadata/timestamp.json": files["metadata/1.root.json"]}),
    ],
)
def test_any_change_to_a_bundle_is_noticed(issuer: Issuer, change: Change) -> None:
    files = bundle.unpack(issuer.publish_trust().bundle)
    change(files)
    with pytest.raises(TrustError) as caught:
        TrustStore.load(bundle.pack(files))
    assert caught.value.reason == "BAD_TRUST"


def test_files_of_two_publications_do_not_mix(issuer: Issuer) -> None:
    old = bundle.unpack(issuer.publish_trust().bundle)
    issuer.revoke(issuer.issue(HOLDER).status)
    new = bundle.unpack(issuer.publish_trust().bundle)
    stamp = "metadata/timestamp.json"
    with pytest.raises(TrustError):
        TrustStore.load(bundle.pack({**new, stamp: old[stamp]}))


def test_status_key_cannot_add_a_permit_key(
    authority: NewAuthority, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key that signs day and night speaks for status lists only."""
    keys = FileKeyStore(authority.directory / "keys")
    publisher = Publisher(authority.directory / "trust", keys, clock)
    sign_lists = publisher._sign_lists

    def with_forgery(*args: Any) -> dict[str, bytes]:
        return {**sign_lists(*args), "keys2.json": b"{}"}

    monkeypatch.setattr(publisher, "_sign_lists", with_forgery)
    known = [info for info in keys.infos() if info.use in (KeyUse.PERMIT, KeyUse.STATUS_LIST)]
    forged = publisher.publish(known, RULES, {}).bundle
    with pytest.raises(TrustError, match="not its own"):
        TrustStore.load(forged)


def test_bundle_file_is_deterministic_and_bounded(issuer: Issuer) -> None:
    data = issuer.publish_trust().bundle
    assert bundle.pack(bundle.unpack(data)) == data
    for other in (b"", b"PK", data[:-30], data[: len(data) // 2], b"\x00" * 100):
        with pytest.raises(TrustError) as caught:
            bundle.unpack(other)
        assert caught.value.reason == "NOT_A_BUNDLE"


class _Disk(FetcherInterface):
    """Serves a trust directory to python-tuf's own client."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._directory / urlparse(url).path.lstrip("/")
        if not path.is_file():
            raise DownloadHTTPError("not found", 404)
        yield path.read_bytes()


def test_published_directory_serves_a_standard_tuf_client(tmp_path: Path) -> None:
    made = init_authority(tmp_path / "a", RULES, lambda: datetime.now(UTC))
    (tmp_path / "client").mkdir()
    updater = Updater(
        str(tmp_path / "client"),
        "https://example.invalid/metadata/",
        str(tmp_path / "client"),
        "https://example.invalid/targets/",
        _Disk(made.directory / "trust"),
        UpdaterConfig(),
        bootstrap=made.root.read_bytes(),
    )
    updater.refresh()
    for name in ("keys.json", "profile.json", "status/1"):
        info = updater.get_targetinfo(name)
        assert info is not None, name
        downloaded = updater.download_target(info, str(tmp_path / "client" / "file"))
        assert Path(downloaded).stat().st_size == info.length
    keys = json.loads(next((made.directory / "trust" / "targets").glob("*.keys.json")).read_bytes())
    assert len(keys["keys"]) == 2


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "status"])
def test_no_role_may_fall_behind_what_was_seen(issuer: Issuer, role: str) -> None:
    data = issuer.publish_trust().bundle
    seen = TrustStore.load(data).memory
    ahead = replace(seen, versions={**seen.versions, role: seen.versions[role] + 1})
    assert TrustStore.load(data, seen).anchored
    with pytest.raises(RollbackError, match=role):
        TrustStore.load(data, ahead)


def test_versions_run_up_by_a_thief_are_forgotten_with_the_thiefs_key(
    issuer: Issuer, authority: NewAuthority, clock: Clock
) -> None:
    """Section 5.3.11 of the TUF specification: recovery from a fast-forward attack."""
    seen = TrustStore.load(issuer.publish_trust().bundle).memory
    run_up = replace(
        seen,
        floor=START + timedelta(days=9999),
        versions=dict.fromkeys(seen.versions, 2**31),
    )
    with pytest.raises(RollbackError):
        TrustStore.load(issuer.publish_trust().bundle, run_up)
    keys = FileKeyStore(authority.directory / "keys")
    stolen = next(info for info in keys.infos() if info.use is KeyUse.TRUST_TIMESTAMP)
    keys.mark_compromised(stolen.kid, clock())
    keys.generate(KeyUse.TRUST_TIMESTAMP, Algorithm.EDDSA, START, START + timedelta(days=9))
    issuer.close()
    publisher = Publisher(authority.directory / "trust", keys, clock)
    publisher.renew_root(FileKeyStore(authority.offline))
    with Issuer.open(authority.directory, clock) as reopened:
        store = TrustStore.load(reopened.publish_trust().bundle, run_up)
    assert store.floor == START
    assert store.memory.versions["timestamp"] < 2**31


class Dishonest:
    """A publisher whose online keys are in wrong hands: signs well-formed lies."""

    def __init__(self, authority: NewAuthority, clock: Clock) -> None:
        self.keys = FileKeyStore(authority.directory / "keys")
        self.publisher = Publisher(authority.directory / "trust", self.keys, clock)
        uses = (KeyUse.PERMIT, KeyUse.STATUS_LIST)
        self.known = [info for info in self.keys.infos() if info.use in uses]
        self.value = status_list.to_value(status_list.make([], 64))

    def token(self, number: int, use: KeyUse = KeyUse.STATUS_LIST) -> bytes:
        info = next(info for info in self.known if info.use is use)
        return status_list.sign(
            RULES.status_uri(number),
            self.value,
            self.keys.signer(info.kid, use),
            issued_at=START,
            expires_at=START + timedelta(days=9),
            ttl_s=60,
        )

    def publish(self) -> bytes:
        return self.publisher.publish(self.known, RULES, {1: self.value, 2: self.value}).bundle


@pytest.fixture
def dishonest(authority: NewAuthority, clock: Clock) -> Dishonest:
    return Dishonest(authority, clock)


def test_status_lists_cannot_trade_names(
    dishonest: Dishonest, monkeypatch: pytest.MonkeyPatch
) -> None:
    TrustStore.load(dishonest.publish())
    swapped = {"status/1": dishonest.token(2), "status/2": dishonest.token(1)}
    monkeypatch.setattr(dishonest.publisher, "_sign_lists", lambda *args: swapped)
    with pytest.raises(TrustError) as caught:
        TrustStore.load(dishonest.publish())
    assert caught.value.reason == "BAD_TRUST"


def test_permit_key_cannot_sign_a_status_list(
    dishonest: Dishonest, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = {"status/1": dishonest.token(1, KeyUse.PERMIT)}
    monkeypatch.setattr(dishonest.publisher, "_sign_lists", lambda *args: lists)
    with pytest.raises(TrustError) as caught:
        TrustStore.load(dishonest.publish())
    assert caught.value.reason == "BAD_TRUST"


def test_metadata_must_have_the_version_that_was_promised(
    dishonest: Dishonest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of version N says that it is N + 1: a later rollback would go unnoticed."""
    honest = dishonest.publisher._signed

    def promise_another(signed: Any, use: KeyUse) -> bytes:
        if use is KeyUse.TRUST_SNAPSHOT:
            signed.meta["status.json"].version = 77
        return honest(signed, use)

    monkeypatch.setattr(dishonest.publisher, "_signed", promise_another)
    files = bundle.unpack(dishonest.publish())
    (name,) = (name for name in files if name.endswith(".status.json"))
    files["metadata/77.status.json"] = files[name]
    with pytest.raises(TrustError, match="another version"):
        TrustStore.load(bundle.pack(files))


def test_new_root_must_be_signed_by_its_own_keys_too(issuer: Issuer, tmp_path: Path) -> None:
    """Otherwise the old root's owner could name keys that nobody holds."""
    files = bundle.unpack(issuer.publish_trust().bundle)
    offline = FileKeyStore(tmp_path / "authority" / "offline")
    (old,) = offline.infos()
    new = FileKeyStore(tmp_path / "new").generate(
        KeyUse.TRUST_ROOT, Algorithm.EDDSA, START, START + timedelta(days=9)
    )
    metadata = Metadata[Root].from_bytes(files["metadata/1.root.json"])
    metadata.signed.version = 2
    metadata.signed.add_key(ceremony.tuf_key(new), Root.type)
    metadata.signed.revoke_key(old.kid, Root.type)
    metadata.sign(ceremony.TufKeySigner(offline, old))
    files["metadata/2.root.json"] = metadata.to_bytes()
    with pytest.raises(TrustError) as caught:
        TrustStore.load(bundle.pack(files))
    assert caught.value.reason == "BAD_TRUST"


def test_targets_are_signed_anew_before_they_expire(issuer: Issuer, clock: Clock) -> None:
    for _ in range(4):
        now = clock.advance(days=120)
        store = TrustStore.load(issuer.publish_trust().bundle)
        assert store.expires_at > now
        assert store.age(now).freshness is Freshness.FRESH


def test_compressed_or_doubled_members_are_refused(issuer: Issuer) -> None:
    files = bundle.unpack(issuer.publish_trust().bundle)
    deflated, doubled = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data + b" " * 5_000)
    with warnings.catch_warnings(), zipfile.ZipFile(doubled, "w") as archive:
        warnings.simplefilter("ignore")
        for name in [*files, "metadata/timestamp.json"]:
            archive.writestr(name, files[name])
    for data in (deflated.getvalue(), doubled.getvalue(), bytes(bundle.MAX_BUNDLE_BYTES + 1)):
        with pytest.raises(TrustError) as caught:
            bundle.unpack(data)
        assert caught.value.reason == "NOT_A_BUNDLE"
