"""Terminal administration with the register's memory: once per idempotency key, and in the log.

``devices`` keeps its own state and each of its steps may be repeated without harm (a second token
kills the first, a second revocation changes nothing). So the answer is recorded after the step: a
crash in between means that a retry makes the step once more and then records it.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message
from grpc import ServicerContext

from anju.v1 import terminals_pb2
from devices.provisioning import Provisioning
from devices.servicer import TerminalServicer
from identity import calls
from identity.ports import Clock
from identity.store import Database

Answer = TypeVar("Answer", bound=Message)
ANONYMOUS = "anonymous"


class RecordedTerminalServicer(TerminalServicer):
    def __init__(self, provisioning: Provisioning, database: Database, clock: Clock) -> None:
        super().__init__(provisioning, calls.caller)
        self._database = database
        self._clock = clock
        self._steps = threading.Lock()

    def CreateProvisioningToken(
        self,
        request: terminals_pb2.CreateProvisioningTokenRequest,
        context: ServicerContext,
    ) -> terminals_pb2.CreateProvisioningTokenResponse:
        return self._once(
            request,
            request.terminal_id,
            terminals_pb2.CreateProvisioningTokenResponse(),
            lambda: super(RecordedTerminalServicer, self).CreateProvisioningToken(request, context),
        )

    def RenewCertificate(
        self, request: terminals_pb2.RenewCertificateRequest, context: ServicerContext
    ) -> terminals_pb2.RenewCertificateResponse:
        return self._once(
            request,
            calls.caller().id,
            terminals_pb2.RenewCertificateResponse(),
            lambda: super(RecordedTerminalServicer, self).RenewCertificate(request, context),
        )

    def RevokeTerminal(
        self, request: terminals_pb2.RevokeTerminalRequest, context: ServicerContext
    ) -> terminals_pb2.RevokeTerminalResponse:
        return self._once(
            request,
            request.terminal_id,
            terminals_pb2.RevokeTerminalResponse(),
            lambda: super(RecordedTerminalServicer, self).RevokeTerminal(request, context),
        )

    def Provision(
        self, request: terminals_pb2.ProvisionRequest, context: ServicerContext
    ) -> terminals_pb2.ProvisionResponse:
        answer = super().Provision(request, context)
        with self._database.write() as tx:
            tx.audit.append(self._clock.now(), ANONYMOUS, calls.method(), answer.terminal_id)
        return answer

    def _once(
        self, request: calls.Keyed, terminal_id: str, empty: Answer, step: Callable[[], Answer]
    ) -> Answer:
        once = calls.once(request)
        # One step at a time: of two simultaneous retries, the second must find the first's answer
        # instead of making a second token that kills it.
        with self._steps:
            with self._database.read() as tx:
                earlier = tx.once.result_of(once)
            if earlier is not None:
                empty.ParseFromString(base64.b64decode(earlier))
                return empty
            answer = step()
            now = self._clock.now()
            packed = base64.b64encode(answer.SerializeToString()).decode()
            with self._database.write() as tx:
                tx.once.record(once, packed, now)
                tx.audit.append(now, once.caller, once.method, terminal_id)
            return answer
