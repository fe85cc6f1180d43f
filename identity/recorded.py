"""Administration with the register's memory: once per idempotency key, and in the log.

``devices`` keeps its own state and each of its steps may be repeated without harm (a second token
kills the first, a second revocation changes nothing). So the answer is recorded after the step: a
crash in between means that a retry makes the step once more and then records it.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from google.protobuf.message import Message
from grpc import ServicerContext

from anju.v1 import operators_pb2, terminals_pb2
from devices import wire
from devices.operators import Operators
from devices.provisioning import Provisioning
from devices.servicer import OperatorServicer, TerminalServicer
from identity import calls
from identity.denials import ANONYMOUS
from identity.ports import Clock
from identity.store import Database

Answer = TypeVar("Answer", bound=Message)


class Recorder:
    """Makes each administrative step once, and leaves an entry for it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._steps = threading.Lock()

    def once(
        self,
        request: calls.Keyed,
        subject_id: str,
        empty: Answer,
        step: Callable[[], Answer],
        outcome: str = "ok",
    ) -> Answer:
        """The step's answer; of an earlier time, if this very change was made before."""
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
                tx.audit.append(now, once.actor, once.method, subject_id, outcome=outcome)
            return answer

    def note(self, who: str, subject_id: str) -> None:
        """Leave an entry for the call in progress."""
        with self._database.write() as tx:
            tx.audit.append(self._clock.now(), who, calls.method(), subject_id)


class RecordedTerminalServicer(TerminalServicer):
    def __init__(self, provisioning: Provisioning, recorder: Recorder) -> None:
        super().__init__(provisioning, calls.caller)
        self._recorder = recorder

    def CreateProvisioningToken(
        self,
        request: terminals_pb2.CreateProvisioningTokenRequest,
        context: ServicerContext,
    ) -> terminals_pb2.CreateProvisioningTokenResponse:
        return self._recorder.once(
            request,
            request.terminal_id,
            terminals_pb2.CreateProvisioningTokenResponse(),
            lambda: super(RecordedTerminalServicer, self).CreateProvisioningToken(request, context),
        )

    def RenewCertificate(
        self, request: terminals_pb2.RenewCertificateRequest, context: ServicerContext
    ) -> terminals_pb2.RenewCertificateResponse:
        return self._recorder.once(
            request,
            calls.caller().id,
            terminals_pb2.RenewCertificateResponse(),
            lambda: super(RecordedTerminalServicer, self).RenewCertificate(request, context),
        )

    def ReprovisionTerminal(
        self, request: terminals_pb2.ReprovisionTerminalRequest, context: ServicerContext
    ) -> terminals_pb2.ReprovisionTerminalResponse:
        return self._recorder.once(
            request,
            request.terminal_id,
            terminals_pb2.ReprovisionTerminalResponse(),
            lambda: super(RecordedTerminalServicer, self).ReprovisionTerminal(request, context),
        )

    def RevokeTerminal(
        self, request: terminals_pb2.RevokeTerminalRequest, context: ServicerContext
    ) -> terminals_pb2.RevokeTerminalResponse:
        return self._recorder.once(
            request,
            request.terminal_id,
            terminals_pb2.RevokeTerminalResponse(),
            lambda: super(RecordedTerminalServicer, self).RevokeTerminal(request, context),
        )

    def Provision(
        self, request: terminals_pb2.ProvisionRequest, context: ServicerContext
    ) -> terminals_pb2.ProvisionResponse:
        answer = super().Provision(request, context)
        self._recorder.note(ANONYMOUS, answer.terminal_id)
        return answer


class RecordedOperatorServicer(OperatorServicer):
    def __init__(self, operators: Operators, recorder: Recorder) -> None:
        super().__init__(operators, calls.caller)
        self._recorder = recorder

    def EnrolOperator(
        self, request: operators_pb2.EnrolOperatorRequest, context: ServicerContext
    ) -> operators_pb2.EnrolOperatorResponse:
        roles = " ".join(sorted(role.name.lower() for role in wire.roles(request.roles)))
        return self._recorder.once(
            request,
            request.operator_id,
            operators_pb2.EnrolOperatorResponse(),
            lambda: super(RecordedOperatorServicer, self).EnrolOperator(request, context),
            outcome=f"ok: {roles}",
        )

    def RevokeOperator(
        self, request: operators_pb2.RevokeOperatorRequest, context: ServicerContext
    ) -> operators_pb2.RevokeOperatorResponse:
        return self._recorder.once(
            request,
            request.operator_id,
            operators_pb2.RevokeOperatorResponse(),
            lambda: super(RecordedOperatorServicer, self).RevokeOperator(request, context),
        )

    def LogIn(
        self, request: operators_pb2.LogInRequest, context: ServicerContext
    ) -> operators_pb2.LogInResponse:
        answer = super().LogIn(request, context)
        working = replace(calls.caller(), operator_id=request.operator_id)
        self._recorder.note(working.who, answer.session_id)
        return answer

    def LogOut(
        self, request: operators_pb2.LogOutRequest, context: ServicerContext
    ) -> operators_pb2.LogOutResponse:
        session = self._operators.log_out(calls.caller(), request.token)
        working = replace(calls.caller(), operator_id=session.operator_id)
        self._recorder.note(working.who, session.session_id)
        return operators_pb2.LogOutResponse()
