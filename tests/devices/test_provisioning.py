from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from devices.attempts import AttemptLimiter
from devices.authority import Authority
from devices.certificates import principal_from_certificate
from devices.credentials import signing_request
from devices.errors import (
    ArgumentInvalidError,
    CertificateInvalidError,
    CertificateRevokedError,
    CsrInvalidError,
    DevicesError,
    StationInvalidError,
    TerminalBusyError,
    TerminalExistsError,
    TerminalUnknownError,
    TokenInvalidError,
    TooManyAttemptsError,
)
from devices.provisioning import Provisioning
from devices.token import new_token
from devices.types import Principal, Provisioned, Role, Terminal, TerminalState
from tests.devices.fakes import FakeClock, MemoryTerminalStore


def csr() -> bytes:
    return signing_request(ec.generate_private_key(ec.SECP256R1()))


def provision(provisioning: Provisioning, terminal_id: str = "t-1") -> Principal:
    token = provisioning.create_token("hall", terminal_id).token
    return principal_from_certificate(provisioning.provision(token, csr(), "peer").certificate)


def test_a_token_and_a_request_make_a_terminal(
    provisioning: Provisioning, authority: Authority, store: MemoryTerminalStore, clock: FakeClock
) -> None:
    issued = provisioning.create_token("hall", "t-1")
    assert issued.expires_at == clock.now() + timedelta(hours=24)
    expected = store.terminal("t-1")
    assert expected is not None
    assert expected.state is TerminalState.EXPECTED

    provisioned = provisioning.provision(issued.token, csr(), "peer")
    principal = principal_from_certificate(provisioned.certificate)
    assert principal == Principal(Role.TERMINAL, "t-1", "hall")
    assert provisioned.ca_certificate == authority.certificate
    provisioning.admit(principal)
    active = store.terminal("t-1")
    assert active is not None
    assert active.state is TerminalState.ACTIVE
    assert active.certificate_not_after == principal.not_after
    assert active.last_contact == clock.now()


def test_the_token_is_kept_as_a_hash_only(
    provisioning: Provisioning, store: MemoryTerminalStore
) -> None:
    issued = provisioning.create_token("hall", "t-1")
    assert issued.token.replace("-", "")[:16] not in store.dump().replace("-", "")
    assert issued.token not in repr(issued)


def test_a_lost_answer_is_given_again(provisioning: Provisioning) -> None:
    token, request = provisioning.create_token("hall", "t-1").token, csr()
    assert provisioning.provision(token, request, "p") == provisioning.provision(
        token, request, "p"
    )


def test_a_used_token_is_refused_to_another_key(provisioning: Provisioning) -> None:
    token = provisioning.create_token("hall", "t-1").token
    first = provisioning.provision(token, csr(), "p")
    with pytest.raises(TokenInvalidError):
        provisioning.provision(token, csr(), "p")
    provisioning.admit(principal_from_certificate(first.certificate))


def test_an_unknown_token_is_refused(provisioning: Provisioning, authority: Authority) -> None:
    with pytest.raises(TokenInvalidError):
        provisioning.provision(new_token(authority.server_fingerprint).text(), csr(), "p")


def test_an_expired_token_is_refused(provisioning: Provisioning, clock: FakeClock) -> None:
    token = provisioning.create_token("hall", "t-1").token
    clock.advance(timedelta(hours=24))
    with pytest.raises(TokenInvalidError):
        provisioning.provision(token, csr(), "p")


def test_a_used_token_gives_nothing_again_after_it_expired(
    provisioning: Provisioning, clock: FakeClock
) -> None:
    token, request = provisioning.create_token("hall", "t-1").token, csr()
    provisioning.provision(token, request, "p")
    clock.advance(timedelta(hours=24))
    with pytest.raises(TokenInvalidError):
        provisioning.provision(token, request, "p")


def test_a_later_token_kills_the_earlier(provisioning: Provisioning) -> None:
    first = provisioning.create_token("hall", "t-1").token
    second = provisioning.create_token("hall", "t-1").token
    with pytest.raises(TokenInvalidError):
        provisioning.provision(first, csr(), "p")
    provisioning.provision(second, csr(), "p")


def test_a_bad_request_leaves_the_token_good(provisioning: Provisioning) -> None:
    token = provisioning.create_token("hall", "t-1").token
    for _ in range(20):  # nor does it count as a failed attempt
        with pytest.raises(CsrInvalidError):
            provisioning.provision(token, b"nonsense", "p")
    provisioning.provision(token, csr(), "p")


@pytest.mark.parametrize("same_key", [True, False])
def test_of_simultaneous_uses_one_key_wins(provisioning: Provisioning, same_key: bool) -> None:
    token = provisioning.create_token("hall", "t-1").token
    shared = csr()
    requests = [shared if same_key else csr() for _ in range(8)]
    answers: list[Provisioned] = []
    refused: list[DevicesError] = []
    start = threading.Barrier(len(requests))

    def use(request: bytes) -> None:
        start.wait()
        try:
            answers.append(provisioning.provision(token, request, "p"))
        except TokenInvalidError as error:
            refused.append(error)

    threads = [threading.Thread(target=use, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) + len(refused) == len(requests)
    assert len({answer.certificate for answer in answers}) == 1
    assert len(answers) == (len(requests) if same_key else 1)
    provisioning.admit(principal_from_certificate(answers[0].certificate))


def test_a_terminal_of_another_station_is_not_taken_over(provisioning: Provisioning) -> None:
    provisioning.create_token("hall", "t-1")
    with pytest.raises(TerminalExistsError, match="'hall'"):
        provisioning.create_token("market", "t-1")


@pytest.mark.parametrize(
    ("station_id", "terminal_id"),
    [("", "t-1"), ("hall", ""), ("h", "t-1"), ("Hall", "t-1"), ("hall", "t 1"), ("hall", "ｔ-1")],
)
def test_malformed_ids_are_refused(
    provisioning: Provisioning, station_id: str, terminal_id: str
) -> None:
    with pytest.raises(StationInvalidError):
        provisioning.create_token(station_id, terminal_id)


def test_provisioning_anew_replaces_the_certificate_when_the_token_is_used(
    provisioning: Provisioning,
) -> None:
    old = provision(provisioning)
    token = provisioning.create_token("hall", "t-1").token
    provisioning.admit(old)  # still works: the new terminal is not there yet
    new = principal_from_certificate(provisioning.provision(token, csr(), "p").certificate)
    provisioning.admit(new)
    with pytest.raises(CertificateRevokedError):
        provisioning.admit(old)


def test_a_revoked_terminal_is_refused_at_the_next_call(
    provisioning: Provisioning, store: MemoryTerminalStore
) -> None:
    principal = provision(provisioning)
    revoked = provisioning.revoke("t-1", "stolen from the counter")
    assert revoked.state is TerminalState.REVOKED
    assert revoked.revocation_reason == "stolen from the counter"
    assert provisioning.revoke("t-1", "again") == store.terminal("t-1")
    with pytest.raises(CertificateRevokedError):
        provisioning.admit(principal)
    with pytest.raises(CertificateRevokedError):
        provisioning.renew(principal, csr())


def test_revocation_kills_the_token_too(provisioning: Provisioning) -> None:
    token, request = provisioning.create_token("hall", "t-1").token, csr()
    provisioning.provision(token, request, "p")
    provisioning.revoke("t-1", "stolen")
    with pytest.raises(TokenInvalidError):
        provisioning.provision(token, request, "p")


def test_a_revoked_terminal_can_come_back_with_a_new_token(
    provisioning: Provisioning, store: MemoryTerminalStore
) -> None:
    old = provision(provisioning)
    provisioning.revoke("t-1", "lost")
    new = provision(provisioning)
    provisioning.admit(new)
    with pytest.raises(CertificateRevokedError):
        provisioning.admit(old)


@pytest.mark.parametrize("reason", ["", "   ", "x" * 201])
def test_a_revocation_needs_a_reason(provisioning: Provisioning, reason: str) -> None:
    provision(provisioning)
    with pytest.raises(ArgumentInvalidError):
        provisioning.revoke("t-1", reason)


def test_an_unknown_terminal_cannot_be_revoked(provisioning: Provisioning) -> None:
    with pytest.raises(TerminalUnknownError):
        provisioning.revoke("t-9", "lost")


def test_renewal_keeps_the_certificate_it_was_asked_with(
    provisioning: Provisioning, clock: FakeClock
) -> None:
    old = provision(provisioning)
    clock.advance(timedelta(days=60))
    lost = principal_from_certificate(provisioning.renew(old, csr()))
    provisioning.admit(old)
    new = principal_from_certificate(provisioning.renew(old, csr()))
    assert new.not_after is not None
    assert new.not_after > clock.now() + timedelta(days=89)
    provisioning.admit(old)
    provisioning.admit(new)
    with pytest.raises(CertificateRevokedError):
        provisioning.admit(lost)


def test_renewal_with_the_new_certificate_retires_the_oldest(provisioning: Provisioning) -> None:
    first = provision(provisioning)
    second = principal_from_certificate(provisioning.renew(first, csr()))
    third = principal_from_certificate(provisioning.renew(second, csr()))
    provisioning.admit(second)
    provisioning.admit(third)
    with pytest.raises(CertificateRevokedError):
        provisioning.admit(first)


def test_only_terminals_renew(provisioning: Provisioning) -> None:
    with pytest.raises(CertificateInvalidError):
        provisioning.renew(Principal(Role.OPERATOR, "op-1"), csr())


def test_an_expired_certificate_is_refused_on_an_open_connection(
    provisioning: Provisioning, clock: FakeClock
) -> None:
    principal = provision(provisioning)
    clock.advance(timedelta(days=91))
    with pytest.raises(CertificateInvalidError, match="expired"):
        provisioning.admit(principal)


def test_a_certificate_the_store_does_not_know_is_refused(
    provisioning: Provisioning, authority: Authority
) -> None:
    known = provision(provisioning).serial
    for id, station, serial in (
        ("t-1", "hall", "1"),
        ("t-1", "market", known),
        ("t-2", "hall", known),
    ):
        with pytest.raises(CertificateRevokedError):
            provisioning.admit(Principal(Role.TERMINAL, id, station, serial=serial))


def test_an_operator_certificate_can_be_revoked(provisioning: Provisioning) -> None:
    operator = Principal(Role.OPERATOR, "op-1", serial="abc")
    provisioning.admit(operator)
    provisioning.revoke_serial("0ABC", "left the office")
    with pytest.raises(CertificateRevokedError):
        provisioning.admit(operator)


def test_failed_attempts_are_limited_per_peer(
    provisioning: Provisioning, authority: Authority, clock: FakeClock
) -> None:
    good = provisioning.create_token("hall", "t-1").token
    for _ in range(10):
        with pytest.raises(TokenInvalidError):
            provisioning.provision(new_token(authority.server_fingerprint).text(), csr(), "guesser")
    with pytest.raises(TooManyAttemptsError) as limited:
        provisioning.provision(good, csr(), "guesser")
    assert limited.value.retry_after_s == 600
    clock.advance(timedelta(minutes=10))
    provisioning.provision(good, csr(), "guesser")


def test_one_peer_does_not_hold_up_another(provisioning: Provisioning) -> None:
    for _ in range(10):
        with pytest.raises(TokenInvalidError):
            provisioning.provision("mistyped", csr(), "guesser")
    provision(provisioning)


def test_successes_do_not_count(provisioning: Provisioning) -> None:
    for n in range(30):
        provision(provisioning, f"t-{n}")


def test_failures_over_all_peers_are_limited(clock: FakeClock) -> None:
    limiter = AttemptLimiter(clock, window=timedelta(seconds=60), per_peer=3, overall=5)

    def fail(peer: str) -> None:
        with pytest.raises(TokenInvalidError), limiter.attempt(peer):
            raise TokenInvalidError("no")

    for n in range(5):
        fail(f"peer-{n}")
        clock.advance(timedelta(seconds=10))
    with pytest.raises(TooManyAttemptsError) as limited, limiter.attempt("peer-9"):
        pass
    assert limited.value.retry_after_s == 10
    clock.advance(timedelta(seconds=10))
    fail("peer-9")


def test_terminals_are_listed_by_id_in_pages(provisioning: Provisioning) -> None:
    for n in (3, 1, 2):
        provisioning.create_token("hall", f"t-{n}")
    first = provisioning.list(page_size=2)
    assert [terminal.terminal_id for terminal in first.terminals] == ["t-1", "t-2"]
    last = provisioning.list(first.next_after, page_size=2)
    assert [terminal.terminal_id for terminal in last.terminals] == ["t-3"]
    assert last.next_after == ""
    assert provisioning.list("t-3").terminals == ()


@pytest.mark.parametrize("size", [-1, 501])
def test_a_page_has_bounds(provisioning: Provisioning, size: int) -> None:
    with pytest.raises(ArgumentInvalidError):
        provisioning.list(page_size=size)


class AlwaysLate(MemoryTerminalStore):
    """Somebody else is always faster."""

    late = False

    def put_terminal(self, terminal: Terminal) -> bool:
        return False if self.late else super().put_terminal(terminal)

    def redeem(self, record: object, terminal: Terminal) -> bool:
        return False


def test_writes_that_keep_losing_are_given_up(authority: Authority, clock: FakeClock) -> None:
    store = AlwaysLate()
    provisioning = Provisioning(authority, store, clock)
    token = provisioning.create_token("hall", "t-1").token
    attempts: list[Callable[[], object]] = [
        lambda: provisioning.provision(token, csr(), "p"),
        lambda: provisioning.revoke("t-1", "lost"),
        lambda: provisioning.create_token("hall", "t-1"),
    ]
    store.late = True
    for attempt in attempts:
        with pytest.raises(TerminalBusyError):
            attempt()
