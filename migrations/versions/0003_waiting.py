"""Waiting and staying away: deadlines, what is held and why, what workers offer, who is drained, what was measured.

Revision: 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("images", sa.Column("expires_at", sa.DateTime(timezone=True)))
    op.add_column("images", sa.Column("held_until", sa.DateTime(timezone=True)))
    op.add_column("images", sa.Column("held_behind", sa.BigInteger()))
    op.create_index(
        "ix_images_expires_at",
        "images",
        ["expires_at"],
        postgresql_where=sa.text("expires_at IS NOT NULL AND state IN ('held', 'queued')"),
    )
    op.create_index("ix_images_held", "images", ["held_until", "held_behind"], postgresql_where=sa.text("state = 'held'"))
    op.add_column("workers", sa.Column("memory_bytes", sa.BigInteger()))
    op.create_table(
        "drains",
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("worker", name="pk_drains"),
    )
    op.create_table(
        "memory_needs",
        sa.Column("checkpoint", sa.String(), nullable=False),
        sa.Column("memory_class", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("checkpoint", "memory_class", name="pk_memory_needs"),
    )


def downgrade() -> None:
    for table in ("memory_needs", "drains"):
        op.drop_table(table)
    op.drop_column("workers", "memory_bytes")
    for index in ("ix_images_held", "ix_images_expires_at"):
        op.drop_index(index, table_name="images")
    for column in ("held_behind", "held_until", "expires_at"):
        op.drop_column("images", column)
