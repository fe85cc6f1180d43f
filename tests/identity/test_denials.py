"""Denied calls in the audit log: each caller's first at once, the others as a number."""

from __future__ import annotations

from datetime import timedelta
from typing import NoReturn

import pytest

from devices.errors import (
    CertificateRevokedError,
    LoginRefusedError,
    OperatorRequiredError,
    SessionExpiredError,
    TooManyAttemptsError,
)
from devices.types import Principal, Role
from identity.denials import WINDOW, DenialLog
from identity.errors import (
    IdempotencyConflictError,
    InvalidRequestError,
    NotFoundError,
    OverloadError,
    StorageFullError,
    UnauthenticatedError,
    WithheldError,
)
from identity.types import AuditEntry
from tests.identity.kit import World

HALL = Principal(Role.TERMINAL, "hall-1", "east-gate")
REVOKED = CertificateRevokedError("revoked")


@pytest.fixture
def denials(world: World) -> DenialLog:
    return DenialLog(world.database, world.clock)


def entries(world: World) -> list[AuditEntry]:
    with world.database.read() as tx:
        assert tx.audit.verify()[2] == 0
        return tx.audit.entries(0, 1_000)


def test_one_caller_in_a_loop_makes_two_entries_a_minute(world: World, denials: DenialLog) -> None:
    for _second in range(120):
        for _ in range(20):
            denials.note(HALL, "EnrolmentService.Enrol", REVOKED)
        denials.flush()
        world.clock.advance(timedelta(seconds=1))
    denials.flush()
    assert [(one.who, one.outcome) for one in entries(world)] == [
        ("terminal:hall-1", "CERTIFICATE_REVOKED"),
        ("terminal:hall-1", "1199 more: CERTIFICATE_REVOKED"),
        ("terminal:hall-1", "CERTIFICATE_REVOKED"),
        ("terminal:hall-1", "1199 more: CERTIFICATE_REVOKED"),
    ]


def test_what_is_counted_is_written_before_the_server_ends(
    world: World, denials: DenialLog
) -> None:
    for _ in range(3):
        denials.note(None, "TrustService.GetTrustBundle", UnauthenticatedError("X", "x"))
    denials.flush()
    assert len(entries(world)) == 1
    denials.flush(everything=True)
    assert [(one.who, one.outcome) for one in entries(world)] == [
        ("anonymous", "X"),
        ("anonymous", "2 more: X"),
    ]


def test_what_could_not_be_written_is_counted_on_and_written_later(
    world: World, denials: DenialLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> NoReturn:
        raise StorageFullError

    for _call in range(3):
        denials.note(HALL, "EnrolmentService.Enrol", REVOKED)
    world.clock.advance(WINDOW)
    with monkeypatch.context() as patched:
        patched.setattr(world.database, "write", full)
        with pytest.raises(StorageFullError):
            denials.flush()
        with pytest.raises(StorageFullError):
            denials.note(None, "TrustService.GetTrustBundle", UnauthenticatedError("X", "x"))
    denials.note(HALL, "EnrolmentService.Enrol", REVOKED)
    world.clock.advance(WINDOW)
    denials.flush()
    denials.flush(everything=True)
    assert [(one.who, one.outcome) for one in entries(world)] == [
        ("terminal:hall-1", "CERTIFICATE_REVOKED"),
        ("terminal:hall-1", "3 more: CERTIFICATE_REVOKED"),
        ("anonymous", "1 more: X"),
    ]


def test_callers_are_counted_apart_and_so_are_those_they_claim_to_be(
    world: World, denials: DenialLog
) -> None:
    other = Principal(Role.DEPARTMENT, "education")
    for operator in ("anna", "bo"):
        denials.note(HALL, "OperatorService.LogIn", LoginRefusedError(operator))
    denials.note(other, "AuditService.ListEntries", REVOKED)
    told = [(one.who, one.action, one.subject_id) for one in entries(world)]
    assert told == [
        ("terminal:hall-1", "OperatorService.LogIn", "anna"),
        ("terminal:hall-1", "OperatorService.LogIn", "bo"),
        ("department:education", "AuditService.ListEntries", ""),
    ]


def test_a_caller_with_many_mistakes_cannot_hide_a_denial_among_them(
    world: World, denials: DenialLog
) -> None:
    for _ in range(3):
        denials.note(HALL, "EnrolmentService.Upload", InvalidRequestError("UPLOAD_INVALID", "no"))
        denials.note(HALL, "AuditService.ListEntries", REVOKED)
    assert [one.outcome for one in entries(world)] == ["UPLOAD_INVALID", "CERTIFICATE_REVOKED"]


@pytest.mark.parametrize(
    ("error", "is_denial"),
    [
        (OperatorRequiredError("log in"), True),
        (SessionExpiredError("over"), True),
        (TooManyAttemptsError(60), True),
        (InvalidRequestError("DETAILS_INVALID", "wrong"), False),
        (OverloadError("QUOTA", "too many", 1.0), False),
        (InvalidRequestError("MESSAGE_MALFORMED", "no message"), True),
        (OverloadError("UPLOADS_FULL", "too many", 1.0), True),
        (IdempotencyConflictError(), True),
        (NotFoundError("APPLICATION_UNKNOWN", "none"), False),
        (WithheldError("APPLICATION_UNKNOWN", "none"), True),
        (RuntimeError("a bug"), False),
    ],
)
def test_only_refusals_for_who_calls_or_what_no_honest_caller_sends_are_denials(
    world: World, denials: DenialLog, error: Exception, is_denial: bool
) -> None:
    denials.note(HALL, "EnrolmentService.Enrol", error)
    assert len(entries(world)) == is_denial
