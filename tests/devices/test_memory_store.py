from __future__ import annotations

from tests.devices.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    """The fixture ``store`` is the one in memory."""
