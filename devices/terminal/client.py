"""A capture terminal: its certificate, and what it asks of the register."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from devices import credentials
from devices.errors import ServerUntrustedError
from devices.terminal import wire
from devices.terminal.pin import pinned_certificate
from devices.terminal.retry import DEFAULT_POLICY, RetryPolicy, retrying
from devices.terminal.types import Application, Person, Sample
from devices.token import parse_token
from devices.types import Provisioned

RENEW_BEFORE = timedelta(days=30)


def provision(
    address: str,
    token: str,
    directory: Path,
    main_address: str | None = None,
    deadline_s: float = 30.0,
    policy: RetryPolicy = DEFAULT_POLICY,
) -> Provisioned:
    """Turn a one-time token into this terminal's certificate, stored in a directory.

    May be repeated with the same token after a failure: the key is kept and the server answers the
    same again.

    Args:
        address: host:port of the provisioning port.
        token: as shown by the register, typed in any case and spacing.
        directory: see :mod:`devices.credentials`; created if missing.
        main_address: host:port for everything after; by default the same host, one port lower.
        deadline_s: seconds for everything.

    Raises:
        TokenInvalidError: the token is mistyped; nothing was sent.
        ServerUntrustedError: the server is not the one the token was made by; nothing was sent.
        CredentialsError: the directory holds a certificate already, or an address is malformed.
        RemoteError: the register refused, e.g. with reason TOKEN_INVALID.
        UnreachableError: no answer within the deadline.
    """
    parsed = parse_token(token)
    credentials.check_address(address)
    main = _port_below(address) if main_address is None else main_address
    credentials.check_address(main)
    key = credentials.new_key(directory)

    def look(timeout_s: float) -> x509.Certificate:
        return pinned_certificate(address, parsed.fingerprint, timeout_s)

    server = retrying(look, deadline_s, policy)
    with wire.connect_pinned(address, server, policy) as connection:
        csr = credentials.signing_request(key)
        answer = wire.provision(connection, parsed.text(), csr, deadline_s)
    _check_authority(server, answer.ca_certificate)
    credentials.save(directory, answer.certificate, answer.ca_certificate, main)
    return answer


class TerminalClient:
    """The calls of a terminal, over mutual TLS. Thread-safe; close it, or use it in ``with``.

    Every call tries again while nobody answers, until its deadline; a change is sent under the same
    idempotency key each time, so it is made once. Errors of every call: :class:`RemoteError` when
    the register refused, :class:`UnreachableError`, :class:`ServerUntrustedError`.
    """

    def __init__(
        self, directory: Path, address: str | None = None, policy: RetryPolicy = DEFAULT_POLICY
    ) -> None:
        """
        Args:
            directory: that :func:`provision` filled.
            address: host:port, instead of the one in the directory.

        Raises:
            CredentialsError: the directory is incomplete, or the address malformed.
            CertificateInvalidError: the certificate has expired.
        """
        self._directory = directory
        self._connection = wire.connect(directory, address, policy)

    def enrol(
        self,
        person: Person,
        samples: Sequence[Sample | bytes],
        permit_requested: bool = True,
        captured_at: datetime | None = None,
        idempotency_key: str | None = None,
        deadline_s: float = 60.0,
        portrait: bytes = b"",
    ) -> Application:
        """Apply for registration; the application is durable once this returns.

        Args:
            samples: one to ten fingers; plain bytes take their finger position from the record.
            captured_at: aware; when the samples were captured, if not just now.
            idempotency_key: 16 to 64 characters. Give one to be able to repeat the call after
                :class:`UnreachableError`, with all other arguments the same.
            portrait: PNG or JPEG, at most about 600 kB; only 48 x 60 grey pixels of it are kept.
        """
        key = idempotency_key or wire.new_idempotency_key()
        request = wire.enrol_request(person, samples, permit_requested, captured_at, key, portrait)
        return wire.enrol(self._connection, request, deadline_s)

    def enrol_packed(self, request: bytes, deadline_s: float = 60.0) -> Application:
        """Send an application that :func:`devices.terminal.wire.packed_enrolment` made earlier."""
        return wire.enrol_packed(self._connection, request, deadline_s)

    def application(self, application_id: str, deadline_s: float = 30.0) -> Application:
        """How an earlier application of this station stands."""
        return wire.application(self._connection, application_id, deadline_s)

    def certificate_expiry(self) -> datetime:
        """When the certificate in the directory expires, UTC."""
        return wire.certificate_expiry(credentials.load(self._directory))

    def renewal_due(self) -> bool:
        """Whether the certificate expires within 30 days."""
        return self.certificate_expiry() - datetime.now(UTC) < RENEW_BEFORE

    def renew(self, deadline_s: float = 30.0) -> None:
        """Get a later certificate for the same key. Connections opened from now on use it.

        Raises:
            CredentialsError: the answer is not a certificate for this key; the old one stays.
        """
        key = credentials.load_key(self._directory)
        csr = credentials.signing_request(key)
        credentials.renew(self._directory, wire.renew(self._connection, csr, deadline_s))

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> TerminalClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _port_below(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) - 1}"


def _check_authority(server: x509.Certificate, ca_certificate: bytes) -> None:
    """Refuse an authority that did not sign the certificate the server was recognised by."""
    try:
        server.verify_directly_issued_by(x509.load_der_x509_certificate(ca_certificate))
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise ServerUntrustedError(
            "the server sent the certificate of an authority that is not its own"
        ) from error
