"""The catalogue says what a checkpoint's network predicts.

Revision: 0018, after 0017. Rows of the revision before say nothing until a worker of this one scans them; a worker of
the revision before leaves the column as it is.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("model_files", sa.Column("prediction", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("model_files", "prediction")
