from __future__ import annotations

import shutil
import stat
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from issuance import codec, envelope, permit_number, signing
from issuance.authority import NewAuthority, init_authority
from issuance.errors import (
    AuthorityExistsError,
    IssuanceError,
    JournalError,
    KeyStoreError,
    KeyUseError,
    ProfileError,
    StatusTransitionError,
)
from issuance.issuer import MAX_ADVANCE_DAYS, Issuer
from issuance.key_files import FileKeyStore
from issuance.key_office import PERMIT_KEY_LEAD, PERMIT_KEY_LIFE
from issuance.keys import KeyUse
from issuance.signing import PublicKey
from issuance.trust import TrustStore
from issuance.types import IssuedPermit, PermitStatus, StatusRef
from issuance.verifier import verify
from tests.issuance.kit import HOLDER, RULES, START, Clock, holder


def public_key(authority: NewAuthority) -> PublicKey:
    return PublicKey.from_der(authority.permit_key.kid, authority.permit_key.public_der)


def test_issued_permit_reads_back_from_its_symbol_text(
    issuer: Issuer, authority: NewAuthority
) -> None:
    issued = issuer.issue(HOLDER)
    message = signing.parse(envelope.from_text(issued.qr_text))
    assert message.kid == issued.kid == authority.permit_key.kid
    assert signing.verify_signature(message, public_key(authority))
    assert codec.permit_from(codec.read_claims(message.payload), RULES) == issued.permit


def test_permit_lasts_to_midnight_in_shanghai_after_its_last_day(issuer: Issuer) -> None:
    permit = issuer.issue(HOLDER, validity_days=30).permit
    assert permit.not_before == START
    assert permit.expires_at == datetime(2026, 12, 23, 16, 0, tzinfo=UTC)
    later = issuer.issue(HOLDER, validity_days=1, valid_from=date(2026, 12, 1)).permit
    assert later.not_before == datetime(2026, 11, 30, 16, 0, tzinfo=UTC)
    assert later.expires_at - later.not_before == timedelta(days=1)


def test_longest_permit_is_within_a_year(issuer: Issuer) -> None:
    tomorrow = date(2026, 11, 25)
    permit = issuer.issue(HOLDER, validity_days=365, valid_from=tomorrow).permit
    assert permit.expires_at - permit.not_before == timedelta(days=365)
    with pytest.raises(ProfileError):
        issuer.issue(HOLDER, validity_days=366)
    with pytest.raises(ProfileError):
        issuer.issue(HOLDER, valid_from=date(2026, 11, 23))


def test_refused_request_uses_up_no_number(issuer: Issuer) -> None:
    with pytest.raises(ProfileError, match="residence_address"):
        issuer.issue(holder(residence_address=None))
    with pytest.raises(ProfileError, match="6-digit"):
        issuer.issue(holder(residence_division="32050"))
    assert issuer.unfinished == ()
    reservation = issuer.reserve()
    with pytest.raises(ProfileError):
        issuer.issue(holder(full_name=""), reservation=reservation)
    assert issuer.issue(HOLDER, reservation=reservation).status == reservation.status


def test_reservation_is_good_for_one_signature(issuer: Issuer) -> None:
    reservation = issuer.reserve()
    assert list(issuer.unfinished) == [reservation]
    issued = issuer.issue(HOLDER, reservation=reservation)
    assert issued.permit_number == reservation.permit_number
    assert not issuer.unfinished
    with pytest.raises(JournalError):
        issuer.issue(HOLDER, reservation=reservation)


def test_reservation_of_one_kind_signs_no_other(issuer: Issuer) -> None:
    with pytest.raises(ProfileError, match="kind residence"):
        issuer.issue(HOLDER, kind="residence", reservation=issuer.reserve("temporary-residence"))


def test_reservation_from_before_a_crash_is_never_signed(
    authority: NewAuthority, clock: Clock
) -> None:
    with Issuer.open(authority.directory, clock) as before:
        reservation = before.reserve()
    with Issuer.open(authority.directory, clock) as after:
        assert after.unfinished == (reservation,)
        with pytest.raises(JournalError, match="claimed before"):
            after.issue(HOLDER, reservation=reservation)
        assert after.reserve().permit_number != reservation.permit_number


def test_threads_get_distinct_numbers_and_indexes(issuer: Issuer) -> None:
    issued: list[IssuedPermit] = []

    def work() -> None:
        issued.extend(issuer.issue(HOLDER) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({permit.permit_number for permit in issued}) == 80
    assert len({permit.status for permit in issued}) == 80
    assert all(permit_number.is_valid(permit.permit_number) for permit in issued)


def test_status_moves_only_along_legal_transitions(issuer: Issuer) -> None:
    ref = issuer.issue(HOLDER).status
    assert issuer.status(ref) is PermitStatus.VALID
    assert not issuer.reinstate(ref)
    assert issuer.suspend(ref)
    assert not issuer.suspend(ref)
    assert issuer.status(ref) is PermitStatus.SUSPENDED
    assert issuer.reinstate(ref)
    assert issuer.suspend(ref)
    assert issuer.revoke(ref)
    assert not issuer.revoke(ref)
    for illegal in (issuer.suspend, issuer.reinstate):
        with pytest.raises(StatusTransitionError):
            illegal(ref)
    assert issuer.status(ref) is PermitStatus.REVOKED


def test_status_of_a_permit_that_was_never_reserved_cannot_change(issuer: Issuer) -> None:
    used = issuer.issue(HOLDER).status
    with pytest.raises(IssuanceError):
        issuer.revoke(StatusRef(1, (used.index + 1) % 1024))
    with pytest.raises(IssuanceError):
        issuer.revoke(StatusRef(2, used.index))


def test_statuses_survive_a_restart(authority: NewAuthority, clock: Clock) -> None:
    with Issuer.open(authority.directory, clock) as before:
        refs = [before.issue(HOLDER).status for _ in range(3)]
        before.revoke(refs[0])
        before.suspend(refs[1])
    with Issuer.open(authority.directory, clock) as after:
        assert [after.status(ref) for ref in refs] == [
            PermitStatus.REVOKED,
            PermitStatus.SUSPENDED,
            PermitStatus.VALID,
        ]


def test_register_restores_a_lost_journal_without_reusing_a_number(
    authority: NewAuthority, clock: Clock
) -> None:
    with Issuer.open(authority.directory, clock) as before:
        issued = [before.issue(HOLDER) for _ in range(5)]
        before.suspend(issued[0].status)
    for path in (authority.directory / "journal").iterdir():
        path.unlink()
    register = [(p.status.list_number, p.status.index, PermitStatus.VALID) for p in issued]
    register[3] = (*register[3][:2], PermitStatus.REVOKED)
    with Issuer.open(authority.directory, clock) as after:
        report = after.reconcile(register)
        assert (report.permits, report.changed, report.skipped) == (5, 1, 5)
        assert after.status(issued[3].status) is PermitStatus.REVOKED
        fresh = [after.issue(HOLDER).permit_number for _ in range(5)]
        assert not set(fresh) & {permit.permit_number for permit in issued}
        assert after.reconcile([*register]).changed == 0


def backup(directory: Path, name: str) -> Path:
    return Path(shutil.copytree(directory, directory.with_name(name)))


def test_restored_backup_of_the_issuer_reuses_nothing(
    authority: NewAuthority, clock: Clock
) -> None:
    """The disk died an hour after the backup; what was issued meanwhile is in nobody's memory."""
    with Issuer.open(authority.directory, clock) as before:
        before.issue(HOLDER)
    restored = backup(authority.directory, "restored")
    with Issuer.open(authority.directory, clock) as before:
        lost = []
        for _ in range(20):
            clock.advance(minutes=3)
            lost.append(before.issue(HOLDER))
    clock.advance(minutes=1)
    with Issuer.open(restored, clock) as after:
        again = [after.issue(HOLDER) for _ in range(40)]
    assert not {p.permit_number for p in again} & {p.permit_number for p in lost}
    assert not {p.status for p in again} & {p.status for p in lost}


def test_restored_backup_follows_a_register_that_went_on(
    authority: NewAuthority, clock: Clock
) -> None:
    """Even at the same second, where no time has passed to jump over."""
    restored = backup(authority.directory, "restored")
    with Issuer.open(authority.directory, clock) as before:
        issued = [before.issue(HOLDER) for _ in range(7)]
        before.revoke(issued[2].status)
    states = [PermitStatus.VALID] * 2 + [PermitStatus.REVOKED] + [PermitStatus.VALID] * 4
    rows = [
        (permit.status.list_number, permit.status.index, state)
        for permit, state in zip(issued, states, strict=True)
    ]
    with Issuer.open(restored, clock) as after:
        report = after.reconcile(rows)
        assert (report.skipped, report.changed) == (7, 1)
        assert after.issue(HOLDER).status not in {permit.status for permit in issued}
        assert TrustStore.load(after.publish_trust().bundle).status(issued[2].status) is (
            PermitStatus.REVOKED
        )


def test_lists_of_valid_permits_only_are_published_again_after_a_loss(
    authority: NewAuthority, clock: Clock
) -> None:
    with Issuer.open(authority.directory, clock, entries=16) as before:
        issued = [before.issue(HOLDER) for _ in range(40)]
    for path in (authority.directory / "journal").iterdir():
        path.unlink()
    one_of_each = {permit.status.list_number: permit for permit in issued}
    assert set(one_of_each) == {1, 2, 3}
    rows = [(n, p.status.index, PermitStatus.VALID) for n, p in one_of_each.items()]
    with Issuer.open(authority.directory, clock, entries=16) as after:
        after.reconcile(rows)
        trust = TrustStore.load(after.publish_trust().bundle)
    assert all(verify(permit.qr_text, trust, clock()).valid for permit in issued)


def test_register_older_than_the_journal_does_not_bring_numbers_back(issuer: Issuer) -> None:
    issued = [issuer.issue(HOLDER) for _ in range(5)]
    old = [(p.status.list_number, p.status.index, PermitStatus.VALID) for p in issued[:2]]
    assert issuer.reconcile(old).skipped == 0
    fresh = {issuer.issue(HOLDER).status for _ in range(10)}
    assert not fresh & {permit.status for permit in issued}


def test_pause_of_a_year_publishes_no_empty_lists(authority: NewAuthority, clock: Clock) -> None:
    with Issuer.open(authority.directory, clock) as before:
        before.issue(HOLDER)
    clock.advance(days=300)
    with Issuer.open(authority.directory, clock) as after:
        after.ensure_keys()
        permit = after.issue(HOLDER)
        assert permit.status.list_number > 1_000
        trust = TrustStore.load(after.publish_trust().bundle)
    assert set(trust.lists) == {1, permit.status.list_number}
    assert verify(permit.qr_text, trust, clock()).valid


def test_list_is_published_for_as_long_as_a_permit_can_name_it(
    authority: NewAuthority, clock: Clock
) -> None:
    latest = START.date() + timedelta(days=MAX_ADVANCE_DAYS)
    with Issuer.open(authority.directory, clock, entries=16) as issuer:
        permits = [issuer.issue(HOLDER, valid_from=latest) for _ in range(17)]
        assert permits[16].status.list_number == 2
        with pytest.raises(ProfileError):
            issuer.issue(HOLDER, valid_from=latest + timedelta(days=1))
        clock.now = permits[16].permit.expires_at - timedelta(seconds=1)
        issuer.ensure_keys()
        trust = TrustStore.load(issuer.publish_trust().bundle)
        assert set(trust.lists) == {1, 2}
        assert verify(permits[16].qr_text, trust, clock()).valid
        issuer.issue(HOLDER)
        clock.advance(days=3)
        # The first list's last permit has expired; the second has a new one.
        assert set(TrustStore.load(issuer.publish_trust().bundle).lists) == {2}


def test_next_permit_key_is_made_in_time_and_used_when_the_first_ends(
    issuer: Issuer, clock: Clock, authority: NewAuthority
) -> None:
    first = authority.permit_key.kid
    assert issuer.ensure_keys() == ()
    clock.now = START + PERMIT_KEY_LIFE - PERMIT_KEY_LEAD
    (made,) = issuer.ensure_keys()
    assert issuer.ensure_keys() == ()
    assert issuer.issue(HOLDER).kid == first
    clock.now = START + PERMIT_KEY_LIFE
    assert issuer.issue(HOLDER).kid == made.kid
    clock.now = made.not_after
    with pytest.raises(KeyUseError, match="signing period"):
        issuer.issue(HOLDER)


def test_compromised_key_signs_no_more(issuer: Issuer, authority: NewAuthority) -> None:
    issuer.mark_compromised(authority.permit_key.kid)
    with pytest.raises(KeyUseError):
        issuer.issue(HOLDER)
    (made,) = issuer.ensure_keys()
    assert issuer.issue(HOLDER).kid == made.kid


def test_key_of_another_use_is_refused(authority: NewAuthority) -> None:
    keys = FileKeyStore(authority.directory / "keys")
    status_key = next(info for info in keys.infos() if info.use is KeyUse.STATUS_LIST)
    with pytest.raises(KeyUseError, match="for status-list, not for permit"):
        keys.signer(status_key.kid, KeyUse.PERMIT)
    with pytest.raises(KeyUseError):
        keys.signer("../offline/x", KeyUse.PERMIT)


def test_private_files_are_for_their_owner_only(authority: NewAuthority) -> None:
    for folder in ("keys", "offline", "journal"):
        directory = authority.directory / folder
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for path in directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_private_keys_open_only_with_their_passphrase(tmp_path: Path, clock: Clock) -> None:
    made = init_authority(tmp_path / "a", RULES, clock, passphrase=b"one", root_passphrase=b"two")
    assert all(b"ENCRYPTED" in p.read_bytes() for p in (tmp_path / "a").rglob("*.pem"))
    for passphrase in (None, b"wrong"):
        with pytest.raises(KeyStoreError, match="passphrase"):
            Issuer.open(made.directory, clock, passphrase=passphrase)
    with Issuer.open(made.directory, clock, passphrase=b"one") as opened:
        opened.issue(HOLDER)


def test_authority_is_never_overwritten(authority: NewAuthority, clock: Clock) -> None:
    before = {p: p.read_bytes() for p in authority.directory.rglob("*") if p.is_file()}
    with pytest.raises(AuthorityExistsError):
        init_authority(authority.directory, RULES, clock)
    assert {p: p.read_bytes() for p in authority.directory.rglob("*") if p.is_file()} == before


def test_es256_authority_signs_too(tmp_path: Path, clock: Clock) -> None:
    made = init_authority(tmp_path / "a", RULES, clock, algorithm=signing.Algorithm.ES256)
    with Issuer.open(made.directory, clock) as opened:
        message = signing.parse(opened.issue(HOLDER).cose)
    assert message.algorithm is signing.Algorithm.ES256
    assert signing.verify_signature(message, public_key(made))
