from __future__ import annotations

import pytest

from tests.devices.fakes import MemoryOperatorStore
from tests.devices.operator_store_contract import OperatorStoreContract
from tests.devices.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    """The fixture ``store`` is the one in memory."""


@pytest.fixture
def operators() -> MemoryOperatorStore:
    return MemoryOperatorStore()


class TestMemoryOperatorStore(OperatorStoreContract):
    pass
