"""Jobs that wait for others: for which, and for what end of theirs.

Revision: 0032, after 0031. A process of the revision before holds such a job until somebody releases it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "jobs", sa.Column("after", ARRAY(sa.BigInteger()), server_default=sa.text("'{}'"), nullable=False)
    )
    op.add_column("jobs", sa.Column("after_on", sa.String(), server_default=sa.text("'success'"), nullable=False))
    op.add_column("jobs", sa.Column("waits", sa.Boolean(), server_default=sa.text("false"), nullable=False))


def downgrade() -> None:
    op.drop_column("jobs", "waits")
    op.drop_column("jobs", "after_on")
    op.drop_column("jobs", "after")
