"""Messages of TrustService <-> types."""

from __future__ import annotations

from anju.v1 import trust_pb2
from issuance.publisher import Publication


def trust_bundle_response(
    publication: Publication, known_version: int
) -> trust_pb2.GetTrustBundleResponse:
    """The bundle, or none of it if the caller has this version or a newer one already."""
    response = trust_pb2.GetTrustBundleResponse(
        bundle=publication.bundle if publication.version > known_version else b"",
        version=publication.version,
    )
    response.published_at.FromDatetime(publication.published_at)
    return response
