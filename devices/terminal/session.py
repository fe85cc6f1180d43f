"""Who works at this terminal: an operator's session, kept in a file beside the credentials.

::

    log_in(directory, "anna", password="...")  # or login_key=key
    session = OperatorSession.current(directory)  # NotLoggedInError when it is over
    kept = session.vouched("EnrolmentService.Enrol", request)  # may be sent days later
    log_out(directory)

``session.json`` (0600) holds the token, and the private key that submissions are signed with. Both
are worth something until the session ends, and only together with the terminal's own key. Idle time
is watched here, because the register cannot see who captures at a terminal without a network.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from devices import credentials, keys
from devices.certificates import principal_from_certificate
from devices.errors import CredentialsError, NotLoggedInError, RemoteError, UnreachableError
from devices.keys import PrivateKey
from devices.proof import capture_text, login_text
from devices.terminal import wire
from devices.terminal.retry import DEFAULT_POLICY, RetryPolicy
from devices.terminal.wire import Metadata
from devices.types import CaptureProof
from devices.wire import CAPTURE_PROOF_METADATA, SESSION_METADATA, packed_capture_proof

SESSION_FILE = "session.json"
_INSTANTS = ("opened_at", "expires_at", "begun_at", "used_at")
OPERATOR_REASONS = (
    "OPERATOR_REQUIRED",
    "SESSION_INVALID",
    "SESSION_EXPIRED",
    "SESSION_REVOKED",
    "PROOF_INVALID",
)
"""Of refusals that are about the operator: the terminal itself is welcome."""
_MAGIC = b"anjuvo1\0"  # no request begins like that: it would be a field 12 of another type
_LENGTH = struct.Struct(">H")


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class OperatorSession:
    """An operator's session at this terminal.

    Attributes:
        opened_at, expires_at: by the register's clock, UTC.
        begun_at, used_at: by this machine's clock: when it was opened, and used last.
        idle: without use for this long it is over.
    """

    session_id: str
    operator_id: str
    token: str = field(repr=False)
    key: Ed25519PrivateKey = field(repr=False)
    opened_at: datetime
    expires_at: datetime
    begun_at: datetime
    used_at: datetime
    idle: timedelta

    @staticmethod
    def current(directory: Path, now: datetime | None = None) -> OperatorSession:
        """The session at the terminal of that directory, which counts as use of it.

        Raises:
            NotLoggedInError: there is none, or it is over.
        """
        now = now or _utc_now()
        session = _read(directory)
        if session is None:
            raise NotLoggedInError(
                "nobody is logged in at this terminal; log in with `anju terminal login`"
            )
        if (
            session.register_time(now) >= session.expires_at
            or now >= session.used_at + session.idle
        ):
            raise NotLoggedInError(
                f"the session of {session.operator_id} is over; log in with `anju terminal login`"
            )
        if not timedelta(0) <= now - session.used_at < session.idle / 10:
            session = replace(session, used_at=now)
            keep(directory, session)
        return session

    def register_time(self, now: datetime) -> datetime:
        """The register's time: this machine's clock may be wrong, but it runs."""
        return self.opened_at + max(timedelta(0), now - self.begun_at)

    def metadata(self) -> Metadata:
        """For calls made now."""
        return ((SESSION_METADATA, self.token),)

    def vouched(self, method: str, request: bytes, now: datetime | None = None) -> bytes:
        """A request together with the operator's word for it, to be kept and sent later.

        Args:
            method: e.g. ``EnrolmentService.Enrol``.
            request: its bytes as they will be sent; :func:`opened` gives them back.
        """
        signed_at = self.register_time(now or _utc_now())
        text = capture_text(self.session_id, method, signed_at, request)
        signature = keys.sign(self.key, text)
        proof = packed_capture_proof(CaptureProof(self.session_id, signed_at, signature))
        return _MAGIC + _LENGTH.pack(len(proof)) + proof + request


def opened(kept: bytes) -> tuple[Metadata, bytes]:
    """What :meth:`OperatorSession.vouched` made: the metadata to send it with, and the request.

    Anything else is a request that nobody has vouched for.
    """
    start = len(_MAGIC) + _LENGTH.size
    if not kept.startswith(_MAGIC) or len(kept) < start:
        return (), kept
    end = start + _LENGTH.unpack_from(kept, len(_MAGIC))[0]
    return ((CAPTURE_PROOF_METADATA, kept[start:end]),), kept[end:]


def session_metadata(directory: Path) -> Metadata:
    """For calls made now; empty when nobody is logged in, which the register will say."""
    try:
        return OperatorSession.current(directory).metadata()
    except NotLoggedInError:
        return ()


def log_in(
    directory: Path,
    operator_id: str,
    *,
    password: str = "",
    new_password: str = "",
    login_key: PrivateKey | None = None,
    address: str | None = None,
    deadline_s: float = 30.0,
    policy: RetryPolicy = DEFAULT_POLICY,
    now: Callable[[], datetime] = _utc_now,
) -> OperatorSession:
    """Open a session at a terminal, in the place of the one that is open there.

    Args:
        directory: the terminal's credentials.
        password, new_password: the second replaces the first, if not empty.
        login_key: instead of a password.
        address: host:port, instead of the one in the directory.
        now: replaced in tests.

    Raises:
        RemoteError: the register refused: LOGIN_REFUSED, PASSWORD_CHANGE_REQUIRED,
            TOO_MANY_ATTEMPTS, ARGUMENT_INVALID.
        UnreachableError: no answer within the deadline.
        CredentialsError: the directory is not that of a provisioned terminal.
    """
    terminal = principal_from_certificate(credentials.load(directory).certificate_pem)
    key = Ed25519PrivateKey.generate()
    session_key = keys.public_bytes(key)
    with wire.connect(directory, address, policy) as connection:
        challenge = signature = b""
        if login_key is not None:
            challenge = wire.login_challenge(connection, operator_id, deadline_s)
            text = login_text(operator_id, terminal.id, challenge, session_key)
            signature = keys.sign(login_key, text)
        answer = wire.log_in(
            connection,
            operator_id,
            session_key,
            password=password,
            new_password=new_password,
            challenge=challenge,
            signature=signature,
            deadline_s=deadline_s,
        )
    begun_at = now()
    session = OperatorSession(
        session_id=answer.session_id,
        operator_id=operator_id,
        token=answer.token,
        key=key,
        opened_at=answer.opened_at,
        expires_at=answer.expires_at,
        begun_at=begun_at,
        used_at=begun_at,
        idle=answer.idle,
    )
    keep(directory, session)
    return session


def keep(directory: Path, session: OperatorSession) -> None:
    """Make it the terminal's session."""
    stored = {
        "session_id": session.session_id,
        "operator_id": session.operator_id,
        "token": session.token,
        "key": session.key.private_bytes_raw().hex(),
        "idle_s": session.idle.total_seconds(),
        **{name: getattr(session, name).isoformat() for name in _INSTANTS},
    }
    credentials.replace(directory / SESSION_FILE, json.dumps(stored).encode(), mode=0o600)


def log_out(
    directory: Path,
    address: str | None = None,
    deadline_s: float = 10.0,
    policy: RetryPolicy = DEFAULT_POLICY,
) -> bool:
    """End the session at a terminal; nothing more can be captured under it.

    Returns:
        Whether the register knows; if it could not be reached, it ends the session by itself.

    Raises:
        NotLoggedInError: nobody is logged in.
    """
    session = _read(directory)
    if session is None:
        raise NotLoggedInError("nobody is logged in at this terminal")
    (directory / SESSION_FILE).unlink(missing_ok=True)
    try:
        with wire.connect(directory, address, policy) as connection:
            wire.log_out(connection, session.token, deadline_s)
    except UnreachableError:
        return False
    except RemoteError as error:
        if not error.reason.startswith("SESSION_"):
            raise
    return True


def _read(directory: Path) -> OperatorSession | None:
    path = directory / SESSION_FILE
    try:
        credentials.check_private(path)
        stored: dict[str, Any] = json.loads(path.read_bytes())
        return OperatorSession(
            session_id=stored["session_id"],
            operator_id=stored["operator_id"],
            token=stored["token"],
            key=Ed25519PrivateKey.from_private_bytes(bytes.fromhex(stored["key"])),
            idle=timedelta(seconds=stored["idle_s"]),
            **{name: datetime.fromisoformat(stored[name]) for name in _INSTANTS},
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, CredentialsError) as error:
        raise NotLoggedInError(f"{path} is damaged or open to others; log in again") from error
