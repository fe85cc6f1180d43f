from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from identity.store import Database
from identity.terminal_store import SqlOperatorStore, SqlTerminalStore
from identity.vault import Vault
from tests.devices.operator_store_contract import OperatorStoreContract
from tests.devices.store_contract import StoreContract


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'register.sqlite3'}", Vault(*[b"k" * 32] * 3))
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def store(database: Database) -> SqlTerminalStore:
    return SqlTerminalStore(database)


@pytest.fixture
def operators(database: Database) -> SqlOperatorStore:
    return SqlOperatorStore(database)


class TestSqlTerminalStore(StoreContract):
    pass


class TestSqlOperatorStore(OperatorStoreContract):
    pass
