"""Who has no certificate of ours gets no further than TLS, and is told nothing."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from anju.v1 import audit_pb2, audit_pb2_grpc
from devices.authority import Authority, init_authority, open_authority
from devices.credentials import key_to_pem, load, load_key
from devices.types import Role
from tests.identity.service_kit import refusal
from tests.security.http2 import OPENING
from tests.security.target import Target, until

Code = grpc.StatusCode
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


@dataclass(frozen=True)
class Shown:
    """What a caller shows: a private key and a chain of certificates, PEM."""

    key: bytes
    chain: bytes


class Clock:
    def __init__(self, offset: timedelta) -> None:
        self._offset = offset

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset


def authority(target: Target, offset: timedelta = timedelta(0)) -> Authority:
    """The register's own, as if at another time."""
    return open_authority(target.directory / "devices", Clock(offset))


def issued(by: Authority, lifetime: timedelta = timedelta(days=1)) -> Shown:
    """The best that there is to have: an administrator's certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = by.issue_client(key.public_key(), Role.OPERATOR, "operator-1", lifetime=lifetime)
    return Shown(key_to_pem(key), made.public_bytes(Encoding.PEM))


def signed_by(
    issuer: x509.Name, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """An administrator's certificate that anybody can write."""
    now = datetime.now(UTC)
    uri = x509.UniformResourceIdentifier("anju://operator/operator-1")
    usage = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH])
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "operator-1")]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .sign(signer, hashes.SHA256())
    )


def of_another_authority(target: Target, tmp_path: Path) -> Shown:
    return issued(init_authority(tmp_path / "other", Clock(timedelta(0))))


def of_a_namesake(target: Target, tmp_path: Path) -> Shown:
    """Signed by a key of our own, in the name of the register's authority."""
    root = x509.load_pem_x509_certificate(target.own.ca_pem)
    key = ec.generate_private_key(ec.SECP256R1())
    made = signed_by(root.subject, key, ec.generate_private_key(ec.SECP256R1()))
    return Shown(key_to_pem(key), made.public_bytes(Encoding.PEM))


def self_signed(target: Target, tmp_path: Path) -> Shown:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "operator-1")])
    return Shown(key_to_pem(key), signed_by(name, key, key).public_bytes(Encoding.PEM))


def signed_by_a_terminal(target: Target, tmp_path: Path) -> Shown:
    """A stolen terminal's key is good, but it may not make others."""
    home = target.new_terminal(operator="")
    stolen = load(home).certificate_pem
    key = ec.generate_private_key(ec.SECP256R1())
    made = signed_by(x509.load_pem_x509_certificate(stolen).subject, key, load_key(home))
    return Shown(key_to_pem(key), made.public_bytes(Encoding.PEM) + stolen)


def expired(target: Target, tmp_path: Path) -> Shown:
    return issued(authority(target, timedelta(days=-3)))


def not_yet_valid(target: Target, tmp_path: Path) -> Shown:
    return issued(authority(target, timedelta(days=1)))


def the_servers_own(target: Target, tmp_path: Path) -> Shown:
    """Who has stolen that can do worse; but a certificate for servers is none for clients."""
    server = authority(target).server
    return Shown(server.key_pem, server.certificate_pem)


@pytest.mark.parametrize(
    ("show", "reason"),
    [
        (of_another_authority, UNTRUSTED),
        (of_a_namesake, "BAD_SIGNATURE"),
        (self_signed, UNTRUSTED),
        (signed_by_a_terminal, UNTRUSTED),
        (expired, UNTRUSTED),
        (not_yet_valid, UNTRUSTED),
        (the_servers_own, UNTRUSTED),
    ],
)
def test_a_certificate_that_is_not_good_gets_nobody_in(
    target: Target, tmp_path: Path, show: Callable[[Target, Path], Shown], reason: str
) -> None:
    shown = show(target, tmp_path)
    known = len(target.handshakes())
    credentials = grpc.ssl_channel_credentials(target.own.ca_pem, shown.key, shown.chain)
    with target.counting("tls_handshake"), target.channel(credentials) as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        told = refusal(lambda: stub.VerifyChain(audit_pb2.VerifyChainRequest(), timeout=10))
    assert (told.code, told.reason) == (Code.UNAVAILABLE, "")
    until(lambda: len(target.handshakes()) > known, "no line in the log")
    assert set(target.handshakes()[known:]) == {reason}


def test_no_certificate_at_all_gets_nobody_in(target: Target) -> None:
    known = len(target.handshakes())
    credentials = grpc.ssl_channel_credentials(target.own.ca_pem)
    with target.counting("tls_handshake"), target.channel(credentials) as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        told = refusal(lambda: stub.VerifyChain(audit_pb2.VerifyChainRequest(), timeout=10))
    assert (told.code, told.reason) == (Code.UNAVAILABLE, "")
    until(lambda: len(target.handshakes()) > known, "no line in the log")
    assert set(target.handshakes()[known:]) == {"PEER_DID_NOT_RETURN_A_CERTIFICATE"}


def test_a_good_certificate_made_the_same_way_does_get_in(target: Target) -> None:
    """Or the refusals above might have another cause."""
    shown = issued(authority(target))
    credentials = grpc.ssl_channel_credentials(target.own.ca_pem, shown.key, shown.chain)
    with target.channel(credentials) as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        assert stub.VerifyChain(audit_pb2.VerifyChainRequest(), timeout=10).intact


def test_a_certificate_that_expires_on_an_open_connection_is_refused_there(target: Target) -> None:
    shown = issued(authority(target), lifetime=timedelta(seconds=2))
    credentials = grpc.ssl_channel_credentials(target.own.ca_pem, shown.key, shown.chain)
    end = x509.load_pem_x509_certificate(shown.chain).not_valid_after_utc
    with target.channel(credentials) as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        assert stub.VerifyChain(audit_pb2.VerifyChainRequest(), timeout=10).intact
        until(lambda: datetime.now(UTC) > end + timedelta(milliseconds=50), "time stands still")
        with target.counting("authentication", 1, 1):
            told = refusal(lambda: stub.VerifyChain(audit_pb2.VerifyChainRequest(), timeout=10))
    assert (told.code, told.reason) == (Code.UNAUTHENTICATED, "CERTIFICATE_INVALID")
    assert target.has_entry("operator:operator-1", "AuditService.VerifyChain", told.reason)


# -- other ways of speaking ----


def speaking(version: ssl.TLSVersion) -> Callable[[socket.socket], None]:
    def speak(plain: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")  # or the old versions would end on our side
        context.set_alpn_protocols(["h2"])
        context.minimum_version = context.maximum_version = version
        with context.wrap_socket(plain) as tls:
            pytest.fail(f"the server speaks {tls.version()}")

    return speak


def saying(data: bytes) -> Callable[[socket.socket], None]:
    def speak(plain: socket.socket) -> None:
        plain.sendall(data)
        assert not plain.recv(100)

    return speak


@pytest.mark.parametrize("port", ["main", "provisioning"])
@pytest.mark.parametrize(
    ("speak", "reason"),
    [
        (speaking(ssl.TLSVersion.TLSv1_2), "NO_SHARED_CIPHER"),
        (speaking(ssl.TLSVersion.TLSv1_1), "UNSUPPORTED_PROTOCOL"),
        (speaking(ssl.TLSVersion.TLSv1), "UNSUPPORTED_PROTOCOL"),
        (saying(OPENING), "WRONG_VERSION_NUMBER"),
        (saying(b"GET / HTTP/1.1\r\nHost: register\r\n\r\n"), "HTTP_REQUEST"),
        (saying(bytes(range(256)) * 4), "WRONG_VERSION_NUMBER"),
    ],
    ids=["TLS 1.2", "TLS 1.1", "TLS 1.0", "plain HTTP/2", "plain HTTP/1.1", "noise"],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_only_tls_1_3_is_spoken(
    target: Target, port: str, speak: Callable[[socket.socket], None], reason: str
) -> None:
    known = len(target.handshakes())
    with (
        target.counting("tls_handshake", 1, 1),
        target.socket(getattr(target, port)) as plain,
        contextlib.suppress(OSError),  # a reset, an alert or the end, as the timing has it
    ):
        speak(plain)
    until(lambda: len(target.handshakes()) > known, "no line in the log")
    assert target.handshakes()[known:] == [reason]


def test_a_client_without_tls_is_told_unavailable(target: Target) -> None:
    with target.counting("tls_handshake"), grpc.insecure_channel(target.main) as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        told = refusal(lambda: stub.VerifyChain(audit_pb2.VerifyChainRequest(), timeout=10))
    assert (told.code, told.reason) == (Code.UNAVAILABLE, "")
