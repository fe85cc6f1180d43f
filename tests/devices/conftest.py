from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devices.authority import Authority, init_authority
from devices.provisioning import Provisioning
from devices.terminal import provision
from tests.devices.fakes import FakeClock, MemoryTerminalStore
from tests.devices.loopback import Enrolments, Register, register
from tests.devices.terminal_kit import logged_in

if TYPE_CHECKING:
    from tests.devices.served import Served


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> MemoryTerminalStore:
    return MemoryTerminalStore()


@pytest.fixture
def authority(tmp_path: Path, clock: FakeClock) -> Authority:
    return init_authority(tmp_path / "authority", clock)


@pytest.fixture
def provisioning(
    authority: Authority, store: MemoryTerminalStore, clock: FakeClock
) -> Provisioning:
    return Provisioning(authority, store, clock)


@pytest.fixture
def enrolments() -> Enrolments:
    """What stands behind the small register; other modules have more wayward ones."""
    return Enrolments()


@pytest.fixture
def running(
    authority: Authority, provisioning: Provisioning, enrolments: Enrolments
) -> Iterator[Register]:
    with register(authority, provisioning, enrolments) as running:
        yield running


@pytest.fixture
def provisioned(running: Register, provisioning: Provisioning, tmp_path: Path) -> Path:
    """A terminal of that register, with nobody logged in."""
    token = provisioning.create_token("hall", "t-1").token
    provision(running.provisioning, token, tmp_path / "t", running.main)
    return tmp_path / "t"


@pytest.fixture
def home(provisioned: Path) -> Path:
    """A terminal of that register, with somebody logged in."""
    return logged_in(provisioned)


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    from tests.devices.served import served  # all of the service: only where it is asked for

    with served(tmp_path_factory.mktemp("city") / "anju") as started:
        yield started
