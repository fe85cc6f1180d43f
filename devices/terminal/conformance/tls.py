"""How a port answers in TLS, seen without gRPC. Nothing is sent after the handshake."""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from devices.authority import SERVER_NAME
from devices.certificates import public_key_der
from devices.terminal.conformance.findings import Finding, failed, passed
from devices.token import fingerprint_of

_ALERT = 0x15  # TLS record types, RFC 8446 section 5.1
_HANDSHAKE = 0x16
SOON = timedelta(days=14)
NOT_OURS = (
    "Somebody answers in the server's place: a proxy or firewall that inspects TLS, or another "
    "server. Have this address passed through as plain TCP, or correct the address. Never add "
    "the other certificate to what the terminal trusts."
)


@dataclass(frozen=True)
class Presented:
    """What a server showed in a TLS 1.3 handshake.

    Attributes:
        certificate: of the leaf.
        protocol: what ALPN agreed on (RFC 7301), empty if nothing.
    """

    certificate: x509.Certificate
    protocol: str

    @property
    def fingerprint(self) -> str:
        """As a provisioning token carries it."""
        return fingerprint_of(public_key_der(self.certificate.public_key()))


def presented(address: str, timeout_s: float) -> Presented:
    """What the server at ``host:port`` shows, whoever it is.

    Raises:
        OSError: it does not listen, or not in TLS 1.3 (``ssl.SSLError``).
        ValueError, UnsupportedAlgorithm: its certificate cannot be read.
    """
    context = _context(ssl.TLSVersion.TLSv1_3)
    with (
        socket.create_connection(_host_port(address), timeout_s) as raw,
        context.wrap_socket(raw, server_hostname=SERVER_NAME) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
        return Presented(
            x509.load_der_x509_certificate(der or b""), tls.selected_alpn_protocol() or ""
        )


def old_tls(address: str, timeout_s: float) -> Finding:
    """Whether TLS 1.2 is refused.

    Only the kind of the first record of the answer counts: a ServerHello agrees to TLS 1.2, even if
    the server ends the handshake later, for want of a client certificate.
    """
    outgoing = ssl.MemoryBIO()
    hello = _context(ssl.TLSVersion.TLSv1_2).wrap_bio(
        ssl.MemoryBIO(), outgoing, server_hostname=SERVER_NAME
    )
    with contextlib.suppress(ssl.SSLWantReadError):  # as meant: the greeting is written
        hello.do_handshake()
    try:
        with socket.create_connection(_host_port(address), timeout_s) as raw:
            raw.sendall(outgoing.read())
            first = raw.recv(1)
    except ConnectionError:
        first = b""
    except OSError as error:
        return failed(
            "tls-1.2", f"no answer to TLS 1.2: {error}", "Look for a firewall that stalls."
        )
    if first and first[0] == _HANDSHAKE:
        return failed(
            "tls-1.2",
            "TLS 1.2 is accepted",
            "anju's server speaks TLS 1.3 only, so somebody else answers, or the server was not "
            "started with `anju serve`.",
        )
    how = "with an alert" if first and first[0] == _ALERT else "by closing the connection"
    return passed("tls-1.2", f"TLS 1.2 is refused {how}")


def server_certificate(shown: Presented, now: datetime) -> Finding:
    """Whether the leaf is of the profile and valid, going by this machine's clock."""
    check, leaf = "server-certificate", shown.certificate
    key = leaf.public_key()
    if SERVER_NAME not in _dns_names(leaf):
        return failed(check, f"it does not name {SERVER_NAME}: {whose(leaf)}", NOT_OURS)
    if not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)):
        return failed(check, f"its key is not on P-256: {whose(leaf)}", NOT_OURS)
    finding = validity(check, leaf, now, "Restart the server: it renews its certificate at start.")
    return finding or passed(
        check, f"valid until {leaf.not_valid_after_utc:%Y-%m-%d}, fingerprint {shown.fingerprint}"
    )


def validity(
    check: str, certificate: x509.Certificate, now: datetime, renew: str
) -> Finding | None:
    """What is wrong with the time a certificate is valid for, if anything."""
    if now < certificate.not_valid_before_utc:
        return failed(
            check,
            f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; this "
            f"machine's clock says {now:%Y-%m-%d %H:%M} UTC",
            "Set this machine's clock (NTP).",
        )
    if now >= certificate.not_valid_after_utc:
        return failed(
            check,
            f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; this machine's "
            f"clock says {now:%Y-%m-%d %H:%M} UTC",
            f"If the clock is right: {renew[0].lower()}{renew[1:]}",
        )
    if certificate.not_valid_after_utc - now < SOON:
        return failed(check, f"expires on {certificate.not_valid_after_utc:%Y-%m-%d}", renew)
    return None


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return []
    return names.get_values_for_type(x509.DNSName)


def whose(certificate: x509.Certificate) -> str:
    """Subject and issuer, for people."""
    return f"{certificate.subject.rfc4514_string()}, by {certificate.issuer.rfc4514_string()}"[:200]


def _context(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.check_hostname = False  # whoever it is, is what we want to see
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
