"""New credentials over old ones: whenever the machine dies, one whole set is there."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from devices import credentials
from devices.authority import Authority
from devices.credentials import Credentials
from devices.errors import CredentialsError
from devices.types import Role


class PowerCutError(Exception):
    pass


def certificate(authority: Authority, key: object, terminal: str = "t-1") -> bytes:
    issued = authority.issue_client(key.public_key(), Role.TERMINAL, terminal, "hall")  # type: ignore[attr-defined]
    return issued.public_bytes(Encoding.DER)


@pytest.fixture
def home(tmp_path: Path, authority: Authority) -> Path:
    key = credentials.provisioning_key(tmp_path / "t")
    credentials.install(
        tmp_path / "t", certificate(authority, key), authority.certificate, "127.0.0.1:1"
    )
    return tmp_path / "t"


def belongs_together(found: Credentials, home: Path) -> bool:
    parsed = x509.load_pem_x509_certificate(found.certificate_pem)
    return parsed.public_key() == credentials.load_key(home).public_key()


def test_a_power_cut_at_any_step_leaves_one_whole_set(
    home: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = credentials.load(home)
    rename = Path.replace
    installed = set()
    for step in range(12):
        key = credentials.provisioning_key(home)
        made = certificate(authority, key)
        left = step

        def dying(self: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            if left < 0:
                raise PowerCutError
            return rename(self, target)

        monkeypatch.setattr(Path, "replace", dying)
        try:
            credentials.install(home, made, authority.certificate, f"127.0.0.1:{step + 2}")
            done = True
        except PowerCutError:
            done = False
        monkeypatch.setattr(Path, "replace", rename)
        after = credentials.load(home)
        assert belongs_together(after, home)
        assert after.address in (before.address, f"127.0.0.1:{step + 2}")
        assert after == before or after.certificate_pem != before.certificate_pem
        if done:
            assert after.address == f"127.0.0.1:{step + 2}"
        installed.add((after != before, done))
        before = after
    # Died before it counted, died after it counted, and did not die.
    assert installed == {(False, False), (True, False), (True, True)}
    assert not [one for one in home.glob("next-*") if one.suffix != ".new"]  # drafts count nothing


def test_what_was_broken_off_goes_on_with_the_same_key(home: Path) -> None:
    first = credentials.provisioning_key(home)
    assert credentials.provisioning_key(home).private_numbers() == first.private_numbers()
    assert first.private_numbers() != credentials.load_key(home).private_numbers()


def test_a_certificate_for_another_key_or_terminal_changes_nothing(
    home: Path, authority: Authority
) -> None:
    before = credentials.load(home)
    present = credentials.load_key(home)
    key = credentials.provisioning_key(home)
    for wrong in (certificate(authority, present), certificate(authority, key, "t-2"), b"junk"):
        with pytest.raises(CredentialsError):
            credentials.install(home, wrong, authority.certificate, before.address)
        assert credentials.load(home) == before


def test_a_damaged_certificate_is_replaced(home: Path, authority: Authority) -> None:
    (home / "certificate.pem").write_text("damaged")
    key = credentials.provisioning_key(home)
    credentials.install(home, certificate(authority, key), authority.certificate, "127.0.0.1:9")
    assert belongs_together(credentials.load(home), home)


def test_renewal_after_an_interrupted_installation_uses_what_counts(
    home: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = credentials.provisioning_key(home)
    finish = credentials._finish_installing
    monkeypatch.setattr(credentials, "_finish_installing", lambda directory: None)
    credentials.install(home, certificate(authority, key), authority.certificate, "127.0.0.1:9")
    monkeypatch.setattr(credentials, "_finish_installing", finish)
    later = authority.issue_client(
        key.public_key(), Role.TERMINAL, "t-1", "hall", timedelta(days=30)
    )
    credentials.renew(home, later.public_bytes(Encoding.DER))
    assert credentials.load(home).certificate_pem == later.public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(public_exponent=65_537, key_size=2_048),
    ],
    ids=["P-521", "RSA"],
)
def test_a_key_the_register_would_refuse_is_refused_where_it_is_read(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    file = tmp_path / credentials.KEY_FILE
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    credentials.write_new(file, pem, mode=0o600)
    for path in (file, tmp_path):
        with pytest.raises(CredentialsError, match="P-256 or P-384"):
            credentials.load_private_key(path)
    with pytest.raises(CredentialsError, match="P-256 or P-384"):
        credentials.load_key(tmp_path)
