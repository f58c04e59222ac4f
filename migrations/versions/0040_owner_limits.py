"""Limits that are set for owners, and what of them workers and submissions keep to.

Revision: 0040, after 0039.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "owner_limits",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("given", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("role_running", sa.BigInteger(), nullable=True),
        sa.Column("work_day", sa.Date(), nullable=True),
        sa.Column("work", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("set_by", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("owner", name="pk_owner_limits"),
    )


def downgrade() -> None:
    op.drop_table("owner_limits")
