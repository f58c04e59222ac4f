"""Workers say what is wrong with them or their cards.

Revision: 0012, after 0011. Workers of the revision before leave the column empty.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("trouble", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "trouble")
