"""Pictures are sorted by size: an index by width times height.

Revision: 0038, after 0037. The farm goes on while it is built, however many pictures there are.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

AREA = "ix_pictures_area"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # A build that was ended before leaves an index that nobody can use.
        op.drop_index(AREA, table_name="pictures", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            AREA,
            "pictures",
            ["owner", sa.text("(width * height)"), "width", "ended_at", "image_id"],
            postgresql_where=sa.text("deleted_at IS NULL"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(AREA, table_name="pictures", postgresql_concurrently=True, if_exists=True)
