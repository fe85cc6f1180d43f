"""Certificates, sessions, submissions and tokens in hands that they were not given to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from anju.v1 import (
    adjudication_pb2,
    adjudication_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    enrolment_pb2,
    enrolment_pb2_grpc,
    matching_pb2,
    matching_pb2_grpc,
    operators_pb2,
    operators_pb2_grpc,
    permits_pb2,
    permits_pb2_grpc,
    register_pb2,
    register_pb2_grpc,
    terminals_pb2,
    terminals_pb2_grpc,
)
from devices import keys
from devices.credentials import load
from devices.errors import RemoteError
from devices.terminal import Connection, TerminalClient, connect, log_in, log_out, provision
from devices.terminal.session import OperatorSession, keep, opened
from devices.terminal.wire import (
    create_token,
    enrol_operator,
    enrol_packed,
    new_idempotency_key,
)
from devices.token import new_token, parse_token
from devices.types import OperatorRole
from tests.devices.loopback import Proxy
from tests.identity.service_kit import (
    PURPOSE,
    application,
    refusal,
    refusal_of,
    samples_of,
    working_at,
)
from tests.security.target import Target

Code = grpc.StatusCode
ENROL = "EnrolmentService.Enrol"


def enrolment(connection: Connection) -> enrolment_pb2_grpc.EnrolmentServiceStub:
    return enrolment_pb2_grpc.EnrolmentServiceStub(connection.channel)


def who(home: Path) -> str:
    return f"terminal:{home.name}"


# -- certificates ----


def test_a_revoked_terminal_is_refused_on_the_connection_that_it_had_open(target: Target) -> None:
    home = target.new_terminal()
    with working_at(home) as open_before:
        assert enrolment(open_before).Enrol(application(300), timeout=60).application
        target.revoke_terminal(home.name)
        with target.counting("authorisation", 1, 1):
            told = refusal(lambda: enrolment(open_before).Enrol(application(301), timeout=60))
    assert (told.code, told.reason) == (Code.PERMISSION_DENIED, "CERTIFICATE_REVOKED")
    assert target.has_entry(who(home), ENROL, told.reason)
    with working_at(home) as new, target.counting("authorisation", 1, 1):
        told = refusal(lambda: enrolment(new).Enrol(application(301), timeout=60))
    assert (told.code, told.reason) == (Code.PERMISSION_DENIED, "CERTIFICATE_REVOKED")


def audit_log(channel: grpc.Channel) -> Any:
    return audit_pb2_grpc.AuditServiceStub(channel).ListEntries(audit_pb2.ListEntriesRequest())


def lookup(channel: grpc.Channel) -> Any:
    query = register_pb2.GetRegistrantRequest(registrant_id="R1", purpose=PURPOSE)
    return register_pb2_grpc.RegisterServiceStub(channel).GetRegistrant(query)


def search(channel: grpc.Channel) -> Any:
    query = matching_pb2.IdentifyRequest(samples=samples_of(300), purpose=PURPOSE)
    return matching_pb2_grpc.MatchingServiceStub(channel).Identify(query)


def another_terminal(channel: grpc.Channel) -> Any:
    query = terminals_pb2.CreateProvisioningTokenRequest(
        idempotency_key=new_idempotency_key(), station_id="east-gate", terminal_id="another"
    )
    return terminals_pb2_grpc.TerminalServiceStub(channel).CreateProvisioningToken(query)


def new_operator(channel: grpc.Channel) -> Any:
    query = operators_pb2.EnrolOperatorRequest(
        idempotency_key=new_idempotency_key(), operator_id="mallory", new_password=True
    )
    return operators_pb2_grpc.OperatorServiceStub(channel).EnrolOperator(query)


def decision(channel: grpc.Channel) -> Any:
    query = adjudication_pb2.DecideCaseRequest(
        idempotency_key=new_idempotency_key(), case_id="C1", reason="because"
    )
    return adjudication_pb2_grpc.AdjudicationServiceStub(channel).DecideCase(query)


def permit(channel: grpc.Channel) -> Any:
    query = permits_pb2.IssuePermitRequest(
        idempotency_key=new_idempotency_key(), registrant_id="R1"
    )
    return permits_pb2_grpc.PermitServiceStub(channel).IssuePermit(query)


@pytest.mark.parametrize(
    ("call", "method"),
    [
        (audit_log, "AuditService.ListEntries"),
        (lookup, "RegisterService.GetRegistrant"),
        (search, "MatchingService.Identify"),
        (another_terminal, "TerminalService.CreateProvisioningToken"),
        (new_operator, "OperatorService.EnrolOperator"),
        (decision, "AdjudicationService.DecideCase"),
        (permit, "PermitService.IssuePermit"),
    ],
)
def test_a_terminal_does_no_operators_work_whoever_is_logged_in_there(
    target: Target, call: Callable[[grpc.Channel], Any], method: str
) -> None:
    home = target.new_terminal(operator="operator-1")  # who may do all of it elsewhere
    with working_at(home) as connection, target.counting("authorisation", 1, 1):
        told = refusal(lambda: call(connection.channel))
    assert (told.code, told.reason) == (Code.PERMISSION_DENIED, "METHOD_NOT_ALLOWED")
    assert target.has_entry(who(home), method, told.reason)


def test_an_administrators_certificate_captures_nobody(target: Target) -> None:
    with target.counting("authorisation", 1, 1):
        told = refusal(lambda: enrolment(target.administrator).Enrol(application(300)))
    assert (told.code, told.reason) == (Code.PERMISSION_DENIED, "METHOD_NOT_ALLOWED")
    assert target.has_entry("operator:operator-1", ENROL, told.reason)


def test_the_work_of_another_station_is_unknown_to_a_terminal_and_its_asking_is_noted(
    target: Target,
) -> None:
    here, elsewhere = target.new_terminal("east-gate"), target.new_terminal("west-gate")
    with working_at(here) as mine, working_at(elsewhere) as theirs:
        done = enrolment(mine).Enrol(application(302), timeout=60).application
        query = enrolment_pb2.GetApplicationRequest(application_id=done.application_id)
        with target.counting("authorisation", 1, 1):
            told = refusal(lambda: enrolment(theirs).GetApplication(query))
        # As of one that does not exist, which is no offence.
        query.application_id = "0" * len(done.application_id)
        with target.counting("authorisation", 0, 0):
            unknown = refusal(lambda: enrolment(theirs).GetApplication(query))
    assert (told.code, told.reason) == (Code.NOT_FOUND, "APPLICATION_UNKNOWN")
    assert (unknown.code, unknown.reason, unknown.detail) == (told.code, told.reason, told.detail)
    assert unknown.message.replace("0" * len(done.application_id), done.application_id) == (
        told.message
    )
    method = "EnrolmentService.GetApplication"
    noted = [one for one in target.entries() if one.who == who(elsewhere) and one.action == method]
    assert [one.outcome for one in noted] == ["WITHHELD: APPLICATION_UNKNOWN"]


# -- sessions ----


def of_another_terminal(target: Target, home: Path) -> None:
    keep(home, OperatorSession.current(target.new_terminal()))


def logged_out(target: Target, home: Path) -> None:
    session = OperatorSession.current(home)
    assert log_out(home)
    keep(home, session)  # somebody kept a copy of the file


def of_a_revoked_operator(target: Target, home: Path) -> None:
    key = target.login_key()
    roles = [OperatorRole.STATION]
    enrol_operator(target.administrator, "revoked", roles, keys.public_bytes(key))
    log_in(home, "revoked", login_key=key)
    operators_pb2_grpc.OperatorServiceStub(target.administrator.channel).RevokeOperator(
        operators_pb2.RevokeOperatorRequest(
            idempotency_key=new_idempotency_key(), operator_id="revoked", reason="left"
        )
    )


def invented(target: Target, home: Path) -> None:
    keep(home, replace(OperatorSession.current(home), token="A" * 43))


@pytest.mark.parametrize(
    ("take", "reason"),
    [
        (of_another_terminal, "SESSION_INVALID"),
        (logged_out, "SESSION_EXPIRED"),
        (of_a_revoked_operator, "SESSION_REVOKED"),
        (invented, "SESSION_INVALID"),
    ],
)
def test_a_session_that_is_over_or_anothers_enrols_nobody(
    target: Target, take: Callable[[Target, Path], None], reason: str
) -> None:
    home = target.new_terminal()
    take(target, home)
    with working_at(home) as connection, target.counting("authentication", 1, 1):
        told = refusal(lambda: enrolment(connection).Enrol(application(303), timeout=60))
    assert (told.code, told.reason) == (Code.UNAUTHENTICATED, reason)
    assert target.has_entry(who(home), ENROL, reason)


@pytest.mark.parametrize("name", ["yesterday-1", "idle-1"])
def test_a_session_that_has_expired_enrols_nobody(target: Target, name: str) -> None:
    home = target.directory / "terminals" / name
    token = OperatorSession.current(home, datetime.fromtimestamp(0, UTC)).token
    with connect(home) as connection, target.counting("authentication", 1, 1):
        shown = (("anju-session", token),)
        stub = enrolment(connection)
        told = refusal(lambda: stub.Enrol(application(303), timeout=60, metadata=shown))
    assert (told.code, told.reason) == (Code.UNAUTHENTICATED, "SESSION_EXPIRED")
    assert target.has_entry(who(home), ENROL, told.reason)


def test_guessing_a_password_is_slowed_down_and_the_operator_works_elsewhere(
    target: Target,
) -> None:
    roles = [OperatorRole.STATION]
    first = enrol_operator(target.administrator, "guessed", roles, new_password=True)
    home, elsewhere = target.new_terminal(operator=""), target.new_terminal(operator="")
    public = keys.public_bytes(target.login_key())
    with connect(home) as connection:
        stub = operators_pb2_grpc.OperatorServiceStub(connection.channel)

        def guess(number: int) -> grpc.RpcError:
            with pytest.raises(grpc.RpcError) as caught:
                stub.LogIn(
                    operators_pb2.LogInRequest(
                        operator_id="guessed", password=f"guess {number}", session_key=public
                    )
                )
            return caught.value

        with target.counting("authentication", 5, 5):
            told = {refusal_of(guess(number)).reason for number in range(5)}
        assert told == {"LOGIN_REFUSED"}
        with target.counting("attempts", 3, 3):
            errors = [guess(number) for number in range(5, 8)]
    for error in errors:
        slowed = refusal_of(error)
        assert (slowed.code, slowed.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_ATTEMPTS")
        assert 0 < retry_s(error) <= 600
    mine = [
        (one.subject_id, one.outcome)
        for one in target.entries()
        if one.who == who(home) and one.action == "OperatorService.LogIn"
    ]
    assert mine == [("guessed", "LOGIN_REFUSED"), ("", "TOO_MANY_ATTEMPTS")]
    log_in(elsewhere, "guessed", password=first, new_password="a phrase of my own")


def retry_s(error: Any) -> int:
    status, info = rpc_status.from_call(error), RetryInfo()
    assert status is not None
    assert any(detail.Unpack(info) for detail in status.details)
    return int(info.retry_delay.seconds)


# -- replays ----


@pytest.fixture
def recorded(target: Target) -> tuple[Path, Any, bytes]:
    """A signed submission as it went over the wire: its terminal, metadata and bytes."""
    home = target.new_terminal()
    request = application(310 + int(home.name.rpartition("-")[2]) % 50).SerializeToString()
    metadata, packed = opened(OperatorSession.current(home).vouched(ENROL, request))
    return home, metadata, packed


def test_a_submission_sent_again_is_the_same_enrolment(
    target: Target, recorded: tuple[Path, Any, bytes]
) -> None:
    home, metadata, packed = recorded
    with connect(home) as connection:
        made = [enrol_packed(connection, packed, 60, metadata) for _ in range(3)]
    assert made[0].registrant_id
    assert len(set(made)) == 1


def test_other_content_under_its_key_is_refused(
    target: Target, recorded: tuple[Path, Any, bytes]
) -> None:
    home, metadata, packed = recorded
    known = enrolment_pb2.EnrolRequest.FromString(packed)
    with working_at(home) as connection:
        enrol_packed(connection, packed, 60, metadata)
        forged = application(309, key=known.idempotency_key)
        with target.counting("replay", 1, 1):
            told = refusal(lambda: enrolment(connection).Enrol(forged, timeout=60))
    assert (told.code, told.reason) == (Code.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT")
    assert target.has_entry(
        f"operator:operator-1 terminal:{home.name} station:east-gate", ENROL, told.reason
    )


@pytest.mark.parametrize("sent_before", [True, False])
def test_a_recorded_submission_is_no_use_to_another_terminal(
    target: Target, recorded: tuple[Path, Any, bytes], sent_before: bool
) -> None:
    home, metadata, packed = recorded
    thief = target.new_terminal()
    with connect(home) as connection:
        if sent_before:
            enrol_packed(connection, packed, 60, metadata)
    with (
        connect(thief) as stolen,
        target.counting("authentication", 1, 1),
        pytest.raises(RemoteError) as caught,
    ):
        enrol_packed(stolen, packed, 60, metadata)
    assert (caught.value.status, caught.value.reason) == ("UNAUTHENTICATED", "SESSION_INVALID")
    assert target.has_entry(who(thief), ENROL, "SESSION_INVALID")


def test_a_signature_is_good_for_one_submission_only(
    target: Target, recorded: tuple[Path, Any, bytes]
) -> None:
    home, metadata, packed = recorded
    other = enrolment_pb2.EnrolRequest.FromString(packed)
    other.permit_requested = not other.permit_requested
    with (
        connect(home) as connection,
        target.counting("authentication", 1, 1),
        pytest.raises(RemoteError) as caught,
    ):
        enrol_packed(connection, other.SerializeToString(), 60, metadata)
    assert (caught.value.status, caught.value.reason) == ("UNAUTHENTICATED", "PROOF_INVALID")
    assert target.has_entry(who(home), ENROL, "PROOF_INVALID")


# -- provisioning tokens ----


def reprovisioned(target: Target, token: str, home: Path) -> str:
    with pytest.raises(RemoteError) as caught:
        provision(target.provisioning, token, home, target.main)
    assert caught.value.status == "UNAUTHENTICATED"
    return caught.value.reason


def test_a_token_is_good_for_one_key_only(target: Target, tmp_path: Path) -> None:
    token = create_token(target.administrator, "east-gate", "token-1")
    provision(target.provisioning, token, tmp_path / "first", target.main)
    with target.counting("authentication", 1, 1):
        assert reprovisioned(target, token, tmp_path / "second") == "TOKEN_INVALID"
    # Who lost the answer asks again with the key that it has.
    (tmp_path / "first" / "certificate.pem").unlink()
    provision(target.provisioning, token, tmp_path / "first", target.main)
    with TerminalClient(tmp_path / "first") as terminal:
        assert terminal.certificate_expiry() > datetime.now(UTC)
    noted(target)


def test_a_token_of_yesterday_is_good_for_nothing(target: Target, tmp_path: Path) -> None:
    token = (target.directory / "token-of-yesterday").read_text()
    with target.counting("authentication", 1, 1):
        assert reprovisioned(target, token, tmp_path / "late") == "TOKEN_INVALID"
    noted(target)


def test_a_token_that_a_later_one_replaced_is_good_for_nothing(
    target: Target, tmp_path: Path
) -> None:
    earlier = create_token(target.administrator, "east-gate", "token-2")
    create_token(target.administrator, "east-gate", "token-2")
    with target.counting("authentication", 1, 1):
        assert reprovisioned(target, earlier, tmp_path / "earlier") == "TOKEN_INVALID"
    noted(target)


def noted(target: Target) -> None:
    """Nobody is known there: the first in a minute has an entry, the others are its number."""
    outcomes = {
        one.outcome.split(": ")[-1]
        for one in target.entries()
        if (one.who, one.action) == ("anonymous", "TerminalService.Provision")
    }
    assert "TOKEN_INVALID" in outcomes


def test_guessing_tokens_is_slowed_down_and_terminals_elsewhere_are_provisioned(
    target: Target, tmp_path: Path
) -> None:
    """The attacker's address is another one than that of the station next door."""
    honest = create_token(target.administrator, "east-gate", "token-3")
    credentials = grpc.ssl_channel_credentials(load(target.new_terminal(operator="")).ca_pem)
    with (
        Proxy(target.provisioning, source="127.0.0.9") as proxy,
        target.channel(credentials, proxy.address) as channel,
    ):
        stub = terminals_pb2_grpc.TerminalServiceStub(channel)

        def guess() -> grpc.RpcError:
            """Well formed, for this server, and never given to anybody."""
            wrong = new_token(parse_token(honest).fingerprint).text()
            with pytest.raises(grpc.RpcError) as caught:
                stub.Provision(terminals_pb2.ProvisionRequest(token=wrong), timeout=10)
            return caught.value

        with target.counting("authentication", 10, 10):
            told = {refusal_of(guess()).reason for _ in range(10)}
        assert told == {"TOKEN_INVALID"}
        with target.counting("attempts", 1, 1):
            slowed = guess()
        told_slowed = refusal_of(slowed)
        assert (told_slowed.code, told_slowed.reason) == (
            Code.RESOURCE_EXHAUSTED,
            "TOO_MANY_ATTEMPTS",
        )
        assert 0 < retry_s(slowed) <= 600
        provision(target.provisioning, honest, tmp_path / "honest", target.main)
    assert target.has_entry("anonymous", "TerminalService.Provision", "TOO_MANY_ATTEMPTS")
    noted(target)


def test_nobody_is_provisioned_over_a_terminals_connection(target: Target) -> None:
    home = target.new_terminal(operator="")
    with connect(home) as connection, target.counting("authorisation", 1, 1):
        stub = terminals_pb2_grpc.TerminalServiceStub(connection.channel)
        told = refusal(lambda: stub.Provision(terminals_pb2.ProvisionRequest(token="x")))
    assert told.code is Code.PERMISSION_DENIED
    assert target.has_entry(who(home), "TerminalService.Provision", told.reason)


def test_the_open_port_serves_nothing_that_needs_a_certificate(target: Target) -> None:
    credentials = grpc.ssl_channel_credentials(target.own.ca_pem)
    with target.channel(credentials, target.provisioning) as channel:
        stub = terminals_pb2_grpc.TerminalServiceStub(channel)
        with target.counting("authentication", 1, 1):
            told = refusal(lambda: stub.ListTerminals(terminals_pb2.ListTerminalsRequest()))
        missing = refusal(lambda: audit_log(channel))
    assert (told.code, told.reason) == (Code.UNAUTHENTICATED, "CERTIFICATE_MISSING")
    assert missing.code is Code.UNIMPLEMENTED
    assert target.has_entry("anonymous", "TerminalService.ListTerminals", told.reason)
