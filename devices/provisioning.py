"""How a terminal gets its certificate, keeps it, and loses it.

::

                 create_token            provision             renew
    (unknown) ─────────────▶ EXPECTED ─────────────▶ ACTIVE ─────────┐
                                 ▲                   │  ▲            │
                    create_token │          revoke   │  └────────────┘
                                 └───── REVOKED ◀────┘
                   (reprovision goes from any of them to EXPECTED at once)

A token is good for one key, once, until it expires or a later token for the same terminal is made.
A terminal that lost the answer asks again with the same token and key and gets the same
certificate; any other key is refused. A token for an active terminal leaves its certificate alone
until the token is redeemed: the old certificate is refused from then on. For a terminal that was
lost, :meth:`Provisioning.reprovision` refuses it at once.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from devices.arguments import check_reason, rows_of
from devices.attempts import AttemptLimiter
from devices.authority import TERMINAL_LIFETIME, Authority
from devices.certificates import check_id, public_key_der, public_key_from_csr, serial_of
from devices.errors import (
    ArgumentInvalidError,
    CertificateInvalidError,
    CertificateRevokedError,
    TerminalBusyError,
    TerminalExistsError,
    TerminalUnknownError,
    TokenInvalidError,
)
from devices.ports import Clock, TerminalStore
from devices.token import new_token, parse_token, secret_hash
from devices.types import (
    Equipment,
    IssuedToken,
    Principal,
    Provisioned,
    Role,
    Terminal,
    TerminalPage,
    TerminalState,
    TokenRecord,
)

TOKEN_LIFETIME = timedelta(hours=24)
MAX_EQUIPMENT_TEXT, MAX_FORMATS = 64, 16
CONTACT_GRAIN = timedelta(minutes=1)  # last_contact is written at most this often per terminal
_TRIES = 5  # optimistic writes that lose this often in a row are given up


class Provisioning:
    """The life of terminal certificates, over a store. Thread-safe if the store is."""

    def __init__(
        self,
        authority: Authority,
        store: TerminalStore,
        clock: Clock,
        attempts: AttemptLimiter | None = None,
        token_lifetime: timedelta = TOKEN_LIFETIME,
        terminal_lifetime: timedelta = TERMINAL_LIFETIME,
        lost: Callable[[str], None] = lambda terminal_id: None,
    ) -> None:
        """
        Args:
            lost: told the id of a terminal before it is revoked or replaced.
        """
        self._authority = authority
        self._store = store
        self._clock = clock
        self._attempts = attempts or AttemptLimiter(clock)
        self._token_lifetime = token_lifetime
        self._terminal_lifetime = terminal_lifetime
        self._lost = lost
        self._contacts: dict[str, datetime] = {}
        self._contacts_lock = threading.Lock()

    def create_token(self, station_id: str, terminal_id: str) -> IssuedToken:
        """Register a terminal, or prepare one to be provisioned anew, and make its token.

        Earlier tokens of the terminal die.

        Raises:
            StationInvalidError: an id is malformed.
            TerminalExistsError: the terminal is registered at another station.
            TerminalBusyError: it kept changing under this call.
        """
        check_id("station id", station_id)
        check_id("terminal id", terminal_id)
        token, record = self._new_token(station_id, terminal_id)
        for _ in range(_TRIES):
            before = self._store.terminal(terminal_id)
            if before is not None and before.station_id != station_id:
                raise TerminalExistsError(terminal_id, before.station_id)
            if self._store.put_terminal(_expecting(before, record)):
                return token
        raise TerminalBusyError(f"terminal {terminal_id!r} is changing; try again")

    def reprovision(self, terminal_id: str, reason: str) -> IssuedToken:
        """Refuse a terminal's certificates and sessions at once, and make a token for it.

        Args:
            reason: 1 to 200 characters; kept until the token is used.

        Raises:
            ArgumentInvalidError: the reason is missing or too long.
            TerminalUnknownError: there is no such terminal.
            TerminalBusyError: it kept changing under this call.
        """
        check_reason(reason)
        known = self._store.terminal(terminal_id)
        if known is None:
            raise TerminalUnknownError(terminal_id)
        self._lost(terminal_id)
        token, record = self._new_token(known.station_id, terminal_id)
        for _ in range(_TRIES):
            replaced = replace(
                known,
                state=TerminalState.EXPECTED,
                version=known.version + 1,
                serials=(),
                token_hash=record.token_hash,
                revocation_reason=reason,
            )
            if self._store.put_terminal(replaced):
                return token
            known = self._store.terminal(terminal_id) or known
        raise TerminalBusyError(f"terminal {terminal_id!r} is changing; try again")

    def _new_token(self, station_id: str, terminal_id: str) -> tuple[IssuedToken, TokenRecord]:
        token = new_token(self._authority.server_fingerprint)
        expires_at = self._clock.now() + self._token_lifetime
        record = TokenRecord(secret_hash(token), terminal_id, station_id, expires_at)
        self._store.put_token(record)
        return IssuedToken(token.text(), expires_at), record

    def provision(self, token: str, csr: bytes, peer: str) -> Provisioned:
        """Exchange a token and a signing request (PKCS #10, DER) for a certificate.

        Args:
            peer: network address of the caller without its port, for counting failures.

        Raises:
            TokenInvalidError: no such token, expired, superseded, or used with another key.
            CsrInvalidError: the request is not acceptable; the token stays good.
            TooManyAttemptsError: too many failures.
            TerminalBusyError: the terminal kept changing under this call; the token stays good.
        """
        with self._attempts.attempt(peer):
            return self._provision(token, csr)

    def _provision(self, token: str, csr: bytes) -> Provisioned:
        token_hash = secret_hash(parse_token(token))
        for _ in range(_TRIES):
            record, terminal = self._redeemable(token_hash)
            public_key = public_key_from_csr(csr)
            key_hash = hashlib.sha256(public_key_der(public_key)).digest()
            if record.certificate:
                if not hmac.compare_digest(record.key_hash, key_hash):
                    raise _refused()
                return self._provisioned(record)
            certificate = self._authority.issue_client(
                public_key,
                Role.TERMINAL,
                terminal.terminal_id,
                terminal.station_id,
                self._terminal_lifetime,
            )
            redeemed = replace(
                record, key_hash=key_hash, certificate=certificate.public_bytes(Encoding.DER)
            )
            active = replace(
                terminal,
                state=TerminalState.ACTIVE,
                version=terminal.version + 1,
                serials=(serial_of(certificate),),
                certificate_not_after=certificate.not_valid_after_utc,
                revocation_reason="",
            )
            if self._store.redeem(redeemed, active):
                return self._provisioned(redeemed)
            # Somebody was faster: with the same key we both get what was stored, else we are out.
        raise TerminalBusyError("the terminal is changing; try again with the same token")

    def _redeemable(self, token_hash: bytes) -> tuple[TokenRecord, Terminal]:
        record = self._store.token(token_hash)
        if record is None or not hmac.compare_digest(record.token_hash, token_hash):
            raise _refused()
        terminal = self._store.terminal(record.terminal_id)
        if (
            terminal is None
            or not hmac.compare_digest(terminal.token_hash, token_hash)
            or self._clock.now() >= record.expires_at
        ):
            raise _refused()
        return record, terminal

    def _provisioned(self, record: TokenRecord) -> Provisioned:
        return Provisioned(
            record.certificate, self._authority.certificate, record.terminal_id, record.station_id
        )

    def renew(self, principal: Principal, csr: bytes) -> bytes:
        """The calling terminal's certificate anew, X.509, DER; for the same or a new key.

        The certificate it called with stays good beside the new one until the next renewal, so a
        lost answer strands nobody.

        Raises:
            CertificateInvalidError: the caller is no terminal.
            CertificateRevokedError: its certificate is no longer accepted.
            CsrInvalidError: the request is not acceptable.
            TerminalBusyError: the terminal kept changing under this call.
        """
        if principal.role is not Role.TERMINAL:
            raise CertificateInvalidError(f"only terminals renew this way, not {principal}")
        public_key = public_key_from_csr(csr)
        for _ in range(_TRIES):
            terminal = self._accepted(principal)
            certificate = self._authority.issue_client(
                public_key,
                Role.TERMINAL,
                terminal.terminal_id,
                terminal.station_id,
                self._terminal_lifetime,
            )
            if self._store.put_terminal(_renewed(terminal, principal.serial, certificate)):
                return certificate.public_bytes(Encoding.DER)
        raise TerminalBusyError(f"terminal {principal.id!r} is changing; try again")

    def revoke(self, terminal_id: str, reason: str) -> Terminal:
        """Refuse a terminal's certificates and tokens from the next call on.

        Revoking it again changes nothing.

        Args:
            reason: 1 to 200 characters.

        Raises:
            ArgumentInvalidError: the reason is missing or too long.
            TerminalUnknownError: there is no such terminal.
            TerminalBusyError: it kept changing under this call.
        """
        check_reason(reason)
        self._lost(terminal_id)
        for _ in range(_TRIES):
            terminal = self._store.terminal(terminal_id)
            if terminal is None:
                raise TerminalUnknownError(terminal_id)
            if terminal.state is TerminalState.REVOKED:
                return terminal
            revoked = replace(
                terminal,
                state=TerminalState.REVOKED,
                version=terminal.version + 1,
                serials=(),
                token_hash=b"",
                revocation_reason=reason,
            )
            if self._store.put_terminal(revoked):
                return revoked
        raise TerminalBusyError(f"terminal {terminal_id!r} is changing; try again")

    def report(self, principal: Principal, equipment: Equipment | None) -> datetime:
        """Note what the calling terminal says of itself, if it does; returns the register's time.

        Raises:
            ArgumentInvalidError: a text is longer than 64 characters, or not printable.
        """
        if equipment is None:
            return self._clock.now()
        formats = equipment.template_formats
        if len(formats) > MAX_FORMATS:
            raise ArgumentInvalidError(f"name at most {MAX_FORMATS} template formats")
        texts = (
            equipment.software_version,
            equipment.sensor_vendor,
            equipment.sensor_model,
            equipment.sensor_version,
            *formats,
        )
        if any(len(text) > MAX_EQUIPMENT_TEXT or not text.isprintable() for text in texts):
            raise ArgumentInvalidError(
                f"texts about equipment are printable, of at most {MAX_EQUIPMENT_TEXT} characters"
            )
        known = self._store.terminal(principal.id)
        if known is not None and known.equipment != equipment:
            self._store.report(principal.id, equipment)
        return self._clock.now()

    def list(self, after: str = "", page_size: int = 0) -> TerminalPage:
        """A page of terminals by id, those after ``after``.

        Args:
            page_size: 1 to 500; 0 means 100.

        Raises:
            ArgumentInvalidError: the page size is out of range.
        """
        size = rows_of(page_size)
        found: Sequence[Terminal] = self._store.terminals(after, size + 1)
        page = tuple(found[:size])
        return TerminalPage(page, page[-1].terminal_id if len(found) > size else "")

    def admit(self, principal: Principal) -> None:
        """Let a caller in, or refuse it; for every call.

        TLS looked only when the connection was opened. Notes the contact of a terminal.

        Raises:
            CertificateInvalidError: the certificate has expired.
            CertificateRevokedError: it is revoked, or replaced by a later one.
        """
        if principal.not_after is not None and self._clock.now() > principal.not_after:
            raise CertificateInvalidError(
                f"the certificate of {principal} has expired; provision it again"
            )
        if principal.role is Role.TERMINAL:
            self._accepted(principal)
            self._note_contact(principal.id)
        elif self._store.serial_revoked(principal.serial):
            raise CertificateRevokedError(f"the certificate of {principal} is revoked")

    def revoke_serial(self, serial: str, reason: str) -> None:
        """Refuse an operator's or department's certificate from the next call on."""
        self._store.revoke_serial(serial.lower().lstrip("0"), reason, self._clock.now())

    def _accepted(self, principal: Principal) -> Terminal:
        terminal = self._store.terminal(principal.id)
        if (
            terminal is None
            or terminal.station_id != principal.station_id
            or principal.serial not in terminal.serials
        ):
            raise CertificateRevokedError(
                f"the certificate of {principal} is revoked, or replaced by a later one; "
                "ask an operator for a new provisioning token"
            )
        return terminal

    def _note_contact(self, terminal_id: str) -> None:
        now = self._clock.now()
        with self._contacts_lock:
            last = self._contacts.get(terminal_id)
            if last is not None and now - last < CONTACT_GRAIN:
                return
            self._contacts[terminal_id] = now
        self._store.touch(terminal_id, now)


def _expecting(before: Terminal | None, record: TokenRecord) -> Terminal:
    if before is None:
        return Terminal(
            record.terminal_id,
            record.station_id,
            TerminalState.EXPECTED,
            version=1,
            token_hash=record.token_hash,
        )
    expected = before.state is TerminalState.REVOKED
    return replace(
        before,
        state=TerminalState.EXPECTED if expected else before.state,
        version=before.version + 1,
        token_hash=record.token_hash,
        revocation_reason="",
    )


def _renewed(terminal: Terminal, serial: str, certificate: x509.Certificate) -> Terminal:
    return replace(
        terminal,
        version=terminal.version + 1,
        serials=(serial, serial_of(certificate)),
        certificate_not_after=certificate.not_valid_after_utc,
    )


def _refused() -> TokenInvalidError:
    return TokenInvalidError(
        "this token is unknown, used or expired; ask an operator for a new one"
    )
