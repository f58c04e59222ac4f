"""A job says which experiment of the page of lessons it is, so that its owner finds it there again.

Revision: 0029, after 0028. Jobs of older versions are none.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("lesson", sa.String(), nullable=True))
    op.create_index(
        "ix_jobs_lesson", "jobs", ["owner", "lesson", "id"], postgresql_where=sa.text("lesson IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_lesson", "jobs")
    op.drop_column("jobs", "lesson")
