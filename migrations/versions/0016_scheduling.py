"""A job says its own scheduling: pool, priority, urgency, deadline, and what held it from the start.

Revision: 0016, after 0015. An API of the revision before says it on the images alone, so a trigger copies what differs
from the defaults from a job's first image. It can go once no such API runs beside this version.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_COLUMNS = (
    sa.Column("pool", sa.String(), server_default=sa.text("'default'"), nullable=False),
    sa.Column("priority", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    sa.Column("urgent", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
    sa.Column("hold", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    sa.Column("hold_until", sa.DateTime(timezone=True), nullable=True),
    sa.Column("hold_behind", sa.BigInteger(), nullable=True),
)

_DIFFERS = """
    ({first}.pool <> 'default' OR {first}.priority <> 0 OR {first}.urgent OR {first}.expires_at IS NOT NULL
     OR {first}.state = 'held')
"""

_SET = """
    UPDATE jobs
    SET pool = {first}.pool,
        priority = {first}.priority,
        urgent = {first}.urgent,
        expires_at = {first}.expires_at,
        hold = {first}.state = 'held' AND {first}.held_until IS NULL AND {first}.held_behind IS NULL,
        hold_until = {first}.held_until,
        hold_behind = {first}.held_behind
"""

_FUNCTION = f"""
    CREATE FUNCTION jobs_take_scheduling() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {_SET.format(first="NEW")}
        WHERE jobs.id = NEW.job_id
          -- A job that says its scheduling itself is left as it is.
          AND (jobs.pool, jobs.priority, jobs.urgent, jobs.expires_at, jobs.hold, jobs.hold_until, jobs.hold_behind)
              IS NOT DISTINCT FROM ('default', 0::bigint, false, NULL::timestamptz, false, NULL::timestamptz, NULL::bigint);
        RETURN NULL;
    END
    $$
"""

_TRIGGER = f"""
    CREATE TRIGGER jobs_take_scheduling
    AFTER INSERT ON images
    FOR EACH ROW
    WHEN (NEW.index = 0 AND {_DIFFERS.format(first="NEW")})
    EXECUTE FUNCTION jobs_take_scheduling()
"""


def upgrade() -> None:
    for column in _COLUMNS:
        op.add_column("jobs", column)
    op.execute(_FUNCTION)
    op.execute(_TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER jobs_take_scheduling ON images")
    op.execute("DROP FUNCTION jobs_take_scheduling()")
    for column in reversed(_COLUMNS):
        op.drop_column("jobs", column.name)
