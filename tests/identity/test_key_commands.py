"""`anju key` and `anju trust` on a working directory, with a server and without one."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from identity import cli
from identity.config import DEFAULT_TOML, load_config
from identity.errors import ConfigError
from identity.key_backend import open_issuing_keys
from identity.setup import create_installation
from issuance.delta import version_of
from issuance.trust import TrustStore
from tests.identity.service_kit import Service, running


def anju(*arguments: str | Path) -> str:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def signing_key(directory: Path, use: str = "permit") -> str:
    found = re.search(rf"^([0-9a-f]{{16}}) +{use} .* signs", anju("key", "list", directory), re.M)
    assert found is not None
    return found[1]


def trust(directory: Path) -> TrustStore:
    return TrustStore.load((directory / "issuance" / "trust" / "bundle.anju").read_bytes())


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("keys") / "anju") as started:
        yield started


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    create_installation(tmp_path / "anju")
    return tmp_path / "anju"


def test_running_server_publishes_a_key_that_was_marked_beside_it(service: Service) -> None:
    stolen = signing_key(service.directory)
    version = service.installation.issuer.trust().version
    out = anju("key", "compromised", service.directory, stolen)
    assert "published" in out
    store = trust(service.directory)
    assert store.version > version
    assert store.keys[stolen].info.compromised_at is not None
    fresh = signing_key(service.directory)
    assert fresh != stolen
    assert fresh in store.keys


def test_delta_is_exported_for_what_a_department_has(service: Service, tmp_path: Path) -> None:
    operator = service.directory / "operators" / "operator-1"
    have, new = tmp_path / "have.anju", tmp_path / "delta.anju"
    taken: list[str | Path] = [
        "--trust",
        tmp_path / "department.anju",
        "--state",
        tmp_path / "state.json",
    ]
    anju("trust", "export", have, "--as", operator)
    anju("trust", "import", have, *taken)
    assert "nothing was written" in anju("trust", "export", new, "--as", operator, "--since", have)
    service.installation.issuer.publish_trust()
    assert "delta" in anju("trust", "export", new, "--as", operator, "--since", have)
    assert new.stat().st_size < have.stat().st_size / 2
    anju("trust", "import", new, *taken)
    current = service.installation.issuer.trust()
    assert version_of((tmp_path / "department.anju").read_bytes()) == current.version
    assert str(current.version) in anju("trust", "info", tmp_path / "department.anju")


def test_keys_are_rotated_retired_and_renewed_without_a_server(directory: Path) -> None:
    first = signing_key(directory)
    anju("key", "rotate", directory, "--algorithm", "ES256")
    second = signing_key(directory)
    anju("key", "retire", directory, second)
    third = signing_key(directory)
    assert len({first, second, third}) == 3
    store = trust(directory)
    assert {first, second, third} <= store.keys.keys()
    assert all(store.keys[kid].info.compromised_at is None for kid in (first, second))
    status = signing_key(directory, "status-list")
    anju("key", "rotate", directory, "--use", "status-list")
    assert signing_key(directory, "status-list") != status
    snapshot = signing_key(directory, "trust-snapshot")
    assert "renew the root" in anju("key", "compromised", directory, snapshot)
    before = trust(directory)
    anju("key", "root-renew", directory, "--offline", directory / "issuance" / "offline")
    after = TrustStore.load(
        (directory / "issuance" / "trust" / "bundle.anju").read_bytes(), before.memory
    )
    assert after.memory.root_version == 2
    assert "root 2: 1 of" in anju("key", "list", directory)
    version = after.version
    anju("trust", "publish", directory)
    assert trust(directory).version == version + 1


def test_wrong_keys_and_roots_are_one_error_and_change_nothing(
    directory: Path, tmp_path: Path
) -> None:
    before = anju("key", "list", directory)
    version = trust(directory).version
    junk = tmp_path / "junk.json"
    junk.write_text("{}")
    cases: list[tuple[str | Path, ...]] = [
        ("rotate", directory, "--use", "everything"),
        ("rotate", directory, "--use", "trust-root"),
        ("rotate", directory, "--algorithm", "RS256"),
        ("retire", directory, "0" * 16),
        ("compromised", directory, "0" * 16),
        ("root-install", directory, junk),
        ("root-propose", directory, "-o", tmp_path / "out.json", "--root-key", junk),
        ("root-renew", directory, "--offline", tmp_path / "empty"),
    ]
    for arguments in cases:
        with pytest.raises(Exception, match=r"\w") as caught:
            anju("key", *arguments)
        assert type(caught.value).__name__ in (
            "InvalidRequestError",
            "KeyUseError",
            "KeyStoreError",
            "TrustError",
        ), arguments
    assert anju("key", "list", directory) == before
    assert trust(directory).version == version


def test_keys_of_an_installation_are_encrypted_if_it_has_a_passphrase(tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("one two three\n")
    toml = DEFAULT_TOML.replace(
        '# passphrase_file = "/etc/anju/passphrase"', f'passphrase_file = "{secret}"'
    )
    assert str(secret) in toml
    create_installation(tmp_path / "anju", toml)
    keys = tmp_path / "anju" / "issuance" / "keys"
    files = [*keys.glob("*.pem")]
    assert files
    assert all(b"ENCRYPTED" in path.read_bytes() for path in files)
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert "published" in anju("key", "rotate", tmp_path / "anju")
    config = load_config(tmp_path / "anju").keys
    secret.write_text("another\n")
    with pytest.raises(Exception, match="passphrase"):
        open_issuing_keys(keys, config).secret("numbering")
    for content in ("", None):
        secret.unlink() if content is None else secret.write_text(content)
        with pytest.raises(ConfigError, match="passphrase_file"):
            open_issuing_keys(keys, config)


@pytest.mark.parametrize(
    "section",
    [
        'backend = "cloud"',
        'backend = "pkcs11"',
        'pkcs11_token = "anju"',
        'passphrase_file = "relative"',
        'backend = "pkcs11"\npkcs11_module = "/m"\npkcs11_token = "t"\npkcs11_pin_file = "p"',
    ],
)
def test_broken_key_sections_are_refused_at_start(tmp_path: Path, section: str) -> None:
    (tmp_path / "anju.toml").write_text(f"[keys]\n{section}\n")
    with pytest.raises(ConfigError, match="keys"):
        load_config(tmp_path)
