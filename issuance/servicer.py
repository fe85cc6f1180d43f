"""TrustService: the published trust bundle, for anybody who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anju.v1 import trust_pb2, trust_pb2_grpc
from issuance import wire
from issuance.issuer import Issuer

if TYPE_CHECKING:
    from grpc import ServicerContext


class TrustServicer(trust_pb2_grpc.TrustServiceServicer):
    """Public and the same for everyone, so it asks for no caller and writes no disclosure."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer

    def GetTrustBundle(
        self, request: trust_pb2.GetTrustBundleRequest, context: ServicerContext
    ) -> trust_pb2.GetTrustBundleResponse:
        known = request.known_version
        delta = self._issuer.trust_delta(known) if request.delta_accepted else None
        return wire.trust_bundle_response(self._issuer.trust(), known, delta)
