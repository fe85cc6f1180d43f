"""anju.v1.TerminalService over the provisioning workflow."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from anju.v1 import terminals_pb2, terminals_pb2_grpc
from devices import wire
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

    def ListTerminals(
        self, request: terminals_pb2.ListTerminalsRequest, context: grpc.ServicerContext
    ) -> terminals_pb2.ListTerminalsResponse:
        return wire.list_response(self._provisioning.list(request.page_token, request.page_size))

    def RevokeTerminal(
        self, request: terminals_pb2.RevokeTerminalRequest, context: grpc.ServicerContext
    ) -> terminals_pb2.RevokeTerminalResponse:
        revoked = self._provisioning.revoke(request.terminal_id, request.reason)
        return terminals_pb2.RevokeTerminalResponse(terminal=wire.terminal(revoked))
