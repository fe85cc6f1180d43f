"""The service as its callers meet it: gRPC with mutual TLS on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from anju.v1 import (
    adjudication_pb2,
    adjudication_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    common_pb2,
    enrolment_pb2,
    enrolment_pb2_grpc,
    matching_pb2,
    matching_pb2_grpc,
    permits_pb2,
    permits_pb2_grpc,
    register_pb2,
    register_pb2_grpc,
    terminals_pb2,
    terminals_pb2_grpc,
    trust_pb2,
    trust_pb2_grpc,
)
from devices.authority import init_authority
from devices.credentials import load
from devices.terminal import Connection
from devices.terminal.wire import new_idempotency_key
from devices.types import Role
from identity.app import SERVICES
from identity.authorisation import ANONYMOUS_METHODS
from identity.ports import SystemClock
from issuance import verifier
from issuance.trust import TrustStore
from issuance.types import Reason
from tests.identity.kit import DATA, records
from tests.identity.service_kit import (
    PURPOSE,
    Refusal,
    Service,
    application,
    refusal,
    running,
    samples_of,
    today,
)

Code = grpc.StatusCode
TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service") / "anju") as started:
        yield started


@pytest.fixture(scope="module")
def operator(service: Service) -> Iterator[Connection]:
    with service.operator(1) as connection:
        yield connection


@pytest.fixture(scope="module")
def terminal(service: Service) -> Iterator[Connection]:
    with service.terminal("east-gate", "hall-1") as connection:
        yield connection


@pytest.fixture(scope="module")
def stranger(service: Service) -> Iterator[grpc.Channel]:
    """The provisioning port, without a client certificate."""
    credentials = grpc.ssl_channel_credentials(service.installation.authority.server.ca_pem)
    name = [("grpc.ssl_target_name_override", "localhost")]
    channel = grpc.secure_channel(service.server.provisioning_address, credentials, options=name)
    yield channel
    channel.close()


def enrol(terminal: Connection, request: enrolment_pb2.EnrolRequest) -> enrolment_pb2.Application:
    stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
    return stub.Enrol(request, timeout=TIMEOUT_S).application


def bundle_of(channel: grpc.Channel) -> TrustStore:
    stub = trust_pb2_grpc.TrustServiceStub(channel)
    return TrustStore.load(stub.GetTrustBundle(trust_pb2.GetTrustBundleRequest()).bundle)


def now(service: Service) -> Any:
    return service.installation.clock.now()


# -- the whole path ----


def test_from_capture_to_a_permit_that_a_department_verifies(
    service: Service, terminal: Connection, operator: Connection, stranger: grpc.Channel
) -> None:
    request = application(0)
    enrolled = enrol(terminal, request)
    assert enrolled.state == enrolment_pb2.APPLICATION_STATE_ENROLLED
    assert enrol(terminal, request) == enrolled
    told = verifier.verify(enrolled.permit.qr_text, bundle_of(stranger), now(service))
    assert told.reason is Reason.VALID
    assert told.shown["full_name"] == request.details.full_name

    matching = matching_pb2_grpc.MatchingServiceStub(operator.channel)
    found = matching.Identify(
        matching_pb2.IdentifyRequest(purpose=PURPOSE, samples=samples_of(0, 1))
    )
    assert [one.registrant_id for one in found.candidates] == [enrolled.registrant_id]
    assert found.candidates[0].similarity >= found.same_threshold > found.grey_threshold
    verified = matching.Verify(
        matching_pb2.VerifyRequest(
            purpose=PURPOSE, registrant_id=enrolled.registrant_id, samples=samples_of(0, 2)
        )
    )
    assert verified.is_match
    assert verified.similarity >= verified.threshold

    register = register_pb2_grpc.RegisterServiceStub(operator.channel)
    record = register.GetRegistrant(
        register_pb2.GetRegistrantRequest(
            purpose=PURPOSE, permit_number=enrolled.permit.permit_number
        )
    ).registrant
    assert record.details == request.details
    assert record.residence == request.residence
    assert list(record.fingers) == [2, 7]
    assert [permit.permit_number for permit in record.permits] == [enrolled.permit.permit_number]
    disclosures = register.ListDisclosures(
        register_pb2.ListDisclosuresRequest(registrant_id=enrolled.registrant_id)
    ).disclosures
    assert [(one.who, one.action) for one in disclosures] == [
        ("operator:operator-1", "RegisterService.GetRegistrant"),
        ("operator:operator-1", "MatchingService.Verify"),
        ("operator:operator-1", "MatchingService.Identify"),
    ]

    permits = permits_pb2_grpc.PermitServiceStub(operator.channel)
    for format_, start in (
        (permits_pb2.CARD_FORMAT_UNSPECIFIED, b"\x89PNG"),
        (permits_pb2.CARD_FORMAT_PNG, b"\x89PNG"),
        (permits_pb2.CARD_FORMAT_PDF, b"%PDF"),
    ):
        card = permits.RenderPermitCard(
            permits_pb2.RenderPermitCardRequest(
                permit_number=enrolled.permit.permit_number, format=format_
            )
        )
        assert card.card.startswith(start)
        assert card.media_type == ("application/pdf" if start == b"%PDF" else "image/png")
    permits.ChangePermitStatus(
        permits_pb2.ChangePermitStatusRequest(
            idempotency_key=new_idempotency_key(),
            permit_number=enrolled.permit.permit_number,
            state=permits_pb2.PERMIT_STATE_REVOKED,
            reason="reported lost",
        )
    )
    told = verifier.verify(enrolled.permit.qr_text, bundle_of(stranger), now(service))
    assert told.reason is Reason.REVOKED


def test_a_double_becomes_a_case_that_two_operators_close(
    service: Service, terminal: Connection, operator: Connection
) -> None:
    first = enrol(terminal, application(1))
    double = enrol(terminal, application(1, name=101, impression=1))
    assert double.state == enrolment_pb2.APPLICATION_STATE_IN_ADJUDICATION
    assert not double.HasField("permit")
    stub = adjudication_pb2_grpc.AdjudicationServiceStub(operator.channel)
    listed = stub.ListCases(adjudication_pb2.ListCasesRequest()).cases
    assert [case.case_id for case in listed] == [double.case_id]
    assert not listed[0].HasField("applicant")
    case = stub.GetCase(adjudication_pb2.GetCaseRequest(case_id=double.case_id)).case
    assert case.applicant == application(1, name=101).details
    assert case.candidates[0].registrant_id == first.registrant_id
    assert case.candidates[0].details == application(1).details
    request = adjudication_pb2.DecideCaseRequest(
        idempotency_key=new_idempotency_key(),
        case_id=double.case_id,
        verdict=adjudication_pb2.VERDICT_SAME_PERSON,
        reason="the same person",
    )
    assert stub.DecideCase(request).case.state == adjudication_pb2.CASE_STATE_AWAITING_SECOND
    request.idempotency_key = new_idempotency_key()
    assert refusal(lambda: stub.DecideCase(request)).reason == "SECOND_OPERATOR_REQUIRED"
    with service.operator(2) as second:
        other = adjudication_pb2_grpc.AdjudicationServiceStub(second.channel)
        assert other.DecideCase(request).case.state == adjudication_pb2.CASE_STATE_DECIDED
    enrolment = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
    settled = enrolment.GetApplication(
        enrolment_pb2.GetApplicationRequest(application_id=double.application_id)
    ).application
    assert settled.state == enrolment_pb2.APPLICATION_STATE_RECOGNISED
    assert settled.registrant_id == first.registrant_id
    assert settled.permit.permit_number == first.permit.permit_number


def test_leaving_and_being_forgotten(terminal: Connection, operator: Connection) -> None:
    enrolled = enrol(terminal, application(2))
    stub = register_pb2_grpc.RegisterServiceStub(operator.channel)
    day = today()
    departed = stub.RecordDeparture(
        register_pb2.RecordDepartureRequest(
            idempotency_key=new_idempotency_key(),
            registrant_id=enrolled.registrant_id,
            departure_date=common_pb2.Date(year=day.year, month=day.month, day=day.day),
        )
    ).registrant
    assert departed.state == register_pb2.REGISTRANT_STATE_DEPARTED
    erased = stub.EraseRegistrant(
        register_pb2.EraseRegistrantRequest(
            idempotency_key=new_idempotency_key(), registrant_id=enrolled.registrant_id
        )
    )
    assert erased.erased_at.seconds > 0
    record = stub.GetRegistrant(
        register_pb2.GetRegistrantRequest(purpose=PURPOSE, registrant_id=enrolled.registrant_id)
    ).registrant
    assert record.state == register_pb2.REGISTRANT_STATE_ERASED
    assert not record.HasField("details")
    assert not record.HasField("residence")


def test_the_log_over_the_wire_is_complete_and_intact(
    terminal: Connection, operator: Connection
) -> None:
    enrolled = enrol(terminal, application(3))
    stub = audit_pb2_grpc.AuditServiceStub(operator.channel)
    verified = stub.VerifyChain(audit_pb2.VerifyChainRequest())
    assert verified.intact
    assert verified.broken_at == 0
    entries: list[audit_pb2.AuditEntry] = []
    while page := stub.ListEntries(
        audit_pb2.ListEntriesRequest(
            after_sequence=entries[-1].sequence if entries else 0, page_size=7
        )
    ).entries:
        entries += page
    assert [entry.sequence for entry in entries] == list(range(1, verified.entries + 1))
    assert entries[-1].hash == verified.head
    mine = [entry for entry in entries if entry.subject_id == enrolled.application_id]
    assert [(entry.who, entry.action) for entry in mine] == [
        ("operator:operator-1 terminal:hall-1 station:east-gate", "EnrolmentService.Enrol")
    ]
    beyond = stub.ListEntries(audit_pb2.ListEntriesRequest(after_sequence=2**64 - 1))
    assert list(beyond.entries) == []


# -- who may call ----


def methods() -> list[tuple[str, Any]]:
    return [
        (f"{one.containing_service.name}.{one.name}", one)
        for module in SERVICES
        for service in module.DESCRIPTOR.services_by_name.values()
        for one in service.methods
    ]


def call_empty(channel: grpc.Channel, method: Any) -> Callable[[], Any]:
    """The method with an empty request."""
    call: Any = channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    return lambda: call(GetMessageClass(method.input_type)(), timeout=TIMEOUT_S)


@pytest.mark.parametrize("name", [name for name, _ in methods() if name not in ANONYMOUS_METHODS])
def test_the_provisioning_port_serves_strangers_nothing_else(
    stranger: grpc.Channel, name: str
) -> None:
    refused = refusal(call_empty(stranger, dict(methods())[name]))
    served = name.startswith(("TerminalService.", "TrustService."))
    assert refused.code is (Code.UNAUTHENTICATED if served else Code.UNIMPLEMENTED)


def test_the_main_port_refuses_who_has_no_certificate(service: Service) -> None:
    credentials = grpc.ssl_channel_credentials(service.installation.authority.server.ca_pem)
    name = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(service.server.address, credentials, options=name) as channel:
        for _, method in methods()[:3]:
            assert refusal(call_empty(channel, method)).code is Code.UNAVAILABLE


def test_the_main_port_refuses_certificates_of_another_authority(
    service: Service, tmp_path: Any
) -> None:
    other = init_authority(tmp_path / "other", SystemClock())
    other.write_client(
        tmp_path / "mallory", Role.OPERATOR, "operator-1", "127.0.0.1:1", timedelta(days=1)
    )
    mine = load(tmp_path / "mallory")
    credentials = grpc.ssl_channel_credentials(
        service.installation.authority.server.ca_pem, mine.key_pem, mine.certificate_pem
    )
    name = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(service.server.address, credentials, options=name) as channel:
        method = dict(methods())["AuditService.VerifyChain"]
        assert refusal(call_empty(channel, method)).code is Code.UNAVAILABLE


def test_a_revoked_terminal_is_refused_on_its_open_connection(
    service: Service, operator: Connection
) -> None:
    stub = terminals_pb2_grpc.TerminalServiceStub(operator.channel)
    with service.terminal("north-gate", "hall-9") as lost:
        before = enrol(lost, application(4))
        revoked = stub.RevokeTerminal(
            terminals_pb2.RevokeTerminalRequest(
                idempotency_key=new_idempotency_key(), terminal_id="hall-9", reason="stolen"
            )
        ).terminal
        assert revoked.state == terminals_pb2.TERMINAL_STATE_REVOKED
        refused = refusal(lambda: enrol(lost, application(5)))
        assert (refused.code, refused.reason) == (Code.PERMISSION_DENIED, "CERTIFICATE_REVOKED")
        # Nor does it learn how its own application stands, with the key it used before.
        asked = enrolment_pb2_grpc.EnrolmentServiceStub(lost.channel)
        refused = refusal(
            lambda: asked.GetApplication(
                enrolment_pb2.GetApplicationRequest(application_id=before.application_id)
            )
        )
        assert refused.reason == "CERTIFICATE_REVOKED"


def test_a_station_does_not_see_anothers_applications(
    service: Service, terminal: Connection
) -> None:
    mine = enrol(terminal, application(6))
    with service.terminal("west-gate", "hall-2") as elsewhere:
        stub = enrolment_pb2_grpc.EnrolmentServiceStub(elsewhere.channel)
        request = enrolment_pb2.GetApplicationRequest(application_id=mine.application_id)
        refused = refusal(lambda: stub.GetApplication(request))
    assert (refused.code, refused.reason) == (Code.NOT_FOUND, "APPLICATION_UNKNOWN")


def test_a_repeated_request_for_a_token_gets_the_same_token(operator: Connection) -> None:
    stub = terminals_pb2_grpc.TerminalServiceStub(operator.channel)
    for number in range(5):
        request = terminals_pb2.CreateProvisioningTokenRequest(
            idempotency_key=new_idempotency_key(),
            station_id="south-gate",
            terminal_id=f"desk-{number}",
        )
        barrier = threading.Barrier(4)

        def ask(
            _: int,
            request: terminals_pb2.CreateProvisioningTokenRequest = request,
            barrier: threading.Barrier = barrier,
        ) -> str:
            barrier.wait()
            return stub.CreateProvisioningToken(request, timeout=TIMEOUT_S).token

        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(ask, range(4)))) == 1


# -- wrong requests ----


def changed(**changes: Any) -> enrolment_pb2.EnrolRequest:
    request = application(7)
    for name, value in changes.items():
        field = getattr(request, name)
        if isinstance(field, Message):
            field.CopyFrom(value)
        else:
            setattr(request, name, value)
    return request


def with_sample(**changes: Any) -> enrolment_pb2.EnrolRequest:
    request = application(7)
    for name, value in changes.items():
        setattr(request.samples[0], name, value)
    return request


GOOD = records(7)[0]
MALFORMED: dict[str, tuple[Callable[[], enrolment_pb2.EnrolRequest], str]] = {
    "format": (lambda: with_sample(format=0), "FORMAT_UNSPECIFIED"),
    "unknown format": (lambda: with_sample(format=99), "FORMAT_UNSPECIFIED"),
    "empty": (lambda: with_sample(data=b""), ""),
    "not a record": (lambda: with_sample(data=b"\x89PNG" * 100), ""),
    "cut off": (lambda: with_sample(data=GOOD[:-1]), ""),
    "half": (lambda: with_sample(data=GOOD[: len(GOOD) // 2]), ""),
    "too long": (lambda: with_sample(data=GOOD + b"\0"), ""),
    "position": (lambda: with_sample(position=1), "POSITION_CONFLICT"),
    "no such finger": (lambda: with_sample(position=77), "BAD_POSITION"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_sample_is_refused_with_its_fault(terminal: Connection, what: str) -> None:
    make, detail = MALFORMED[what]
    refused = refusal(lambda: enrol(terminal, make()))
    assert (refused.code, refused.reason) == (Code.INVALID_ARGUMENT, "DECODE_FAILED")
    assert refused.detail
    assert refused.detail == detail or not detail


@pytest.mark.parametrize("path", sorted((DATA / "invalid").glob("*.iso")), ids=lambda p: p.name)
def test_known_bad_records_are_refused(terminal: Connection, path: Any) -> None:
    refused = refusal(lambda: enrol(terminal, with_sample(data=path.read_bytes())))
    assert (refused.code, refused.reason) == (Code.INVALID_ARGUMENT, "DECODE_FAILED")
    assert refused.detail


WRONG: dict[str, tuple[Callable[[], enrolment_pb2.EnrolRequest], str]] = {
    "no key": (lambda: changed(idempotency_key=""), "IDEMPOTENCY_KEY_INVALID"),
    "no details": (
        lambda: changed(details=common_pb2.PersonalDetails()),
        "DETAILS_INVALID",
    ),
    "no residence": (lambda: changed(residence=common_pb2.Residence()), "DETAILS_INVALID"),
    "no such day": (
        lambda: changed(
            residence=common_pb2.Residence(
                division_code="999999",
                address="样板路1号",
                arrival_date=common_pb2.Date(year=2026, month=2, day=30),
            )
        ),
        "DETAILS_INVALID",
    ),
    "no such gender": (
        lambda: changed(details=common_pb2.PersonalDetails(gender=9)),  # type: ignore[arg-type]
        "DETAILS_INVALID",
    ),
    "no such instant": (
        lambda: _captured(10**15),
        "DETAILS_INVALID",
    ),
    "no samples": (lambda: _without_samples(), "SAMPLES_MISSING"),
}


def _captured(seconds: int) -> enrolment_pb2.EnrolRequest:
    request = application(7)
    request.captured_at.seconds = seconds
    return request


def _without_samples() -> enrolment_pb2.EnrolRequest:
    request = application(7)
    del request.samples[:]
    return request


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_application_is_an_invalid_argument(terminal: Connection, what: str) -> None:
    make, reason = WRONG[what]
    refused = refusal(lambda: enrol(terminal, make()))
    assert (refused.code, refused.reason) == (Code.INVALID_ARGUMENT, reason)


def test_a_key_used_for_another_request_is_refused(terminal: Connection) -> None:
    key = new_idempotency_key()
    enrol(terminal, application(8, key=key))
    refused = refusal(lambda: enrol(terminal, application(9, key=key)))
    assert (refused.code, refused.reason) == (Code.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT")


KEY = "a-key-of-sixteen-or-more"
UNKNOWN: dict[str, tuple[Callable[[grpc.Channel], Any], str]] = {
    "permit": (
        lambda channel: permits_pb2_grpc.PermitServiceStub(channel).GetPermit(
            permits_pb2.GetPermitRequest(permit_number="T-0")
        ),
        "PERMIT_UNKNOWN",
    ),
    "a very long permit": (
        lambda channel: permits_pb2_grpc.PermitServiceStub(channel).GetPermit(
            permits_pb2.GetPermitRequest(permit_number="号" * 50_000)
        ),
        "PERMIT_UNKNOWN",
    ),
    "card": (
        lambda channel: permits_pb2_grpc.PermitServiceStub(channel).RenderPermitCard(
            permits_pb2.RenderPermitCardRequest(permit_number="T-0")
        ),
        "PERMIT_UNKNOWN",
    ),
    "permit for": (
        lambda channel: permits_pb2_grpc.PermitServiceStub(channel).IssuePermit(
            permits_pb2.IssuePermitRequest(idempotency_key=KEY, registrant_id="R-0")
        ),
        "REGISTRANT_UNKNOWN",
    ),
    "registrant": (
        lambda channel: register_pb2_grpc.RegisterServiceStub(channel).GetRegistrant(
            register_pb2.GetRegistrantRequest(purpose=PURPOSE, registrant_id="R-0")
        ),
        "REGISTRANT_UNKNOWN",
    ),
    "disclosures": (
        lambda channel: register_pb2_grpc.RegisterServiceStub(channel).ListDisclosures(
            register_pb2.ListDisclosuresRequest(registrant_id="R-0")
        ),
        "REGISTRANT_UNKNOWN",
    ),
    "erasure": (
        lambda channel: register_pb2_grpc.RegisterServiceStub(channel).EraseRegistrant(
            register_pb2.EraseRegistrantRequest(idempotency_key=KEY, registrant_id="R-0")
        ),
        "REGISTRANT_UNKNOWN",
    ),
    "case": (
        lambda channel: adjudication_pb2_grpc.AdjudicationServiceStub(channel).GetCase(
            adjudication_pb2.GetCaseRequest(case_id="C-0")
        ),
        "CASE_UNKNOWN",
    ),
    "application": (
        lambda channel: enrolment_pb2_grpc.EnrolmentServiceStub(channel).GetApplication(
            enrolment_pb2.GetApplicationRequest(application_id="A-0")
        ),
        "APPLICATION_UNKNOWN",
    ),
    "terminal": (
        lambda channel: terminals_pb2_grpc.TerminalServiceStub(channel).RevokeTerminal(
            terminals_pb2.RevokeTerminalRequest(
                idempotency_key=KEY, terminal_id="nobody", reason="why"
            )
        ),
        "TERMINAL_UNKNOWN",
    ),
    "claim": (
        lambda channel: matching_pb2_grpc.MatchingServiceStub(channel).Verify(
            matching_pb2.VerifyRequest(purpose=PURPOSE, registrant_id="R-0", samples=samples_of(0))
        ),
        "REGISTRANT_UNKNOWN",
    ),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_does_not_exist_is_not_found(operator: Connection, what: str) -> None:
    call, reason = UNKNOWN[what]
    refused = refusal(lambda: call(operator.channel))
    assert (refused.code, refused.reason) == (Code.NOT_FOUND, reason)


INVALID: dict[str, tuple[Callable[[grpc.Channel], Any], str]] = {
    "no purpose": (
        lambda channel: register_pb2_grpc.RegisterServiceStub(channel).GetRegistrant(
            register_pb2.GetRegistrantRequest(registrant_id="R-0")
        ),
        "PURPOSE_UNKNOWN",
    ),
    "page size": (
        lambda channel: adjudication_pb2_grpc.AdjudicationServiceStub(channel).ListCases(
            adjudication_pb2.ListCasesRequest(page_size=501)
        ),
        "PAGE_SIZE_INVALID",
    ),
    "page token": (
        lambda channel: register_pb2_grpc.RegisterServiceStub(channel).ListDisclosures(
            register_pb2.ListDisclosuresRequest(registrant_id="R-0", page_token="-1")
        ),
        "PAGE_TOKEN_INVALID",
    ),
    "verdict": (
        lambda channel: adjudication_pb2_grpc.AdjudicationServiceStub(channel).DecideCase(
            adjudication_pb2.DecideCaseRequest(idempotency_key=KEY, case_id="C-0", reason="why")
        ),
        "VERDICT_MISSING",
    ),
    "state": (
        lambda channel: permits_pb2_grpc.PermitServiceStub(channel).ChangePermitStatus(
            permits_pb2.ChangePermitStatusRequest(
                idempotency_key=KEY, permit_number="T-0", reason="why"
            )
        ),
        "STATE_INVALID",
    ),
    "station": (
        lambda channel: terminals_pb2_grpc.TerminalServiceStub(channel).CreateProvisioningToken(
            terminals_pb2.CreateProvisioningTokenRequest(
                idempotency_key=KEY, station_id="East Gate", terminal_id="hall-1"
            )
        ),
        "STATION_INVALID",
    ),
}


@pytest.mark.parametrize("what", INVALID)
def test_what_can_never_succeed_is_an_invalid_argument(operator: Connection, what: str) -> None:
    call, reason = INVALID[what]
    refused = refusal(lambda: call(operator.channel))
    assert (refused.code, refused.reason) == (Code.INVALID_ARGUMENT, reason)


# -- limits ----


def test_a_message_beyond_the_limit_is_refused(terminal: Connection) -> None:
    refused = refusal(lambda: enrol(terminal, with_sample(data=b"\0" * 1_100_000)))
    assert (refused.code, refused.reason) == (Code.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE")


def test_ten_fingers_of_full_length_are_within_the_limit(terminal: Connection) -> None:
    request = application(7)
    del request.samples[:]
    request.samples.extend(
        [common_pb2.Sample(format=common_pb2.SAMPLE_FORMAT_ISO_19794_2_2005, data=b"\0" * 65_536)]
        * 10
    )
    assert refusal(lambda: enrol(terminal, request)).reason == "DECODE_FAILED"


def test_a_deadline_that_has_passed_stops_the_work(
    service: Service, terminal: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
    request = application(10)
    assert refusal(lambda: stub.Enrol(request, timeout=-1)).code is Code.DEADLINE_EXCEEDED
    # The server, too: a search that would begin after the deadline is not begun.
    everything = service.installation
    accept, enrol_whole = everything.enrolment.accept, everything.reception.enrol
    settled: list[str] = []
    gone, done = threading.Event(), threading.Event()

    def accept_slowly(*arguments: Any) -> str:
        application_id = accept(*arguments)
        gone.wait(10.0)
        return application_id

    def enrol_noticed(*arguments: Any) -> Any:
        try:
            return enrol_whole(*arguments)
        finally:
            done.set()

    with monkeypatch.context() as patch:
        patch.setattr(everything.enrolment, "accept", accept_slowly)
        patch.setattr(everything.enrolment, "settle", settled.append)
        patch.setattr(everything.reception, "enrol", enrol_noticed)
        refused = refusal(lambda: stub.Enrol(request, timeout=0.5))
        assert refused.code is Code.DEADLINE_EXCEEDED
        gone.set()
        assert done.wait(10.0)
    assert settled == []
    # What was accepted is not lost: the same key continues.
    assert enrol(terminal, request).state == enrolment_pb2.APPLICATION_STATE_ENROLLED


# -- the frame ----


def health_of(channel: grpc.Channel) -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status


def test_both_ports_say_that_they_serve(operator: Connection, stranger: grpc.Channel) -> None:
    assert health_of(operator.channel) == health_pb2.HealthCheckResponse.SERVING
    assert health_of(stranger) == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_every_service(operator: Connection) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(operator.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]))
    names = {one.name for one in answer.list_services_response.service}
    ours = {
        service.full_name
        for module in SERVICES
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    assert ours | {"grpc.health.v1.Health"} <= names


def test_reflection_is_not_for_strangers(stranger: grpc.Channel) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(stranger)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    refused: Refusal = refusal(lambda: list(stub.ServerReflectionInfo(iter([request]))))
    assert refused.code is Code.UNIMPLEMENTED


def test_a_bundle_one_has_already_is_not_sent_again(stranger: grpc.Channel) -> None:
    stub = trust_pb2_grpc.TrustServiceStub(stranger)
    newest = stub.GetTrustBundle(trust_pb2.GetTrustBundleRequest())
    again = stub.GetTrustBundle(trust_pb2.GetTrustBundleRequest(known_version=newest.version))
    assert newest.bundle
    assert not again.bundle
    assert again.version == newest.version
