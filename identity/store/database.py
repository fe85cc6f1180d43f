"""Opens the database and gives transactions.

SQLite runs in WAL mode with ``synchronous=FULL``: a committed transaction survives a killed process
and a power cut. Writers begin IMMEDIATE, so two writers queue for the lock at the start instead of
failing in the middle, and what a write transaction has read is still true when it commits.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError

from identity.errors import ConfigError, StorageFullError, UnavailableError
from identity.store.audit import AuditLog
from identity.store.cases import Cases
from identity.store.once import OnceLedger
from identity.store.operators import Operators
from identity.store.people import People
from identity.store.permits import Permits
from identity.store.terminals import Terminals
from identity.store.uploads import Uploads
from identity.vault import Vault

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"
BUSY_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Transaction:
    """One transaction's view of every table. Not for use after its ``with`` block."""

    connection: Connection
    vault: Vault

    @cached_property
    def people(self) -> People:
        return People(self.connection, self.vault)

    @cached_property
    def permits(self) -> Permits:
        return Permits(self.connection, self.vault)

    @cached_property
    def cases(self) -> Cases:
        return Cases(self.connection, self.vault)

    @cached_property
    def terminals(self) -> Terminals:
        return Terminals(self.connection)

    @cached_property
    def operators(self) -> Operators:
        return Operators(self.connection)

    @cached_property
    def uploads(self) -> Uploads:
        return Uploads(self.connection, self.vault)

    @cached_property
    def audit(self) -> AuditLog:
        return AuditLog(self.connection)

    @cached_property
    def once(self) -> OnceLedger:
        return OnceLedger(self.connection, self.vault)


class Database:
    """The register's database. Thread-safe; one object a process."""

    def __init__(self, url: str, vault: Vault) -> None:
        self._engine = _open(url)
        self._vault = vault
        self._writing = threading.Lock()

    def migrate(self) -> None:
        """Bring the schema to this version of the software."""
        config = _alembic_config()
        with self._engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def require_current_schema(self) -> None:
        """Raises ConfigError unless the schema is the one this software was made for."""
        with self._engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        wanted = ScriptDirectory.from_config(_alembic_config()).get_current_head()
        if found != wanted:
            raise ConfigError(f"the database has schema {found}, this software needs {wanted}")

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent view; nothing is written."""
        with _storage_errors(), self._engine.connect() as connection:
            yield Transaction(connection, self._vault)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction: committed and on disk when the block ends, or nothing of it is.

        Raises:
            StorageFullError: the disk is full; nothing was kept.
            UnavailableError: another writer held the database for too long; nothing was kept.
        """
        engine = self._engine.execution_options(anju_write=True)
        # SQLite has writers wait by asking again after ever longer naps, which under load leaves
        # the disk idle and lets some wait for seconds. Within this process they queue here.
        if not self._writing.acquire(timeout=BUSY_TIMEOUT_S):
            raise UnavailableError("STORE_BUSY", "the register is busy; try again")
        try:
            with _storage_errors(), engine.begin() as connection:
                yield Transaction(connection, self._vault)
        finally:
            self._writing.release()

    def close(self) -> None:
        self._engine.dispose()


def _open(url: str) -> Engine:
    engine = create_engine(url, pool_size=20, max_overflow=30)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # Transactions are begun by hand below: the driver's own are deferred and skip some statements.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA secure_delete=ON")  # sealed or not, what was deleted is overwritten
    cursor.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("anju_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is not None and code & 0xFF == sqlite3.SQLITE_FULL:
            raise StorageFullError from error
        if code is not None and code & 0xFF == sqlite3.SQLITE_BUSY:
            raise UnavailableError("STORE_BUSY", "the register is busy; try again") from error
        if code is not None and code & 0xFF == sqlite3.SQLITE_IOERR:
            raise UnavailableError(
                "STORE_FAILED", "the register's disk fails to read or write; call an operator"
            ) from error
        raise
    except DatabaseError as error:
        code = getattr(error.orig, "sqlite_errorcode", None)
        # The low byte: SQLITE_CORRUPT comes in finer kinds too.
        if code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise ConfigError(
                "the database file is damaged; restore it from the last backup"
            ) from error
        raise


def _alembic_config() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config
