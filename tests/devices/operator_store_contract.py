"""What every :class:`devices.ports.OperatorStore` must keep to; run against each implementation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from devices.ports import OperatorStore
from devices.types import Operator, OperatorRole, Session, SessionEnd

AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
ANNA = Operator(
    "anna",
    frozenset({OperatorRole.STATION, OperatorRole.ADJUDICATOR}),
    version=1,
    password="$argon2id$...",
    password_change_by=AT,
    login_key=b"key",
)
BO = Operator("bo", frozenset({OperatorRole.ADMINISTRATOR}), version=1)
MORNING = Session(
    "s-1", b"h" * 32, "anna", "t-1", "hall", b"k" * 32, b"public", AT, AT + timedelta(hours=12), AT
)


class OperatorStoreContract:
    """Subclass it in a test module, with a fixture ``operators``."""

    def test_what_is_stored_comes_back(self, operators: OperatorStore) -> None:
        assert operators.operator("anna") is None
        assert operators.put_operator(ANNA)
        assert operators.operator("anna") == ANNA
        revoked = replace(ANNA, version=2, revoked_at=AT, revocation_reason="left", password="")
        assert operators.put_operator(revoked)
        assert operators.operator("anna") == revoked

    def test_a_stale_writer_changes_nothing(self, operators: OperatorStore) -> None:
        assert not operators.put_operator(replace(ANNA, version=2))
        assert operators.put_operator(ANNA)
        assert not operators.put_operator(ANNA)
        assert not operators.put_operator(replace(ANNA, version=3))
        assert operators.operator("anna") == ANNA

    def test_operators_are_paged_by_id(self, operators: OperatorStore) -> None:
        for one in (BO, ANNA):
            operators.put_operator(one)
        assert operators.operators("", 1) == [ANNA]
        assert operators.operators("anna", 9) == [BO]

    def test_a_session_is_found_by_token_and_id(self, operators: OperatorStore) -> None:
        operators.put_operator(ANNA)
        operators.open_session(MORNING)
        assert operators.session_of_token(b"h" * 32) == (MORNING, ANNA)
        assert operators.session("s-1") == (MORNING, ANNA)
        assert operators.session_of_token(b"x" * 32) is None
        assert operators.session("s-2") is None
        operators.use_session("s-1", AT + timedelta(minutes=5))
        assert operators.session("s-1") == (
            replace(MORNING, last_used_at=AT + timedelta(minutes=5)),
            ANNA,
        )

    def test_a_terminal_has_one_open_session(self, operators: OperatorStore) -> None:
        operators.put_operator(ANNA)
        operators.put_operator(BO)
        operators.open_session(MORNING)
        elsewhere = replace(MORNING, session_id="s-2", token_hash=b"2" * 32, terminal_id="t-2")
        operators.open_session(elsewhere)
        later = AT + timedelta(hours=1)
        operators.open_session(
            replace(
                MORNING, session_id="s-3", token_hash=b"3" * 32, operator_id="bo", opened_at=later
            )
        )
        found = operators.session("s-1")
        assert found is not None
        assert (found[0].ended_at, found[0].ended_by) == (later, SessionEnd.REPLACED)
        assert operators.session("s-2") == (elsewhere, ANNA)

    def test_a_session_ends_once_but_is_revoked_always(self, operators: OperatorStore) -> None:
        operators.put_operator(ANNA)
        operators.open_session(MORNING)
        operators.end_session("s-1", AT + timedelta(hours=1), SessionEnd.LOGOUT)
        operators.end_session("s-1", AT + timedelta(hours=2), SessionEnd.LOGOUT)
        ended = replace(MORNING, ended_at=AT + timedelta(hours=1), ended_by=SessionEnd.LOGOUT)
        assert operators.session("s-1") == (ended, ANNA)
        operators.revoke_sessions(AT + timedelta(hours=3), operator_id="bo")
        operators.revoke_sessions(AT + timedelta(hours=3), terminal_id="t-2")
        assert operators.session("s-1") == (ended, ANNA)
        operators.revoke_sessions(AT + timedelta(hours=3), terminal_id="t-1")
        assert operators.session("s-1") == (replace(ended, ended_by=SessionEnd.REVOKED), ANNA)

    def test_revoking_an_operator_ends_what_is_open(self, operators: OperatorStore) -> None:
        operators.put_operator(ANNA)
        operators.open_session(MORNING)
        operators.revoke_sessions(AT + timedelta(hours=3), operator_id="anna")
        found = operators.session("s-1")
        assert found is not None
        assert (found[0].ended_at, found[0].ended_by) == (
            AT + timedelta(hours=3),
            SessionEnd.REVOKED,
        )

    def test_old_sessions_are_forgotten(self, operators: OperatorStore) -> None:
        operators.put_operator(ANNA)
        operators.open_session(MORNING)
        assert operators.forget_sessions(MORNING.expires_at) == 0
        assert operators.forget_sessions(MORNING.expires_at + timedelta(seconds=1)) == 1
        assert operators.session("s-1") is None
