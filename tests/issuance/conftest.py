from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from issuance.authority import NewAuthority, init_authority
from issuance.issuer import Issuer
from issuance.key_tokens import TokenKeyStore
from tests.issuance.kit import RULES, Clock

SOFTHSM = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> NewAuthority:
    return init_authority(tmp_path / "authority", RULES, clock)


@pytest.fixture
def issuer(authority: NewAuthority, clock: Clock) -> Iterator[Issuer]:
    with Issuer.open(authority.directory, clock) as opened:
        yield opened


@dataclass(frozen=True)
class Token:
    """A SoftHSM token: what `TokenKeyStore` takes after the directory."""

    module: str
    label: str
    pin: str

    def open(self, directory: Path) -> TokenKeyStore:
        return TokenKeyStore(directory, self.module, self.label, self.pin)


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    """Debian's softhsm2; `.ci/run` installs it, elsewhere these tests skip without it."""
    found = [path for path in SOFTHSM if Path(path).exists()]
    if not found or shutil.which("softhsm2-util") is None:
        if os.environ.get("CI"):
            pytest.fail("softhsm2 is not installed")
        pytest.skip("softhsm2 is not installed")
    home = tmp_path_factory.mktemp("softhsm")
    (home / "tokens").mkdir()
    (home / "softhsm2.conf").write_text(
        f"directories.tokendir = {home}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    # Read once, when the library is loaded into this process.
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(home / "softhsm2.conf")
    made = Token(found[0], "anju tests", "5678")
    command = ["softhsm2-util", "--init-token", "--free", "--label", made.label]
    subprocess.run(
        [*command, "--so-pin", "1234", "--pin", made.pin], check=True, capture_output=True
    )
    yield made
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before
