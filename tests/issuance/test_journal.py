from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from issuance.authority import init_authority
from issuance.errors import JournalError, JournalLockedError, StatusTransitionError
from issuance.issuer import Issuer
from issuance.journal import BACKUP_RATE, TORN_SKIP, Journal
from issuance.types import PermitStatus, Reservation, StatusRef
from tests.issuance.kit import HOLDER, RULES, START, Clock


def describe(serial: int) -> Reservation:
    return Reservation(serial, f"T{serial}", StatusRef(1, serial))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal")
    yield opened
    opened.close()


def newest(directory: Path) -> Path:
    return sorted(directory.glob("*.log"))[-1]


def test_intent_is_on_disk_when_reserve_returns(journal: Journal, tmp_path: Path) -> None:
    journal.reserve(describe, START)
    assert b'"serial":0,"number":"T0"' in newest(tmp_path / "journal").read_bytes()


def test_reserve_syncs_before_it_returns(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(file: int) -> None:
        synced.append(file)
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    journal.reserve(describe, START)
    assert len(synced) == 1
    journal.set_status(StatusRef(1, 0), PermitStatus.REVOKED, START)
    assert len(synced) == 2


def test_waiting_writers_share_syncs(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    slow = threading.Event()

    def fsync(file: int) -> None:
        slow.wait(0.02)
        synced.append(file)
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    threads = [
        threading.Thread(target=lambda: [journal.reserve(describe, START) for _ in range(5)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.next_serial == 40
    assert len(synced) < 40


def test_second_process_is_kept_out(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(JournalLockedError):
        Journal(tmp_path / "journal")


def test_state_is_the_same_after_reopening(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j", segment_lines=7)
    for serial in range(30):
        reservation = first.reserve(describe, START)
        if serial % 3:
            first.claim(reservation)
            first.record_signed(reservation, "kid", "digest")
        if serial % 5 == 0:
            first.set_status(reservation.status, PermitStatus.SUSPENDED, START)
    first.set_status(StatusRef(1, 5), PermitStatus.VALID, START)
    statuses, unfinished = first.statuses, first.unfinished
    first.close()
    assert len(list((tmp_path / "j").glob("*.log"))) > 3
    second = Journal(tmp_path / "j")
    assert second.next_serial == 30
    assert second.statuses == statuses
    assert second.unfinished == unfinished
    assert StatusRef(1, 5) not in statuses
    second.close()


def test_every_possible_torn_end_leaves_acknowledged_numbers_unused(tmp_path: Path) -> None:
    """Cut the file within and around every line: what was acknowledged stays taken."""
    first = Journal(tmp_path / "j")
    sizes = [newest(tmp_path / "j").stat().st_size]
    for _ in range(4):
        first.reserve(describe, START)
        sizes.append(newest(tmp_path / "j").stat().st_size)
    first.close()
    whole = newest(tmp_path / "j").read_bytes()
    around = {size + step for size in sizes for step in (-1, 0, 1)}
    for cut in sorted({*range(sizes[0], len(whole) + 1, 13), *around}):
        if not sizes[0] <= cut <= len(whole):
            continue
        directory = tmp_path / f"cut{cut}"
        directory.mkdir()
        (directory / "00000001.log").write_bytes(whole[:cut])
        acknowledged = sum(size <= cut for size in sizes[1:])
        again = Journal(directory)
        serial = again.reserve(describe, START).serial
        assert serial >= acknowledged
        if cut not in sizes:
            assert serial == acknowledged + TORN_SKIP
            assert again.recovered_bytes > 0
        again.close()
        reopened = Journal(directory)
        assert reopened.next_serial == serial + 1
        assert reopened.recovered_bytes == 0
        reopened.close()


def test_opening_jumps_over_what_a_restored_backup_cannot_know(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j", segment_lines=3, now=START)
    for _ in range(7):
        first.reserve(describe, START)
    first.close()
    second = Journal(tmp_path / "j", now=START)
    assert second.next_serial == 7
    second.close()
    later = START + timedelta(seconds=10)
    third = Journal(tmp_path / "j", now=later)
    assert third.next_serial == 7 + 10 * BACKUP_RATE
    third.close()
    fourth = Journal(tmp_path / "j", now=later)
    assert fourth.next_serial == 7 + 10 * BACKUP_RATE, "a jump is journalled like anything else"
    fourth.close()
    early = Journal(tmp_path / "j", now=START)
    assert early.next_serial == 7 + 10 * BACKUP_RATE + TORN_SKIP, "a clock set back bounds nothing"
    early.close()


def test_lists_in_use_are_remembered_with_their_last_use(tmp_path: Path) -> None:
    def elsewhere(serial: int) -> Reservation:
        return Reservation(serial, f"T{serial}", StatusRef(serial // 2 + 1, serial))

    first = Journal(tmp_path / "j", segment_lines=2)
    times = [START + timedelta(days=day) for day in range(5)]
    for at in times:
        first.reserve(elsewhere, at)
    first.adopt({}, 0, [1, 9], times[4])
    expected = {1: times[1], 2: times[3], 3: times[4], 9: times[4]}
    assert first.lists == expected
    first.close()
    second = Journal(tmp_path / "j")
    assert second.lists == expected
    second.close()


def test_damage_before_the_end_is_no_crash_and_is_refused(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j")
    for _ in range(4):
        first.reserve(describe, START)
    first.close()
    path = newest(tmp_path / "j")
    good = path.read_bytes()
    middle = good.index(b'"serial":1')
    for data in (
        good[:middle] + b"X" + good[middle + 1 :],
        good[good.index(b"\n") + 1 :],
        b"",
        b"\x00" * len(good),
    ):
        path.write_bytes(data)
        with pytest.raises(JournalError):
            Journal(tmp_path / "j")
        assert path.read_bytes() == data, "a refused journal is left as it was"


def test_killed_process_never_reuses_a_number(tmp_path: Path) -> None:
    """Kill a writer for real, several times, and look for a number given out twice."""
    program = (
        "import sys; from pathlib import Path; from issuance.journal import Journal\n"
        "from tests.issuance.test_journal import describe; from tests.issuance.kit import START\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "while True: print(journal.reserve(describe, START).serial, flush=True)\n"
    )
    seen: list[int] = []
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "j")], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            seen.extend(int(next(process.stdout)) for _ in range(20))
            process.kill()
            seen.extend(int(line) for line in process.stdout if line.endswith("\n"))
    assert len(seen) >= 60
    assert len(set(seen)) == len(seen)


def test_failed_write_stops_everything(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.reserve(describe, START)

    def full(file: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(JournalError, match="No space"):
        journal.reserve(describe, START)
    monkeypatch.undo()
    for _ in range(2):
        with pytest.raises(JournalError, match="reopen"):
            journal.reserve(describe, START)


def test_failed_sync_stops_everything(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(JournalError, match="Input/output"):
        journal.reserve(describe, START)
    monkeypatch.undo()
    with pytest.raises(JournalError, match="reopen"):
        journal.set_status(StatusRef(1, 0), PermitStatus.REVOKED, START)


def test_closed_journal_writes_nothing(journal: Journal, tmp_path: Path) -> None:
    journal.close()
    journal.close()
    before = newest(tmp_path / "journal").read_bytes()
    with pytest.raises(JournalError):
        journal.reserve(describe, START)
    assert newest(tmp_path / "journal").read_bytes() == before


def test_illegal_transition_changes_nothing(journal: Journal, tmp_path: Path) -> None:
    ref = StatusRef(1, 3)
    journal.set_status(ref, PermitStatus.REVOKED, START)
    before = newest(tmp_path / "journal").read_bytes()
    with pytest.raises(StatusTransitionError):
        journal.set_status(ref, PermitStatus.VALID, START)
    assert newest(tmp_path / "journal").read_bytes() == before
    assert journal.statuses == {ref: PermitStatus.REVOKED}


def test_no_personal_data_is_written(tmp_path: Path) -> None:
    made = init_authority(tmp_path / "a", RULES, Clock())
    with Issuer.open(made.directory, Clock()) as issuer:
        issuer.issue(HOLDER)
    written = (
        newest(made.directory / "journal").read_text("utf-8").encode().decode("unicode_escape")
    )
    for value in (HOLDER.full_name, "和平路", "1990", "320505"):
        assert value not in written
