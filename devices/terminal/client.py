"""A capture terminal: its certificate, and what it asks of the register."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from cryptography import x509

from devices import credentials
from devices.certificates import issued_by
from devices.errors import RemoteError, ServerUntrustedError
from devices.terminal import wire
from devices.terminal.pin import pinned_certificate
from devices.terminal.retry import DEFAULT_POLICY, RetryPolicy, retrying
from devices.terminal.session import opened, session_metadata
from devices.terminal.types import Application, FingerFile, MissingFinger, Person, Sample
from devices.token import parse_token
from devices.types import Equipment, Provisioned

UPLOAD_MISSING = "UPLOAD_MISSING"
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
    same again. A terminal that has credentials already, expired or revoked ones, gets others in
    their place, and its queue stays; until then the old ones go on working.

    Args:
        address: host:port of the provisioning port.
        token: as shown by the register, typed in any case and spacing.
        directory: see :mod:`devices.credentials`; created if missing.
        main_address: host:port for everything after; by default the same host, one port lower.
        deadline_s: seconds for everything.

    Raises:
        TokenInvalidError: the token is mistyped; nothing was sent.
        ServerUntrustedError: the server is not the one the token was made by; nothing was sent.
        CredentialsError: the directory is another terminal's, or an address is malformed.
        RemoteError: the register refused, e.g. with reason TOKEN_INVALID.
        UnreachableError: no answer within the deadline.
    """
    parsed = parse_token(token)
    credentials.check_address(address)
    main = _port_below(address) if main_address is None else main_address
    credentials.check_address(main)
    key = credentials.provisioning_key(directory)

    def look(timeout_s: float) -> x509.Certificate:
        return pinned_certificate(address, parsed.fingerprint, timeout_s)

    server = retrying(look, deadline_s, policy)
    with wire.connect_pinned(address, server, policy) as connection:
        csr = credentials.signing_request(key)
        answer = wire.provision(connection, parsed.text(), csr, deadline_s)
    _check_authority(server, answer.ca_certificate)
    credentials.install(directory, answer.certificate, answer.ca_certificate, main)
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
        missing_fingers: Sequence[MissingFinger] = (),
        images: Sequence[FingerFile] = (),
    ) -> Application:
        """Apply for registration; the application is durable once this returns.

        In the name of the operator who is logged in, see :mod:`devices.terminal.session`.

        Args:
            samples: one to ten fingers; plain bytes take their finger position from the record.
            missing_fingers: that were asked for and could not be captured, and why.
            images: fingers for the register to extract, where the city allows it.
            captured_at: aware; when the samples were captured, if not just now.
            idempotency_key: 16 to 64 characters. Give one to be able to repeat the call after
                :class:`UnreachableError`, with all other arguments the same.
            portrait: PNG or JPEG, at most 8 MiB; only 48 x 60 grey pixels of it are kept.
        """
        key = idempotency_key or wire.new_idempotency_key()
        request = wire.enrol_request(
            person,
            samples,
            permit_requested,
            captured_at,
            key,
            portrait,
            missing_fingers,
            images,
        )
        packed = wire.packed_enrolment(request)
        metadata = session_metadata(self._directory)
        return self._enrol(
            packed, metadata, deadline_s, lambda: wire.pictures(portrait, images), lambda _: None
        )

    def enrol_packed(
        self,
        kept: bytes,
        deadline_s: float = 60.0,
        pictures: Callable[[], Sequence[bytes]] = tuple,
        seen: Callable[[int], None] = lambda received: None,
    ) -> Application:
        """Send an application that :func:`devices.terminal.wire.packed_enrolment` made earlier.

        Its pictures go only once the register asks for them: after a lost answer it has used them
        already, and they need not travel again.

        Args:
            kept: with the word of the operator who captured it, see
                :meth:`devices.terminal.session.OperatorSession.vouched`.
            pictures: what was uploaded, or will have to be.
            seen: see :meth:`devices.terminal.wire.Connection.upload`.
        """
        metadata, request = opened(kept)
        return self._enrol(request, metadata, deadline_s, pictures, seen)

    def _enrol(
        self,
        request: bytes,
        metadata: wire.Metadata,
        deadline_s: float,
        pictures: Callable[[], Sequence[bytes]],
        seen: Callable[[int], None],
    ) -> Application:
        end = time.monotonic() + deadline_s
        try:
            return wire.enrol_packed(self._connection, request, deadline_s, metadata)
        except RemoteError as error:
            missing = pictures() if error.reason == UPLOAD_MISSING else ()
            if not missing:
                raise
        for picture in missing:
            self._connection.upload(picture, end - time.monotonic(), seen)
        return wire.enrol_packed(self._connection, request, end - time.monotonic(), metadata)

    def report(self, equipment: Equipment, deadline_s: float = 30.0) -> datetime:
        """Tell the register what this terminal is made of; returns the register's time."""
        return wire.heartbeat(self._connection, equipment, deadline_s)

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
        ca = x509.load_der_x509_certificate(ca_certificate)
    except ValueError as error:
        raise ServerUntrustedError("the server sent no readable CA certificate") from error
    if not issued_by(server, ca):
        raise ServerUntrustedError(
            "the server sent the certificate of an authority that is not its own"
        )
