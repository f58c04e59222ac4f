"""Jobs that were there before say their own scheduling too: it is copied from the first image of each.

Revision: 0017, after 0016, whose trigger does this for jobs of an older API. Apart from it, so that nothing but the rows
that change is locked while all images are read.
"""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_FILL = """
    UPDATE jobs
    SET pool = first.pool,
        priority = first.priority,
        urgent = first.urgent,
        expires_at = first.expires_at,
        hold = first.state = 'held' AND first.held_until IS NULL AND first.held_behind IS NULL,
        hold_until = first.held_until,
        hold_behind = first.held_behind
    FROM images AS first
    WHERE first.job_id = jobs.id
      AND first.index = 0
      AND (first.pool <> 'default' OR first.priority <> 0 OR first.urgent OR first.expires_at IS NOT NULL
           OR first.state = 'held')
      -- A job that says its scheduling itself is left as it is.
      AND (jobs.pool, jobs.priority, jobs.urgent, jobs.expires_at, jobs.hold, jobs.hold_until, jobs.hold_behind)
          IS NOT DISTINCT FROM ('default', 0::bigint, false, NULL::timestamptz, false, NULL::timestamptz, NULL::bigint)
"""


def upgrade() -> None:
    op.execute(_FILL)


def downgrade() -> None:
    """The columns go with the revision before."""
