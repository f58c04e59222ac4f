"""What a worker of this version found a file to be is not undone by one of the version before, which cannot read it.

Revision: 0019, after 0018. Workers of both versions scan the same folder during an upgrade. The version before calls
checkpoints of architectures that it does not know unusable, and jobs that name them would be refused, or fail. It
leaves the column `prediction` as it is, and this version empties it in the row of an unusable file, which tells the two
apart. The trigger can go once no such worker runs beside this version.
"""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_FUNCTION = """
    CREATE FUNCTION model_files_keep_newer() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RETURN NULL;  -- skips the update
    END
    $$
"""

_TRIGGER = """
    CREATE TRIGGER model_files_keep_newer
    BEFORE UPDATE ON model_files
    FOR EACH ROW
    WHEN (OLD.usable AND NOT NEW.usable
          AND NEW.prediction IS NOT NULL
          AND NEW.parts IS NOT DISTINCT FROM OLD.parts  -- the file has not changed,
          AND NEW.strikes = OLD.strikes                 -- has crashed nothing,
          AND NEW.reason <> 'The file is gone.')        -- and is there
    EXECUTE FUNCTION model_files_keep_newer()
"""


def upgrade() -> None:
    op.execute(_FUNCTION)
    op.execute(_TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER model_files_keep_newer ON model_files")
    op.execute("DROP FUNCTION model_files_keep_newer()")
