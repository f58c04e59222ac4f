"""Jobs count how their images ended; a worker runs one struck image at a time.

Revision: 0005, after 0004. Images that processes of the revision before end from here on are not counted; the end
of a job is right nevertheless, because `shared.queue.job_end` reads the images too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COUNT = """
    UPDATE jobs
    SET failed = ended.failed, cancelled = ended.cancelled
    FROM (
        SELECT job_id,
               count(*) FILTER (WHERE state = 'failed') AS failed,
               count(*) FILTER (WHERE state = 'cancelled') AS cancelled
        FROM images
        WHERE state IN ('failed', 'cancelled')
        GROUP BY job_id
    ) AS ended
    WHERE jobs.id = ended.job_id
"""


def upgrade() -> None:
    for name in ("failed", "cancelled"):
        op.add_column("jobs", sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.execute(_COUNT)
    op.create_check_constraint(
        op.f("ck_jobs_ended"), "jobs", "failed >= 0 AND cancelled >= 0 AND unfinished + failed + cancelled <= count"
    )
    op.create_index(
        "ix_images_struck",
        "images",
        ["worker_id"],
        unique=True,
        postgresql_where=sa.text("worker_id IS NOT NULL AND strikes > 0"),
    )


def downgrade() -> None:
    op.drop_index("ix_images_struck", table_name="images")
    op.drop_constraint(op.f("ck_jobs_ended"), "jobs", type_="check")
    for name in ("cancelled", "failed"):
        op.drop_column("jobs", name)
