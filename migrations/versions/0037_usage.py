"""What each owner's images took of the farm, by checkpoint and day.

Revision: 0037, after 0036. The statement that ends an attempt writes down what it took. It counts from this revision
on; processes of the revision before write down nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "usage_attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        *_columns(),
        sa.PrimaryKeyConstraint("id", name="pk_usage_attempts"),
    )
    op.create_index("ix_usage_attempts_owner", "usage_attempts", ["owner"])
    op.create_table(
        "usage_days",
        sa.Column("day", sa.Date(), nullable=False),
        *_columns(),
        sa.PrimaryKeyConstraint("owner", "day", "checkpoint", name="pk_usage_days"),
    )
    op.create_index("ix_usage_days_day", "usage_days", ["day"])


def downgrade() -> None:
    op.drop_table("usage_days")
    op.drop_table("usage_attempts")


def _columns() -> list[sa.Column[object]]:
    return [
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("checkpoint", sa.String(), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("gpu_seconds", sa.Float(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
    ]
