"""Operators against the running server: logins, sessions, and their word for what comes later."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from anju.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    enrolment_pb2,
    enrolment_pb2_grpc,
    operators_pb2,
    operators_pb2_grpc,
    terminals_pb2,
    terminals_pb2_grpc,
)
from devices import keys
from devices.credentials import load, load_key
from devices.errors import NotLoggedInError, RemoteError
from devices.terminal import (
    Connection,
    Outbox,
    TerminalClient,
    connect,
    log_in,
    log_out,
    provision,
)
from devices.terminal.queue import EntryState
from devices.terminal.sending import SendPolicy
from devices.terminal.session import SESSION_FILE, OperatorSession, keep, opened
from devices.terminal.wire import (
    create_token,
    enrol_operator,
    enrol_packed,
    new_idempotency_key,
)
from devices.types import OperatorRole
from identity.setup import add_operator, revoke_operator
from tests.identity.kit import person, records
from tests.identity.service_kit import Service, application, refusal, refusal_of, running

Code = grpc.StatusCode
PROMPT = SendPolicy(deadline_s=20.0, first_wait_s=0.0, longest_wait_s=0.0)
PASSWORD = "a phrase of my own"
_numbers = itertools.count(1)
UNREACHABLE = "127.0.0.1:1"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("operators") / "anju") as started:
        yield started


@pytest.fixture(scope="module")
def administrator(service: Service) -> Iterator[Connection]:
    with service.operator(1) as connection:
        yield connection


@pytest.fixture
def home(service: Service, administrator: Connection) -> Path:
    """A newly provisioned terminal where nobody is logged in."""
    name = f"hall-{next(_numbers)}"
    token = create_token(administrator, "east-gate", name)
    made = service.directory / "terminals" / name
    provision(service.server.provisioning_address, token, made, service.server.address)
    return made


def first_password(administrator: Connection, operator: str) -> str:
    return enrol_operator(administrator, operator, [OperatorRole.STATION], new_password=True)


def entries(administrator: Connection) -> list[audit_pb2.AuditEntry]:
    stub = audit_pb2_grpc.AuditServiceStub(administrator.channel)
    found: list[audit_pb2.AuditEntry] = []
    while page := stub.ListEntries(
        audit_pb2.ListEntriesRequest(
            after_sequence=found[-1].sequence if found else 0, page_size=1_000
        )
    ).entries:
        found += page
    return found


def reason_of(call: Any) -> str:
    with pytest.raises(RemoteError) as caught:
        call()
    return caught.value.reason


# -- who may enrol --


def test_a_terminal_alone_enrols_nobody(service: Service, home: Path) -> None:
    with connect(home) as bare:
        stub = enrolment_pb2_grpc.EnrolmentServiceStub(bare.channel)
        refused = refusal(lambda: stub.Enrol(application(100)))
        assert (refused.code, refused.reason) == (Code.PERMISSION_DENIED, "OPERATOR_REQUIRED")
        assert "log in" in refused.message
        for metadata in ((("anju-session", "guessed"),), (("anju-capture-proof-bin", b"\x08"),)):
            refused = refusal(partial(stub.Enrol, application(100), metadata=metadata))
            assert refused.code is Code.UNAUTHENTICATED
            assert refused.reason in ("SESSION_INVALID", "PROOF_INVALID")


def test_an_enrolment_carries_operator_terminal_and_station(
    service: Service, administrator: Connection, home: Path
) -> None:
    log_in(home, "operator-2", login_key=service.login_key(2))
    with TerminalClient(home) as terminal:
        done = terminal.enrol(person(101, datetime.now(UTC)), records(101))
    who = f"operator:operator-2 terminal:{home.name} station:east-gate"
    mine = [one for one in entries(administrator) if one.subject_id == done.application_id]
    assert [(one.who, one.action) for one in mine] == [(who, "EnrolmentService.Enrol")]
    enrolled = [one for one in entries(administrator) if one.subject_id == done.registrant_id]
    assert enrolled
    assert {one.who for one in enrolled} == {who}


def test_somebody_without_the_role_captures_nothing_at_a_terminal(
    service: Service, administrator: Connection, home: Path, tmp_path: Path
) -> None:
    key = load_key(service.directory / "operators" / "operator-2")
    enrol_operator(administrator, "auditor", [OperatorRole.ADMINISTRATOR], keys.public_bytes(key))
    log_in(home, "auditor", login_key=key)
    with TerminalClient(home) as terminal:
        refused = reason_of(lambda: terminal.enrol(person(102, datetime.now(UTC)), records(102)))
    assert refused == "METHOD_NOT_ALLOWED"


# -- passwords over the wire --


def test_a_first_password_is_replaced_at_the_first_login(
    administrator: Connection, home: Path
) -> None:
    first = first_password(administrator, "chen")
    assert reason_of(lambda: log_in(home, "chen", password=first)) == ("PASSWORD_CHANGE_REQUIRED")
    log_in(home, "chen", password=first, new_password=PASSWORD)
    assert log_in(home, "chen", password=PASSWORD).operator_id == "chen"
    assert reason_of(lambda: log_in(home, "chen", password=first)) == "LOGIN_REFUSED"


def test_guessing_is_throttled_with_a_hint_at_this_terminal_only(
    service: Service, administrator: Connection, home: Path
) -> None:
    first = first_password(administrator, "dai")
    with connect(home) as bare:
        stub = operators_pb2_grpc.OperatorServiceStub(bare.channel)
        public = keys.public_bytes(service.login_key())

        def guess() -> None:
            stub.LogIn(
                operators_pb2.LogInRequest(
                    operator_id="dai", password="a wrong guess", session_key=public
                )
            )

        for _ in range(5):
            assert refusal(guess).reason == "LOGIN_REFUSED"
        with pytest.raises(grpc.RpcError) as caught:
            guess()
    refused = refusal_of(caught.value)
    assert (refused.code, refused.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_ATTEMPTS")
    told: Any = caught.value
    status = rpc_status.from_call(told)
    assert status is not None
    hints = [one for one in status.details if one.Is(RetryInfo.DESCRIPTOR)]
    retry = RetryInfo()
    assert hints
    assert hints[0].Unpack(retry)
    assert 0 < retry.retry_delay.seconds <= 600
    service.terminal("west-gate", "hall-elsewhere").close()
    elsewhere = service.directory / "terminals" / "hall-elsewhere"
    log_in(elsewhere, "dai", password=first, new_password=PASSWORD)
    failed = [
        one
        for one in entries(administrator)
        if one.action == "OperatorService.LogIn" and one.who == f"terminal:{home.name}"
    ]
    assert [(one.subject_id, one.outcome) for one in failed[:1]] == [("dai", "LOGIN_REFUSED")]
    assert len(failed) <= 2


# -- sessions --


def test_a_session_is_over_after_logout_and_bound_to_its_terminal(
    service: Service, home: Path
) -> None:
    session = log_in(home, "operator-1", login_key=service.login_key())
    service.terminal("west-gate", "hall-thief").close()
    thief = service.directory / "terminals" / "hall-thief"
    keep(thief, session)
    with TerminalClient(thief) as terminal:
        refused = reason_of(lambda: terminal.enrol(person(103, datetime.now(UTC)), records(103)))
    assert refused == "SESSION_INVALID"
    assert log_out(home)
    with pytest.raises(NotLoggedInError):
        OperatorSession.current(home)
    keep(home, session)  # somebody kept a copy of the file
    with TerminalClient(home) as terminal:
        refused = reason_of(lambda: terminal.enrol(person(103, datetime.now(UTC)), records(103)))
    assert refused == "SESSION_EXPIRED"
    assert log_out(home)  # again: it is over, and that is all right


def test_a_renewed_certificate_keeps_the_session(service: Service, home: Path) -> None:
    log_in(home, "operator-1", login_key=service.login_key())
    with TerminalClient(home) as terminal:
        terminal.renew()
    with TerminalClient(home) as terminal:
        assert terminal.enrol(person(104, datetime.now(UTC)), records(104)).registrant_id


def test_revoking_an_operator_works_on_open_connections_and_own_certificates(
    service: Service, administrator: Connection, home: Path
) -> None:
    own = add_operator(service.directory, "erin", [OperatorRole.STATION], timedelta(days=1))
    log_in(home, "erin", login_key=load_key(own))
    stub = operators_pb2_grpc.OperatorServiceStub(administrator.channel)
    with TerminalClient(home) as terminal, connect(own) as desk:
        applied = terminal.enrol(person(105, datetime.now(UTC)), records(105))
        enrolment = enrolment_pb2_grpc.EnrolmentServiceStub(desk.channel)
        ask = enrolment_pb2.GetApplicationRequest(application_id=applied.application_id)
        assert desk.call(enrolment.GetApplication, ask).application.registrant_id
        revoked = stub.RevokeOperator(
            operators_pb2.RevokeOperatorRequest(
                idempotency_key=new_idempotency_key(), operator_id="erin", reason="left"
            )
        ).operator
        assert revoked.revocation_reason == "left"
        assert not revoked.has_login_key
        now = datetime.now(UTC)
        assert reason_of(lambda: terminal.enrol(person(106, now), records(106))) == (
            "SESSION_REVOKED"
        )
        assert reason_of(lambda: desk.call(enrolment.GetApplication, ask)) == "OPERATOR_REVOKED"
    assert reason_of(lambda: log_in(home, "erin", login_key=load_key(own))) == "LOGIN_REFUSED"


def test_an_operator_can_be_revoked_from_the_servers_shell(service: Service) -> None:
    own = add_operator(service.directory, "fred", [OperatorRole.ADMINISTRATOR], timedelta(days=1))
    with connect(own) as desk:
        assert entries(desk)
        revoke_operator(service.directory, "fred", "left")
        assert refusal(lambda: entries(desk)).reason == "OPERATOR_REVOKED"


def test_a_lost_terminal_is_refused_at_once_and_comes_back_with_the_same_name(
    service: Service, administrator: Connection, home: Path
) -> None:
    log_in(home, "operator-1", login_key=service.login_key())
    before = load(home)
    stub = terminals_pb2_grpc.TerminalServiceStub(administrator.channel)
    request = terminals_pb2.ReprovisionTerminalRequest(
        idempotency_key=new_idempotency_key(), terminal_id=home.name, reason="stolen"
    )
    with TerminalClient(home) as lost:
        now = datetime.now(UTC)
        assert lost.enrol(person(107, now), records(107)).registrant_id
        answer = stub.ReprovisionTerminal(request)
        assert stub.ReprovisionTerminal(request) == answer
        assert reason_of(lambda: lost.enrol(person(108, now), records(108))) == (
            "CERTIFICATE_REVOKED"
        )
    provision(service.server.provisioning_address, answer.token, home, service.server.address)
    assert load(home).key_pem != before.key_pem
    with TerminalClient(home) as found:
        # The certificate is good again; the session that the thief may have is not.
        assert reason_of(lambda: found.enrol(person(108, now), records(108))) == "SESSION_INVALID"
        log_in(home, "operator-1", login_key=service.login_key())
        assert found.enrol(person(108, now), records(108)).registrant_id


# -- captured now, sent later --


def capture(home: Path, number: int, address: str = UNREACHABLE) -> str:
    """Captured while there is no network."""
    with Outbox(home, policy=PROMPT, address=address) as outbox:
        entry = outbox.submit(
            person(number, datetime.now(UTC)), list(records(number)), label=f"ticket {number}"
        )
        return entry.key


def test_what_was_captured_offline_is_sent_when_the_session_is_long_over(
    service: Service, administrator: Connection, home: Path
) -> None:
    log_in(home, "operator-2", login_key=service.login_key(2))
    key = capture(home, 110)
    log_out(home)
    log_in(home, "operator-1", login_key=service.login_key(1))  # the next shift sends it
    with Outbox(home, policy=PROMPT) as outbox:
        outbox.send()
        entry = outbox.entry(key)
    assert entry.state is EntryState.SENT
    assert entry.application is not None
    (mine,) = [
        one for one in entries(administrator) if one.subject_id == entry.application.application_id
    ]
    assert mine.who == f"operator:operator-2 terminal:{home.name} station:east-gate"


def test_what_was_captured_under_a_withdrawn_session_needs_another_operators_word(
    service: Service, administrator: Connection, home: Path
) -> None:
    first = first_password(administrator, "gao")
    log_in(home, "gao", password=first, new_password=PASSWORD)
    key = capture(home, 111)
    stub = operators_pb2_grpc.OperatorServiceStub(administrator.channel)
    stub.RevokeOperator(
        operators_pb2.RevokeOperatorRequest(
            idempotency_key=new_idempotency_key(), operator_id="gao", reason="dismissed"
        )
    )
    with Outbox(home, policy=PROMPT) as outbox:
        outbox.send()
        refused = outbox.entry(key)
        assert (refused.state, refused.reason) == (EntryState.ATTENTION, "SESSION_REVOKED")
        assert "another operator" in refused.message
        (home / SESSION_FILE).unlink()
        with pytest.raises(NotLoggedInError):
            outbox.retry(key)
        log_in(home, "operator-2", login_key=service.login_key(2))
        outbox.retry(key)
        outbox.send()
        entry = outbox.entry(key)
    assert entry.state is EntryState.SENT
    assert entry.application is not None
    (mine,) = [
        one for one in entries(administrator) if one.subject_id == entry.application.application_id
    ]
    assert mine.who.startswith("operator:operator-2 ")


def test_a_kept_submission_that_was_changed_is_refused(service: Service, home: Path) -> None:
    log_in(home, "operator-1", login_key=service.login_key())
    request = application(112)
    session = OperatorSession.current(home)
    kept = session.vouched("EnrolmentService.Enrol", request.SerializeToString())
    metadata, _ = opened(kept)
    forged = application(112, name=113)
    forged.idempotency_key = request.idempotency_key
    with connect(home) as connection:
        refused = reason_of(
            lambda: enrol_packed(connection, forged.SerializeToString(), 20.0, metadata)
        )
        assert refused == "PROOF_INVALID"
        # As it was signed it is taken, twice as once.
        done = [
            enrol_packed(connection, request.SerializeToString(), 20.0, metadata) for _ in range(2)
        ]
    assert done[0].application_id == done[1].application_id


def test_a_retry_by_another_operator_is_the_same_enrolment(service: Service, home: Path) -> None:
    request = application(114)
    made = set()
    for number in (1, 2):
        log_in(home, f"operator-{number}", login_key=service.login_key(number))
        with connect(home) as connection:
            metadata = OperatorSession.current(home).metadata()
            packed = request.SerializeToString()
            made.add(enrol_packed(connection, packed, 20.0, metadata).application_id)
    assert len(made) == 1


# -- the inventory and the log --


def test_the_inventory_shows_what_a_terminal_says_of_itself(
    service: Service, administrator: Connection, home: Path
) -> None:
    log_in(home, "operator-1", login_key=service.login_key())
    with Outbox(home, policy=PROMPT) as outbox:
        outbox.send()
    stub = terminals_pb2_grpc.TerminalServiceStub(administrator.channel)
    (mine,) = [
        one
        for one in stub.ListTerminals(terminals_pb2.ListTerminalsRequest(page_size=500)).terminals
        if one.terminal_id == home.name
    ]
    assert mine.equipment.software_version.startswith("anju")
    assert list(mine.equipment.template_formats) == ["iso-19794-2-2005"]
    assert len(mine.certificate_serial) > 30
    assert mine.HasField("last_contact")
    with connect(home) as bare:
        report = terminals_pb2_grpc.TerminalServiceStub(bare.channel).Heartbeat
        wrong = terminals_pb2.Equipment(sensor_model="m\n")
        refused = refusal(lambda: report(terminals_pb2.HeartbeatRequest(equipment=wrong)))
        assert report(terminals_pb2.HeartbeatRequest()).HasField("server_time")
    assert (refused.code, refused.reason) == (Code.INVALID_ARGUMENT, "ARGUMENT_INVALID")


def test_each_administrative_act_has_an_entry(
    service: Service, administrator: Connection, home: Path
) -> None:
    enrol_operator(administrator, "hua", [OperatorRole.STATION, OperatorRole.ADJUDICATOR])
    log_in(home, "operator-1", login_key=service.login_key())
    log_out(home)
    with TerminalClient(home) as terminal:
        terminal.renew()
    stub = terminals_pb2_grpc.TerminalServiceStub(administrator.channel)
    stub.ReprovisionTerminal(
        terminals_pb2.ReprovisionTerminalRequest(
            idempotency_key=new_idempotency_key(), terminal_id=home.name, reason="lost"
        )
    )
    stub.RevokeTerminal(
        terminals_pb2.RevokeTerminalRequest(
            idempotency_key=new_idempotency_key(), terminal_id=home.name, reason="gone"
        )
    )
    known = entries(administrator)
    here = f"operator:operator-1 terminal:{home.name} station:east-gate"
    about = [
        (one.who, one.action)
        for one in known
        if one.subject_id == home.name or home.name in one.who.replace(":", " ").split()
    ]
    assert about == [
        ("operator:operator-1", "TerminalService.CreateProvisioningToken"),
        ("anonymous", "TerminalService.Provision"),
        (here, "OperatorService.LogIn"),
        (here, "OperatorService.LogOut"),
        (f"terminal:{home.name}", "TerminalService.RenewCertificate"),
        ("operator:operator-1", "TerminalService.ReprovisionTerminal"),
        ("operator:operator-1", "TerminalService.RevokeTerminal"),
    ]
    (added,) = [one for one in known if one.subject_id == "hua"]
    assert (added.action, added.outcome) == (
        "OperatorService.EnrolOperator",
        "ok: adjudicator station",
    )


def test_a_caller_that_is_denied_again_and_again_fills_no_log(
    service: Service, administrator: Connection, home: Path
) -> None:
    before = len(entries(administrator))
    with connect(home) as bare:
        stub = audit_pb2_grpc.AuditServiceStub(bare.channel)
        for _ in range(100):
            refused = refusal(lambda: stub.VerifyChain(audit_pb2.VerifyChainRequest()))
            assert refused.reason == "METHOD_NOT_ALLOWED"
    added = entries(administrator)[before:]
    assert [(one.who, one.action, one.outcome) for one in added] == [
        (f"terminal:{home.name}", "AuditService.VerifyChain", "METHOD_NOT_ALLOWED")
    ]


def test_a_session_outlives_the_server(tmp_path: Path) -> None:
    from identity.app import Server, open_installation
    from identity.server_process import loopback_toml
    from identity.setup import create_installation
    from tests.identity.service_kit import admit_terminal

    directory = tmp_path / "anju"
    create_installation(directory, loopback_toml()[0])
    with open_installation(directory) as installation:
        home = admit_terminal(installation, "east-gate", "hall-1")
    with open_installation(directory) as installation:
        server = Server(installation)
        server.start()
        with TerminalClient(home) as terminal:
            assert terminal.enrol(person(120, datetime.now(UTC)), records(120)).registrant_id
        server.stop()


def test_a_signature_timed_outside_the_session_is_refused(service: Service, home: Path) -> None:
    session = log_in(home, "operator-1", login_key=service.login_key())
    early = replace(session, opened_at=session.opened_at - timedelta(hours=1))
    request = application(115).SerializeToString()
    metadata, _ = opened(early.vouched("EnrolmentService.Enrol", request))
    with connect(home) as connection:
        assert reason_of(lambda: enrol_packed(connection, request, 20.0, metadata)) == (
            "PROOF_INVALID"
        )
