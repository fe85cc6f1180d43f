"""The register's RPC methods: decode, call one workflow, encode."""

from __future__ import annotations

from collections.abc import Iterator

from grpc import ServicerContext

from anju.v1 import (
    adjudication_pb2,
    adjudication_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    enrolment_pb2,
    enrolment_pb2_grpc,
    permits_pb2,
    permits_pb2_grpc,
    register_pb2,
    register_pb2_grpc,
)
from identity import calls, wire
from identity.adjudication import Adjudication
from identity.permits import PermitDesk
from identity.reception import Reception, uploader
from identity.register import Register
from identity.store import Database
from identity.uploads import UploadDesk, time_limit

MAX_AUDIT_PAGE = 1_000


class EnrolmentServicer(enrolment_pb2_grpc.EnrolmentServiceServicer):
    def __init__(self, reception: Reception, uploads: UploadDesk) -> None:
        self._reception = reception
        self._uploads = uploads

    def Enrol(
        self, request: enrolment_pb2.EnrolRequest, context: ServicerContext
    ) -> enrolment_pb2.EnrolResponse:
        answer = self._reception.enrol(
            wire.enrol_command(request), calls.once(request), calls.caller(), calls.require_time
        )
        return enrolment_pb2.EnrolResponse(
            application=wire.application_message(answer.application, answer.permit)
        )

    def GetApplication(
        self, request: enrolment_pb2.GetApplicationRequest, context: ServicerContext
    ) -> enrolment_pb2.GetApplicationResponse:
        answer = self._reception.application(request.application_id, calls.caller())
        return enrolment_pb2.GetApplicationResponse(
            application=wire.application_message(answer.application, answer.permit)
        )

    def Upload(
        self, request_iterator: Iterator[enrolment_pb2.UploadRequest], context: ServicerContext
    ) -> enrolment_pb2.UploadResponse:
        with time_limit(context):
            start, chunks = wire.upload_parts(request_iterator)
            upload = self._uploads.receive(uploader(calls.caller()), start, chunks)
        return enrolment_pb2.UploadResponse(received=upload.received, complete=upload.complete)

    def GetUpload(
        self, request: enrolment_pb2.GetUploadRequest, context: ServicerContext
    ) -> enrolment_pb2.GetUploadResponse:
        upload = self._uploads.standing(uploader(calls.caller()), request.sha256)
        return enrolment_pb2.GetUploadResponse(received=upload.received, complete=upload.complete)


class RegisterServicer(register_pb2_grpc.RegisterServiceServicer):
    def __init__(self, register: Register) -> None:
        self._register = register

    def GetRegistrant(
        self, request: register_pb2.GetRegistrantRequest, context: ServicerContext
    ) -> register_pb2.GetRegistrantResponse:
        file = self._register.look_up(
            request.registrant_id,
            request.permit_number,
            wire.purpose(request.purpose),
            str(calls.caller()),
            calls.method(),
        )
        return register_pb2.GetRegistrantResponse(registrant=wire.registrant_message(file))

    def ListDisclosures(
        self, request: register_pb2.ListDisclosuresRequest, context: ServicerContext
    ) -> register_pb2.ListDisclosuresResponse:
        size = wire.page_size(request.page_size)
        entries = self._register.disclosures(
            request.registrant_id, wire.page_sequence(request.page_token), size
        )
        return register_pb2.ListDisclosuresResponse(
            disclosures=wire.disclosure_messages(entries),
            next_page_token=str(entries[-1].sequence) if len(entries) == size else "",
        )

    def ChangeResidence(
        self, request: register_pb2.ChangeResidenceRequest, context: ServicerContext
    ) -> register_pb2.ChangeResidenceResponse:
        file = self._register.change_residence(
            request.registrant_id, wire.residence(request.residence), calls.once(request)
        )
        return register_pb2.ChangeResidenceResponse(registrant=wire.registrant_message(file))

    def RecordDeparture(
        self, request: register_pb2.RecordDepartureRequest, context: ServicerContext
    ) -> register_pb2.RecordDepartureResponse:
        file = self._register.record_departure(
            request.registrant_id,
            wire.calendar_date("departure_date", request.departure_date),
            calls.once(request),
        )
        return register_pb2.RecordDepartureResponse(registrant=wire.registrant_message(file))

    def EraseRegistrant(
        self, request: register_pb2.EraseRegistrantRequest, context: ServicerContext
    ) -> register_pb2.EraseRegistrantResponse:
        erased_at = self._register.erase(request.registrant_id, calls.once(request))
        return register_pb2.EraseRegistrantResponse(erased_at=wire.timestamp(erased_at))


class PermitServicer(permits_pb2_grpc.PermitServiceServicer):
    def __init__(self, desk: PermitDesk) -> None:
        self._desk = desk

    def GetPermit(
        self, request: permits_pb2.GetPermitRequest, context: ServicerContext
    ) -> permits_pb2.GetPermitResponse:
        shown = self._desk.show(request.permit_number, str(calls.caller()), calls.method())
        return permits_pb2.GetPermitResponse(permit=wire.permit_message(shown))

    def IssuePermit(
        self, request: permits_pb2.IssuePermitRequest, context: ServicerContext
    ) -> permits_pb2.IssuePermitResponse:
        shown = self._desk.issue(request.registrant_id, calls.once(request))
        return permits_pb2.IssuePermitResponse(permit=wire.permit_message(shown))

    def RenderPermitCard(
        self, request: permits_pb2.RenderPermitCardRequest, context: ServicerContext
    ) -> permits_pb2.RenderPermitCardResponse:
        pdf = request.format == permits_pb2.CARD_FORMAT_PDF
        card = self._desk.card(request.permit_number, pdf, str(calls.caller()), calls.method())
        return permits_pb2.RenderPermitCardResponse(
            card=card, media_type="application/pdf" if pdf else "image/png"
        )

    def ChangePermitStatus(
        self, request: permits_pb2.ChangePermitStatusRequest, context: ServicerContext
    ) -> permits_pb2.ChangePermitStatusResponse:
        shown = self._desk.change_status(
            request.permit_number,
            wire.permit_state(request.state),
            request.reason,
            calls.once(request),
        )
        return permits_pb2.ChangePermitStatusResponse(permit=wire.permit_message(shown))


class AdjudicationServicer(adjudication_pb2_grpc.AdjudicationServiceServicer):
    def __init__(self, adjudication: Adjudication) -> None:
        self._adjudication = adjudication

    def ListCases(
        self, request: adjudication_pb2.ListCasesRequest, context: ServicerContext
    ) -> adjudication_pb2.ListCasesResponse:
        size = wire.page_size(request.page_size)
        cases = self._adjudication.page(request.include_decided, request.page_token, size)
        return adjudication_pb2.ListCasesResponse(
            cases=[wire.case_message(case) for case in cases],
            next_page_token=cases[-1].case_id if len(cases) == size else "",
        )

    def GetCase(
        self, request: adjudication_pb2.GetCaseRequest, context: ServicerContext
    ) -> adjudication_pb2.GetCaseResponse:
        file = self._adjudication.open_file(request.case_id, str(calls.caller()), calls.method())
        return adjudication_pb2.GetCaseResponse(case=wire.case_file_message(file))

    def DecideCase(
        self, request: adjudication_pb2.DecideCaseRequest, context: ServicerContext
    ) -> adjudication_pb2.DecideCaseResponse:
        case = self._adjudication.decide(
            request.case_id,
            wire.verdict(request.verdict),
            request.registrant_id,
            request.reason,
            calls.once(request),
        )
        return adjudication_pb2.DecideCaseResponse(case=wire.case_message(case))

    def AppealCase(
        self, request: adjudication_pb2.AppealCaseRequest, context: ServicerContext
    ) -> adjudication_pb2.AppealCaseResponse:
        case = self._adjudication.appeal(request.case_id, request.statement, calls.once(request))
        return adjudication_pb2.AppealCaseResponse(case=wire.case_message(case))


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    def __init__(self, database: Database) -> None:
        self._database = database

    def ListEntries(
        self, request: audit_pb2.ListEntriesRequest, context: ServicerContext
    ) -> audit_pb2.ListEntriesResponse:
        size = wire.page_size(request.page_size, MAX_AUDIT_PAGE)
        with self._database.read() as tx:
            entries = tx.audit.entries(wire.after_sequence(request.after_sequence), size)
        return audit_pb2.ListEntriesResponse(entries=wire.audit_messages(entries))

    def VerifyChain(
        self, request: audit_pb2.VerifyChainRequest, context: ServicerContext
    ) -> audit_pb2.VerifyChainResponse:
        with self._database.read() as tx:
            entries, head, broken_at = tx.audit.verify()
        return audit_pb2.VerifyChainResponse(
            intact=not broken_at, entries=entries, head=head, broken_at=broken_at
        )
