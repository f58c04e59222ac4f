"""Webhooks: where owners want messages when jobs end, and each message that is to be sent there.

Revision: 0031, after 0030. The outbox keeps how the job ended, because it may have been opened again before it is read.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

_FUNCTION = """
    CREATE OR REPLACE FUNCTION outbox_take_job_end() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO outbox (at, kind, job_id, owner, state)
        VALUES (coalesce(NEW.ended_at, clock_timestamp()), 'job_ended', NEW.id, NEW.owner, NEW.state);
        RETURN NULL;
    END
    $$
"""

_FUNCTION_BEFORE = """
    CREATE OR REPLACE FUNCTION outbox_take_job_end() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO outbox (at, kind, job_id, owner)
        VALUES (coalesce(NEW.ended_at, clock_timestamp()), 'job_ended', NEW.id, NEW.owner);
        RETURN NULL;
    END
    $$
"""


def upgrade() -> None:
    op.add_column("jobs", sa.Column("webhook", sa.String(), nullable=True))  # first, as the farm locks the two
    op.add_column("outbox", sa.Column("state", sa.String(), nullable=True))
    op.execute(_FUNCTION)
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=True),
        sa.Column("name", sa.String(), server_default=sa.text("''"), nullable=False),
        sa.Column("format", sa.String(), server_default=sa.text("'standard'"), nullable=False),
        sa.Column("kinds", ARRAY(sa.String()), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("old_secret", sa.String(), nullable=True),
        sa.Column("old_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoints"),
    )
    op.create_index("ix_webhook_endpoints_owner", "webhook_endpoints", ["owner", "id"])
    op.create_index(
        "ix_webhook_endpoints_of_jobs",
        "webhook_endpoints",
        ["owner"],
        unique=True,
        postgresql_where=sa.text("url IS NULL"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("endpoint_id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=True),
        sa.Column("message", sa.String(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("payload", JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("is_postponed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("give_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dead_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["webhook_endpoints.id"],
            name="fk_webhook_deliveries_endpoint_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.UniqueConstraint("endpoint_id", "event_id", name="uq_webhook_deliveries_endpoint_id_event_id"),
    )
    waits = sa.text("delivered_at IS NULL AND dead_at IS NULL")
    op.create_index("ix_webhook_deliveries_due", "webhook_deliveries", ["due_at", "id"], postgresql_where=waits)
    op.create_index("ix_webhook_deliveries_target", "webhook_deliveries", ["target"], postgresql_where=waits)
    op.create_index("ix_webhook_deliveries_endpoint", "webhook_deliveries", ["endpoint_id", "id"])
    for when in ("delivered_at", "dead_at"):
        is_set = sa.text(f"{when} IS NOT NULL")
        op.create_index(f"ix_webhook_deliveries_{when}", "webhook_deliveries", [when], postgresql_where=is_set)


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhook_endpoints")
    op.drop_column("jobs", "webhook")
    op.execute(_FUNCTION_BEFORE)
    op.drop_column("outbox", "state")
