"""The catalogue holds the networks of each model file, with the digest of each one's content.

Revision: 0020, after 0019. Rows of the revision before say nothing until a worker of this one scans them; a worker of
the revision before leaves the column as it is, also when it records other weights, which the column therefore names.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("model_files", sa.Column("components", JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("model_files", "components")
