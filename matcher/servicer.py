"""anju.v1.MatchingService: who is this (1:N), and is this who they claim to be (1:1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from grpc import ServicerContext

from anju.v1 import matching_pb2, matching_pb2_grpc
from matcher import wire
from matcher.types import CandidateList, Decision, Template, Thresholds


class Lookups(Protocol):
    """Searches that are bound to a purpose and logged; ``identity`` supplies them."""

    def identify(
        self, probes: Sequence[Template], limit: int, purpose: str, case_reference: str
    ) -> tuple[CandidateList, Thresholds]: ...

    def verify(
        self, subject_id: str, probes: Sequence[Template], purpose: str, case_reference: str
    ) -> Decision: ...


class MatchingServicer(matching_pb2_grpc.MatchingServiceServicer):
    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups

    def Identify(
        self, request: matching_pb2.IdentifyRequest, context: ServicerContext
    ) -> matching_pb2.IdentifyResponse:
        found, thresholds = self._lookups.identify(
            wire.templates_from(request.samples),
            request.limit,
            request.purpose.code,
            request.purpose.case_reference,
        )
        return wire.identify_response(found, thresholds.grey, thresholds.same)

    def Verify(
        self, request: matching_pb2.VerifyRequest, context: ServicerContext
    ) -> matching_pb2.VerifyResponse:
        decision = self._lookups.verify(
            request.registrant_id,
            wire.templates_from(request.samples),
            request.purpose.code,
            request.purpose.case_reference,
        )
        return matching_pb2.VerifyResponse(
            is_match=decision.is_match,
            similarity=decision.similarity,
            threshold=decision.threshold,
        )
