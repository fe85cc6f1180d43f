"""Makes a new working directory: keys, authorities, configuration, database."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from devices import keys
from devices.authority import OPERATOR_LIFETIME, Authority, init_authority, open_authority
from devices.credentials import load_key
from devices.operators import Operators
from devices.types import OperatorRole, Role
from identity.app import DEVICES, ISSUANCE, KEYS, OPERATORS
from identity.config import CONFIG_FILE, DEFAULT_TOML, Config, database_url, load_config
from identity.errors import ConfigError
from identity.key_backend import open_issuing_keys
from identity.ports import SystemClock
from identity.store import Database
from identity.terminal_store import SqlOperatorStore
from identity.vault import create_keys, open_vault
from issuance import authority as issuing_authority
from issuance.profile import PHOTO, RESIDENCE, TEMPORARY_RESIDENCE, PermitKind, Profile

FIRST_OPERATORS = ("operator-1", "operator-2")
CONSOLE = "console"  # whoever has a shell on the server


def create_installation(
    directory: Path, toml: str = DEFAULT_TOML
) -> issuing_authority.NewAuthority:
    """Make everything an installation needs, or nothing: it is built beside and then renamed.

    Two operators are made, because it takes two to turn somebody away.

    Raises:
        ConfigError: something is there already, or the configuration is broken.
    """
    _require_new(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f"{directory.name}.", dir=directory.parent))
    try:
        made = _build(beside, toml)
        beside.replace(directory)  # also over an empty directory
    except BaseException:
        shutil.rmtree(beside)
        raise
    return replace(
        made,
        directory=directory / made.directory.relative_to(beside),
        offline=directory / made.offline.relative_to(beside),
        root=directory / made.root.relative_to(beside),
        bundle=directory / made.bundle.relative_to(beside),
    )


def _build(directory: Path, toml: str) -> issuing_authority.NewAuthority:
    (directory / CONFIG_FILE).write_text(toml, encoding="utf-8")
    config = load_config(directory)
    create_keys(directory / KEYS)
    clock = SystemClock(config.development.clock_offset)
    authority = init_authority(directory / DEVICES, SystemClock(), config.server.hostnames)
    rules = Profile(
        issuer=config.permits.issuer_uri,
        authority=config.permits.authority_name,
        kinds=_kinds(config.permits.photographs),
    )
    issuing_keys = open_issuing_keys(directory / ISSUANCE / KEYS, config.keys)
    made = issuing_authority.init_authority(
        directory / ISSUANCE, rules, clock.now, keys=issuing_keys
    )
    database = Database(database_url(config, directory), open_vault(directory / KEYS))
    database.migrate()
    for operator in FIRST_OPERATORS:
        _write_operator(
            directory, config, authority, database, operator, tuple(OperatorRole), OPERATOR_LIFETIME
        )
    database.close()
    return made


def add_operator(
    directory: Path, operator_id: str, roles: Collection[OperatorRole], lifetime: timedelta
) -> Path:
    """Register an operator and make their credentials; returns the directory of those.

    The key in it opens sessions at terminals too.
    """
    config = load_config(directory)
    authority = open_authority(directory / DEVICES, SystemClock(), config.server.hostnames)
    with _register(directory, config) as database:
        return _write_operator(directory, config, authority, database, operator_id, roles, lifetime)


def revoke_operator(directory: Path, operator_id: str, reason: str) -> None:
    """Refuse an operator from the next call on, when nobody can do it over the network.

    Raises:
        devices.errors.OperatorUnknownError: there is no such operator.
    """
    config = load_config(directory)
    with _register(directory, config) as database:
        Operators(SqlOperatorStore(database), SystemClock()).revoke(operator_id, reason)
        with database.write() as tx:
            tx.audit.append(SystemClock().now(), CONSOLE, "operator revoked", operator_id)


def _write_operator(
    directory: Path,
    config: Config,
    authority: Authority,
    database: Database,
    operator_id: str,
    roles: Collection[OperatorRole],
    lifetime: timedelta,
) -> Path:
    target = directory / OPERATORS / operator_id
    authority.write_client(target, Role.OPERATOR, operator_id, config.server.address, lifetime)
    login_key = keys.public_bytes(load_key(target))
    Operators(SqlOperatorStore(database), SystemClock()).enrol(operator_id, roles, login_key)
    with database.write() as tx:
        tx.audit.append(SystemClock().now(), CONSOLE, "operator added", operator_id)
    return target


def _kinds(photographs: bool) -> tuple[PermitKind, ...]:
    kinds = (TEMPORARY_RESIDENCE, RESIDENCE)
    if not photographs:
        return kinds
    return tuple(replace(kind, carries=kind.carries | {PHOTO}) for kind in kinds)


@contextlib.contextmanager
def _register(directory: Path, config: Config) -> Iterator[Database]:
    """The database beside a running server: its transactions queue behind the server's."""
    database = Database(database_url(config, directory), open_vault(directory / KEYS))
    try:
        database.require_current_schema()
        yield database
    finally:
        database.close()


def _require_new(directory: Path) -> None:
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(
            f"{directory} is not empty; `anju init` makes a new working directory and never "
            "overwrites one"
        )
