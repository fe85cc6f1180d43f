"""A client's own files: its key, its certificate, the authority it trusts, the server's address.

One directory a client, the same for terminals and operators::

    key.pem           PKCS #8, readable by its owner only; made here, never leaves
    certificate.pem   the client certificate
    ca.pem            what the server's certificate is checked against
    server            the address, host:port

The directory is complete once ``certificate.pem`` is in it, which is therefore written last.

A terminal that is provisioned anew gets other files in the place of these. They are first written
beside them, as ``next-`` and the same name, ``next-certificate.pem`` last: from then on they count,
and whoever opens the directory next finishes moving them, should the one who began have died.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from devices.certificates import principal_from_certificate
from devices.errors import CertificateInvalidError, CredentialsError
from devices.keys import CURVES, PrivateKey

KEY_FILE = "key.pem"
CERTIFICATE_FILE = "certificate.pem"
CA_FILE = "ca.pem"
SERVER_FILE = "server"
_NEXT = "next-"

_ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]):([0-9]{1,5})", re.ASCII)


@dataclass(frozen=True)
class Credentials:
    """What a client needs to connect. PEM throughout; the key is kept out of ``repr``."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes
    ca_pem: bytes
    address: str


def check_address(address: str) -> str:
    """The address itself, if it is ``host:port`` (an IPv6 host in brackets).

    Raises:
        CredentialsError: it is not.
    """
    match = _ADDRESS.fullmatch(address)
    if not match or not 1 <= int(match[1]) <= 65_535:
        raise CredentialsError(
            f"the server's address must be host:port, e.g. 10.0.0.5:7443, not {address[:100]!r}"
        )
    return address


def new_key(directory: Path) -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key, already on disk in the directory, which is created if missing.

    A key that a broken-off attempt left behind is used again: the server may have bound the token
    to it.

    Raises:
        CredentialsError: the directory holds a certificate already, or the key is unusable.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (directory / CERTIFICATE_FILE).exists():
        raise CredentialsError(
            f"{directory} holds a certificate already; choose another directory, or move it away"
        )
    return _kept_or_new_key(directory / KEY_FILE)


def provisioning_key(directory: Path) -> ec.EllipticCurvePrivateKey:
    """The key to provision with, as :func:`new_key`.

    In a directory that is complete it lies beside the present one, which goes on working until
    :func:`install`.
    """
    _finish_installing(directory)
    if not (directory / CERTIFICATE_FILE).exists():
        return new_key(directory)
    return _kept_or_new_key(directory / f"{_NEXT}{KEY_FILE}")


def install(directory: Path, certificate: bytes, ca_certificate: bytes, address: str) -> None:
    """Complete a directory, or put another key and certificate of the same terminal in their place.

    Certificates are X.509, DER, for the key of :func:`provisioning_key`.

    Raises:
        CredentialsError: the certificate is for another key, or names another terminal than the one
            whose directory this is; what was there stays.
    """
    if not (directory / CERTIFICATE_FILE).exists():
        save(directory, certificate, ca_certificate, address)
        return
    pem = _certificate_for(_load_key(directory / f"{_NEXT}{KEY_FILE}"), certificate)
    _require_same_client(directory, pem)
    replace(directory / f"{_NEXT}{SERVER_FILE}", f"{check_address(address)}\n".encode())
    replace(directory / f"{_NEXT}{CA_FILE}", _ca_pem(ca_certificate))
    replace(directory / f"{_NEXT}{CERTIFICATE_FILE}", pem)
    _finish_installing(directory)


def signing_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate signing request (PKCS #10, RFC 2986, DER); its subject counts for nothing."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "anju client")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def save(directory: Path, certificate: bytes, ca_certificate: bytes, address: str) -> None:
    """Complete a directory that holds a key. Certificates are X.509, DER.

    Raises:
        CredentialsError: a file is there already, or the certificate is for another key.
    """
    pem = _certificate_for(_load_key(directory / KEY_FILE), certificate)
    ca_pem = _ca_pem(ca_certificate)
    replace(directory / SERVER_FILE, f"{check_address(address)}\n".encode())
    replace(directory / CA_FILE, ca_pem)
    write_new(directory / CERTIFICATE_FILE, pem, mode=0o644)


def renew(directory: Path, certificate: bytes) -> None:
    """Put a later certificate (X.509, DER) for the same key in the place of the old one.

    Raises:
        CredentialsError: the certificate is unreadable or for another key; the old one stays.
    """
    pem = _certificate_for(load_key(directory), certificate)
    replace(directory / CERTIFICATE_FILE, pem)


def load_key(directory: Path) -> ec.EllipticCurvePrivateKey:
    """The private key of a directory.

    Raises:
        CredentialsError: it is missing, unreadable, readable by others, or not on P-256 or P-384.
    """
    _finish_installing(directory)
    return _load_key(directory / KEY_FILE)


def load_private_key(path: Path) -> PrivateKey:
    """A person's own key: a PEM file (PKCS #8 without a password), or a directory of credentials.

    Raises:
        CredentialsError: it is missing, unreadable, readable by others, or of another kind than
            Ed25519, P-256 or P-384.
    """
    file = path / KEY_FILE if path.is_dir() else path
    try:
        check_private(file)
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CredentialsError(f"{file} is not a readable private key") from error
    if isinstance(key, Ed25519PrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, CURVES)
    ):
        return key
    raise CredentialsError(f"{file} is neither an Ed25519 key nor one on the curve P-256 or P-384")


def load(directory: Path) -> Credentials:
    """Read a complete directory.

    Raises:
        CredentialsError: a file is missing, or others can read the key.
    """
    _finish_installing(directory)
    try:
        check_private(directory / KEY_FILE)
        address = (directory / SERVER_FILE).read_text(encoding="utf-8").strip()
        return Credentials(
            key_pem=(directory / KEY_FILE).read_bytes(),
            certificate_pem=(directory / CERTIFICATE_FILE).read_bytes(),
            ca_pem=(directory / CA_FILE).read_bytes(),
            address=check_address(address),
        )
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsError(
            f"{directory} holds no usable credentials ({error}); provision this terminal first, "
            "or name the directory of an operator"
        ) from error


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #8 without a password: the file's permissions protect it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def check_private(path: Path) -> None:
    """Refuse a key file that others can read, as ssh does.

    Raises:
        CredentialsError: group or others have any access.
        OSError: there is no such file.
    """
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise CredentialsError(f"{path} can be read by others; make it yours alone (chmod 600)")


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist yet, durably and in one step.

    Raises:
        CredentialsError: it exists.
    """
    draft = _draft(path, content, mode)
    try:
        # Neither replaces what is there: link() on POSIX, rename() on Windows.
        (os.link if os.name == "posix" else os.rename)(draft, path)
    except FileExistsError as error:
        raise CredentialsError(f"{path} exists already and is never overwritten") from error
    finally:
        draft.unlink(missing_ok=True)
    _sync_directory(path.parent)


def replace(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file in one step: readers see the old content or the new, also after a crash."""
    _draft(path, content, mode).replace(path)
    _sync_directory(path.parent)


def _draft(path: Path, content: bytes, mode: int) -> Path:
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _sync_directory(directory: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _kept_or_new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if path.exists():
        return _load_key(path)
    key = ec.generate_private_key(ec.SECP256R1())
    write_new(path, key_to_pem(key), mode=0o600)
    return key


def _finish_installing(directory: Path) -> None:
    """Move what :func:`install` made ready; the certificate last, so that it can be repeated."""
    if not (directory / f"{_NEXT}{CERTIFICATE_FILE}").exists():
        return
    for name in (KEY_FILE, CA_FILE, SERVER_FILE, CERTIFICATE_FILE):
        with contextlib.suppress(FileNotFoundError):  # moved already, or by another process
            (directory / f"{_NEXT}{name}").replace(directory / name)
        _sync_directory(directory)


def _require_same_client(directory: Path, pem: bytes) -> None:
    """What waits in a terminal's directory was captured under its name."""
    try:
        present = principal_from_certificate((directory / CERTIFICATE_FILE).read_bytes())
    except CertificateInvalidError:
        return  # damaged: nobody's any more
    named = principal_from_certificate(pem)
    if (named, named.station_id) != (present, present.station_id):
        raise CredentialsError(
            f"{directory} is the directory of {present}, and this token is for {named}; choose "
            f"another directory, or ask for a token for {present}"
        )


def _ca_pem(ca_certificate: bytes) -> bytes:
    try:
        return x509.load_der_x509_certificate(ca_certificate).public_bytes(Encoding.PEM)
    except ValueError as error:
        raise CredentialsError("the server sent no readable CA certificate") from error


def _certificate_for(key: ec.EllipticCurvePrivateKey, certificate: bytes) -> bytes:
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        public_key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CredentialsError("the server sent no readable certificate") from error
    if public_key != key.public_key():
        raise CredentialsError("the server's answer is a certificate for another key")
    return parsed.public_bytes(Encoding.PEM)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = load_private_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CredentialsError(f"{path} is not an elliptic curve key")
    return key
