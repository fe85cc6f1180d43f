"""Meeting the server for the first time: is it the one the token was made by?

The terminal trusts nobody yet, so it looks at the server's certificate over a connection on which
it sends nothing, and compares the key in it with the fingerprint in the token. The call itself then
goes over a second connection whose only trust anchor is the certificate just checked. gRPC's TLS
accepts a leaf as its anchor (X509_V_FLAG_PARTIAL_CHAIN; measured with grpcio 1.85, and a test keeps
it true), and a leaf can vouch for nobody but itself: whoever answers the second time must hold the
very key that was checked, or the handshake fails before the token leaves.
"""

from __future__ import annotations

import hmac
import socket
import ssl

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from devices.certificates import public_key_der
from devices.errors import ServerUntrustedError, UnreachableError
from devices.token import fingerprint_of


def pinned_certificate(address: str, fingerprint: str, timeout_s: float) -> x509.Certificate:
    """The certificate of the server at ``host:port``, whose key has that fingerprint.

    Raises:
        ServerUntrustedError: the key is another one.
        UnreachableError: nobody answers, or not in TLS 1.2 or later.
    """
    der = _presented_certificate(address, timeout_s)
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = public_key_der(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ServerUntrustedError(
            f"the server at {address} has no readable certificate"
        ) from error
    if not hmac.compare_digest(fingerprint_of(key), fingerprint):
        raise ServerUntrustedError(
            f"the server at {address} is not the one this token was made by; nothing was sent to "
            "it. Check the address; if it is right, somebody may be in between: tell an operator"
        )
    return certificate


def _presented_certificate(address: str, timeout_s: float) -> bytes:
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # nothing is sent, and the caller checks the key itself
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout_s) as raw,
            context.wrap_socket(raw) as tls,
        ):
            der = tls.getpeercert(binary_form=True)
    except OSError as error:  # ssl.SSLError is one
        raise UnreachableError(
            "UNAVAILABLE", "", f"the server at {address} does not answer in TLS: {error}"
        ) from error
    if der is None:
        raise ServerUntrustedError(f"the server at {address} has no certificate")
    return der
