"""The operator's session as the terminal keeps it."""

from __future__ import annotations

import errno
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from devices import credentials, keys
from devices.errors import NotLoggedInError, QueueFullError, SubmissionInvalidError
from devices.proof import capture_text
from devices.provisioning import Provisioning
from devices.terminal import Outbox, provision
from devices.terminal.equipment import EQUIPMENT_FILE
from devices.terminal.queue import EntryState
from devices.terminal.session import SESSION_FILE, OperatorSession, keep, log_out, opened
from devices.terminal.submission import person_from
from devices.wire import CAPTURE_PROOF_METADATA, capture_proof
from tests.devices.loopback import Register
from tests.devices.terminal_kit import PROMPT, drop, logged_in, person_json, record_of, told

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def session_at(home: Path, begun_at: datetime = START, idle: timedelta = HOUR) -> OperatorSession:
    """The register's clock says START when it is opened, the terminal's ``begun_at``."""
    session = OperatorSession(
        "s-1",
        "anna",
        "token",
        Ed25519PrivateKey.generate(),
        opened_at=START,
        expires_at=START + 12 * HOUR,
        begun_at=begun_at,
        used_at=begun_at,
        idle=idle,
    )
    keep(home, session)
    return session


def test_a_session_is_kept_for_its_owner_only(tmp_path: Path) -> None:
    session_at(tmp_path)
    mode = stat.S_IMODE((tmp_path / SESSION_FILE).stat().st_mode)
    assert mode == 0o600
    assert OperatorSession.current(tmp_path, START).operator_id == "anna"
    assert "token" not in repr(OperatorSession.current(tmp_path, START))
    os.chmod(tmp_path / SESSION_FILE, 0o644)
    with pytest.raises(NotLoggedInError, match="open to others"):
        OperatorSession.current(tmp_path, START)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"token": 1}', b"\xff"])
def test_a_damaged_session_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / SESSION_FILE
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(NotLoggedInError, match="damaged"):
        OperatorSession.current(tmp_path, START)


def test_a_session_ends_without_use_and_after_its_time(tmp_path: Path) -> None:
    session_at(tmp_path)
    for minutes in range(0, 12 * 60, 50):
        OperatorSession.current(tmp_path, START + timedelta(minutes=minutes))
    with pytest.raises(NotLoggedInError, match="over"):
        OperatorSession.current(tmp_path, START + 12 * HOUR)
    session_at(tmp_path)
    with pytest.raises(NotLoggedInError, match="over"):
        OperatorSession.current(tmp_path, START + HOUR)


@pytest.mark.parametrize("wrong", [timedelta(0), timedelta(days=-900), timedelta(days=70)])
def test_signatures_are_timed_by_the_registers_clock(tmp_path: Path, wrong: timedelta) -> None:
    session = session_at(tmp_path, START + wrong)
    now = START + wrong + timedelta(minutes=40)
    ((name, packed),), request = opened(
        OperatorSession.current(tmp_path, now).vouched("E.E", b"request", now)
    )
    assert name == CAPTURE_PROOF_METADATA
    assert isinstance(packed, bytes)
    proof = capture_proof(packed)
    assert proof.signed_at == START + timedelta(minutes=40)
    text = capture_text("s-1", "E.E", proof.signed_at, request)
    assert keys.verify_signature(keys.public_bytes(session.key), text, proof.signature)


@given(st.binary(max_size=100))
def test_a_request_comes_back_as_it_was(request_bytes: bytes) -> None:
    key = Ed25519PrivateKey.generate()
    session = OperatorSession(
        "s", "anna", "t", key, START, START + HOUR, START, START, timedelta(minutes=5)
    )
    metadata, request = opened(session.vouched("E.E", request_bytes, START))
    assert request == request_bytes
    assert len(metadata) == 1
    if not request_bytes.startswith(b"anjuvo1\0"):
        assert opened(request_bytes) == ((), request_bytes)


def test_logging_out_forgets_the_key_also_without_the_register(
    running: Register, provisioning: Provisioning, tmp_path: Path
) -> None:
    home = tmp_path / "t"
    token = provisioning.create_token("hall", "t-1").token
    provision(running.provisioning, token, home, running.main)
    with pytest.raises(NotLoggedInError):
        log_out(home)
    logged_in(home)
    assert log_out(home, address="127.0.0.1:1", deadline_s=0.5) is False
    assert not (home / SESSION_FILE).exists()


@pytest.fixture
def home(provisioned: Path) -> Path:
    return provisioned


def test_nothing_is_captured_while_nobody_is_logged_in(home: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    name = drop(spool, 1)
    with Outbox(home, spool, policy=PROMPT) as outbox:
        with pytest.raises(NotLoggedInError):
            outbox.submit(person_from(person_json(2)), [record_of(2)], label="ticket 2")
        outbox.take()
        assert told(spool, name)["state"] == "not taken"
        assert told(spool, name)["reason"] == "NOT_LOGGED_IN"
        logged_in(home)
        outbox.take()
        assert told(spool, name)["state"] == "queued"
        (home / SESSION_FILE).unlink()
        outbox.take()  # what was captured stays
        outbox.send()
        assert [one.state for one in outbox.queue.entries()] == [EntryState.SENT]


def test_a_full_disk_is_told_as_such(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session_at(home, datetime.now(UTC) - HOUR / 2)  # its use would be noted

    def full(path: Path, content: bytes, mode: int = 0o644) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(credentials, "replace", full)
    with Outbox(home, policy=PROMPT) as outbox:
        with pytest.raises(QueueFullError, match="disk is full"):
            outbox.submit(person_from(person_json(2)), [record_of(2)], label="ticket 2")
        assert outbox.queue.entries() == []


def test_a_malformed_submission_is_told_before_anybody_must_log_in(home: Path) -> None:
    with Outbox(home, policy=PROMPT) as outbox, pytest.raises(SubmissionInvalidError):
        outbox.submit(person_from(person_json(2)), [record_of(2)], label="")


def test_equipment_is_reported_and_what_is_malformed_holds_nothing_up(
    home: Path, provisioning: Provisioning
) -> None:
    logged_in(home)
    (home / EQUIPMENT_FILE).write_text('{"sensor_vendor": "v", "sensor_model": "m"}')
    with Outbox(home, policy=PROMPT) as outbox:
        outbox.send()
        (known,) = provisioning.list().terminals
        assert known.equipment is not None
        assert known.equipment.sensor_vendor == "v"
        assert known.equipment.software_version.startswith("anju")
        assert known.equipment.template_formats == ("iso-19794-2-2005",)
    for content, said in (
        ("{", "no JSON"),
        ('{"location": "hall"}', "nothing else"),
        ('{"sensor_model": 5}', "texts"),
        ('{"sensor_model": "' + "m" * 65 + '"}', "at most 64"),
    ):
        (home / EQUIPMENT_FILE).write_text(content)
        with Outbox(home, policy=PROMPT) as outbox:
            outbox.submit(person_from(person_json(2)), [record_of(2)], label="ticket 2")
            outbox.send()
            assert any(said in notice for notice in outbox.notices()), content
            assert outbox.queue.entries()[-1].state is EntryState.SENT
