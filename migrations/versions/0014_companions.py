"""A lane knows what must be resident beside its checkpoint, and a worker tells in which precision it renders.

Revision: 0014, after 0013. Images of the revision before name no companions: they stand in the lane of those that need
none.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("images", sa.Column("companions", sa.String(), server_default=sa.text("''"), nullable=False))
    op.add_column("workers", sa.Column("precision", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "precision")
    op.drop_column("images", "companions")
