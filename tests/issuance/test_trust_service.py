from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from anju.v1 import trust_pb2, trust_pb2_grpc
from issuance import delta
from issuance.issuer import Issuer
from issuance.servicer import TrustServicer
from issuance.trust import TrustStore
from tests.issuance.kit import HOLDER, START


@pytest.fixture
def stub(issuer: Issuer) -> Iterator[trust_pb2_grpc.TrustServiceStub]:
    server = grpc.server(ThreadPoolExecutor(2))
    trust_pb2_grpc.add_TrustServiceServicer_to_server(TrustServicer(issuer), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield trust_pb2_grpc.TrustServiceStub(channel)
    server.stop(None).wait()


def test_bundle_is_served_with_its_version(
    stub: trust_pb2_grpc.TrustServiceStub, issuer: Issuer
) -> None:
    response = stub.GetTrustBundle(trust_pb2.GetTrustBundleRequest())
    store = TrustStore.load(response.bundle)
    assert response.version == store.version == issuer.trust().version
    assert response.published_at.ToSeconds() == int(START.timestamp())


def test_known_version_is_not_sent_again(
    stub: trust_pb2_grpc.TrustServiceStub, issuer: Issuer
) -> None:
    known = issuer.trust().version
    request = trust_pb2.GetTrustBundleRequest(known_version=known)
    assert stub.GetTrustBundle(request).bundle == b""
    assert stub.GetTrustBundle(request).version == known
    issuer.publish_trust()
    assert stub.GetTrustBundle(request).bundle != b""


def test_delta_is_served_to_those_who_take_it(
    stub: trust_pb2_grpc.TrustServiceStub, issuer: Issuer
) -> None:
    known = issuer.publish_trust()
    issuer.revoke(issuer.issue(HOLDER).status)
    current = issuer.publish_trust()
    request = trust_pb2.GetTrustBundleRequest(known_version=known.version, delta_accepted=True)
    response = stub.GetTrustBundle(request)
    assert response.bundle == b""
    assert delta.apply(known.bundle, response.delta) == current.bundle
    plain = trust_pb2.GetTrustBundleRequest(known_version=known.version)
    assert stub.GetTrustBundle(plain).bundle == current.bundle
    unknown = trust_pb2.GetTrustBundleRequest(known_version=0, delta_accepted=True)
    assert stub.GetTrustBundle(unknown).bundle == current.bundle
    newest = trust_pb2.GetTrustBundleRequest(known_version=current.version, delta_accepted=True)
    assert not stub.GetTrustBundle(newest).delta
