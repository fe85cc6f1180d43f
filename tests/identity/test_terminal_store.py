from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from identity.store import Database
from identity.terminal_store import SqlTerminalStore
from identity.vault import Vault
from tests.devices.store_contract import StoreContract


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlTerminalStore]:
    database = Database(f"sqlite:///{tmp_path / 'register.sqlite3'}", Vault(*[b"k" * 32] * 3))
    database.migrate()
    yield SqlTerminalStore(database)
    database.close()


class TestSqlTerminalStore(StoreContract):
    pass
