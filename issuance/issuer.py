"""The issuing side in one object: reserve, sign, change status, publish.

`Issuer` is what the register talks to. It owns an authority directory made by `init_authority`:

    authority.json   the profile
    keys/            online private keys (0600)
    offline/         the root key, to be moved away from the machine
    journal/         what was promised and decided
    trust/           the TUF repository and bundle.anju

The register's database is the truth about permits. The journal keeps numbers unique and statuses
safe while that database is away, and `reconcile` brings the two together.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

from issuance import (
    codec,
    envelope,
    key_office,
    permit_number,
    photo,
    profile,
    signing,
    status_list,
)
from issuance.delta import Delta
from issuance.errors import IssuanceError, KeyUseError, ProfileError
from issuance.journal import Journal
from issuance.key_files import FileKeyStore
from issuance.keys import KeyInfo, KeyStore, KeyUse
from issuance.permutation import Permutation
from issuance.profile import Profile
from issuance.publisher import Publication, Publisher
from issuance.types import Holder, IssuedPermit, Permit, PermitStatus, Reservation, StatusRef

# How far ahead a permit may begin. It bounds how long a status list has to be published.
MAX_ADVANCE_DAYS: Final = 31
# A file of this name in the authority directory asks its owner to publish.
REQUEST_NAME: Final = "publication-request"
_LIST_LIFE: Final = timedelta(days=profile.MAX_VALIDITY_DAYS + MAX_ADVANCE_DAYS + 1)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What `Issuer.reconcile` found.

    Attributes:
        permits: how many permits the register named.
        changed: published statuses that differed from the register's.
        skipped: serials skipped because the register had used beyond the journal.
    """

    permits: int
    changed: int
    skipped: int


class Issuer:
    """Signs permits for one authority. Safe for use by several threads, by one process only.

    Args:
        rules: the profile.
        keys: signs permits, status lists and the online trust roles.
        journal: owned from now on; `close` closes it.
        publisher: writes the trust directory.
        clock: timezone-aware now.
        entries: permits per status list; never changes for an authority.
        request: file by which other processes ask for a publication.
    """

    def __init__(
        self,
        rules: Profile,
        keys: KeyStore,
        journal: Journal,
        publisher: Publisher,
        clock: Callable[[], datetime],
        *,
        entries: int = status_list.ENTRIES,
        request: Path | None = None,
    ) -> None:
        self._request = request
        self._rules = rules
        self._keys = keys
        self._journal = journal
        self._publisher = publisher
        self._clock = clock
        self._entries = entries
        secret = keys.secret("numbering")
        self._numbers = Permutation(secret, b"permit number", permit_number.CAPACITY)
        self._secret = secret
        self._permutations: dict[int, Permutation] = {}
        self._lists: dict[int, tuple[frozenset[tuple[int, PermitStatus]], dict[str, Any]]] = {}
        self._publish_lock = threading.Lock()

    @classmethod
    def open(
        cls,
        directory: Path,
        clock: Callable[[], datetime],
        *,
        passphrase: bytes | None = None,
        keys: KeyStore | None = None,
        entries: int = status_list.ENTRIES,
    ) -> Issuer:
        """The issuer of an authority directory. Raises `IssuanceError`.

        Args:
            passphrase: opens the key files.
            keys: the key store, where it is not the key files.
            entries: permits per status list; never changes for an authority.
        """
        try:
            rules = profile.from_json((directory / "authority.json").read_bytes())
        except OSError as error:
            raise IssuanceError("there is no authority here; run init first") from error
        store = keys or FileKeyStore(directory / "keys", passphrase)
        publisher = Publisher(directory / "trust", store, clock)
        journal = Journal(directory / "journal", now=clock())
        try:
            request = directory / REQUEST_NAME
            return cls(rules, store, journal, publisher, clock, entries=entries, request=request)
        except BaseException:
            journal.close()
            raise

    def close(self) -> None:
        self._journal.close()

    def __enter__(self) -> Issuer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def rules(self) -> Profile:
        return self._rules

    @property
    def unfinished(self) -> tuple[Reservation, ...]:
        """Reservations that are not known to have led to a signature, oldest first."""
        return self._journal.unfinished

    def reserve(self, kind: str = "temporary-residence") -> Reservation:
        """A permit number and status entry, on disk as taken when this returns.

        A reservation is good for one `issue` by this process. One that is never used costs nothing.
        Raises `ProfileError` for an unknown kind, `JournalError`.
        """
        prefix = self._rules.kind(kind).prefix

        def describe(serial: int) -> Reservation:
            number = permit_number.make(prefix, serial, self._numbers)
            return Reservation(serial, number, self._status_ref(serial))

        return self._journal.reserve(describe, self._clock())

    def issue(
        self,
        holder: Holder,
        *,
        kind: str = "temporary-residence",
        validity_days: int = profile.MAX_VALIDITY_DAYS,
        valid_from: date | None = None,
        authority: str | None = None,
        uses: tuple[str, ...] = (),
        reservation: Reservation | None = None,
        portrait: bytes | None = None,
    ) -> IssuedPermit:
        """Sign a permit.

        Args:
            validity_days: calendar days including the first; it expires at midnight after the last.
            valid_from: first day, today or later; today, from this moment, if left out.
            authority: name of the issuing authority; the profile's if left out.
            uses: departments it may be shown to; empty means any.
            reservation: from `reserve`, of the same kind; made here if left out.
            portrait: PNG or JPEG that the photograph is made of, if the kind carries one.

        Raises:
            PhotoError: the portrait cannot be used; nothing is signed.
            ProfileError: the permit is not one the profile allows; nothing is signed, and the
                reservation can be used again.
            KeyUseError: no permit key is in its signing period; run `ensure_keys`.
            JournalError: the reservation has been used, or the journal cannot be written.
        """
        issued_at = self._clock().astimezone(UTC).replace(microsecond=0)
        begin, end = self._period(issued_at, valid_from, validity_days)
        key = self._signing_key(issued_at)
        signer = self._keys.signer(key.kid, KeyUse.PERMIT)
        if portrait is not None and profile.PHOTO in self._rules.kind(kind).carries:
            holder = replace(holder, photo=photo.make(portrait))

        def permit_under(reserved: Reservation) -> Permit:
            return Permit(
                number=reserved.permit_number,
                kind=kind,
                issuer=self._rules.issuer,
                authority=authority or self._rules.authority,
                holder=holder,
                issued_at=issued_at,
                not_before=begin,
                expires_at=end,
                status=reserved.status,
                uses=uses,
            )

        if reservation is None:
            # A refused request must not use up a number: check it before reserving one.
            draft = permit_number.make(self._rules.kind(kind).prefix, 0, self._numbers)
            codec.encode(permit_under(Reservation(0, draft, StatusRef(1, 0))), self._rules)
            reservation = self.reserve(kind)
        permit = permit_under(reservation)
        payload = codec.encode(permit, self._rules)
        self._journal.claim(reservation)
        cose = signing.sign(payload, signer)
        digest = hashlib.sha256(cose).hexdigest()
        self._journal.record_signed(reservation, key.kid, digest)
        return IssuedPermit(permit, key.kid, cose, envelope.to_text(cose), digest)

    def revoke(self, ref: StatusRef) -> bool:
        """Revoke for good; durable when this returns, public after `publish_trust`.

        False if it was revoked already.
        """
        return self._set_status(ref, PermitStatus.REVOKED)

    def suspend(self, ref: StatusRef) -> bool:
        """Suspend until `reinstate`. Raises `StatusTransitionError` if revoked."""
        return self._set_status(ref, PermitStatus.SUSPENDED)

    def reinstate(self, ref: StatusRef) -> bool:
        """End a suspension. Raises `StatusTransitionError` if revoked."""
        return self._set_status(ref, PermitStatus.VALID)

    def status(self, ref: StatusRef) -> PermitStatus:
        return self._journal.status(ref)

    def reconcile(self, permits: Iterable[tuple[int, int, PermitStatus]]) -> Reconciliation:
        """Make the register's permits the truth: (list number, index, status) of every one.

        Statuses are set to exactly these, and serials that the register has seen are never given
        out again even if the journal was lost, since an index tells its serial. With the journal
        intact the permits that are VALID may be left out; name one of every list all the same, so
        that a list of valid permits only is published again. Publish afterwards.
        """
        statuses: dict[StatusRef, PermitStatus] = {}
        lists: set[int] = set()
        count, next_serial = 0, 0
        for list_number, index, status in permits:
            count += 1
            ref = StatusRef(list_number, index)
            next_serial = max(next_serial, self._serial(ref) + 1)
            lists.add(list_number)
            if status is not PermitStatus.VALID:
                statuses[ref] = PermitStatus(status)
        before = self._journal.statuses
        changed = sum(
            before.get(ref) is not statuses.get(ref) for ref in before.keys() | statuses.keys()
        )
        skipped = max(0, next_serial - self._journal.next_serial)
        self._journal.adopt(statuses, next_serial, lists, self._clock())
        return Reconciliation(count, changed, skipped)

    def publish_trust(self, *, deltas: bool = False) -> Publication:
        """Sign and write the trust bundle with all statuses of this moment.

        Args:
            deltas: renew the delta files too.
        """
        with self._publish_lock:
            # A retired key stays for as long as a permit that it signed can be valid.
            oldest = self._clock() - timedelta(days=profile.MAX_VALIDITY_DAYS)
            known = [
                info
                for info in self._keys.infos()
                if info.use in (KeyUse.PERMIT, KeyUse.STATUS_LIST) and info.not_after > oldest
            ]
            published = self._publisher.publish(known, self._rules, self._status_lists())
            if deltas:
                self._publisher.write_deltas()
            return published

    def publish_if_asked(self) -> bool:
        """Publish if another process has asked for it (`authority.publish`). Call it often."""
        if self._request is None or not self._request.exists():
            return False
        asked_ns = self._request.stat().st_mtime_ns
        self.ensure_keys()
        self.publish_trust(deltas=True)
        # Asked again meanwhile, perhaps about a key that was not there yet: leave it for next time.
        if self._request.stat().st_mtime_ns == asked_ns:
            self._request.unlink(missing_ok=True)
        return True

    def trust_delta(self, known_version: int) -> Delta | None:
        """What leads from the bundle of `known_version` to the current one, if anything does."""
        return self._publisher.delta_from(known_version)

    def trust(self) -> Publication:
        """What was published last. Raises `TrustError` before the first publication."""
        return self._publisher.current()

    def ensure_keys(self) -> tuple[KeyInfo, ...]:
        """Make the next key of a use when the current one is about to end.

        Returns the keys made. Call it daily and publish if any was made: a key signs only from when
        the last one ends, so verifiers that synchronise weekly know it by then.
        """
        now = self._clock().astimezone(UTC).replace(microsecond=0)
        made = (key_office.ensure(self._keys, use, now) for use in key_office.AUTOMATIC)
        return tuple(info for info in made if info is not None)

    def mark_compromised(self, kid: str) -> KeyInfo:
        """Stop using a key that others may have; verifiers refuse its permits after publication."""
        return self._keys.mark_compromised(kid, self._clock().astimezone(UTC))

    def _period(
        self, issued_at: datetime, valid_from: date | None, validity_days: int
    ) -> tuple[datetime, datetime]:
        zone = self._rules.time_zone
        today = issued_at.astimezone(zone).date()
        first = valid_from or today
        ahead = (first - today).days
        if not (0 <= ahead <= MAX_ADVANCE_DAYS and 1 <= validity_days <= profile.MAX_VALIDITY_DAYS):
            raise ProfileError(
                f"a permit begins today or up to {MAX_ADVANCE_DAYS} days later and lasts 1 to "
                f"{profile.MAX_VALIDITY_DAYS} days, got {first} and {validity_days}"
            )
        midnight = datetime.combine(first, time(), zone)
        begin = issued_at if first == today else midnight.astimezone(UTC)
        return begin, (midnight + timedelta(days=validity_days)).astimezone(UTC)

    def _signing_key(self, instant: datetime) -> KeyInfo:
        for info in reversed(self._keys.infos()):
            if info.use is KeyUse.PERMIT and info.signs_at(instant):
                return info
        raise KeyUseError("no permit key is in its signing period; run ensure_keys")

    def _set_status(self, ref: StatusRef, status: PermitStatus) -> bool:
        if self._serial(ref) >= self._journal.next_serial:
            raise IssuanceError(f"no permit has the status entry {ref.list_number}/{ref.index}")
        return self._journal.set_status(ref, status, self._clock())

    def _index_permutation(self, list_number: int) -> Permutation:
        if list_number not in self._permutations:
            label = b"list %d" % list_number
            self._permutations[list_number] = Permutation(self._secret, label, self._entries)
        return self._permutations[list_number]

    def _status_ref(self, serial: int) -> StatusRef:
        list_number = serial // self._entries + 1
        index = self._index_permutation(list_number).forward(serial % self._entries)
        return StatusRef(list_number, index)

    def _serial(self, ref: StatusRef) -> int:
        if ref.list_number < 1 or not 0 <= ref.index < self._entries:
            raise IssuanceError(f"there is no status entry {ref.list_number}/{ref.index}")
        offset = self._index_permutation(ref.list_number).inverse(ref.index)
        return (ref.list_number - 1) * self._entries + offset

    def _status_lists(self) -> dict[int, dict[str, Any]]:
        """Every list that a valid permit can name; compressed again only where it changed."""
        oldest = self._clock() - _LIST_LIFE
        lists = {number for number, used_at in self._journal.lists.items() if used_at > oldest}
        # A new authority publishes its first list empty, so that verifiers can be tried out.
        grouped: dict[int, set[tuple[int, PermitStatus]]] = {n: set() for n in lists or {1}}
        for ref, status in self._journal.statuses.items():
            if ref.list_number in grouped:
                grouped[ref.list_number].add((ref.index, status))
        for number, entries in grouped.items():
            frozen = frozenset(entries)
            cached = self._lists.get(number)
            if cached is None or cached[0] != frozen:
                value = status_list.to_value(status_list.make(frozen, self._entries))
                self._lists[number] = (frozen, value)
        return {number: self._lists[number][1] for number in sorted(grouped)}
