"""Who did what with the farm: lines that nobody can change, nor delete within a year.

Revision: 0041, after 0040. A trigger refuses both, so that no process of any version does either.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

_FUNCTION = """
    CREATE FUNCTION audit_log_keep() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            IF OLD.at < clock_timestamp() - interval '1 year' THEN
                RETURN OLD;
            END IF;
        END IF;
        RAISE EXCEPTION 'audit_log: lines are kept for a year as they were written';
    END
    $$
"""
_OF_ROWS = """
    CREATE TRIGGER audit_log_keep
    BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW
    EXECUTE FUNCTION audit_log_keep()
"""
_OF_ALL = """
    CREATE TRIGGER audit_log_keep_all
    BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT
    EXECUTE FUNCTION audit_log_keep()
"""


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("object", sa.String(), nullable=False),
        sa.Column("whose", sa.String(), nullable=True),
        sa.Column("detail", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    for column in ("owner", "whose", "action"):
        op.create_index(f"ix_audit_log_{column}", "audit_log", [column, "id"])
    for statement in (_FUNCTION, _OF_ROWS, _OF_ALL):
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("audit_log")
    op.execute("DROP FUNCTION audit_log_keep()")
