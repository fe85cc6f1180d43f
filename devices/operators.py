"""Operators: who they are, how they log in at a terminal, and how a call shows who makes it.

Theory of operation. A terminal's certificate says which machine calls; an operator's session says
who works at it. A login gives the terminal two things:

* a **token**, for calls made now. It dies after some time without use, after the shift at the
  latest, at logout, and with the operator's or the terminal's revocation; and it is good only over
  connections whose certificate has the key it was given to, so a copied token is worth nothing.
  Only its hash is kept.
* the right to **vouch** for what is captured now and sent later. The terminal makes a fresh key for
  the session and hands in its public half at login; every submission is signed with the private
  one, with the time. Days later, when the session is long over, the signature still tells who
  captured what, provided it was made within the session; nothing secret had to be kept for that.

The terminal tells the time of a signature, and could tell a wrong one: it can backdate into a
session whose key it kept, nothing more. That is why a revocation also takes back the word of
sessions that have ended: what is still on its way under them needs another operator's.

Failed logins are counted for each operator at each terminal, and for each terminal; never for an
operator alone, or anybody with a terminal could keep somebody from working anywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from devices import keys, passwords
from devices.arguments import check_reason, rows_of
from devices.attempts import AttemptLimiter
from devices.certificates import check_id
from devices.errors import (
    ArgumentInvalidError,
    LoginRefusedError,
    OperatorBusyError,
    OperatorRevokedError,
    OperatorUnknownError,
    PasswordChangeRequiredError,
    ProofInvalidError,
    SessionExpiredError,
    SessionInvalidError,
    SessionRevokedError,
)
from devices.ports import Clock, OperatorStore
from devices.proof import capture_text, login_text
from devices.types import (
    CaptureProof,
    EnrolledOperator,
    OpenedSession,
    Operator,
    OperatorPage,
    OperatorRole,
    Principal,
    Session,
    SessionEnd,
)

FIRST_PASSWORD_LIFETIME = timedelta(days=7)
CHALLENGE_LIFETIME = timedelta(minutes=2)
CHALLENGE_BYTES = 32
PROOF_LIFETIME = timedelta(days=90)
"""How long after its session's end a proof is accepted, and so how long sessions are kept."""
SKEW = timedelta(minutes=5)
"""Signatures are timed by the terminal, from the register's time at login."""
_TRIES = 5
_WINDOW = timedelta(minutes=10)
_PER_OPERATOR_AND_TERMINAL, _PER_TERMINAL, _OVERALL = 5, 20, 100_000


@dataclass(frozen=True)
class SessionLimits:
    """How long a session lasts: in all, and without a call."""

    lifetime: timedelta = timedelta(hours=12)
    idle: timedelta = timedelta(minutes=30)


class Operators:
    """Operators and their sessions, over a store. Thread-safe if the store is."""

    def __init__(
        self, store: OperatorStore, clock: Clock, limits: SessionLimits | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits or SessionLimits()
        self._pairs = self._limiter(_PER_OPERATOR_AND_TERMINAL)
        self._terminals = self._limiter(_PER_TERMINAL)
        self._challenges: dict[str, tuple[bytes, str, datetime]] = {}
        self._challenges_lock = threading.Lock()

    def _limiter(self, per_peer: int) -> AttemptLimiter:
        return AttemptLimiter(self._clock, _WINDOW, per_peer, _OVERALL, LoginRefusedError)

    # -- administration --

    def enrol(
        self,
        operator_id: str,
        roles: Collection[OperatorRole],
        login_key: bytes = b"",
        new_password: bool = False,
    ) -> EnrolledOperator:
        """Add an operator, or change one; one who was revoked may work again.

        Args:
            login_key: SubjectPublicKeyInfo, DER; empty leaves it as it is.
            new_password: makes a first password, good for a week and for one login.

        Raises:
            StationInvalidError: the id is malformed.
            ArgumentInvalidError: no role, or the key is not acceptable.
            OperatorBusyError: the record kept changing under this call.
        """
        check_id("operator id", operator_id)
        if not roles:
            raise ArgumentInvalidError("give the operator at least one role")
        if login_key:
            keys.public_key(login_key)
        first = passwords.first_password() if new_password else ""
        hashed = passwords.hash_password(first) if first else ""
        for _ in range(_TRIES):
            before = self._store.operator(operator_id)
            operator = before or Operator(operator_id, frozenset(), 0)
            operator = replace(
                operator,
                roles=frozenset(roles),
                version=operator.version + 1,
                login_key=login_key or operator.login_key,
                revoked_at=None,
                revocation_reason="",
            )
            if first:
                until = self._clock.now() + FIRST_PASSWORD_LIFETIME
                operator = replace(operator, password=hashed, password_change_by=until)
            if self._store.put_operator(operator):
                return EnrolledOperator(operator, first)
        raise OperatorBusyError(f"operator {operator_id!r} is changing; try again")

    def revoke(self, operator_id: str, reason: str) -> Operator:
        """Refuse an operator from the next call on. Revoking again changes nothing.

        Args:
            reason: 1 to 200 characters.

        Raises:
            ArgumentInvalidError: the reason is missing or too long.
            OperatorUnknownError: there is no such operator.
            OperatorBusyError: the record kept changing under this call.
        """
        check_reason(reason)
        now = self._clock.now()
        for _ in range(_TRIES):
            operator = self._store.operator(operator_id)
            if operator is None:
                raise OperatorUnknownError(operator_id)
            if operator.revoked_at is None:
                operator = replace(
                    operator,
                    version=operator.version + 1,
                    password="",
                    password_change_by=None,
                    login_key=b"",
                    revoked_at=now,
                    revocation_reason=reason,
                )
                if not self._store.put_operator(operator):
                    continue
            # Also when it was done before: the process may have died in between.
            self._store.revoke_sessions(now, operator_id=operator_id)
            return operator
        raise OperatorBusyError(f"operator {operator_id!r} is changing; try again")

    def page(self, after: str = "", page_size: int = 0) -> OperatorPage:
        """A page of operators by id, those after ``after``.

        Args:
            page_size: 1 to 500; 0 means 100.

        Raises:
            ArgumentInvalidError: the page size is out of range.
        """
        size = rows_of(page_size)
        found = self._store.operators(after, size + 1)
        page = tuple(found[:size])
        return OperatorPage(page, page[-1].operator_id if len(found) > size else "")

    def roles_of(self, operator_id: str) -> frozenset[OperatorRole]:
        """What the operator named by a certificate may do.

        Raises:
            OperatorRevokedError: there is no such operator, or they are revoked.
        """
        operator = self._store.operator(operator_id)
        if operator is None or operator.revoked_at is not None:
            raise OperatorRevokedError(
                f"operator {operator_id} is revoked or was never registered; ask an administrator"
            )
        return operator.roles

    # -- logging in and out --

    def challenge(self, terminal: Principal, operator_id: str) -> bytes:
        """32 bytes for the operator's key to sign, once, at this terminal.

        Raises:
            StationInvalidError: the id is malformed.
        """
        check_id("operator id", operator_id)
        fresh = secrets.token_bytes(CHALLENGE_BYTES)
        with self._challenges_lock:
            until = self._clock.now() + CHALLENGE_LIFETIME
            self._challenges[terminal.id] = (fresh, operator_id, until)
        return fresh

    def log_in_with_password(
        self,
        terminal: Principal,
        operator_id: str,
        password: str,
        new_password: str,
        session_key: bytes,
    ) -> OpenedSession:
        """Open a session for who knows the password.

        Args:
            new_password: replaces it, if not empty.
            session_key: see :attr:`devices.types.Session.session_key`.

        Raises:
            LoginRefusedError: no such operator, revoked, or another password.
            PasswordChangeRequiredError: it is a first password, and no new one was given.
            ArgumentInvalidError: the session's key or the new password is not acceptable.
            StationInvalidError: the id is malformed.
            TooManyAttemptsError: too many failures.
        """
        self._check_login(operator_id, session_key)
        if new_password:
            passwords.check_password(new_password, operator_id)
            if hmac.compare_digest(new_password.encode(), password.encode()):
                raise ArgumentInvalidError("the new password must be another one")
        with self._attempt(terminal, operator_id):
            operator = self._store.operator(operator_id)
            stands = operator is not None and operator.revoked_at is None
            fits = passwords.password_fits(
                password, operator.password if operator is not None and stands else ""
            )
            if operator is None or not fits or self._too_late(operator):
                raise LoginRefusedError(operator_id)
        if new_password:
            self._replace_password(operator, new_password)
        elif operator.password_change_by is not None:
            raise PasswordChangeRequiredError(
                "this is your first password: choose one of your own to log in"
            )
        return self._open(terminal, operator_id, session_key)

    def log_in_with_key(
        self,
        terminal: Principal,
        operator_id: str,
        challenge: bytes,
        signature: bytes,
        session_key: bytes,
    ) -> OpenedSession:
        """Open a session for who holds the operator's login key.

        Args:
            challenge: what :meth:`challenge` gave this terminal last; it is used up.
            signature: over :func:`devices.proof.login_text`.

        Raises:
            LoginRefusedError: no such operator, revoked, no key, or the signature is wrong.
            ArgumentInvalidError: the session's key is not acceptable.
            StationInvalidError: the id is malformed.
            TooManyAttemptsError: too many failures.
        """
        self._check_login(operator_id, session_key)
        with self._attempt(terminal, operator_id):
            operator = self._store.operator(operator_id)
            text = login_text(operator_id, terminal.id, challenge, session_key)
            if (
                not self._challenge_fits(terminal, operator_id, challenge)
                or operator is None
                or operator.revoked_at is not None
                or not operator.login_key
                or not keys.verify_signature(operator.login_key, text, signature)
            ):
                raise LoginRefusedError(operator_id)
        return self._open(terminal, operator_id, session_key)

    def log_out(self, terminal: Principal, token: str) -> Session:
        """End a session of this terminal; returns it as it was.

        Raises:
            ArgumentInvalidError: there is no token.
            SessionInvalidError: no session of this terminal has that token.
        """
        if not token:
            raise ArgumentInvalidError("name the session to end by its token")
        session, _ = self._with_token(terminal, token)
        self._store.end_session(session.session_id, self._clock.now(), SessionEnd.LOGOUT)
        return session

    def terminal_lost(self, terminal_id: str) -> None:
        """End its sessions, and take back the word of those that ended before."""
        self._store.revoke_sessions(self._clock.now(), terminal_id=terminal_id)

    def forget_old_sessions(self) -> int:
        """Delete sessions that no proof may name any more; returns how many."""
        return self._store.forget_sessions(self._clock.now() - PROOF_LIFETIME)

    # -- who makes this call --

    def working_at(self, terminal: Principal, token: str) -> Principal:
        """The terminal with the operator whose session the token is; counts as use of it.

        Raises:
            SessionInvalidError: no session of this terminal has that token.
            SessionExpiredError, SessionRevokedError: it is over.
        """
        session, operator = self._with_token(terminal, token)
        self._require_standing(session, operator)
        now = self._clock.now()
        if (
            session.ended_at is not None
            or now >= session.expires_at
            or now >= session.last_used_at + self._limits.idle
        ):
            raise SessionExpiredError("this session is over; log in at the terminal again")
        if now >= session.last_used_at + self._limits.idle / 10:
            self._store.use_session(session.session_id, now)
        return replace(terminal, operator_id=operator.operator_id, roles=operator.roles)

    def vouched_for(
        self, terminal: Principal, proof: CaptureProof, method: str, request: bytes
    ) -> Principal:
        """The terminal with the operator who signed this request, however long ago.

        Args:
            method, request: as of :func:`devices.proof.capture_text`.

        Raises:
            SessionInvalidError: no session of this terminal has that id.
            SessionRevokedError: the operator or the terminal was revoked since.
            ProofInvalidError: another request, another key, or not within the session.
        """
        found = self._store.session(proof.session_id)
        if found is None or found[0].terminal_id != terminal.id:
            raise _no_session()
        session, operator = found
        self._require_standing(session, operator)
        ended = session.expires_at if session.ended_at is None else session.ended_at
        now = self._clock.now()
        if not session.opened_at - SKEW <= proof.signed_at <= min(ended, now) + SKEW:
            raise ProofInvalidError(
                "this was not captured within its operator's session; an operator must log in and "
                "hand it in again"
            )
        if now >= session.expires_at + PROOF_LIFETIME:
            raise ProofInvalidError(
                f"this was captured more than {PROOF_LIFETIME.days} days ago; an operator must log "
                "in and hand it in again"
            )
        text = capture_text(session.session_id, method, proof.signed_at, request)
        if not keys.verify_signature(session.session_key, text, proof.signature):
            raise ProofInvalidError(
                "the operator's signature does not fit this request; an operator must log in and "
                "hand it in again"
            )
        return replace(terminal, operator_id=operator.operator_id, roles=operator.roles)

    # -- parts --

    def _check_login(self, operator_id: str, session_key: bytes) -> None:
        check_id("operator id", operator_id)
        keys.public_key(session_key)

    @contextmanager
    def _attempt(self, terminal: Principal, operator_id: str) -> Iterator[None]:
        pair = f"{operator_id}@{terminal.id}"
        with self._terminals.attempt(terminal.id), self._pairs.attempt(pair):
            yield

    def _too_late(self, operator: Operator) -> bool:
        until = operator.password_change_by
        return until is not None and self._clock.now() >= until

    def _challenge_fits(self, terminal: Principal, operator_id: str, challenge: bytes) -> bool:
        with self._challenges_lock:
            known = self._challenges.pop(terminal.id, None)
        if known is None:
            return False
        fresh, whose, until = known
        return (
            hmac.compare_digest(fresh, challenge)
            and whose == operator_id
            and self._clock.now() < until
        )

    def _replace_password(self, operator: Operator, new_password: str) -> None:
        changed = replace(
            operator,
            version=operator.version + 1,
            password=passwords.hash_password(new_password),
            password_change_by=None,
        )
        if not self._store.put_operator(changed):
            # Most likely an administrator was faster: what was just typed may not stand any more.
            raise OperatorBusyError(f"operator {operator.operator_id!r} is changing; log in again")

    def _open(self, terminal: Principal, operator_id: str, session_key: bytes) -> OpenedSession:
        token, now = secrets.token_urlsafe(32), self._clock.now()
        session = Session(
            session_id=secrets.token_hex(16),
            token_hash=_token_hash(token),
            operator_id=operator_id,
            terminal_id=terminal.id,
            station_id=terminal.station_id,
            terminal_key_hash=terminal.key_hash,
            session_key=session_key,
            opened_at=now,
            expires_at=now + self._limits.lifetime,
            last_used_at=now,
        )
        self._store.open_session(session)
        return OpenedSession(session, token, self._limits.idle)

    def _with_token(self, terminal: Principal, token: str) -> tuple[Session, Operator]:
        found = self._store.session_of_token(_token_hash(token))
        if (
            found is None
            or found[0].terminal_id != terminal.id
            or not hmac.compare_digest(found[0].terminal_key_hash, terminal.key_hash)
        ):
            raise _no_session()
        return found

    def _require_standing(self, session: Session, operator: Operator) -> None:
        if session.ended_by is SessionEnd.REVOKED or operator.revoked_at is not None:
            raise SessionRevokedError(
                f"the session of operator {operator.operator_id} was withdrawn; another operator "
                "must log in, look at this and hand it in again"
            )


def _token_hash(token: str) -> bytes:
    return hashlib.sha256(b"anju session token\x00" + token.encode()).digest()


def _no_session() -> SessionInvalidError:
    return SessionInvalidError("this terminal has no such session; log in at the terminal")
