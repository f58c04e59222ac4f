"""The role that a provider gave to who signed in there.

Revision: 0039, after 0038. Sessions that a key began have none: theirs is the key's.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("browser_sessions", sa.Column("role", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("browser_sessions", "role")
