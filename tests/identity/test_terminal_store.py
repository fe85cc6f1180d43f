from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from devices.types import Terminal, TerminalState
from identity.store import Database
from identity.terminal_store import SqlOperatorStore, SqlTerminalStore
from identity.vault import Vault
from tests.devices.operator_store_contract import OperatorStoreContract
from tests.devices.store_contract import AT, StoreContract


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


def test_terminals_that_need_somebody_are_counted_among_the_active(
    database: Database, store: SqlTerminalStore
) -> None:
    soon = AT + timedelta(days=1)
    for id, state, until, contact in (
        ("well", TerminalState.ACTIVE, AT + timedelta(days=90), AT),
        ("ends", TerminalState.ACTIVE, AT, AT),
        ("mute", TerminalState.ACTIVE, AT + timedelta(days=90), AT - timedelta(days=2)),
        ("never-called", TerminalState.ACTIVE, AT + timedelta(days=90), None),
        ("gone", TerminalState.REVOKED, AT, AT - timedelta(days=2)),
    ):
        assert store.put_terminal(
            Terminal(id, "hall", state, version=1, token_hash=b"h", certificate_not_after=until)
        )
        if contact is not None:
            store.touch(id, contact)
    with database.read() as tx:
        assert tx.terminals.counted() == {
            TerminalState.EXPECTED: 0,
            TerminalState.ACTIVE: 4,
            TerminalState.REVOKED: 1,
        }
        assert (tx.terminals.expiring(AT), tx.terminals.expiring(soon)) == (0, 1)
        assert (tx.terminals.silent(AT - timedelta(days=1)), tx.terminals.silent(soon)) == (1, 3)


class TestSqlOperatorStore(OperatorStoreContract):
    pass
