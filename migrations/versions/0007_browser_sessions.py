"""The farm records browser sessions, so that signing out ends them.

Revision: 0007, after 0006. Processes of the revision before do not know these sessions, nor today's processes theirs:
people sign in once more.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "browser_sessions",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("key_mark", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_browser_sessions")),
    )
    op.create_index(op.f("ix_browser_sessions_owner_used_at"), "browser_sessions", ["owner", "used_at"])
    op.create_index(op.f("ix_browser_sessions_used_at"), "browser_sessions", ["used_at"])


def downgrade() -> None:
    op.drop_table("browser_sessions")
