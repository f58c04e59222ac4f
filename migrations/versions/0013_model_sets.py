"""A job keeps the model files that admission found for its images.

Revision: 0013, after 0012. Jobs of the revision before have none: workers look up by name what those need.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("models", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "models")
