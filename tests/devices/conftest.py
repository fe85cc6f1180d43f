from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devices.authority import Authority, init_authority
from devices.provisioning import Provisioning
from tests.devices.fakes import FakeClock, MemoryTerminalStore

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


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    from tests.devices.served import served  # all of the service: only where it is asked for

    with served(tmp_path_factory.mktemp("city") / "anju") as started:
        yield started
