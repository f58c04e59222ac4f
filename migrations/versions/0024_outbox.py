"""The end of a job is an event in the outbox, written by the transaction that ends it, whichever version that is.

Revision: 0024, after 0023. A trigger writes it, so that processes of the revision before, which know no outbox, do so too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_FUNCTION = """
    CREATE FUNCTION outbox_take_job_end() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO outbox (at, kind, job_id, owner)
        VALUES (coalesce(NEW.ended_at, clock_timestamp()), 'job_ended', NEW.id, NEW.owner);
        RETURN NULL;
    END
    $$
"""

_TRIGGER = """
    CREATE TRIGGER outbox_take_job_end
    AFTER UPDATE OF state ON jobs
    FOR EACH ROW
    -- Each end of a job that was retried is an event of its own.
    WHEN (OLD.state = 'open' AND NEW.state <> 'open')
    EXECUTE FUNCTION outbox_take_job_end()
"""


def upgrade() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_index("ix_outbox_due", "outbox", ["due_at", "id"], postgresql_where=sa.text("delivered_at IS NULL"))
    op.create_index(
        "ix_outbox_delivered_at", "outbox", ["delivered_at"], postgresql_where=sa.text("delivered_at IS NOT NULL")
    )
    op.execute(_FUNCTION)
    op.execute(_TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER outbox_take_job_end ON jobs")
    op.execute("DROP FUNCTION outbox_take_job_end()")
    op.drop_table("outbox")
