from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from issuance.errors import KeyStoreError, KeyUseError
from issuance.key_files import FileKeyStore
from issuance.keys import KeyUse
from issuance.signing import Algorithm
from tests.issuance.kit import START

PERIOD = (START, START + timedelta(days=30))


@pytest.fixture
def store(tmp_path: Path) -> FileKeyStore:
    return FileKeyStore(tmp_path / "keys")


def test_keys_come_in_order_of_their_beginning(store: FileKeyStore) -> None:
    made = [
        store.generate(
            KeyUse.PERMIT, Algorithm.EDDSA, START + timedelta(days=day), START + timedelta(days=60)
        )
        for day in (20, 0, 10)
    ]
    assert list(store.infos()) == [made[1], made[2], made[0]]


def test_change_by_another_process_is_seen(store: FileKeyStore, tmp_path: Path) -> None:
    info = store.generate(KeyUse.PERMIT, Algorithm.EDDSA, *PERIOD)
    assert store.infos()[0].signs_at(START)
    other = FileKeyStore(tmp_path / "keys")
    other.mark_compromised(info.kid, START)
    assert not store.infos()[0].signs_at(START)
    assert store.infos()[0].compromised_at == START
    added = other.generate(KeyUse.PERMIT, Algorithm.ES256, *PERIOD)
    assert added in store.infos()


def test_key_signs_from_its_first_instant_to_before_its_last(store: FileKeyStore) -> None:
    info = store.generate(KeyUse.PERMIT, Algorithm.EDDSA, *PERIOD)
    second = timedelta(seconds=1)
    assert not info.signs_at(PERIOD[0] - second)
    assert info.signs_at(PERIOD[0])
    assert info.signs_at(PERIOD[1] - second)
    assert not info.signs_at(PERIOD[1])
    with pytest.raises(KeyStoreError):
        store.generate(KeyUse.PERMIT, Algorithm.EDDSA, START, START)


def test_secret_stays_the_same(store: FileKeyStore, tmp_path: Path) -> None:
    secret = store.secret("numbering")
    assert len(secret) == 32
    assert FileKeyStore(tmp_path / "keys").secret("numbering") == secret
    assert store.secret("other") != secret
    (tmp_path / "keys" / "numbering.secret").write_text("zz")
    with pytest.raises(KeyStoreError):
        store.secret("numbering")


def test_missing_or_damaged_files_are_errors_that_quote_no_key(
    store: FileKeyStore, tmp_path: Path
) -> None:
    info = store.generate(KeyUse.PERMIT, Algorithm.EDDSA, *PERIOD)
    pem = tmp_path / "keys" / f"{info.kid}.pem"
    content = pem.read_text()
    pem.write_text(content[:60])
    with pytest.raises(KeyStoreError) as caught:
        store.signer(info.kid, KeyUse.PERMIT)
    assert content[30:50] not in str(caught.value)
    pem.unlink()
    with pytest.raises(KeyUseError, match="offline"):
        store.signer(info.kid, KeyUse.PERMIT)
    with pytest.raises(KeyUseError, match="no key"):
        store.signer("0" * 16, KeyUse.PERMIT)


@pytest.mark.parametrize(
    "change",
    [
        {"kid": "0" * 16},
        {"use": "everything"},
        {"algorithm": "RS256"},
        {"not_before": "2026-11-24T02:00:00"},
        {"not_after": None},
        {"public_der": "00"},
    ],
)
def test_false_public_facts_are_refused(
    store: FileKeyStore, tmp_path: Path, change: dict[str, object]
) -> None:
    info = store.generate(KeyUse.PERMIT, Algorithm.EDDSA, *PERIOD)
    path = tmp_path / "keys" / f"{info.kid}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(KeyStoreError):
        FileKeyStore(tmp_path / "keys").infos()
