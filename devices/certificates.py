"""The certificate profile: what a client certificate says, and reading it back strictly.

A caller is named by exactly one URI in subjectAltName (RFC 5280 section 4.2.1.6)::

    anju://terminal/<station>/<terminal>    anju://operator/<operator>    anju://department/<department>

The subject is decoration for people. That the certificate was signed by our authority and is meant
for clients (extendedKeyUsage) was checked by TLS during the handshake; expiry was, too, but a
connection outlives it, so :meth:`devices.provisioning.Provisioning.admit` looks again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from devices.errors import CertificateInvalidError, CsrInvalidError, StationInvalidError
from devices.keys import CURVES
from devices.types import Principal, Role

MAX_CSR_BYTES = 8_192  # a P-384 request has about 400; room for a vendor's attributes
_ID = re.compile(r"[a-z0-9-]{2,32}", re.ASCII)
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


def check_id(what: str, value: str) -> str:
    """The value itself, if it is 2 to 32 of a-z, 0-9 and ``-``.

    Raises:
        StationInvalidError: it is not; ``what`` names it in the message.
    """
    if not _ID.fullmatch(value):
        raise StationInvalidError(f"{what} must be 2 to 32 of a-z, 0-9 and '-', not {value[:64]!r}")
    return value


def identity_uri(role: Role, id: str, station_id: str) -> str:
    """The URI that names a caller.

    Raises:
        StationInvalidError: an id is malformed, or a station is given for what is no terminal.
    """
    check_id(f"{role.value} id", id)
    if role is Role.TERMINAL:
        return f"anju://terminal/{check_id('station id', station_id)}/{id}"
    if station_id:
        raise StationInvalidError(f"{role.value} {id!r} has no station, not {station_id[:64]!r}")
    return f"anju://{role.value}/{id}"


def principal_from_certificate(certificate: bytes) -> Principal:
    """The caller that a client certificate (X.509, DER or PEM) names.

    Raises:
        CertificateInvalidError: it is no certificate of the profile.
    """
    return _principal(bytes(certificate))


def principal_from_auth_context(auth_context: Mapping[str, Iterable[bytes]]) -> Principal:
    """The caller behind gRPC's ``ServicerContext.auth_context()``.

    Raises:
        CertificateInvalidError: there is no client certificate, or it is not of the profile.
    """
    certificates = list(auth_context.get("x509_pem_cert", ()))
    if len(certificates) != 1:
        raise CertificateInvalidError("the connection has no client certificate")
    return principal_from_certificate(certificates[0])


# Every call on a connection shows the same certificate: parse it once.
@lru_cache(maxsize=8192)
def _principal(certificate: bytes) -> Principal:
    try:
        parsed = (
            x509.load_pem_x509_certificate(certificate)
            if certificate.startswith(b"-----BEGIN")
            else x509.load_der_x509_certificate(certificate)
        )
        extensions = parsed.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        spki = public_key_der(parsed.public_key())
    except (*_UNREADABLE, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise CertificateInvalidError("the client certificate is not of anju's profile") from error
    if constraints.ca or list(usage) != [ExtendedKeyUsageOID.CLIENT_AUTH]:
        raise CertificateInvalidError("the client certificate is not one for clients")
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        raise CertificateInvalidError("the client certificate does not name exactly one URI")
    role, id, station_id = _split_uri(names[0].value)
    return Principal(
        role,
        id,
        station_id,
        serial=serial_of(parsed),
        not_after=parsed.not_valid_after_utc,
        key_hash=hashlib.sha256(spki).digest(),
    )


def _split_uri(uri: str) -> tuple[Role, str, str]:
    match uri.split("/"):
        case ["anju:", "", "terminal", station_id, id] if _ID.fullmatch(station_id):
            role = Role.TERMINAL
        case ["anju:", "", "operator", id]:
            role, station_id = Role.OPERATOR, ""
        case ["anju:", "", "department", id]:
            role, station_id = Role.DEPARTMENT, ""
        case _:
            raise CertificateInvalidError("the client certificate's URI names no caller of anju")
    if not _ID.fullmatch(id):
        raise CertificateInvalidError("the client certificate's URI names no caller of anju")
    return role, id, station_id


def serial_of(certificate: x509.Certificate) -> str:
    """A certificate's serial number: lower-case hexadecimal without leading zeros."""
    return f"{certificate.serial_number:x}"


def public_key_der(key: CertificatePublicKeyTypes) -> bytes:
    """SubjectPublicKeyInfo, DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether an authority signed a certificate; the clock plays no part."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def public_key_from_csr(csr: bytes) -> ec.EllipticCurvePublicKey:
    """The key of a certificate signing request (PKCS #10, RFC 2986, DER) that proves possession.

    Subject and requested extensions are ignored: the authority decides who is who. Keys are P-256
    or P-384; gRPC's TLS (BoringSSL) takes no Ed25519 client by default, and RSA is left out because
    a hostile modulus makes verification expensive.

    Raises:
        CsrInvalidError: unreadable, too long, another kind of key, or a signature that is wrong or
            made with another hash than SHA-256, -384 or -512.
    """
    if len(csr) > MAX_CSR_BYTES:
        raise CsrInvalidError(
            f"the signing request has {len(csr)} bytes; at most {MAX_CSR_BYTES} are accepted"
        )
    try:
        request = x509.load_der_x509_csr(csr)
        key = request.public_key()
        hash_algorithm = request.signature_hash_algorithm
    except _UNREADABLE as error:
        raise CsrInvalidError("the signing request is not PKCS #10 in DER") from error
    if not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, CURVES)):
        raise CsrInvalidError("the signing request's key must be on the curve P-256 or P-384")
    if not isinstance(hash_algorithm, SHA256 | SHA384 | SHA512) or not request.is_signature_valid:
        raise CsrInvalidError(
            "the signing request's signature is not valid ECDSA with SHA-256, -384 or -512"
        )
    return key
