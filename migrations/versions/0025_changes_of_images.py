"""An image of a sweep holds what it changes of its job's parameters, and its own model files.

Revision: 0025, after 0024. Both columns are null in rows of the revision before, and in all images of plain jobs: these
have the parameters and the files of their job. Versions that know no sweeps leave jobs with one alone.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("images", sa.Column("changes", JSONB(none_as_null=True), nullable=True))
    op.add_column("images", sa.Column("models", JSONB(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("images", "models")
    op.drop_column("images", "changes")
