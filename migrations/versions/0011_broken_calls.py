"""Workers report how many calls of networks failed since their start.

Revision: 0011, after 0010. Workers of the revision before leave the column as it is, because they do not count.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    empty = sa.text("'{}'")
    op.add_column("workers", sa.Column("broken_calls", postgresql.JSONB(), server_default=empty, nullable=False))


def downgrade() -> None:
    op.drop_column("workers", "broken_calls")
