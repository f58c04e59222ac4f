"""Jobs say through which other system's API they came, and owners have options there.

Revision: 0034, after 0033. Jobs of older versions came through none.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("door", sa.String(), nullable=True))
    op.create_index(
        "ix_jobs_door",
        "jobs",
        ["owner", "door", "id"],
        postgresql_where=sa.text("door IS NOT NULL AND state = 'open'"),
    )
    op.create_table(
        "door_options",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("door", sa.String(), nullable=False),
        sa.Column("options", JSONB(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", "door", name="pk_door_options"),
    )


def downgrade() -> None:
    op.drop_table("door_options")
    op.drop_index("ix_jobs_door", "jobs")
    op.drop_column("jobs", "door")
