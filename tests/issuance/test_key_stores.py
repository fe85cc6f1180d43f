"""What every key store does, in files, in encrypted files and in a PKCS#11 token."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from identity.app import open_installation
from identity.config import DEFAULT_TOML
from identity.setup import create_installation
from issuance import key_office, signing
from issuance.authority import init_authority
from issuance.errors import KeyStoreError, KeyUseError
from issuance.issuer import Issuer
from issuance.key_files import FileKeyStore
from issuance.keys import KeyStore, KeyUse
from issuance.signing import Algorithm, PublicKey
from issuance.trust import TrustStore
from issuance.verifier import verify
from tests.issuance.conftest import Token
from tests.issuance.kit import HOLDER, RULES, START, Clock

PERIOD = (START, START + timedelta(days=30))
Opener = Callable[[Path], KeyStore]


@pytest.fixture(params=["files", "encrypted files", "token"])
def opener(request: pytest.FixtureRequest) -> Opener:
    if request.param == "token":
        token: Token = request.getfixturevalue("token")
        return token.open
    passphrase = b"correct horse" if request.param == "encrypted files" else None
    return lambda directory: FileKeyStore(directory, passphrase)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_key_signs_after_its_store_is_opened_again(
    opener: Opener, tmp_path: Path, algorithm: Algorithm
) -> None:
    info = opener(tmp_path / "keys").generate(KeyUse.PERMIT, algorithm, *PERIOD)
    signer = opener(tmp_path / "keys").signer(info.kid, KeyUse.PERMIT)
    assert (signer.kid, signer.algorithm) == (info.kid, algorithm)
    message = signing.parse(signing.sign(b"payload", signer))
    assert signing.verify_signature(message, PublicKey.from_der(info.kid, info.public_der))
    other = opener(tmp_path / "keys").generate(KeyUse.PERMIT, algorithm, *PERIOD)
    assert not signing.verify_signature(message, PublicKey.from_der(info.kid, other.public_der))


def test_store_refuses_other_uses_and_unknown_keys(opener: Opener, tmp_path: Path) -> None:
    store = opener(tmp_path / "keys")
    info = store.generate(KeyUse.STATUS_LIST, Algorithm.EDDSA, *PERIOD)
    with pytest.raises(KeyUseError, match="for status-list, not for permit"):
        store.signer(info.kid, KeyUse.PERMIT)
    with pytest.raises(KeyUseError, match="no key"):
        store.signer("0" * 16, KeyUse.PERMIT)
    with pytest.raises(KeyStoreError):
        store.generate(KeyUse.PERMIT, Algorithm.EDDSA, START, START)


def test_facts_without_the_private_half_are_an_error(opener: Opener, tmp_path: Path) -> None:
    there, here = opener(tmp_path / "there"), opener(tmp_path / "here")
    elsewhere = FileKeyStore(tmp_path / "elsewhere")
    info = elsewhere.generate(KeyUse.PERMIT, Algorithm.EDDSA, *PERIOD)
    facts = (tmp_path / "elsewhere" / f"{info.kid}.json").read_bytes()
    (tmp_path / "here" / f"{info.kid}.json").write_bytes(facts)
    with pytest.raises(KeyUseError, match="offline"):
        here.signer(info.kid, KeyUse.PERMIT)
    assert there.infos() == ()


def test_retired_and_compromised_keys_sign_no_more(opener: Opener, tmp_path: Path) -> None:
    store = opener(tmp_path / "keys")
    info, other = (store.generate(KeyUse.PERMIT, Algorithm.EDDSA, *PERIOD) for _ in range(2))
    later = START + timedelta(days=3)
    assert store.retire(info.kid, later).not_after == later
    assert store.retire(info.kid, PERIOD[1]).not_after == later, "retiring never prolongs"
    assert store.retire(info.kid, START - timedelta(days=9)).not_after == START
    store.mark_compromised(other.kid, later)
    assert [known.signs_at(START) for known in opener(tmp_path / "keys").infos()] == [False, False]


def test_secret_is_the_same_ever_after_and_another_elsewhere(
    opener: Opener, tmp_path: Path
) -> None:
    secret = opener(tmp_path / "keys").secret("numbering")
    assert len(secret) == 32
    assert opener(tmp_path / "keys").secret("numbering") == secret
    assert opener(tmp_path / "keys").secret("other") != secret
    assert opener(tmp_path / "second").secret("numbering") != secret


def test_threads_share_a_store(opener: Opener, tmp_path: Path) -> None:
    store = opener(tmp_path / "keys")
    info = store.generate(KeyUse.PERMIT, Algorithm.EDDSA, *PERIOD)
    public = PublicKey.from_der(info.kid, info.public_der)
    good: list[bool] = []

    def work() -> None:
        for number in range(10):
            signed = signing.sign(bytes([number]), store.signer(info.kid, KeyUse.PERMIT))
            good.append(signing.verify_signature(signing.parse(signed), public))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [True] * 40


@pytest.mark.parametrize("algorithm", Algorithm)
def test_whole_authority_lives_in_the_store(
    opener: Opener, tmp_path: Path, clock: Clock, algorithm: Algorithm
) -> None:
    home = tmp_path / "authority"
    made = init_authority(home, RULES, clock, algorithm=algorithm, keys=opener(home / "keys"))
    before = TrustStore.load(made.bundle.read_bytes())
    with Issuer.open(home, clock, keys=opener(home / "keys")) as issuer:
        first = issuer.issue(HOLDER)
    clock.advance(days=28)
    keys = opener(home / "keys")
    key_office.rotate(keys, KeyUse.PERMIT, clock())
    with Issuer.open(home, clock, keys=keys) as issuer:
        second = issuer.issue(HOLDER)
        trust = TrustStore.load(issuer.publish_trust().bundle, before.memory)
    assert first.kid != second.kid
    assert all(verify(permit.qr_text, trust, clock()).valid for permit in (first, second))


def test_secret_of_encrypted_files_is_not_in_clear(tmp_path: Path) -> None:
    secret = FileKeyStore(tmp_path / "keys", b"one").secret("numbering")
    stored = (tmp_path / "keys" / "numbering.secret").read_text()
    assert secret.hex() not in stored
    for passphrase in (None, b"two"):
        with pytest.raises(KeyStoreError, match="passphrase"):
            FileKeyStore(tmp_path / "keys", passphrase).secret("numbering")


def test_private_key_never_leaves_the_token(token: Token, tmp_path: Path) -> None:
    import pkcs11

    store = token.open(tmp_path / "keys")
    info = store.generate(KeyUse.PERMIT, Algorithm.EDDSA, *PERIOD)
    key = store._find(info.kid)
    assert key[pkcs11.Attribute.SENSITIVE]
    assert not key[pkcs11.Attribute.EXTRACTABLE]
    with pytest.raises(pkcs11.exceptions.PKCS11Error):
        _ = key[pkcs11.Attribute.VALUE]
    assert [path.suffix for path in (tmp_path / "keys").iterdir()] == [".json"]


_OPEN = """
import sys
from pathlib import Path
from issuance.errors import KeyStoreError
from issuance.key_tokens import TokenKeyStore
try:
    TokenKeyStore(Path(sys.argv[1]), *sys.argv[2:])
except KeyStoreError as error:
    print(error)
"""


@pytest.mark.parametrize("wrong", ["module", "token", "pin"])
def test_token_that_does_not_open_is_one_clear_error(
    token: Token, tmp_path: Path, wrong: str
) -> None:
    parts = {"module": token.module, "token": token.label, "pin": token.pin}
    parts[wrong] = str(tmp_path / "none.so") if wrong == "module" else "999999"
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, str(tmp_path / "keys"), *parts.values()],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert done.stdout.startswith("cannot open the token")
    assert parts["pin"] not in done.stdout or wrong == "token"


def test_installation_keeps_its_keys_in_the_configured_token(token: Token, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text(f"{token.pin}\n")
    section = (
        f'backend = "pkcs11"\npkcs11_module = "{token.module}"\n'
        f'pkcs11_token = "{token.label}"\npkcs11_pin_file = "{pin}"\n'
    )
    toml = DEFAULT_TOML.replace('backend = "files"', section + "#")
    made = create_installation(tmp_path / "anju", toml)
    assert not list((tmp_path / "anju" / "issuance" / "keys").glob("*.pem"))
    with open_installation(tmp_path / "anju") as installation:
        trust = TrustStore.load(installation.issuer.publish_trust().bundle)
        permit = installation.issuer.issue(HOLDER)
        assert permit.kid == made.permit_key.kid
        assert verify(permit.qr_text, trust, installation.clock.now()).valid
