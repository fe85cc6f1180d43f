from __future__ import annotations

from pathlib import Path

import pytest

from devices.authority import Authority, init_authority
from devices.provisioning import Provisioning
from tests.devices.fakes import FakeClock, MemoryTerminalStore


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
