"""Operators, their logins and their word for what they captured, on a clock that is set by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from devices import keys, operators, passwords
from devices.errors import (
    ArgumentInvalidError,
    DevicesError,
    LoginRefusedError,
    OperatorRevokedError,
    OperatorUnknownError,
    PasswordChangeRequiredError,
    ProofInvalidError,
    SessionExpiredError,
    SessionInvalidError,
    SessionRevokedError,
    StationInvalidError,
    TooManyAttemptsError,
)
from devices.operators import Operators
from devices.proof import capture_text, login_text
from devices.types import CaptureProof, OpenedSession, OperatorRole, Principal, Role
from devices.wire import capture_proof, packed_capture_proof
from tests.devices.fakes import FakeClock, MemoryOperatorStore

HALL = Principal(Role.TERMINAL, "t-1", "hall", key_hash=b"1" * 32)
GATE = Principal(Role.TERMINAL, "t-2", "gate", key_hash=b"2" * 32)
STATION = [OperatorRole.STATION]
SESSION_KEY = Ed25519PrivateKey.generate()
PUBLIC = keys.public_bytes(SESSION_KEY)
PASSWORD = "correct horse 电池"
ENROL = "EnrolmentService.Enrol"
LOGIN_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def store() -> MemoryOperatorStore:
    return MemoryOperatorStore()


@pytest.fixture
def staff(
    store: MemoryOperatorStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> Operators:
    monkeypatch.setattr(passwords, "_MEMORY_KIB", 64)  # of hashes made here; the tests are many
    made = Operators(store, clock)
    made.enrol("anna", STATION, keys.public_bytes(LOGIN_KEY))
    return made


def with_key(
    staff: Operators,
    terminal: Principal = HALL,
    operator: str = "anna",
    key: keys.PrivateKey = LOGIN_KEY,
) -> OpenedSession:
    challenge = staff.challenge(terminal, operator)
    text = login_text(operator, terminal.id, challenge, PUBLIC)
    return staff.log_in_with_key(terminal, operator, challenge, keys.sign(key, text), PUBLIC)


def with_password(
    staff: Operators, password: str, fresh: str = "", terminal: Principal = HALL, who: str = "bo"
) -> OpenedSession:
    return staff.log_in_with_password(terminal, who, password, fresh, PUBLIC)


def chosen(staff: Operators) -> None:
    """Bo has chosen their own password."""
    first = staff.enrol("bo", STATION, new_password=True).first_password
    with_password(staff, first, PASSWORD)


def proof_of(
    opened: OpenedSession, clock: FakeClock, request: bytes = b"request", method: str = ENROL
) -> CaptureProof:
    text = capture_text(opened.session.session_id, method, clock.now(), request)
    return CaptureProof(opened.session.session_id, clock.now(), keys.sign(SESSION_KEY, text))


# -- passwords --


def test_a_first_password_must_be_replaced_and_is_then_worth_nothing(staff: Operators) -> None:
    enrolled = staff.enrol("bo", STATION, new_password=True)
    first = enrolled.first_password
    with pytest.raises(PasswordChangeRequiredError):
        with_password(staff, first)
    with pytest.raises(ArgumentInvalidError, match="another one"):
        with_password(staff, first, first)
    assert with_password(staff, first, PASSWORD).session.operator_id == "bo"
    with pytest.raises(LoginRefusedError):
        with_password(staff, first, "yet another phrase")
    assert with_password(staff, PASSWORD).session.operator_id == "bo"


def test_a_first_password_dies_within_a_week(staff: Operators, clock: FakeClock) -> None:
    first = staff.enrol("bo", STATION, new_password=True).first_password
    clock.advance(operators.FIRST_PASSWORD_LIFETIME)
    with pytest.raises(LoginRefusedError):
        with_password(staff, first, PASSWORD)


@pytest.mark.parametrize(
    "fresh", ["short", "x" * 129, "aaaaaaaaaaaa", "ababcacbabca", "hello bo 123"]
)
def test_a_poor_password_is_not_taken(staff: Operators, fresh: str) -> None:
    first = staff.enrol("bo", STATION, new_password=True).first_password
    with pytest.raises(ArgumentInvalidError):
        with_password(staff, first, fresh)
    assert with_password(staff, first, PASSWORD)


def test_the_same_characters_typed_another_way_are_the_same_password(staff: Operators) -> None:
    first = staff.enrol("bo", STATION, new_password=True).first_password
    with_password(staff, first, "Ångström ｆｕｌｌ")
    assert with_password(staff, "Ångström full")


def test_who_is_unknown_revoked_or_wrong_is_told_the_same(staff: Operators) -> None:
    chosen(staff)
    staff.enrol("chen", STATION, new_password=True)
    staff.revoke("chen", "left")
    told = set()
    for who, password in (("bo", "wrong password"), ("nobody", PASSWORD), ("chen", PASSWORD)):
        with pytest.raises(LoginRefusedError) as caught:
            with_password(staff, password, who=who)
        told.add(str(caught.value))
    with pytest.raises(LoginRefusedError):
        with_password(staff, "", who="anna")  # has no password at all
    assert len(told) == 1


def test_no_password_and_no_token_is_kept(staff: Operators, store: MemoryOperatorStore) -> None:
    first = staff.enrol("bo", STATION, new_password=True).first_password
    token = with_password(staff, first, PASSWORD).token
    kept = store.dump()
    assert "$argon2id$" in kept
    for secret in (first, PASSWORD, token):
        assert secret not in kept
    assert PASSWORD not in repr(staff.page().operators)


# -- keys --


@pytest.mark.parametrize(
    "key", [Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())]
)
def test_other_kinds_of_keys_log_in_as_well(staff: Operators, key: keys.PrivateKey) -> None:
    staff.enrol("anna", STATION, keys.public_bytes(key))
    assert with_key(staff, key=key).session.operator_id == "anna"
    with pytest.raises(LoginRefusedError):
        with_key(staff, key=LOGIN_KEY)


def test_a_challenge_is_good_once_here_and_now(staff: Operators, clock: FakeClock) -> None:
    challenge = staff.challenge(HALL, "anna")
    text = login_text("anna", HALL.id, challenge, PUBLIC)
    signature = keys.sign(LOGIN_KEY, text)
    with pytest.raises(LoginRefusedError):  # GATE was never asked
        staff.log_in_with_key(GATE, "anna", challenge, signature, PUBLIC)
    assert staff.log_in_with_key(HALL, "anna", challenge, signature, PUBLIC)
    with pytest.raises(LoginRefusedError):
        staff.log_in_with_key(HALL, "anna", challenge, signature, PUBLIC)
    challenge = staff.challenge(HALL, "anna")
    signature = keys.sign(LOGIN_KEY, login_text("anna", HALL.id, challenge, PUBLIC))
    clock.advance(operators.CHALLENGE_LIFETIME)
    with pytest.raises(LoginRefusedError):
        staff.log_in_with_key(HALL, "anna", challenge, signature, PUBLIC)


def test_a_signature_for_another_terminal_operator_or_session_is_refused(staff: Operators) -> None:
    staff.enrol("bo", STATION, keys.public_bytes(LOGIN_KEY))
    other = keys.public_bytes(Ed25519PrivateKey.generate())
    for operator, terminal, session_key in (
        ("bo", HALL.id, PUBLIC),
        ("anna", GATE.id, PUBLIC),
        ("anna", HALL.id, other),
    ):
        challenge = staff.challenge(HALL, "anna")
        text = login_text(operator, terminal, challenge, session_key)
        with pytest.raises(LoginRefusedError):
            staff.log_in_with_key(HALL, "anna", challenge, keys.sign(LOGIN_KEY, text), PUBLIC)


def rsa_key() -> bytes:
    return (
        rsa.generate_private_key(65537, 2048)
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"junk",
        rsa_key(),
        keys.public_bytes(ec.generate_private_key(ec.SECP256K1())),
        PUBLIC + b"\0" * 300,
    ],
)
def test_a_key_of_another_kind_is_an_argument_to_correct(staff: Operators, key: bytes) -> None:
    if key:
        with pytest.raises(ArgumentInvalidError):
            staff.enrol("bo", STATION, key)
    with pytest.raises(ArgumentInvalidError):
        staff.log_in_with_password(HALL, "anna", PASSWORD, "", key)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_key_or_an_argument_to_correct(der: bytes) -> None:
    try:
        keys.public_key(der)
    except ArgumentInvalidError:
        return
    assert len(der) <= keys.MAX_PUBLIC_KEY_BYTES


# -- throttling --


def test_guessing_stops_here_and_nowhere_else(staff: Operators, clock: FakeClock) -> None:
    chosen(staff)
    for _ in range(5):
        with pytest.raises(LoginRefusedError):
            with_password(staff, "a wrong guess")
    with pytest.raises(TooManyAttemptsError) as caught:
        with_password(staff, PASSWORD)
    assert 0 < caught.value.retry_after_s <= 600
    # The innocent operator works at another terminal, and others at this one.
    assert with_password(staff, PASSWORD, terminal=GATE)
    assert with_key(staff)
    clock.advance(timedelta(seconds=caught.value.retry_after_s + 1))
    assert with_password(staff, PASSWORD)


def test_a_terminal_that_tries_one_operator_after_the_other_is_stopped(staff: Operators) -> None:
    for number in range(20):
        with pytest.raises(LoginRefusedError):
            with_password(staff, "a wrong guess", who=f"guess-{number}")
    with pytest.raises(TooManyAttemptsError):
        with_key(staff)
    assert with_key(staff, GATE)


def test_success_is_not_counted(staff: Operators) -> None:
    for _ in range(30):
        assert with_key(staff)


# -- tokens --


def test_a_token_names_its_operator_at_its_terminal(staff: Operators) -> None:
    opened = with_key(staff)
    working = staff.working_at(HALL, opened.token)
    assert working.who == "operator:anna terminal:t-1 station:hall"
    assert working.roles == frozenset(STATION)
    assert str(working) == "terminal:t-1"


def test_a_stolen_token_is_worth_nothing_elsewhere(staff: Operators) -> None:
    token = with_key(staff).token
    stolen_identity = replace(HALL, key_hash=b"x" * 32)
    for other in (GATE, stolen_identity):
        with pytest.raises(SessionInvalidError):
            staff.working_at(other, token)
    with pytest.raises(SessionInvalidError):
        staff.working_at(HALL, token + "x")
    # A renewed certificate with the same key is the same terminal.
    assert staff.working_at(replace(HALL, serial="later"), token)


def test_a_session_ends_on_idle_and_absolutely(staff: Operators, clock: FakeClock) -> None:
    token = with_key(staff).token
    clock.advance(timedelta(minutes=30))
    with pytest.raises(SessionExpiredError):
        staff.working_at(HALL, token)
    token = with_key(staff).token
    for _ in range(25):
        clock.advance(timedelta(minutes=28))
        staff.working_at(HALL, token)
    clock.advance(timedelta(minutes=28))
    with pytest.raises(SessionExpiredError):  # 12 hours, however busy
        staff.working_at(HALL, token)


def test_logout_and_the_next_login_end_a_session(staff: Operators) -> None:
    first = with_key(staff).token
    second = with_key(staff).token
    elsewhere = with_key(staff, GATE).token
    with pytest.raises(SessionExpiredError):
        staff.working_at(HALL, first)
    assert staff.log_out(HALL, second).operator_id == "anna"
    with pytest.raises(SessionExpiredError):
        staff.working_at(HALL, second)
    staff.log_out(HALL, second)  # again
    with pytest.raises(SessionInvalidError):
        staff.log_out(HALL, elsewhere)
    assert staff.working_at(GATE, elsewhere)


def test_revocation_of_operator_or_terminal_ends_a_session(staff: Operators) -> None:
    token = with_key(staff).token
    staff.revoke("anna", "left the office")
    with pytest.raises(SessionRevokedError):
        staff.working_at(HALL, token)
    with pytest.raises(LoginRefusedError):
        with_key(staff)
    with pytest.raises(OperatorRevokedError):
        staff.roles_of("anna")
    staff.enrol("anna", STATION, keys.public_bytes(LOGIN_KEY))  # back again
    with pytest.raises(SessionRevokedError):
        staff.working_at(HALL, token)
    token = with_key(staff).token
    staff.terminal_lost("t-1")
    with pytest.raises(SessionRevokedError):
        staff.working_at(HALL, token)


# -- capture proofs --


def test_a_proof_holds_for_weeks_after_its_session(staff: Operators, clock: FakeClock) -> None:
    opened = with_key(staff)
    clock.advance(timedelta(hours=11))
    proof = proof_of(opened, clock)
    staff.log_out(HALL, opened.token)
    clock.advance(timedelta(days=60))
    assert staff.vouched_for(HALL, proof, ENROL, b"request").operator_id == "anna"
    # The terminal has another key by then: it was provisioned again.
    assert staff.vouched_for(replace(HALL, key_hash=b"x" * 32), proof, ENROL, b"request")
    clock.advance(timedelta(days=31))
    with pytest.raises(ProofInvalidError, match="90 days"):
        staff.vouched_for(HALL, proof, ENROL, b"request")
    assert staff.forget_old_sessions() == 1
    with pytest.raises(SessionInvalidError):
        staff.vouched_for(HALL, proof, ENROL, b"request")


def test_a_proof_fits_one_request_at_one_terminal(staff: Operators, clock: FakeClock) -> None:
    opened = with_key(staff)
    proof = proof_of(opened, clock)
    assert staff.vouched_for(HALL, proof, ENROL, b"request")
    other = with_key(staff, GATE)
    for wrong, method, request, terminal in (
        (proof, ENROL, b"another request", HALL),
        (proof, "EnrolmentService.Other", b"request", HALL),
        (replace(proof, signed_at=proof.signed_at + timedelta(seconds=1)), ENROL, b"request", HALL),
        (replace(proof, signature=b""), ENROL, b"request", HALL),
        (replace(proof, session_id=other.session.session_id), ENROL, b"request", GATE),
    ):
        with pytest.raises(ProofInvalidError):
            staff.vouched_for(terminal, wrong, method, request)
    with pytest.raises(SessionInvalidError):
        staff.vouched_for(GATE, proof, ENROL, b"request")


@pytest.mark.parametrize(
    ("logged_out_after_h", "signed_after_h", "holds"),
    [(None, 11.9, True), (None, 12.5, False), (2, 1.9, True), (2, 2.5, False), (2, -1, False)],
)
def test_a_proof_must_have_been_made_within_its_session(
    staff: Operators,
    clock: FakeClock,
    logged_out_after_h: float | None,
    signed_after_h: float,
    holds: bool,
) -> None:
    opened = with_key(staff)
    start = clock.now()
    if logged_out_after_h is not None:
        clock.advance(timedelta(hours=logged_out_after_h))
        staff.log_out(HALL, opened.token)
    clock.advance(start + timedelta(hours=signed_after_h) - clock.now())
    proof = proof_of(opened, clock)
    clock.advance(timedelta(days=3))
    if holds:
        assert staff.vouched_for(HALL, proof, ENROL, b"request")
    else:
        with pytest.raises(ProofInvalidError, match="within"):
            staff.vouched_for(HALL, proof, ENROL, b"request")


def test_a_proof_from_the_future_is_refused(staff: Operators, clock: FakeClock) -> None:
    opened = with_key(staff)
    clock.advance(timedelta(hours=1))
    proof = proof_of(opened, clock)
    clock.advance(timedelta(hours=-1))
    with pytest.raises(ProofInvalidError):
        staff.vouched_for(HALL, proof, ENROL, b"request")


def test_a_revocation_takes_back_the_word_of_ended_sessions(
    staff: Operators, clock: FakeClock
) -> None:
    opened = with_key(staff)
    proof = proof_of(opened, clock)
    staff.log_out(HALL, opened.token)
    staff.terminal_lost("t-1")
    with pytest.raises(SessionRevokedError):
        staff.vouched_for(HALL, proof, ENROL, b"request")
    opened = with_key(staff, GATE)
    proof = proof_of(opened, clock)
    staff.log_out(GATE, opened.token)
    staff.revoke("anna", "left")
    with pytest.raises(SessionRevokedError):
        staff.vouched_for(GATE, proof, ENROL, b"request")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_proof_or_refused(packed: bytes) -> None:
    try:
        read = capture_proof(packed)
    except ProofInvalidError:
        return
    assert capture_proof(packed_capture_proof(read)) == read


# -- administration --


def test_enrolling_again_changes_what_is_named_and_nothing_else(staff: Operators) -> None:
    chosen(staff)
    staff.enrol("bo", [OperatorRole.ADJUDICATOR])
    assert staff.roles_of("bo") == frozenset({OperatorRole.ADJUDICATOR})
    assert with_password(staff, PASSWORD)


def test_administration_says_what_is_wrong(staff: Operators) -> None:
    refused: list[tuple[type[DevicesError], object]] = [
        (StationInvalidError, lambda: staff.enrol("Anna!", STATION)),
        (ArgumentInvalidError, lambda: staff.enrol("bo", [])),
        (OperatorUnknownError, lambda: staff.revoke("nobody", "left")),
        (ArgumentInvalidError, lambda: staff.revoke("anna", "")),
        (ArgumentInvalidError, lambda: staff.page(page_size=501)),
        (OperatorRevokedError, lambda: staff.roles_of("nobody")),
        (StationInvalidError, lambda: staff.challenge(HALL, "No One")),
        (ArgumentInvalidError, lambda: staff.log_out(HALL, "")),
    ]
    for kind, call in refused:
        assert callable(call)
        with pytest.raises(kind):
            call()


def test_operators_are_listed_by_pages(staff: Operators) -> None:
    for name in ("bo", "chen"):
        staff.enrol(name, STATION)
    page = staff.page(page_size=2)
    assert [one.operator_id for one in page.operators] == ["anna", "bo"]
    rest = staff.page(page.next_after, 2)
    assert [one.operator_id for one in rest.operators] == ["chen"]
    assert rest.next_after == ""
