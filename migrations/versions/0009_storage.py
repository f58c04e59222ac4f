"""The farm remembers that it has marked its storage: an unmarked one is not its own from then on.

Revision: 0009, after 0008. Processes of the revision before do not look at the marker.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("farm", sa.Column("storage_marked_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("farm", "storage_marked_at")
