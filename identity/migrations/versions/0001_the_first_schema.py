"""The first schema: people, permits, cases, terminals, audit, idempotency.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(length=160), nullable=False),
        sa.Column("action", sa.String(length=120), nullable=False),
        sa.Column("subject_id", sa.String(length=40), nullable=False),
        sa.Column("purpose", sa.String(length=64), nullable=False),
        sa.Column("case_reference", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit_entries")),
    )
    op.create_index(
        "ix_audit_entries_subject_id", "audit_entries", ["subject_id", "sequence"], unique=False
    )
    op.create_table(
        "data_keys",
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_data_keys")),
    )
    op.create_table(
        "idempotency",
        sa.Column("caller", sa.String(length=160), nullable=False),
        sa.Column("method", sa.String(length=80), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("caller", "method", "key", name=op.f("pk_idempotency")),
    )
    op.create_table(
        "provisioning_tokens",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("terminal_id", sa.String(length=40), nullable=False),
        sa.Column("station_id", sa.String(length=40), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_provisioning_tokens")),
    )
    op.create_table(
        "reference_changes",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("registrant_id", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_reference_changes")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "revoked_serials",
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_revoked_serials")),
    )
    op.create_table(
        "terminals",
        sa.Column("terminal_id", sa.String(length=40), nullable=False),
        sa.Column("station_id", sa.String(length=40), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("serials", sa.JSON(), nullable=False),
        sa.Column("certificate_not_after", sa.BigInteger(), nullable=True),
        sa.Column("last_contact", sa.BigInteger(), nullable=True),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("revocation_reason", sa.String(length=200), nullable=False),
        sa.Column("equipment", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("terminal_id", name=op.f("pk_terminals")),
    )
    op.create_table(
        "operators",
        sa.Column("operator_id", sa.String(length=40), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("password", sa.String(length=200), nullable=False),
        sa.Column("password_change_by", sa.BigInteger(), nullable=True),
        sa.Column("login_key", sa.LargeBinary(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("revocation_reason", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("operator_id", name=op.f("pk_operators")),
    )
    op.create_table(
        "operator_sessions",
        sa.Column("session_id", sa.String(length=40), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("operator_id", sa.String(length=40), nullable=False),
        sa.Column("terminal_id", sa.String(length=40), nullable=False),
        sa.Column("station_id", sa.String(length=40), nullable=False),
        sa.Column("terminal_key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("session_key", sa.LargeBinary(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_by", sa.String(length=20), nullable=True),
        sa.ForeignKeyConstraint(
            ["operator_id"],
            ["operators.operator_id"],
            name=op.f("fk_operator_sessions_operator_id"),
        ),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_operator_sessions")),
    )
    op.create_index(
        "ix_operator_sessions_token_hash", "operator_sessions", ["token_hash"], unique=True
    )
    op.create_index(
        "ix_operator_sessions_terminal_id", "operator_sessions", ["terminal_id"], unique=False
    )
    op.create_index(
        "ix_operator_sessions_operator_id", "operator_sessions", ["operator_id"], unique=False
    )
    op.create_table(
        "applications",
        sa.Column("application_id", sa.String(length=40), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("accepted_by", sa.String(length=160), nullable=False),
        sa.Column("station_id", sa.String(length=40), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("sealed_particulars", sa.LargeBinary(), nullable=True),
        sa.Column("permit_requested", sa.Boolean(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("captured_at", sa.BigInteger(), nullable=True),
        sa.Column("accepted_at", sa.BigInteger(), nullable=False),
        sa.Column("registrant_id", sa.String(length=40), nullable=True),
        sa.Column("case_id", sa.String(length=40), nullable=True),
        sa.ForeignKeyConstraint(
            ["key_id"], ["data_keys.key_id"], name=op.f("fk_applications_key_id")
        ),
        sa.PrimaryKeyConstraint("application_id", name=op.f("pk_applications")),
    )
    op.create_index("ix_applications_state", "applications", ["state"], unique=False)
    op.create_table(
        "registrants",
        sa.Column("registrant_id", sa.String(length=40), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("sealed_particulars", sa.LargeBinary(), nullable=True),
        sa.Column("document_index", sa.LargeBinary(), nullable=True),
        sa.Column("station_id", sa.String(length=40), nullable=False),
        sa.Column("registered_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["key_id"], ["data_keys.key_id"], name=op.f("fk_registrants_key_id")
        ),
        sa.PrimaryKeyConstraint("registrant_id", name=op.f("pk_registrants")),
    )
    op.create_index(
        "ix_registrants_document_index", "registrants", ["document_index"], unique=False
    )
    op.create_table(
        "application_samples",
        sa.Column("application_id", sa.String(length=40), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("sealed_record", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["application_id"],
            ["applications.application_id"],
            name=op.f("fk_application_samples_application_id"),
        ),
        sa.PrimaryKeyConstraint("application_id", "ordinal", name=op.f("pk_application_samples")),
    )
    op.create_table(
        "cases",
        sa.Column("case_id", sa.String(length=40), nullable=False),
        sa.Column("application_id", sa.String(length=40), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Integer(), nullable=False),
        sa.Column("station_id", sa.String(length=40), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["application_id"],
            ["applications.application_id"],
            name=op.f("fk_cases_application_id"),
        ),
        sa.PrimaryKeyConstraint("case_id", name=op.f("pk_cases")),
    )
    op.create_index("ix_cases_application_id", "cases", ["application_id"], unique=False)
    op.create_index("ix_cases_state_opened_at", "cases", ["state", "opened_at"], unique=False)
    op.create_table(
        "permits",
        sa.Column("permit_number", sa.String(length=40), nullable=False),
        sa.Column("registrant_id", sa.String(length=40), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("kid", sa.String(length=64), nullable=False),
        sa.Column("status_list", sa.Integer(), nullable=False),
        sa.Column("status_index", sa.Integer(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("sealed_qr_text", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["registrant_id"], ["registrants.registrant_id"], name=op.f("fk_permits_registrant_id")
        ),
        sa.PrimaryKeyConstraint("permit_number", name=op.f("pk_permits")),
        sa.UniqueConstraint(
            "status_list", "status_index", name=op.f("uq_permits_status_list_status_index")
        ),
    )
    op.create_index("ix_permits_registrant_id", "permits", ["registrant_id"], unique=False)
    op.create_table(
        "reference_samples",
        sa.Column("registrant_id", sa.String(length=40), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("sealed_record", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["registrant_id"],
            ["registrants.registrant_id"],
            name=op.f("fk_reference_samples_registrant_id"),
        ),
        sa.PrimaryKeyConstraint("registrant_id", "ordinal", name=op.f("pk_reference_samples")),
    )
    op.create_table(
        "case_candidates",
        sa.Column("case_id", sa.String(length=40), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("registrant_id", sa.String(length=40), nullable=False),
        sa.Column("similarity", sa.Float(), nullable=False),
        sa.Column("finger_similarities", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["case_id"], ["cases.case_id"], name=op.f("fk_case_candidates_case_id")
        ),
        sa.ForeignKeyConstraint(
            ["registrant_id"],
            ["registrants.registrant_id"],
            name=op.f("fk_case_candidates_registrant_id"),
        ),
        sa.PrimaryKeyConstraint("case_id", "rank", name=op.f("pk_case_candidates")),
    )
    op.create_index(
        "ix_case_candidates_registrant_id", "case_candidates", ["registrant_id"], unique=False
    )
    op.create_table(
        "case_decisions",
        sa.Column("case_id", sa.String(length=40), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("operator_id", sa.String(length=120), nullable=False),
        sa.Column("verdict", sa.Integer(), nullable=False),
        sa.Column("registrant_id", sa.String(length=40), nullable=True),
        sa.Column("sealed_reason", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["case_id"], ["cases.case_id"], name=op.f("fk_case_decisions_case_id")
        ),
        sa.PrimaryKeyConstraint("case_id", "ordinal", name=op.f("pk_case_decisions")),
    )
    op.create_table(
        "case_appeals",
        sa.Column("case_id", sa.String(length=40), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("sealed_statement", sa.LargeBinary(), nullable=False),
        sa.Column("taken_by", sa.String(length=120), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["case_id"], ["cases.case_id"], name=op.f("fk_case_appeals_case_id")
        ),
        sa.PrimaryKeyConstraint("case_id", "round", name=op.f("pk_case_appeals")),
    )
    op.create_table(
        "permit_changes",
        sa.Column("permit_number", sa.String(length=40), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("sealed_reason", sa.LargeBinary(), nullable=False),
        sa.Column("changed_by", sa.String(length=120), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["permit_number"],
            ["permits.permit_number"],
            name=op.f("fk_permit_changes_permit_number"),
        ),
        sa.PrimaryKeyConstraint("permit_number", "ordinal", name=op.f("pk_permit_changes")),
    )


def downgrade() -> None:
    op.drop_table("permit_changes")
    op.drop_table("case_appeals")
    op.drop_table("case_decisions")
    op.drop_index("ix_case_candidates_registrant_id", table_name="case_candidates")
    op.drop_table("case_candidates")
    op.drop_table("reference_samples")
    op.drop_index("ix_permits_registrant_id", table_name="permits")
    op.drop_table("permits")
    op.drop_index("ix_cases_state_opened_at", table_name="cases")
    op.drop_index("ix_cases_application_id", table_name="cases")
    op.drop_table("cases")
    op.drop_table("application_samples")
    op.drop_index("ix_registrants_document_index", table_name="registrants")
    op.drop_table("registrants")
    op.drop_index("ix_applications_state", table_name="applications")
    op.drop_table("applications")
    op.drop_index("ix_operator_sessions_operator_id", table_name="operator_sessions")
    op.drop_index("ix_operator_sessions_terminal_id", table_name="operator_sessions")
    op.drop_index("ix_operator_sessions_token_hash", table_name="operator_sessions")
    op.drop_table("operator_sessions")
    op.drop_table("operators")
    op.drop_table("terminals")
    op.drop_table("revoked_serials")
    op.drop_table("reference_changes")
    op.drop_table("provisioning_tokens")
    op.drop_table("idempotency")
    op.drop_table("data_keys")
    op.drop_index("ix_audit_entries_subject_id", table_name="audit_entries")
    op.drop_table("audit_entries")
