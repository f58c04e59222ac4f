"""Events that fail again and again are set aside, with the reason.

Revision: 0030, after 0029. A process of the revision before knows of none and tries them as before, which does no harm.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outbox", sa.Column("reason", sa.String(), nullable=True))
    op.add_column("outbox", sa.Column("dead_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_outbox_dead", "outbox", ["dead_at"], postgresql_where=sa.text("dead_at IS NOT NULL"))


def downgrade() -> None:
    op.drop_index("ix_outbox_dead", table_name="outbox")
    op.drop_column("outbox", "dead_at")
    op.drop_column("outbox", "reason")
