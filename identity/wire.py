"""Messages of ``anju.v1`` <-> the register's types. No decisions, only translation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from anju.v1 import (
    adjudication_pb2,
    audit_pb2,
    common_pb2,
    enrolment_pb2,
    permits_pb2,
    register_pb2,
)
from identity.adjudication import CaseFile
from identity.enrolment import EnrolCommand, UploadedFinger
from identity.errors import InvalidRequestError
from identity.permits import ShownPermit
from identity.register import RegistrantFile
from identity.types import (
    Application,
    AuditEntry,
    CapturedSample,
    Case,
    CaseDecision,
    Gender,
    MissingFinger,
    MissingReason,
    Particulars,
    PermitState,
    PersonalDetails,
    Purpose,
    Residence,
    Verdict,
)
from identity.uploads import Start
from matcher.types import FingerPosition
from matcher.wire import template_from

DEFAULT_PAGE, MAX_PAGE = 100, 500


# -- requests ----------------------------------------------------------------------------------


def enrol_command(request: enrolment_pb2.EnrolRequest) -> EnrolCommand:
    captured = request.captured_at if request.HasField("captured_at") else None
    if request.portrait and request.portrait_sha256:
        raise InvalidRequestError("PORTRAIT_INVALID", "there is a portrait and an uploaded one")
    return EnrolCommand(
        particulars=Particulars(
            _details(request.details),
            residence(request.residence),
            missing_fingers=tuple(_missing_finger(one) for one in request.missing_fingers),
        ),
        samples=tuple(CapturedSample(s.data, template_from(s)) for s in request.samples),
        permit_requested=request.permit_requested,
        captured_at=None if captured is None else _instant(captured),
        portrait=request.portrait,
        portrait_sha256=request.portrait_sha256,
        images=tuple(
            UploadedFinger(_position(one.position), one.sha256, one.resolution_ppi)
            for one in request.images
        ),
    )


def _position(value: int) -> int:
    try:
        return int(FingerPosition(value))
    except ValueError as error:
        raise InvalidRequestError("DETAILS_INVALID", "a finger's position is 0 to 10") from error


def _missing_finger(message: common_pb2.MissingFinger) -> MissingFinger:
    try:
        reason = MissingReason(message.reason)
        position = FingerPosition(message.position)
    except ValueError as error:
        raise InvalidRequestError(
            "MISSING_FINGERS_INVALID", "a missing finger has a position and a reason"
        ) from error
    if position is FingerPosition.UNKNOWN:
        raise InvalidRequestError("MISSING_FINGERS_INVALID", "which finger is missing?")
    return MissingFinger(int(position), reason)


def upload_parts(
    messages: Iterator[enrolment_pb2.UploadRequest],
) -> tuple[Start, Iterator[bytes]]:
    """The beginning of an upload's stream, and its chunks as they come.

    Raises:
        InvalidRequestError: UPLOAD_INVALID; from the chunks too.
    """
    first = next(messages, None)
    if first is None or first.WhichOneof("part") != "start":
        raise InvalidRequestError("UPLOAD_INVALID", "an upload begins with its start")
    start = Start(first.start.sha256, first.start.size, first.start.offset)
    return start, (_chunk(message) for message in messages)


def _chunk(message: enrolment_pb2.UploadRequest) -> bytes:
    if message.WhichOneof("part") != "chunk":
        raise InvalidRequestError("UPLOAD_INVALID", "after its start an upload has chunks only")
    return message.chunk


def residence(message: common_pb2.Residence) -> Residence:
    return Residence(
        division_code=message.division_code,
        address=message.address,
        arrival_date=calendar_date("residence.arrival_date", message.arrival_date),
    )


def purpose(message: common_pb2.Purpose) -> Purpose:
    return Purpose(message.code, message.case_reference)


def calendar_date(field: str, message: common_pb2.Date) -> date:
    try:
        return date(message.year, message.month, message.day)
    except ValueError as error:
        raise InvalidRequestError("DETAILS_INVALID", f"{field} is no calendar date") from error


def verdict(value: int) -> Verdict:
    try:
        return Verdict(value)
    except ValueError as error:
        raise InvalidRequestError("VERDICT_MISSING", "a verdict must be given") from error


def permit_state(value: int) -> PermitState:
    try:
        return PermitState(value)
    except ValueError as error:
        raise InvalidRequestError("STATE_INVALID", "a permit state must be given") from error


def page_size(wanted: int, maximum: int = MAX_PAGE) -> int:
    """Raises InvalidRequestError (``PAGE_SIZE_INVALID``); 0 means the default."""
    if not 0 <= wanted <= maximum:
        raise InvalidRequestError("PAGE_SIZE_INVALID", f"page_size must be 0 to {maximum}")
    return wanted or DEFAULT_PAGE


def page_sequence(token: str) -> int | None:
    """The sequence number a page token stands for, None for the first page."""
    if not token:
        return None
    if not (token.isascii() and token.isdigit() and len(token) <= 18):
        raise InvalidRequestError("PAGE_TOKEN_INVALID", "page_token is not one of ours")
    return int(token)


def after_sequence(wanted: int) -> int:
    """A uint64 of the contract as a sequence number of the database, which counts to 2^63 - 1."""
    return min(wanted, 2**63 - 1)


def _details(message: common_pb2.PersonalDetails) -> PersonalDetails:
    try:
        gender = Gender(message.gender)
    except ValueError as error:
        raise InvalidRequestError("DETAILS_INVALID", "details.gender is unknown") from error
    return PersonalDetails(
        full_name=message.full_name,
        gender=gender,
        birth_date=calendar_date("details.birth_date", message.birth_date),
        document_number=message.document_number,
        household_division_code=message.household_division_code,
        ethnicity=message.ethnicity,
    )


def _instant(message: Timestamp) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except ValueError as error:
        raise InvalidRequestError("DETAILS_INVALID", "captured_at is out of range") from error


# -- answers -----------------------------------------------------------------------------------


def application_message(
    application: Application, permit: ShownPermit | None
) -> enrolment_pb2.Application:
    return enrolment_pb2.Application(
        application_id=application.application_id,
        state=application.state,  # type: ignore[arg-type]
        registrant_id=application.registrant_id or "",
        case_id=application.case_id or "",
        permit=None if permit is None else permit_message(permit),
        late=application.late,
        accepted_at=timestamp(application.accepted_at),
    )


def permit_message(shown: ShownPermit) -> permits_pb2.Permit:
    permit = shown.permit
    return permits_pb2.Permit(
        permit_number=permit.permit_number,
        registrant_id=permit.registrant_id,
        state=shown.state,  # type: ignore[arg-type]
        issued_at=timestamp(permit.issued_at),
        expires_at=timestamp(permit.expires_at),
        qr_text=permit.qr_text,
    )


def registrant_message(file: RegistrantFile) -> register_pb2.Registrant:
    registrant = file.registrant
    message = register_pb2.Registrant(
        registrant_id=registrant.registrant_id,
        state=registrant.state,  # type: ignore[arg-type]
        fingers=registrant.fingers,  # type: ignore[arg-type]
        permits=[permit_message(permit) for permit in file.permits],
        registered_at=timestamp(registrant.registered_at),
        station_id=registrant.station_id,
    )
    if registrant.particulars is not None:
        message.details.CopyFrom(_details_message(registrant.particulars.details))
        for one in registrant.particulars.missing_fingers:
            message.missing_fingers.add(position=one.position, reason=one.reason)
        home = registrant.particulars.residence
        message.residence.CopyFrom(
            common_pb2.Residence(
                division_code=home.division_code,
                address=home.address,
                arrival_date=_date_message(home.arrival_date),
            )
        )
    return message


def case_message(case: Case) -> adjudication_pb2.Case:
    return adjudication_pb2.Case(
        case_id=case.case_id,
        state=case.state,  # type: ignore[arg-type]
        reason=case.reason,  # type: ignore[arg-type]
        application_id=case.application_id,
        candidates=[
            adjudication_pb2.CaseCandidate(
                registrant_id=candidate.registrant_id,
                similarity=candidate.similarity,
                finger_similarities=[
                    math.nan if math.isinf(value) else value
                    for value in candidate.finger_similarities
                ],
            )
            for candidate in case.candidates
        ],
        decisions=[_decision_message(decision) for decision in case.decisions],
        opened_at=timestamp(case.opened_at),
        station_id=case.station_id,
    )


def case_file_message(file: CaseFile) -> adjudication_pb2.Case:
    message = case_message(file.case)
    if file.applicant is not None:
        message.applicant.CopyFrom(_details_message(file.applicant.details))
    for appeal in file.case.appeals:
        message.appeals.add(
            statement=appeal.statement, taken_by=appeal.taken_by, at=timestamp(appeal.at)
        )
    for candidate, particulars in zip(message.candidates, file.candidates, strict=True):
        if particulars is not None:
            candidate.details.CopyFrom(_details_message(particulars.details))
    return message


def disclosure_messages(entries: Sequence[AuditEntry]) -> list[register_pb2.Disclosure]:
    return [
        register_pb2.Disclosure(
            at=timestamp(entry.at),
            who=entry.who,
            purpose=common_pb2.Purpose(code=entry.purpose, case_reference=entry.case_reference),
            action=entry.action,
        )
        for entry in entries
    ]


def audit_messages(entries: Sequence[AuditEntry]) -> list[audit_pb2.AuditEntry]:
    return [
        audit_pb2.AuditEntry(
            sequence=entry.sequence,
            at=timestamp(entry.at),
            who=entry.who,
            action=entry.action,
            subject_id=entry.subject_id,
            purpose=entry.purpose,
            case_reference=entry.case_reference,
            outcome=entry.outcome,
            hash=entry.hash,
        )
        for entry in entries
    ]


def timestamp(instant: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(instant)
    return message


def _decision_message(decision: CaseDecision) -> adjudication_pb2.Decision:
    return adjudication_pb2.Decision(
        operator_id=decision.operator_id,
        verdict=decision.verdict,  # type: ignore[arg-type]
        registrant_id=decision.registrant_id or "",
        reason=decision.reason,
        at=timestamp(decision.at),
    )


def _details_message(details: PersonalDetails) -> common_pb2.PersonalDetails:
    return common_pb2.PersonalDetails(
        full_name=details.full_name,
        gender=details.gender,  # type: ignore[arg-type]
        birth_date=_date_message(details.birth_date),
        document_number=details.document_number,
        household_division_code=details.household_division_code,
        ethnicity=details.ethnicity,
    )


def _date_message(day: date) -> common_pb2.Date:
    return common_pb2.Date(year=day.year, month=day.month, day=day.day)
