"""A claim finds the head of a lane by an index that holds what must be resident beside the checkpoint.

Revision: 0015, after 0014. The farm goes on while the index is built, however many images there are. Workers of the
revision before claim by the index that there is already, which therefore stays.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

INDEX = "ix_images_lane_companions"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # A build that was ended before leaves an index that nobody can use.
        op.drop_index(INDEX, table_name="images", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            INDEX,
            "images",
            [
                "owner",
                "checkpoint",
                "pool",
                "memory_class",
                "companions",
                sa.text("urgent DESC"),
                sa.text("priority DESC"),
                "id",
            ],
            postgresql_where=sa.text("state = 'queued'"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(INDEX, table_name="images", postgresql_concurrently=True, if_exists=True)
