"""Model files are known by their weights and by what describes them, and count the processes that ended while reading them.

Revision: 0010, after 0009. `sha256` is from here on the hash of both; processes of the revision before find files by it
as they did, and record the hash of the weights alone when they scan. The next scan fills in missing hashes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("weights_sha256", "parts", "note"):
        op.add_column("model_files", sa.Column(name, sa.String(), nullable=True))
    op.add_column("model_files", sa.Column("has_vae", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    op.add_column("model_files", sa.Column("strikes", sa.BigInteger(), server_default=sa.text("0"), nullable=False))


def downgrade() -> None:
    for name in ("weights_sha256", "parts", "note", "has_vae", "strikes"):
        op.drop_column("model_files", name)
