"""Operators and their sessions at terminals."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)

from devices.types import Operator, OperatorRole, Session, SessionEnd
from identity.schema import operator_sessions, operators


class Operators:
    """The rows behind :class:`devices.ports.OperatorStore`, within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, operator_id: str) -> Operator | None:
        row = self._connection.execute(
            select(operators).where(operators.c.operator_id == operator_id)
        ).one_or_none()
        return None if row is None else _operator(row)

    def page(self, after: str, limit: int) -> list[Operator]:
        rows = self._connection.execute(
            select(operators)
            .where(operators.c.operator_id > after)
            .order_by(operators.c.operator_id)
            .limit(limit)
        )
        return [_operator(row) for row in rows]

    def put(self, operator: Operator) -> bool:
        """False, with nothing changed, unless the stored version is one below."""
        values = asdict(operator)
        values["roles"] = sorted(int(role) for role in operator.roles)
        if self.get(operator.operator_id) is None:
            if operator.version != 1:
                return False
            self._connection.execute(insert(operators).values(**values))
            return True
        done = self._connection.execute(
            update(operators)
            .where(
                operators.c.operator_id == operator.operator_id,
                operators.c.version == operator.version - 1,
            )
            .values(**values)
        )
        return done.rowcount == 1

    def open_session(self, session: Session) -> None:
        """Also ends the one that is open at the terminal."""
        self._connection.execute(
            update(operator_sessions)
            .where(
                operator_sessions.c.terminal_id == session.terminal_id,
                operator_sessions.c.ended_at.is_(None),
            )
            .values(ended_at=session.opened_at, ended_by=SessionEnd.REPLACED.value)
        )
        values = asdict(session)
        values["ended_by"] = None if session.ended_by is None else session.ended_by.value
        self._connection.execute(insert(operator_sessions).values(**values))

    def session_of_token(self, token_hash: bytes) -> tuple[Session, Operator] | None:
        return self._session(operator_sessions.c.token_hash == token_hash)

    def session(self, session_id: str) -> tuple[Session, Operator] | None:
        return self._session(operator_sessions.c.session_id == session_id)

    def use_session(self, session_id: str, at: datetime) -> None:
        self._connection.execute(
            update(operator_sessions)
            .where(operator_sessions.c.session_id == session_id)
            .values(last_used_at=at)
        )

    def end_session(self, session_id: str, at: datetime, why: SessionEnd) -> None:
        self._connection.execute(
            update(operator_sessions)
            .where(
                operator_sessions.c.session_id == session_id,
                operator_sessions.c.ended_at.is_(None),
            )
            .values(ended_at=at, ended_by=why.value)
        )

    def revoke_sessions(self, at: datetime, operator_id: str, terminal_id: str) -> None:
        """Of an operator or a terminal, whichever is not empty; ended ones too."""
        whose = (
            operator_sessions.c.operator_id == operator_id
            if operator_id
            else operator_sessions.c.terminal_id == terminal_id
        )
        self._connection.execute(
            update(operator_sessions)
            .where(whose)
            .values(
                ended_at=func.coalesce(
                    operator_sessions.c.ended_at, literal(at, operator_sessions.c.ended_at.type)
                ),
                ended_by=SessionEnd.REVOKED.value,
            )
        )

    def forget_sessions(self, before: datetime) -> int:
        done = self._connection.execute(
            delete(operator_sessions).where(operator_sessions.c.expires_at < before)
        )
        return done.rowcount

    def _session(self, which: ColumnElement[bool]) -> tuple[Session, Operator] | None:
        row = self._connection.execute(select(operator_sessions).where(which)).one_or_none()
        if row is None:
            return None
        values = dict(row._mapping)
        values["ended_by"] = None if row.ended_by is None else SessionEnd(row.ended_by)
        operator = self.get(row.operator_id)
        return None if operator is None else (Session(**values), operator)


def _operator(row: Row[Any]) -> Operator:
    values = dict(row._mapping)
    values["roles"] = frozenset(OperatorRole(number) for number in values["roles"])
    return Operator(**values)
