"""The audit log: append-only and hash-chained.

Each entry's hash is SHA-256 over the hash before it and the entry's own deterministic bytes, so
that changing, removing or reordering any row breaks the chain from there on. Entries name people by
opaque ids only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, Row, desc, insert, select, type_coerce

from identity.schema import EPOCH, MICROSECOND, audit_entries
from identity.types import AuditEntry, Purpose

GENESIS = b"\0" * 32
NO_PURPOSE = Purpose("", "")


class AuditLog:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def append(
        self,
        at: datetime,
        who: str,
        action: str,
        subject_id: str = "",
        purpose: Purpose = NO_PURPOSE,
        outcome: str = "ok",
    ) -> None:
        """Add one entry. Only inside a write transaction: the chain has one end."""
        last = self._connection.execute(
            select(audit_entries.c.sequence, audit_entries.c.hash)
            .order_by(desc(audit_entries.c.sequence))
            .limit(1)
        ).one_or_none()
        sequence, before = (last.sequence + 1, last.hash) if last else (1, GENESIS)
        fields = {
            "sequence": sequence,
            "at": (at - EPOCH) // MICROSECOND,
            "who": who,
            "action": action,
            "subject_id": subject_id,
            "purpose": purpose.code,
            "case_reference": purpose.case_reference,
            "outcome": outcome,
        }
        self._connection.execute(
            insert(audit_entries).values(**{**fields, "at": at}, hash=_hash(before, fields))
        )

    def entries(self, after_sequence: int, limit: int) -> list[AuditEntry]:
        rows = self._connection.execute(
            select(audit_entries)
            .where(audit_entries.c.sequence > after_sequence)
            .order_by(audit_entries.c.sequence)
            .limit(limit)
        )
        return [_entry(row) for row in rows]

    def about(
        self, subject_ids: Sequence[str], before_sequence: int | None, limit: int
    ) -> list[AuditEntry]:
        """Disclosures of one person by all their ids: entries with a purpose, newest first."""
        query = select(audit_entries).where(
            audit_entries.c.subject_id.in_(subject_ids), audit_entries.c.purpose != ""
        )
        if before_sequence is not None:
            query = query.where(audit_entries.c.sequence < before_sequence)
        rows = self._connection.execute(query.order_by(desc(audit_entries.c.sequence)).limit(limit))
        return [_entry(row) for row in rows]

    def verify(self) -> tuple[int, bytes, int]:
        """(good entries, hash of the last good one, sequence of the first that is not, or 0)."""
        before, count = GENESIS, 0
        # Values as they lie in the file: whoever tampers need not keep to a column's type.
        columns = [
            type_coerce(column, BigInteger).label("at") if column.name == "at" else column
            for column in audit_entries.c
        ]
        for row in self._connection.execute(select(*columns).order_by(audit_entries.c.sequence)):
            fields = {name: value for name, value in row._mapping.items() if name != "hash"}
            if row.sequence != count + 1 or _hash_or_none(before, fields) != row.hash:
                return count, before, count + 1
            before, count = row.hash, count + 1
        return count, before, 0


def _hash(before: bytes, fields: dict[str, Any]) -> bytes:
    line = json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(before + line.encode()).digest()


def _hash_or_none(before: bytes, fields: dict[str, Any]) -> bytes | None:
    """None where a column holds what :meth:`AuditLog.append` never writes."""
    try:
        return _hash(before, fields)
    except TypeError:
        return None


def _entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(**row._mapping)
