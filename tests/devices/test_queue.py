"""The queue by itself: what is kept, what is refused, what a copy of it gives away."""

from __future__ import annotations

import errno
import os
import stat
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from devices.errors import (
    OfflineTooLongError,
    QueueError,
    QueueFullError,
    SubmissionInvalidError,
)
from devices.terminal import ApplicationState, EntryState, Limits
from devices.terminal.disk import Disk, locked
from devices.terminal.queue import KEY_FILE, MAX_REQUEST_BYTES, QUEUE_FOLDER, SubmissionQueue
from devices.terminal.types import Application, Permit
from tests.devices.terminal_kit import Clock, Fate, Killed, mortal

REQUEST = b"name and fingerprints of 330106199001011234"


def key(number: int) -> str:
    return f"key-{number:016}"


def answer(state: ApplicationState = ApplicationState.ENROLLED) -> Application:
    return Application("A-1", state, "R-1", "", None, False)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> SubmissionQueue:
    return SubmissionQueue(tmp_path, now=clock)


def again(tmp_path: Path, clock: Clock) -> SubmissionQueue:
    return SubmissionQueue(tmp_path, now=clock)


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / QUEUE_FOLDER).glob("*.entry"))


def test_what_was_put_is_there_after_a_restart_in_its_order(
    queue: SubmissionQueue, tmp_path: Path, clock: Clock
) -> None:
    for number in (3, 1, 2):
        queue.put(key(number), f"ticket {number}", REQUEST + bytes([number]))
    restarted = again(tmp_path, clock)
    assert [one.label for one in restarted.entries()] == ["ticket 3", "ticket 1", "ticket 2"]
    assert {one.state for one in restarted.entries()} == {EntryState.QUEUED}
    assert restarted.request(key(1)) == REQUEST + b"\x01"
    assert restarted.entries() == queue.entries()


def test_putting_a_key_twice_keeps_the_first(queue: SubmissionQueue) -> None:
    first = queue.put(key(1), "one", REQUEST)
    assert queue.put(key(1), "two", b"other") == first
    assert queue.request(key(1)) == REQUEST
    assert len(queue.entries()) == 1


def test_a_receipt_holds_nothing_of_the_person(
    queue: SubmissionQueue, tmp_path: Path, clock: Clock
) -> None:
    permit = Permit("P-1", clock(), "6BF with the person's name")
    queue.put(key(1), "one", REQUEST)
    size = files(tmp_path)[0].stat().st_size
    queue.mark_sent(key(1), replace(answer(), permit=permit))
    sent = again(tmp_path, clock).entry(key(1))
    assert sent.state is EntryState.SENT
    assert sent.application == answer()
    assert queue.request(key(1)) == b""
    assert files(tmp_path)[0].stat().st_size < size + 200
    assert queue.fill().entries == 0


def test_a_copy_of_the_files_gives_nothing_away(queue: SubmissionQueue, tmp_path: Path) -> None:
    queue.put(key(1), "ticket 17", REQUEST)
    queue.mark_attention(key(1), "INVALID_ARGUMENT", "FAILURE_TO_ENROL", "finger 2 is too poor")
    everything = b"".join(
        path.read_bytes() for path in (tmp_path / QUEUE_FOLDER).iterdir() if path.is_file()
    )
    for secret in (b"330106", b"ticket", b"too poor", b"FAILURE"):
        assert secret not in everything


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_files_and_key_are_the_owners_alone(queue: SubmissionQueue, tmp_path: Path) -> None:
    queue.put(key(1), "one", REQUEST)
    for path in (*files(tmp_path), tmp_path / KEY_FILE):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / KEY_FILE).chmod(0o644)
    with pytest.raises(QueueError, match="read by others"):
        SubmissionQueue(tmp_path)


def test_a_lost_key_is_not_replaced_while_entries_wait(
    queue: SubmissionQueue, tmp_path: Path
) -> None:
    queue.put(key(1), "one", REQUEST)
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(QueueError, match="missing"):
        SubmissionQueue(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "swapped"])
def test_a_damaged_file_is_shown_and_disturbs_no_other(
    queue: SubmissionQueue, tmp_path: Path, clock: Clock, damage: str
) -> None:
    for number in (1, 2, 3):
        queue.put(key(number), f"ticket {number}", REQUEST)
    first, second, _ = files(tmp_path)
    content = bytearray(first.read_bytes())
    if damage == "truncated":
        first.write_bytes(content[:-7])
    elif damage == "emptied":
        first.write_bytes(b"")
    elif damage == "flipped":
        content[40] ^= 1
        first.write_bytes(content)
    else:  # another person's file under this one's name
        first.write_bytes(second.read_bytes())
    restarted = again(tmp_path, clock)
    states = [(one.key, one.state, one.reason) for one in restarted.entries()]
    assert states[0] == (key(1), EntryState.ATTENTION, "DAMAGED")
    assert [one[1] for one in states[1:]] == [EntryState.QUEUED] * 2
    with pytest.raises(QueueError, match="damaged"):
        restarted.request(key(1))
    with pytest.raises(QueueError, match="damaged"):
        restarted.retry(key(1))
    restarted.discard(key(1))
    assert [one.key for one in restarted.entries()] == [key(2), key(3)]


def test_a_full_queue_refuses_by_count(tmp_path: Path, clock: Clock) -> None:
    queue = SubmissionQueue(tmp_path, Limits(max_entries=2), clock)
    queue.put(key(1), "one", REQUEST)
    queue.put(key(2), "two", REQUEST)
    with pytest.raises(QueueFullError, match="2 submissions wait"):
        queue.put(key(3), "three", REQUEST)
    queue.put(key(2), "two", REQUEST)  # handed in again: it is there
    queue.mark_sent(key(1), answer())
    queue.put(key(3), "three", REQUEST)
    assert len(queue.entries()) == 3


def test_a_full_queue_refuses_by_size(tmp_path: Path, clock: Clock) -> None:
    queue = SubmissionQueue(tmp_path, Limits(max_bytes=MAX_REQUEST_BYTES), clock)
    queue.put(key(1), "one", bytes(600_000))
    with pytest.raises(QueueFullError, match="MiB wait"):
        queue.put(key(2), "two", bytes(400_000))
    assert len(queue.entries()) == 1


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, clock: Clock) -> None:
    class FullDisk(Disk):
        def write(self, name: str, content: bytes) -> None:
            if ".entry" in name:
                super().write(name, content[:10])
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write(name, content)

    queue = SubmissionQueue(tmp_path, now=clock, disk=FullDisk)
    with pytest.raises(QueueFullError, match="disk is full"):
        queue.put(key(1), "one", REQUEST)
    assert queue.entries() == []
    assert not list((tmp_path / QUEUE_FOLDER).glob(".*.new"))


def test_without_contact_it_stops_taking_and_starts_again(
    queue: SubmissionQueue, tmp_path: Path, clock: Clock
) -> None:
    clock.advance(timedelta(days=6, hours=23))
    queue.put(key(1), "one", REQUEST)
    clock.advance(timedelta(hours=1))
    with pytest.raises(OfflineTooLongError, match="7 days"):
        again(tmp_path, clock).put(key(2), "two", REQUEST)
    queue.contacted()
    assert again(tmp_path, clock).put(key(2), "two", REQUEST).state is EntryState.QUEUED


def test_a_clock_that_was_put_back_is_no_silence(queue: SubmissionQueue, clock: Clock) -> None:
    clock.advance(timedelta(days=-400))
    assert queue.silence() == timedelta(0)
    queue.contacted()
    clock.advance(timedelta(days=2))
    assert queue.silence() == timedelta(days=2)


def test_a_damaged_note_of_contact_counts_as_none(
    queue: SubmissionQueue, tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / QUEUE_FOLDER / "contact").write_bytes(b"2026")
    with pytest.raises(OfflineTooLongError):
        again(tmp_path, clock).put(key(1), "one", REQUEST)


def test_transitions(queue: SubmissionQueue) -> None:
    queue.put(key(1), "one", REQUEST)
    for illegal in (queue.retry, queue.discard):
        with pytest.raises(QueueError, match="queued"):
            illegal(key(1))
    refused = queue.mark_attention(key(1), "INVALID_ARGUMENT", "DETAILS_INVALID", "birth date")
    assert (refused.status, refused.reason) == ("INVALID_ARGUMENT", "DETAILS_INVALID")
    assert refused.message == "birth date"
    assert queue.fill().entries == 1
    assert queue.retry(key(1)).reason == ""
    assert queue.request(key(1)) == REQUEST
    queue.mark_sent(key(1), answer())
    for illegal in (queue.retry, queue.discard):
        with pytest.raises(QueueError, match="sent"):
            illegal(key(1))
    # A late refusal of what was acknowledged changes nothing.
    assert queue.mark_attention(key(1), "INTERNAL", "", "").state is EntryState.SENT
    with pytest.raises(QueueError, match="no submission"):
        queue.entry(key(2))


def test_receipts_are_forgotten_after_a_while(queue: SubmissionQueue, clock: Clock) -> None:
    queue.put(key(1), "one", REQUEST)
    queue.put(key(2), "two", REQUEST)
    queue.mark_sent(key(1), answer())
    clock.advance(timedelta(days=29))
    assert queue.prune() == 0
    clock.advance(timedelta(days=2))
    assert queue.prune() == 1
    assert [one.key for one in queue.entries()] == [key(2)]


@pytest.mark.parametrize(
    ("the_key", "label", "request_bytes"),
    [
        ("short", "one", b""),
        ("../../../../etc/passwd", "one", b""),
        (key(1), "", b""),
        (key(1), "x" * 101, b""),
        (key(1), "two\nlines", b""),
        (key(1), "one", bytes(MAX_REQUEST_BYTES + 1)),
    ],
)
def test_what_is_malformed_is_not_kept(
    queue: SubmissionQueue, the_key: str, label: str, request_bytes: bytes
) -> None:
    with pytest.raises(SubmissionInvalidError):
        queue.put(the_key, label, request_bytes)
    assert queue.entries() == []


def test_limits_that_make_no_sense_are_refused() -> None:
    for wrong in (
        {"max_entries": 0},
        {"max_bytes": 10},
        {"offline_warning": timedelta(days=9)},
        {"offline_limit": timedelta(0)},
    ):
        with pytest.raises(QueueError):
            Limits(**wrong)


def test_the_key_of_a_submission_depends_on_its_parts_and_on_the_terminal(tmp_path: Path) -> None:
    one, two = SubmissionQueue(tmp_path / "1"), SubmissionQueue(tmp_path / "2")
    keys = {
        one.key_for(b"ab", b"c"),
        one.key_for(b"a", b"bc"),
        one.key_for(b"abc"),
        two.key_for(b"abc"),
    }
    assert len(keys) == 4
    assert one.key_for(b"abc") == SubmissionQueue(tmp_path / "1").key_for(b"abc")
    assert {len(one) for one in keys} == {32}


def test_threads_that_put_at_once_lose_nothing(tmp_path: Path, clock: Clock) -> None:
    queues = [SubmissionQueue(tmp_path, now=clock) for _ in range(4)]

    def put(number: int) -> None:
        for count in range(10):
            queues[number].put(key(10 * number + count), "one", REQUEST)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(queues[0].entries()) == 40


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    with locked(tmp_path / "lock") as first:
        assert first
        with locked(tmp_path / "lock", wait=False) as second:
            assert not second
    with locked(tmp_path / "lock", wait=False) as third:
        assert third


@pytest.mark.parametrize("power", [False, True])
def test_whenever_it_dies_an_entry_is_whole_or_absent(tmp_path: Path, power: bool) -> None:
    """Every step of put, refuse, retry and send is the last once."""
    deaths = 0
    for after in range(200):
        home = tmp_path / str(after)
        home.mkdir()
        clock, fate, done = Clock(), Fate(after, power), []
        try:
            queue = SubmissionQueue(home, now=clock, disk=mortal(fate))
            done.append("opened")
            queue.put(key(1), "one", REQUEST)
            done.append("put")
            queue.mark_attention(key(1), "INVALID_ARGUMENT", "X", "why")
            done.append("refused")
            queue.retry(key(1))
            done.append("again")
            queue.mark_sent(key(1), answer())
            done.append("sent")
        except Killed:
            deaths += 1
        survivor = SubmissionQueue(home, now=clock)
        states = [one.state for one in survivor.entries()]
        last = done[-1] if done else ""
        allowed_after: dict[str, list[list[EntryState]]] = {
            "": [[]],
            "opened": [[], [EntryState.QUEUED]],
            "put": [[EntryState.QUEUED], [EntryState.ATTENTION]],
            "refused": [[EntryState.ATTENTION], [EntryState.QUEUED]],
            "again": [[EntryState.QUEUED], [EntryState.SENT]],
            "sent": [[EntryState.SENT]],
        }
        assert states in allowed_after[last], (after, last)
        if states not in ([], [EntryState.SENT]):
            assert survivor.request(key(1)) == REQUEST
        assert not list((home / QUEUE_FOLDER).glob(".*.new"))
        if done[-1:] == ["sent"]:
            break
    assert deaths >= 15
