"""Messages of TrustService <-> types."""

from __future__ import annotations

from anju.v1 import trust_pb2
from issuance.delta import Delta
from issuance.publisher import Publication


def trust_bundle_response(
    publication: Publication, known_version: int, delta: Delta | None
) -> trust_pb2.GetTrustBundleResponse:
    """The bundle or the delta; neither if the caller has this version or a newer one already."""
    newer = publication.version > known_version
    response = trust_pb2.GetTrustBundleResponse(version=publication.version)
    if newer and delta is not None and delta.version == publication.version:
        response.delta = delta.data
    elif newer:
        response.bundle = publication.bundle
    response.published_at.FromDatetime(publication.published_at)
    return response
