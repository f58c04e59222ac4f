"""Which transaction made an event of the outbox, and the oldest one that had not ended by then.

Revision: 0042, after 0041. So readers of the ends of jobs find one that commits after a later one. PostgreSQL fills the
columns itself, whatever version makes the event; those of before have none.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None

_FILLED = {
    "transaction": "pg_current_xact_id()::text::bigint",
    "horizon": "pg_snapshot_xmin(pg_current_snapshot())::text::bigint",
}


def upgrade() -> None:
    for name, default in _FILLED.items():  # with its default at once, a column would be written into each row
        op.add_column("outbox", sa.Column(name, sa.BigInteger(), nullable=True))
        op.alter_column("outbox", name, server_default=sa.text(default))
    op.create_index("ix_outbox_transaction", "outbox", ["transaction"])


def downgrade() -> None:
    op.drop_index("ix_outbox_transaction", "outbox")
    for name in _FILLED:
        op.drop_column("outbox", name)
