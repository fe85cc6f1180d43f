from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from devices.operators import Operators
from devices.provisioning import Provisioning
from devices.terminal import connect
from identity.app import open_installation
from identity.server_process import loopback_toml, serving
from identity.setup import create_installation
from identity.terminal_store import SqlOperatorStore, SqlTerminalStore
from tests.identity.service_kit import admit_terminal, open_session
from tests.security.target import Honest, Target

HANDSHAKE_S, MESSAGE_S, CONNECTIONS = 3.0, 3.0, 48
LIMITS = {
    "drain_s = 10.0": f"drain_s = 1.0\nmessage_s = {MESSAGE_S}\nhandshake_s = {HANDSHAKE_S}",
    "max_connections = 6000": f"max_connections = {CONNECTIONS}",
    "terminal_calls_per_minute = 0": "terminal_calls_per_minute = 1200",
    "photographs = false": "photographs = true",
    "[capture]": "[capture]\nmax_upload_bytes = 1048576\nupload_bytes_per_terminal = 2097152",
    "waiting_calls = 64": "waiting_calls = 24",
}


class At:
    """A clock that stands, to have made yesterday what is attacked with today."""

    def __init__(self, ago: timedelta) -> None:
        self._time = datetime.now(UTC) - ago

    def now(self) -> datetime:
        return self._time


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    if sys.platform != "linux":
        pytest.skip("looks at the server's memory and connections in /proc")
    directory = tmp_path_factory.mktemp("attacked") / "anju"
    toml = loopback_toml()[0]
    for before, after in LIMITS.items():
        assert before in toml
        toml = toml.replace(before, after)
    create_installation(directory, toml)
    with open_installation(directory) as installation:
        admit_terminal(installation, "east-gate", "honest-1")
        old = Provisioning(
            installation.authority, SqlTerminalStore(installation.database), At(timedelta(hours=25))
        )
        (directory / "token-of-yesterday").write_text(old.create_token("east-gate", "late-1").token)
        for name, ago in (("yesterday", timedelta(hours=13)), ("idle", timedelta(hours=1))):
            home = admit_terminal(installation, "east-gate", f"{name}-1")
            operators = Operators(SqlOperatorStore(installation.database), At(ago))
            open_session(installation, home, operators=operators)
    with (
        serving(directory) as process,
        connect(directory / "operators" / "operator-1") as administrator,
    ):
        yield Target(directory, process, administrator)


@pytest.fixture(scope="session")
def working(target: Target) -> Iterator[Honest]:
    one = Honest(target.directory / "terminals" / "honest-1")
    one.start()
    yield one
    one.stop()


@pytest.fixture(autouse=True)
def honest(working: Honest) -> Iterator[Honest]:
    """Every test here runs beside a terminal that must be served all the time."""
    working.forget()
    yield working
    working.require_served()
