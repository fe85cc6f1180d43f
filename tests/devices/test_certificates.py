from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from devices import credentials
from devices.authority import Authority
from devices.certificates import (
    principal_from_auth_context,
    principal_from_certificate,
    public_key_from_csr,
)
from devices.errors import CertificateInvalidError, CsrInvalidError
from devices.types import Principal, Role
from tests.devices.fakes import FakeClock

KEY = ec.generate_private_key(ec.SECP256R1())
URI = "anju://terminal/hall/t-1"


def certificate(
    names: list[x509.GeneralName],
    purposes: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    ca: bool = False,
) -> bytes:
    """A certificate of any content; who signed it is TLS's business."""
    now = FakeClock().now()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(0xABC)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def uri(value: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(value)]


@pytest.mark.parametrize(
    ("value", "principal"),
    [
        ("anju://terminal/hall/t-1", Principal(Role.TERMINAL, "t-1", "hall")),
        ("anju://operator/op-1", Principal(Role.OPERATOR, "op-1")),
        ("anju://department/school-3", Principal(Role.DEPARTMENT, "school-3")),
    ],
)
def test_the_uri_names_the_caller(value: str, principal: Principal) -> None:
    parsed = principal_from_certificate(certificate(uri(value)))
    assert parsed == principal
    assert parsed.serial == "abc"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "anju://terminal/t-1",
        "anju://terminal/hall/t-1/",
        "anju://terminal/hall/t-1?x",
        "anju://terminal//t-1",
        "anju://terminal/hall/T-1",
        "anju://operator/hall/op-1",
        "anju://operator/op-1#",
        "anju://operator/x",
        "anju://operator/%6fp-1",
        "anju://admin/op-1",
        "ANJU://operator/op-1",
        "anju:/operator/op-1",
        "https://operator/op-1",
        "anju://operator@evil/op-1",
        "anju://operator/" + "a" * 33,
        "anju://operator/op-1\x00",
    ],
)
def test_another_uri_names_nobody(value: str) -> None:
    with pytest.raises(CertificateInvalidError):
        principal_from_certificate(certificate(uri(value)))


@pytest.mark.parametrize(
    "der",
    [
        certificate([]),
        certificate(uri(URI) + uri("anju://operator/op-1")),
        certificate([*uri(URI), x509.DNSName("server.anju.internal")]),
        certificate([x509.DNSName("operator")]),
        certificate(uri(URI), purposes=()),
        certificate(uri(URI), purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)),
        certificate(
            uri(URI), purposes=(ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
        ),
        certificate(uri(URI), ca=True),
        b"",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_a_certificate_outside_the_profile_names_nobody(der: bytes) -> None:
    with pytest.raises(CertificateInvalidError):
        principal_from_certificate(der)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_caller_or_refused(data: bytes) -> None:
    with pytest.raises(CertificateInvalidError):
        principal_from_certificate(data)


def test_pem_and_der_name_the_same_caller() -> None:
    der = certificate(uri(URI))
    pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
    assert principal_from_certificate(pem) == principal_from_certificate(der)
    assert principal_from_auth_context({"x509_pem_cert": [pem]}).id == "t-1"


def test_a_connection_without_a_certificate_names_nobody() -> None:
    with pytest.raises(CertificateInvalidError, match="no client certificate"):
        principal_from_auth_context({"transport_security_type": [b"ssl"]})


def csr(key: object, algorithm: hashes.HashAlgorithm | None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)  # type: ignore[arg-type]


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_keys_on_the_nist_curves_are_accepted(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    assert public_key_from_csr(csr(key, hashes.SHA256())) == key.public_key()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (csr(ed25519.Ed25519PrivateKey.generate(), None), "P-256 or P-384"),
        (csr(rsa.generate_private_key(65_537, 2_048), hashes.SHA256()), "P-256 or P-384"),
        (csr(ec.generate_private_key(ec.SECP521R1()), hashes.SHA256()), "P-256 or P-384"),
        (csr(ec.generate_private_key(ec.SECP256K1()), hashes.SHA256()), "P-256 or P-384|PKCS"),
        (csr(KEY, hashes.SHA224()), "signature"),
        (b"", "PKCS #10"),
        (b"\x30" * 9_000, "at most 8192"),
        (certificate(uri(URI)), "PKCS #10"),
        (csr(KEY, hashes.SHA256()) + b"\x00", "PKCS #10"),
    ],
)
def test_another_request_is_refused(request_: bytes, message: str) -> None:
    with pytest.raises(CsrInvalidError, match=message):
        public_key_from_csr(request_)


def test_a_request_for_somebody_elses_key_is_refused() -> None:
    mine = credentials.signing_request(KEY)
    other = ec.generate_private_key(ec.SECP256R1())
    theirs = credentials.signing_request(other)
    point = x509.load_der_x509_csr(mine).public_key().public_numbers()  # type: ignore[union-attr]
    their_point = other.public_key().public_numbers()
    assert isinstance(point, ec.EllipticCurvePublicNumbers)
    swapped = mine.replace(
        point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big"),
        their_point.x.to_bytes(32, "big") + their_point.y.to_bytes(32, "big"),
    )
    assert swapped not in (mine, theirs)
    with pytest.raises(CsrInvalidError, match="signature"):
        public_key_from_csr(swapped)


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_flipped_request_is_refused_or_proves_the_same_key(offset: int, flip: int) -> None:
    good = credentials.signing_request(KEY)
    bad = bytearray(good)
    bad[offset % len(bad)] ^= flip
    try:
        key = public_key_from_csr(bytes(bad))
    except CsrInvalidError:
        return
    # The signature's bit string may say that its last bits, when they are 0, are unused: that is
    # not signed, and changes nothing.
    assert key == KEY.public_key()


def test_the_subject_of_a_request_counts_for_nothing(authority: Authority) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "op-1")])
    wanted = x509.SubjectAlternativeName(uri("anju://operator/op-1"))
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(wanted, critical=True)
        .sign(KEY, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    issued = authority.issue_client(public_key_from_csr(request), Role.TERMINAL, "t-1", "hall")
    principal = principal_from_certificate(issued.public_bytes(Encoding.DER))
    assert principal == Principal(Role.TERMINAL, "t-1", "hall")
