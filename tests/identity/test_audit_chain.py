"""The chain finds what was changed behind the register's back. What it cannot find is said too."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from identity.types import Purpose
from tests.identity.kit import COUNTER, START, World

ENTRIES = 7


@pytest.fixture
def log(world: World) -> World:
    for number in range(ENTRIES):
        with world.database.write() as tx:
            tx.audit.append(
                START + timedelta(seconds=number),
                f"operator:{number}",
                "RegisterService.GetRegistrant",
                f"R-{number}",
                COUNTER,
            )
    return world


def tamper(world: World, statement: str, *values: Any) -> None:
    with sqlite3.connect(world.file) as connection:
        assert connection.execute(statement, values).rowcount > 0
    connection.close()


@contextmanager
def restored(world: World, column: str, sequence: int) -> Iterator[None]:
    """Puts the value back afterwards, so that one log serves many attempts."""
    with sqlite3.connect(world.file) as connection:
        (value,) = connection.execute(
            f"SELECT {column} FROM audit_entries WHERE sequence = ?", (sequence,)
        ).fetchone()
    connection.close()
    yield
    tamper(world, f"UPDATE audit_entries SET {column} = ? WHERE sequence = ?", value, sequence)


def verify(world: World) -> tuple[int, bytes, int]:
    with world.database.read() as tx:
        return tx.audit.verify()


def test_an_untouched_log_is_intact_and_its_head_is_the_last_hash(log: World) -> None:
    count, head, broken_at = verify(log)
    with log.database.read() as tx:
        entries = tx.audit.entries(0, 100)
    assert (count, broken_at) == (ENTRIES, 0)
    assert head == entries[-1].hash
    assert [entry.sequence for entry in entries] == list(range(1, ENTRIES + 1))


def test_an_empty_log_is_intact(world: World) -> None:
    assert verify(world) == (0, b"\0" * 32, 0)


CHANGES: dict[str, Any] = {
    "at": 1,
    "who": "operator:nobody",
    "action": "RegisterService.ListDisclosures",
    "subject_id": "R-other",
    "purpose": "own-record",
    "case_reference": "case 8",
    "outcome": "refused",
    "hash": b"\1" * 32,
}


def test_the_table_of_changes_names_every_column(log: World) -> None:
    with log.database.read() as tx:
        row = tx.connection.exec_driver_sql("SELECT * FROM audit_entries LIMIT 1").one()
    assert set(row._mapping) == CHANGES.keys() | {"sequence"}


@pytest.mark.parametrize("column", CHANGES)
def test_a_changed_value_breaks_the_chain_where_it_was_changed(log: World, column: str) -> None:
    for sequence in range(1, ENTRIES + 1):
        with restored(log, column, sequence):
            tamper(
                log,
                f"UPDATE audit_entries SET {column} = ? WHERE sequence = ?",
                CHANGES[column],
                sequence,
            )
            count, _, broken_at = verify(log)
            assert (count, broken_at) == (sequence - 1, sequence)
    assert verify(log)[2] == 0


@pytest.mark.parametrize("column", [column for column in CHANGES if column != "hash"])
def test_a_value_of_another_type_breaks_the_chain_and_nothing_else(log: World, column: str) -> None:
    for value in (b"\xff\xfe", "text", 2**62, 1.5, ""):
        with restored(log, column, 3):
            tamper(log, f"UPDATE audit_entries SET {column} = ? WHERE sequence = 3", value)
            assert verify(log)[2] == 3
    assert verify(log)[2] == 0


@pytest.mark.parametrize("value", [b"", "text", 7])
def test_a_hash_of_another_type_breaks_the_chain(log: World, value: Any) -> None:
    tamper(log, "UPDATE audit_entries SET hash = ? WHERE sequence = 3", value)
    assert verify(log)[2] == 3


@pytest.mark.parametrize("sequence", [1, 4, ENTRIES - 1])
def test_a_removed_entry_is_missed(log: World, sequence: int) -> None:
    tamper(log, "DELETE FROM audit_entries WHERE sequence = ?", sequence)
    assert verify(log)[2] == sequence


def test_a_removed_entry_is_missed_even_where_the_rest_is_numbered_anew(log: World) -> None:
    tamper(log, "DELETE FROM audit_entries WHERE sequence = 3")
    for sequence in range(4, ENTRIES + 1):
        tamper(
            log,
            "UPDATE audit_entries SET sequence = ? WHERE sequence = ?",
            sequence - 1,
            sequence,
        )
    assert verify(log)[2] == 3


def test_two_swapped_entries_break_the_chain(log: World) -> None:
    for old, new in ((2, 100), (3, 2), (100, 3)):
        tamper(log, "UPDATE audit_entries SET sequence = ? WHERE sequence = ?", new, old)
    assert verify(log)[2] == 2


def test_an_entry_put_in_front_breaks_the_chain(log: World) -> None:
    tamper(
        log,
        "INSERT INTO audit_entries SELECT 0, at, who, action, subject_id, purpose, "
        "case_reference, outcome, hash FROM audit_entries WHERE sequence = 1",
    )
    assert verify(log)[2] == 1


def test_an_entry_copied_to_the_end_breaks_the_chain(log: World) -> None:
    tamper(
        log,
        "INSERT INTO audit_entries SELECT ?, at, who, action, subject_id, purpose, "
        "case_reference, outcome, hash FROM audit_entries WHERE sequence = 1",
        ENTRIES + 1,
    )
    assert verify(log)[2] == ENTRIES + 1


def test_what_a_chain_cannot_find_a_head_kept_elsewhere_does(log: World) -> None:
    """An honest limit: a log cut off at its end is intact, but its head is another."""
    head_kept_elsewhere = verify(log)[1]
    tamper(log, "DELETE FROM audit_entries WHERE sequence = ?", ENTRIES)
    count, head, broken_at = verify(log)
    assert (count, broken_at) == (ENTRIES - 1, 0)
    assert head != head_kept_elsewhere


def test_a_transaction_that_fails_leaves_no_entry(log: World) -> None:
    def fail() -> None:
        with log.database.write() as tx:
            tx.audit.append(START, "operator:x", "never happened")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert verify(log)[0] == ENTRIES


def test_disclosures_are_the_entries_with_a_purpose_newest_first(log: World) -> None:
    with log.database.write() as tx:
        tx.audit.append(START, "operator:x", "RegisterService.ChangeResidence", "R-3")
        tx.audit.append(START, "operator:y", "second look", "R-3", Purpose("own-record", "case 9"))
    with log.database.read() as tx:
        shown = tx.audit.about(["R-3"], None, 10)
        assert [entry.action for entry in shown] == [
            "second look",
            "RegisterService.GetRegistrant",
        ]
        assert tx.audit.about(["R-3"], None, 1) == shown[:1]
        assert tx.audit.about(["R-3"], shown[0].sequence, 10) == shown[1:]
        assert tx.audit.about(["R-99"], None, 10) == []
