"""The farm has an id, made once: what tells it from another farm on the same Redis or storage.

Revision: 0006, after 0005. Processes of the revision before do not know of it: their messages and those of today's
processes do not meet, and either finds its work in PostgreSQL.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "farm",
        sa.Column("is_only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("id", sa.String(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.CheckConstraint("is_only", name=op.f("ck_farm_only")),
        sa.PrimaryKeyConstraint("is_only", name=op.f("pk_farm")),
    )
    op.execute("INSERT INTO farm DEFAULT VALUES")


def downgrade() -> None:
    op.drop_table("farm")
