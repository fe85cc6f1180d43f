from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, inspect

from identity.errors import ConfigError
from identity.schema import metadata
from identity.store import Database
from identity.store.database import MIGRATIONS
from identity.vault import Vault

VAULT = Vault(b"k" * 32, b"l" * 32, b"s" * 32)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'register.sqlite3'}", VAULT)
    yield opened
    opened.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = create_engine(f"sqlite:///{tmp_path / 'register.sqlite3'}")
    yield made
    made.dispose()


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))


def alembic(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def definitions(connection: Connection) -> set[tuple[str, str]]:
    """Name and SQL of everything, constraints and autoincrement included."""
    rows = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%' "
        "AND name NOT LIKE 'sqlite%'"
    )
    return {(name, " ".join(sql.split()).replace('"', "")) for name, sql in rows}


def test_an_upgraded_database_is_what_the_schema_says(database: Database, engine: Engine) -> None:
    database.migrate()
    with engine.connect() as connection:
        assert differences(connection) == []


def test_the_comparison_would_see_a_missing_column(database: Database, engine: Engine) -> None:
    database.migrate()
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE permits DROP COLUMN kid")
        assert differences(connection)


def test_unique_constraints_and_foreign_keys_agree_too(
    database: Database, engine: Engine, tmp_path: Path
) -> None:
    database.migrate()
    direct = create_engine(f"sqlite:///{tmp_path / 'direct.sqlite3'}")
    metadata.create_all(direct)
    with engine.connect() as migrated, direct.connect() as created:
        ours, theirs = inspect(migrated), inspect(created)
        for table in metadata.tables:
            assert ours.get_unique_constraints(table) == theirs.get_unique_constraints(table)
            key = str
            assert sorted(ours.get_foreign_keys(table), key=key) == sorted(
                theirs.get_foreign_keys(table), key=key
            )
            assert ours.get_pk_constraint(table) == theirs.get_pk_constraint(table)
    direct.dispose()


def test_changes_are_numbered_without_reuse(database: Database, engine: Engine) -> None:
    database.migrate()
    with engine.connect() as connection:
        sql = dict(definitions(connection))["reference_changes"]
    assert "AUTOINCREMENT" in sql


def test_down_and_up_again_gives_the_same(database: Database, engine: Engine) -> None:
    database.migrate()
    with engine.connect() as connection:
        before = definitions(connection)
        command.downgrade(alembic(connection), "base")
        connection.commit()
    with engine.connect() as connection:
        assert definitions(connection) == set()
        command.upgrade(alembic(connection), "head")
        connection.commit()
    with engine.connect() as connection:
        assert definitions(connection) == before


def test_migrating_twice_changes_nothing(database: Database, engine: Engine) -> None:
    database.migrate()
    with engine.connect() as connection:
        before = definitions(connection)
    database.migrate()
    with engine.connect() as connection:
        assert definitions(connection) == before
    database.require_current_schema()


def test_another_schema_is_refused_at_start(database: Database, engine: Engine) -> None:
    with pytest.raises(ConfigError, match="schema None"):
        database.require_current_schema()
    database.migrate()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match="schema 9999"):
        database.require_current_schema()
