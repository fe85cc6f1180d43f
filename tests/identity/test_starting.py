"""A server that starts finds what an earlier one left, whatever became of its derived files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from identity.app import Server, open_installation
from identity.config import Config, load_config
from identity.errors import ConfigError
from identity.server_process import loopback_toml
from identity.setup import create_installation
from identity.types import ApplicationState
from issuance.errors import JournalLockedError
from matcher.matcher import SNAPSHOT_NAME
from tests.identity.kit import TERMINAL, command, once

EVERYBODY = range(3)


def enrol(directory: Path, people: range, snapshot: bool = True) -> None:
    with open_installation(directory) as installation:
        installation.follower.catch_up()
        now = installation.clock.now()
        for index in people:
            answer = installation.reception.enrol(
                command(index, permit=False, now=now), once(), TERMINAL, lambda: None
            )
            assert answer.application.state is ApplicationState.ENROLLED
        if snapshot:
            installation.matcher.snapshot()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "anju"
    create_installation(made, loopback_toml()[0])
    return made


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("enrolled") / "anju"
    create_installation(made, loopback_toml()[0])
    enrol(made, EVERYBODY)
    return made


def everybody_is_found(directory: Path, people: range = EVERYBODY) -> int:
    """Each comes again under another name and becomes a case; returns how much was replayed."""
    with open_installation(directory) as installation:
        replayed = installation.follower.catch_up()
        now = installation.clock.now()
        for index in people:
            answer = installation.reception.enrol(
                command(index, 500 + index, 1, now=now), once(), TERMINAL, lambda: None
            )
            assert answer.application.state is ApplicationState.IN_ADJUDICATION
        return replayed


def test_a_snapshot_spares_the_replay_of_what_came_before_it(directory: Path) -> None:
    enrol(directory, range(3))
    with open_installation(directory) as installation:
        assert installation.follower.catch_up() == 0
    enrol(directory, range(3, 5), snapshot=False)
    assert everybody_is_found(directory, range(5)) == 2


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "removed": lambda file: file.unlink(),
    "its whole folder removed": lambda file: shutil.rmtree(file.parent),
    "emptied": lambda file: file.write_bytes(b""),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "one bit flipped": flip_a_bit,
    "overwritten": lambda file: file.write_bytes(b"no snapshot at all" * 1_000),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_losing_the_snapshot_loses_nobody(enrolled: Path, tmp_path: Path, damage: str) -> None:
    directory = tmp_path / "anju"
    shutil.copytree(enrolled, directory)
    DAMAGE[damage](directory / "index" / SNAPSHOT_NAME)
    assert everybody_is_found(directory) == len(EVERYBODY)


def test_a_snapshot_newer_than_the_restored_register_is_not_believed(
    directory: Path, tmp_path: Path
) -> None:
    enrol(directory, range(2))
    shutil.copy(directory / "register.sqlite3", tmp_path / "backup.sqlite3")
    enrol(directory, range(2, 5))
    for name in ("register.sqlite3-wal", "register.sqlite3-shm"):
        (directory / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.sqlite3", directory / "register.sqlite3")
    enrol(directory, range(2, 4), snapshot=False)  # they are new again
    everybody_is_found(directory, range(4))


def test_one_directory_has_one_server(directory: Path) -> None:
    with (
        open_installation(directory),
        pytest.raises(JournalLockedError),
        open_installation(directory),
    ):
        pass


def test_a_port_that_is_taken_is_named(directory: Path, tmp_path: Path) -> None:
    with open_installation(directory) as installation:
        server = Server(installation)
        server.start()
        other = tmp_path / "other"
        create_installation(other, (directory / "anju.toml").read_text(encoding="utf-8"))
        with (
            open_installation(other) as second,
            pytest.raises(ConfigError, match="is another server running"),
        ):
            Server(second)
        server.stop()


def test_a_register_without_its_keys_does_not_open(directory: Path) -> None:
    (directory / "keys" / "register-kek.key").unlink()
    with pytest.raises(ConfigError, match=r"register-kek\.key"), open_installation(directory):
        pass


def test_nothing_is_made_over_an_installation(directory: Path) -> None:
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="is not empty"):
        create_installation(directory)
    assert before == {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_configuration_that_is_refused_leaves_the_directory_free(tmp_path: Path) -> None:
    target = tmp_path / "anju"
    with pytest.raises(ConfigError):
        create_installation(target, "[server]\nworkers = 1\n")
    create_installation(target, loopback_toml()[0])


def test_everything_secret_is_the_owners_alone(directory: Path) -> None:
    enrol(directory, range(1))
    assert directory.stat().st_mode & 0o077 == 0
    for path in directory.rglob("*"):
        if "key" in path.suffix or "keys" in path.parts or "offline" in path.parts:
            assert path.stat().st_mode & 0o077 == 0, path.relative_to(directory)


def test_an_installation_that_could_not_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "work"
    with pytest.raises(ConfigError):
        create_installation(target, '[server]\nworkers = "many"\n')
    assert list(tmp_path.iterdir()) == []
    create_installation(target)
    assert load_config(target) == Config()
