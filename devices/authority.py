"""The device certificate authority: who may connect, and how the server shows that it is ours.

Four files in one directory::

    ca-key.pem, ca-cert.pem           the root; ten years
    server-key.pem, server-cert.pem   the server's; a year, renewed at start in its last third

Everything is P-256 with SHA-256: BoringSSL, which is inside gRPC, takes no Ed25519 certificate by
default. Certificates follow RFC 5280: version 3, random 159-bit serial numbers, basicConstraints
and keyUsage critical, subject and authority key identifiers. The root signs nothing but leaves
(pathLenConstraint 0), and a leaf is either for the server or for clients (extendedKeyUsage), which
TLS checks on both sides: a terminal's certificate cannot pose as the server.

Clients reach the server under many names and addresses, so its certificate always carries one
constant name, :data:`SERVER_NAME`, and anju's own clients expect that. It is as strong as checking
an address: this authority vouches for one server only.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from devices import credentials
from devices.certificates import check_id, identity_uri, public_key_der, serial_of
from devices.errors import AuthorityError, CredentialsError
from devices.ports import Clock
from devices.token import fingerprint_of
from devices.types import Role

SERVER_NAME = "server.anju.internal"  # .internal: reserved by ICANN in 2024 for private use
DEFAULT_SERVER_NAMES = ("localhost", "127.0.0.1", "::1")

CA_LIFETIME = timedelta(days=3_652)
SERVER_LIFETIME = timedelta(days=365)
SERVER_RENEWAL = timedelta(days=120)  # renewed at start when it has less than this left
TERMINAL_LIFETIME = timedelta(days=90)
OPERATOR_LIFETIME = timedelta(days=365)
CLOCK_SKEW = timedelta(minutes=5)  # a client's clock may be this much behind ours

_CA_KEY, _CA_CERT = "ca-key.pem", "ca-cert.pem"
_SERVER_KEY, _SERVER_CERT = "server-key.pem", "server-cert.pem"


@dataclass(frozen=True)
class ServerCredentials:
    """What the gRPC server's ports are opened with. PEM; the key is kept out of ``repr``."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes
    ca_pem: bytes


class Authority:
    """The device certificate authority, opened. Thread-safe: nothing in it changes."""

    def __init__(
        self,
        ca_key: ec.EllipticCurvePrivateKey,
        ca_certificate: x509.Certificate,
        server: ServerCredentials,
        clock: Clock,
    ) -> None:
        self._ca_key = ca_key
        self._ca = ca_certificate
        self._server = server
        self._server_certificate = x509.load_pem_x509_certificate(server.certificate_pem)
        self._clock = clock

    @property
    def certificate(self) -> bytes:
        """The root certificate, X.509, DER."""
        return self._ca.public_bytes(Encoding.DER)

    @property
    def server(self) -> ServerCredentials:
        """For the main port (with ``ca_pem`` as the clients' root) and the provisioning port."""
        return self._server

    @property
    def server_certificate(self) -> x509.Certificate:
        return self._server_certificate

    @property
    def server_fingerprint(self) -> str:
        """What provisioning tokens carry, see :func:`devices.token.fingerprint_of`."""
        return fingerprint_of(public_key_der(_ec_public(self._server_certificate)))

    def issue_client(
        self,
        public_key: ec.EllipticCurvePublicKey,
        role: Role,
        id: str,
        station_id: str = "",
        lifetime: timedelta = TERMINAL_LIFETIME,
    ) -> x509.Certificate:
        """A client certificate for a key whose possession the caller has checked.

        It never outlives the root.

        Raises:
            StationInvalidError: an id is malformed.
        """
        uri = identity_uri(role, id, station_id)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"anju {role.value}"),
                x509.NameAttribute(NameOID.COMMON_NAME, id),
            ]
        )
        return _leaf(
            self._ca_key,
            self._ca,
            public_key,
            subject,
            [x509.UniformResourceIdentifier(uri)],
            ExtendedKeyUsageOID.CLIENT_AUTH,
            self._clock,
            lifetime,
        )

    def write_client(
        self,
        directory: Path,
        role: Role,
        id: str,
        address: str,
        lifetime: timedelta = OPERATOR_LIFETIME,
    ) -> str:
        """Make an operator's or department's key and certificate in a new directory.

        For the first operators, who have nobody to ask yet. The directory is what
        :func:`devices.credentials.load` reads.

        Returns:
            The certificate's serial number, as in :attr:`devices.types.Principal.serial`.

        Raises:
            CredentialsError: the directory holds credentials already, or the address is malformed.
            StationInvalidError: the id is malformed.
        """
        credentials.check_address(address)
        check_id(f"{role.value} id", id)
        if (directory / credentials.KEY_FILE).exists():
            raise CredentialsError(f"{directory} holds a key already; choose another directory")
        key = credentials.new_key(directory)
        certificate = self.issue_client(key.public_key(), role, id, lifetime=lifetime)
        credentials.save(
            directory, certificate.public_bytes(Encoding.DER), self.certificate, address
        )
        return serial_of(certificate)


def init_authority(
    directory: Path, clock: Clock, server_names: Sequence[str] = DEFAULT_SERVER_NAMES
) -> Authority:
    """Make a new authority with its server certificate.

    Args:
        directory: created if missing; readable by its owner only.
        server_names: DNS names and IP addresses that other people's clients will check.

    Raises:
        AuthorityError: one of the four files exists already. Nothing is ever overwritten.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (_CA_KEY, _CA_CERT, _SERVER_KEY, _SERVER_CERT):
        if (directory / name).exists():
            raise AuthorityError(f"{directory / name} exists already; an authority is made once")
    names = _general_names(server_names)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _root(ca_key, clock)
    server_key = ec.generate_private_key(ec.SECP256R1())
    server = _server_leaf(ca_key, ca, server_key.public_key(), names, clock)
    try:
        credentials.write_new(directory / _CA_KEY, credentials.key_to_pem(ca_key), 0o600)
        credentials.write_new(directory / _SERVER_KEY, credentials.key_to_pem(server_key), 0o600)
        credentials.write_new(directory / _CA_CERT, ca.public_bytes(Encoding.PEM), 0o644)
        credentials.write_new(directory / _SERVER_CERT, server.public_bytes(Encoding.PEM), 0o644)
    except CredentialsError as error:
        raise AuthorityError(str(error)) from error
    return open_authority(directory, clock, server_names)


def open_authority(
    directory: Path, clock: Clock, server_names: Sequence[str] | None = None
) -> Authority:
    """Open an authority; renew the server's certificate if it is due, or for other names.

    The server's key stays, so tokens that are on their way remain good. To change the key, delete
    the two server files and open again.

    Args:
        server_names: what the certificate must name; ``None`` leaves the names as they are.

    Raises:
        AuthorityError: a file is missing, damaged, readable by others, does not fit the others, or
            the root has expired.
    """
    try:
        ca_key = _load_key(directory / _CA_KEY)
        ca = x509.load_pem_x509_certificate((directory / _CA_CERT).read_bytes())
        if ca.public_key() != ca_key.public_key():
            raise AuthorityError(
                f"{directory}: the root's key and certificate do not belong together"
            )
        if clock.now() >= ca.not_valid_after_utc:
            raise AuthorityError(
                f"{directory}: the root certificate has expired; make a new authority"
            )
        names = None if server_names is None else _general_names(server_names)
        server = _server_files(directory, ca_key, ca, names, clock)
    except (OSError, ValueError, CredentialsError) as error:
        raise AuthorityError(f"{directory} holds no usable authority: {error}") from error
    return Authority(ca_key, ca, server, clock)


def _server_files(
    directory: Path,
    ca_key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    wanted: list[x509.GeneralName] | None,
    clock: Clock,
) -> ServerCredentials:
    key_path, certificate_path = directory / _SERVER_KEY, directory / _SERVER_CERT
    if not key_path.exists():
        new_key = ec.generate_private_key(ec.SECP256R1())
        certificate_path.unlink(missing_ok=True)
        credentials.write_new(key_path, credentials.key_to_pem(new_key), 0o600)
    key = _load_key(key_path)
    present = None
    if certificate_path.exists():
        present = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    names = wanted or _names_of(present) or _general_names(DEFAULT_SERVER_NAMES)
    if present is None or not _server_certificate_stands(present, key, ca, names, clock):
        renewed = _server_leaf(ca_key, ca, key.public_key(), names, clock)
        credentials.replace(certificate_path, renewed.public_bytes(Encoding.PEM))
    return ServerCredentials(
        key_pem=key_path.read_bytes(),
        certificate_pem=certificate_path.read_bytes(),
        ca_pem=ca.public_bytes(Encoding.PEM),
    )


def _names_of(certificate: x509.Certificate | None) -> list[x509.GeneralName]:
    if certificate is None:
        return []
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return list(names)


def _server_certificate_stands(
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    names: list[x509.GeneralName],
    clock: Clock,
) -> bool:
    # Near the root's own end there is nothing left to gain from renewing.
    due = min(clock.now() + SERVER_RENEWAL, ca.not_valid_after_utc)
    return (
        certificate.public_key() == key.public_key()
        and certificate.issuer == ca.subject
        and certificate.not_valid_after_utc >= due
        and _names_of(certificate) == names
    )


def _root(key: ec.EllipticCurvePrivateKey, clock: Clock) -> x509.Certificate:
    # Two authorities of one office must not share a name, or a client that meets the wrong one gets
    # a signature failure where "unknown authority" is meant.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "anju"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"anju device CA {secrets.token_hex(4)}"),
        ]
    )
    builder = _builder(name, name, key.public_key(), clock, clock.now() + CA_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return builder.sign(key, hashes.SHA256())


def _server_leaf(
    ca_key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    public_key: ec.EllipticCurvePublicKey,
    names: list[x509.GeneralName],
    clock: Clock,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)])
    return _leaf(
        ca_key,
        ca,
        public_key,
        subject,
        names,
        ExtendedKeyUsageOID.SERVER_AUTH,
        clock,
        SERVER_LIFETIME,
    )


def _leaf(
    ca_key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    public_key: ec.EllipticCurvePublicKey,
    subject: x509.Name,
    names: list[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    clock: Clock,
    lifetime: timedelta,
) -> x509.Certificate:
    not_after = min(clock.now() + lifetime, ca.not_valid_after_utc)
    return (
        _builder(subject, ca.subject, public_key, clock, not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    clock: Clock,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(clock.now() - CLOCK_SKEW)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_names(server_names: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(SERVER_NAME)]
    for name in dict.fromkeys(server_names):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            try:
                names.append(x509.DNSName(name))
            except (ValueError, TypeError) as error:
                raise AuthorityError(f"{name[:100]!r} is no DNS name or IP address") from error
    return names


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    credentials.check_private(path)
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{path} is not an elliptic curve key")
    return key


def _ec_public(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise AuthorityError("the server's certificate is not for an elliptic curve key")
    return key
