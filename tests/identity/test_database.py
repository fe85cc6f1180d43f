"""What the store promises of SQLite: durable, one writer, and a clear word when it cannot."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from identity.errors import ConfigError, UnavailableError
from identity.store import Database, database
from tests.identity.kit import START, Templates, World


@pytest.mark.parametrize(
    ("setting", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("secure_delete", 1)],
)
def test_every_connection_is_set_up_to_keep_its_word(
    world: World, setting: str, value: object
) -> None:
    with world.database.read() as first, world.database.read() as second:
        for tx in (first, second):
            assert tx.connection.exec_driver_sql(f"PRAGMA {setting}").scalar_one() == value


def test_a_reader_sees_one_moment_while_a_writer_goes_on(world: World) -> None:
    with world.database.read() as reader:
        assert reader.audit.entries(0, 10) == []
        with world.database.write() as writer:
            writer.audit.append(START, "test", "meanwhile")
        assert reader.audit.entries(0, 10) == []
    with world.database.read() as later:
        assert len(later.audit.entries(0, 10)) == 1


def test_a_register_that_stays_locked_says_try_again(
    made: Templates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    file = tmp_path / "register.sqlite3"
    file.write_bytes(made.database.read_bytes())
    opened = Database(f"sqlite:///{file}", made.vault)
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError) as caught, opened.write():
        pass
    assert caught.value.reason == "STORE_BUSY"
    with opened.read() as tx:
        assert tx.audit.entries(0, 1) == []
    holder.execute("ROLLBACK")
    holder.close()
    with opened.write() as tx:
        tx.audit.append(START, "test", "afterwards")
    opened.close()


@pytest.mark.parametrize("damage", ["no database", "pages overwritten"])
def test_a_damaged_file_is_said_to_be_damaged(made: Templates, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "register.sqlite3"
    data = bytearray(made.database.read_bytes())
    if damage == "no database":
        data = bytearray(b"this is no database " * 500)
    else:
        data[4096:] = b"\xff" * (len(data) - 4096)
    file.write_bytes(data)
    opened = Database(f"sqlite:///{file}", made.vault)
    with pytest.raises(ConfigError, match="damaged"), opened.read() as tx:
        tx.audit.verify()
    opened.close()
