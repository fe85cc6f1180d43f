"""anju.v1.TerminalService and OperatorService over their workflows."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from anju.v1 import operators_pb2, operators_pb2_grpc, terminals_pb2, terminals_pb2_grpc
from devices import wire
from devices.operators import Operators
from devices.provisioning import Provisioning
from devices.types import Principal


class TerminalServicer(terminals_pb2_grpc.TerminalServiceServicer):
    """Decodes, calls the workflow, encodes.

    Who may call which method, idempotency keys and statuses are ``identity``'s interceptors' work.

    Args:
        caller: the principal of the call in progress; asked for by RenewCertificate only, so the
            provisioning port needs none.
    """

    def __init__(self, provisioning: Provisioning, caller: Callable[[], Principal]) -> None:
        self._provisioning = provisioning
        self._caller = caller

    def CreateProvisioningToken(
        self,
        request: terminals_pb2.CreateProvisioningTokenRequest,
        context: grpc.ServicerContext,
    ) -> terminals_pb2.CreateProvisioningTokenResponse:
        issued = self._provisioning.create_token(request.station_id, request.terminal_id)
        return wire.token_response(issued)

    def Provision(
        self, request: terminals_pb2.ProvisionRequest, context: grpc.ServicerContext
    ) -> terminals_pb2.ProvisionResponse:
        peer = wire.peer_address(context.peer())
        provisioned = self._provisioning.provision(
            request.token, request.certificate_signing_request, peer
        )
        return wire.provision_response(provisioned)

    def RenewCertificate(
        self, request: terminals_pb2.RenewCertificateRequest, context: grpc.ServicerContext
    ) -> terminals_pb2.RenewCertificateResponse:
        certificate = self._provisioning.renew(self._caller(), request.certificate_signing_request)
        return terminals_pb2.RenewCertificateResponse(certificate=certificate)

    def Heartbeat(
        self, request: terminals_pb2.HeartbeatRequest, context: grpc.ServicerContext
    ) -> terminals_pb2.HeartbeatResponse:
        stated = wire.equipment(request.equipment) if request.HasField("equipment") else None
        now = self._provisioning.report(self._caller(), stated)
        return terminals_pb2.HeartbeatResponse(server_time=wire.timestamp(now))

    def ReprovisionTerminal(
        self, request: terminals_pb2.ReprovisionTerminalRequest, context: grpc.ServicerContext
    ) -> terminals_pb2.ReprovisionTerminalResponse:
        issued = self._provisioning.reprovision(request.terminal_id, request.reason)
        return terminals_pb2.ReprovisionTerminalResponse(
            token=issued.token, expires_at=wire.timestamp(issued.expires_at)
        )

    def ListTerminals(
        self, request: terminals_pb2.ListTerminalsRequest, context: grpc.ServicerContext
    ) -> terminals_pb2.ListTerminalsResponse:
        return wire.list_response(self._provisioning.list(request.page_token, request.page_size))

    def RevokeTerminal(
        self, request: terminals_pb2.RevokeTerminalRequest, context: grpc.ServicerContext
    ) -> terminals_pb2.RevokeTerminalResponse:
        revoked = self._provisioning.revoke(request.terminal_id, request.reason)
        return terminals_pb2.RevokeTerminalResponse(terminal=wire.terminal(revoked))


class OperatorServicer(operators_pb2_grpc.OperatorServiceServicer):
    """Decodes, calls the workflow, encodes; the rest as :class:`TerminalServicer`."""

    def __init__(self, operators: Operators, caller: Callable[[], Principal]) -> None:
        self._operators = operators
        self._caller = caller

    def EnrolOperator(
        self, request: operators_pb2.EnrolOperatorRequest, context: grpc.ServicerContext
    ) -> operators_pb2.EnrolOperatorResponse:
        enrolled = self._operators.enrol(
            request.operator_id, wire.roles(request.roles), request.login_key, request.new_password
        )
        return operators_pb2.EnrolOperatorResponse(
            operator=wire.operator(enrolled.operator), first_password=enrolled.first_password
        )

    def ListOperators(
        self, request: operators_pb2.ListOperatorsRequest, context: grpc.ServicerContext
    ) -> operators_pb2.ListOperatorsResponse:
        return wire.operators_response(self._operators.page(request.page_token, request.page_size))

    def RevokeOperator(
        self, request: operators_pb2.RevokeOperatorRequest, context: grpc.ServicerContext
    ) -> operators_pb2.RevokeOperatorResponse:
        revoked = self._operators.revoke(request.operator_id, request.reason)
        return operators_pb2.RevokeOperatorResponse(operator=wire.operator(revoked))

    def GetLoginChallenge(
        self, request: operators_pb2.GetLoginChallengeRequest, context: grpc.ServicerContext
    ) -> operators_pb2.GetLoginChallengeResponse:
        challenge = self._operators.challenge(self._caller(), request.operator_id)
        return operators_pb2.GetLoginChallengeResponse(challenge=challenge)

    def LogIn(
        self, request: operators_pb2.LogInRequest, context: grpc.ServicerContext
    ) -> operators_pb2.LogInResponse:
        if request.HasField("key"):
            opened = self._operators.log_in_with_key(
                self._caller(),
                request.operator_id,
                request.key.challenge,
                request.key.signature,
                request.session_key,
            )
        else:
            opened = self._operators.log_in_with_password(
                self._caller(),
                request.operator_id,
                request.password,
                request.new_password,
                request.session_key,
            )
        return wire.login_response(opened)

    def LogOut(
        self, request: operators_pb2.LogOutRequest, context: grpc.ServicerContext
    ) -> operators_pb2.LogOutResponse:
        self._operators.log_out(self._caller(), request.token)
        return operators_pb2.LogOutResponse()
