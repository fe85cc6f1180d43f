"""A whole installation, served as a city serves it (`anju serve`), with a terminal provisioned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devices.terminal import connect
from devices.terminal.wire import create_token
from identity.app import open_installation
from identity.server_process import loopback_toml, serving
from identity.setup import create_installation
from tests.identity.service_kit import admit_terminal


@dataclass(frozen=True)
class Served:
    """
    Attributes:
        home: the credentials of a terminal, ``hall-1``.
    """

    directory: Path
    main: str
    provisioning: str
    home: Path

    @property
    def login_key(self) -> Path:
        return self.directory / "operators" / "operator-1" / "key.pem"

    def token(self, terminal: str) -> str:
        with connect(self.directory / "operators" / "operator-1") as operator:
            return create_token(operator, "east-gate", terminal)


@contextmanager
def served(directory: Path) -> Iterator[Served]:
    create_installation(directory, loopback_toml()[0])
    with open_installation(directory) as opened:
        home = admit_terminal(opened, "east-gate", "hall-1")
    with serving(directory) as server:
        told = server.serving
        yield Served(directory, told["address"], told["provisioning_address"], home)
