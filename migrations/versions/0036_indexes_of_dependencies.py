"""Indexes of the jobs that wait for others: by what they wait for, and all that are open.

Revision: 0036, after 0035. The farm goes on while they are built, however many jobs there are.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

AFTER, WAITS = "ix_jobs_after", "ix_jobs_waits"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name in (AFTER, WAITS):  # a build that was ended before leaves an index that nobody can use
            op.drop_index(name, table_name="jobs", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            AFTER,
            "jobs",
            ["after"],
            postgresql_using="gin",
            postgresql_where=sa.text("waits"),
            postgresql_with={"fastupdate": "off"},
            postgresql_concurrently=True,
        )
        op.create_index(
            WAITS,
            "jobs",
            ["id"],
            postgresql_where=sa.text("waits AND state = 'open'"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in (AFTER, WAITS):
            op.drop_index(name, table_name="jobs", postgresql_concurrently=True, if_exists=True)
