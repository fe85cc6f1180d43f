"""The tables. One schema for SQLite and PostgreSQL; Alembic migrations in ``migrations/`` make it.

Columns named ``sealed_*`` hold AES-256-GCM ciphertext under the row's data key (``vault``). Names,
documents, addresses, templates and permit texts exist in no other column. Instants are integer
microseconds since 1970 UTC: exact, sortable and the same in both databases.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """A timezone-aware datetime as microseconds since 1970 UTC."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> int | None:
        return None if value is None else (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: int | None, dialect: Any) -> datetime | None:
        return None if value is None else EPOCH + timedelta(microseconds=value)


# SQLite counts rowids in INTEGER PRIMARY KEY only; BIGINT would lose autoincrement there.
Sequence = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

data_keys = Table(
    "data_keys",
    metadata,
    Column("key_id", String(40), primary_key=True),
    Column("wrapped", LargeBinary),  # NULL once erased: nothing under it can be read again
)

applications = Table(
    "applications",
    metadata,
    Column("application_id", String(40), primary_key=True),
    Column("state", Integer, nullable=False),
    Column("accepted_by", String(160), nullable=False),
    Column("station_id", String(40), nullable=False),
    Column("key_id", ForeignKey("data_keys.key_id"), nullable=False),
    Column("sealed_particulars", LargeBinary),  # NULL once it is no longer needed
    Column("permit_requested", Boolean, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("captured_at", Instant),
    Column("accepted_at", Instant, nullable=False),
    Column("registrant_id", String(40)),
    Column("case_id", String(40)),
    Index("ix_applications_state", "state"),
)

application_samples = Table(
    "application_samples",
    metadata,
    Column("application_id", ForeignKey("applications.application_id"), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("sealed_record", LargeBinary, nullable=False),
)

registrants = Table(
    "registrants",
    metadata,
    Column("registrant_id", String(40), primary_key=True),
    Column("state", Integer, nullable=False),
    Column("key_id", ForeignKey("data_keys.key_id"), nullable=False),
    Column("sealed_particulars", LargeBinary),
    Column("document_index", LargeBinary),  # blinded (HMAC), NULL once erased
    Column("station_id", String(40), nullable=False),
    Column("registered_at", Instant, nullable=False),
    Index("ix_registrants_document_index", "document_index"),
)

reference_samples = Table(
    "reference_samples",
    metadata,
    Column("registrant_id", ForeignKey("registrants.registrant_id"), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("sealed_record", LargeBinary, nullable=False),
)

# What the search index replays: its snapshot remembers the last sequence it has seen.
reference_changes = Table(
    "reference_changes",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("kind", String(10), nullable=False),  # "add" or "withdraw"
    Column("registrant_id", String(40), nullable=False),
    sqlite_autoincrement=True,
)

permits = Table(
    "permits",
    metadata,
    Column("permit_number", String(40), primary_key=True),
    Column("registrant_id", ForeignKey("registrants.registrant_id"), nullable=False),
    Column("state", Integer, nullable=False),
    Column("kid", String(64), nullable=False),
    Column("status_list", Integer, nullable=False),
    Column("status_index", Integer, nullable=False),
    Column("issued_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("sealed_qr_text", LargeBinary, nullable=False),
    Index("ix_permits_registrant_id", "registrant_id"),
    UniqueConstraint("status_list", "status_index"),
)

# Why a permit was suspended, reinstated or revoked. The reason is never published.
permit_changes = Table(
    "permit_changes",
    metadata,
    Column("permit_number", ForeignKey("permits.permit_number"), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("state", Integer, nullable=False),
    Column("sealed_reason", LargeBinary, nullable=False),
    Column("changed_by", String(120), nullable=False),
    Column("at", Instant, nullable=False),
)

cases = Table(
    "cases",
    metadata,
    Column("case_id", String(40), primary_key=True),
    Column("application_id", ForeignKey("applications.application_id"), nullable=False),
    Column("state", Integer, nullable=False),
    Column("reason", Integer, nullable=False),
    Column("station_id", String(40), nullable=False),
    Column("opened_at", Instant, nullable=False),
    Column("round", Integer, nullable=False),
    Index("ix_cases_state_opened_at", "state", "opened_at"),
    Index("ix_cases_application_id", "application_id"),
)

case_candidates = Table(
    "case_candidates",
    metadata,
    Column("case_id", ForeignKey("cases.case_id"), primary_key=True),
    Column("rank", Integer, primary_key=True),
    Column("registrant_id", ForeignKey("registrants.registrant_id"), nullable=False),
    Column("similarity", Float, nullable=False),
    Column("finger_similarities", JSON, nullable=False),
    Index("ix_case_candidates_registrant_id", "registrant_id"),
)

case_decisions = Table(
    "case_decisions",
    metadata,
    Column("case_id", ForeignKey("cases.case_id"), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("operator_id", String(120), nullable=False),
    Column("verdict", Integer, nullable=False),
    Column("registrant_id", String(40)),
    Column("sealed_reason", LargeBinary, nullable=False),  # free text may name people
    Column("at", Instant, nullable=False),
    Column("round", Integer, nullable=False),
)

case_appeals = Table(
    "case_appeals",
    metadata,
    Column("case_id", ForeignKey("cases.case_id"), primary_key=True),
    Column("round", Integer, primary_key=True),  # the one it opened
    Column("sealed_statement", LargeBinary, nullable=False),
    Column("taken_by", String(120), nullable=False),
    Column("at", Instant, nullable=False),
)

terminals = Table(
    "terminals",
    metadata,
    Column("terminal_id", String(40), primary_key=True),
    Column("station_id", String(40), nullable=False),
    Column("state", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("serials", JSON, nullable=False),
    Column("certificate_not_after", Instant),
    Column("last_contact", Instant),
    Column("token_hash", LargeBinary, nullable=False),
    Column("revocation_reason", String(200), nullable=False),
    Column("equipment", JSON),
)

operators = Table(
    "operators",
    metadata,
    Column("operator_id", String(40), primary_key=True),
    Column("roles", JSON, nullable=False),
    Column("version", Integer, nullable=False),
    Column("password", String(200), nullable=False),  # Argon2id, PHC; empty where there is none
    Column("password_change_by", Instant),
    Column("login_key", LargeBinary, nullable=False),
    Column("revoked_at", Instant),
    Column("revocation_reason", String(200), nullable=False),
)

# Nothing secret: tokens are hashed, and session_key is a public key.
operator_sessions = Table(
    "operator_sessions",
    metadata,
    Column("session_id", String(40), primary_key=True),
    Column("token_hash", LargeBinary, nullable=False),
    Column("operator_id", ForeignKey("operators.operator_id"), nullable=False),
    Column("terminal_id", String(40), nullable=False),
    Column("station_id", String(40), nullable=False),
    Column("terminal_key_hash", LargeBinary, nullable=False),
    Column("session_key", LargeBinary, nullable=False),
    Column("opened_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("last_used_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Column("ended_by", String(20)),
    Index("ix_operator_sessions_token_hash", "token_hash", unique=True),
    Index("ix_operator_sessions_terminal_id", "terminal_id"),
    Index("ix_operator_sessions_operator_id", "operator_id"),
)

provisioning_tokens = Table(
    "provisioning_tokens",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("terminal_id", String(40), nullable=False),
    Column("station_id", String(40), nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("key_hash", LargeBinary, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
)

revoked_serials = Table(
    "revoked_serials",
    metadata,
    Column("serial", String(64), primary_key=True),
    Column("reason", String(200), nullable=False),
    Column("at", Instant, nullable=False),
)

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("who", String(160), nullable=False),
    Column("action", String(120), nullable=False),
    Column("subject_id", String(40), nullable=False),
    Column("purpose", String(64), nullable=False),
    Column("case_reference", String(64), nullable=False),
    Column("outcome", String(64), nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Index("ix_audit_entries_subject_id", "subject_id", "sequence"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("caller", String(160), primary_key=True),
    Column("method", String(80), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("request_hash", LargeBinary, nullable=False),  # blinded (HMAC)
    Column("result", LargeBinary, nullable=False),
    Column("at", Instant, nullable=False),
)

# Pictures that an application will name, piece by piece; gone once it has, or after a day.
uploads = Table(
    "uploads",
    metadata,
    Column("upload_id", String(64), primary_key=True),  # blinded (HMAC): caller and digest
    Column("caller", String(120), nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("size", Integer, nullable=False),
    Column("received", Integer, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("touched_at", Instant, nullable=False),
    Index("ix_uploads_caller", "caller"),
)

upload_pieces = Table(
    "upload_pieces",
    metadata,
    Column("upload_id", ForeignKey("uploads.upload_id"), primary_key=True),
    Column("offset", Integer, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)
