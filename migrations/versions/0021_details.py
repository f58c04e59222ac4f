"""The catalogue holds the details in the content of a model file: rank, trigger words, widths, another name.

Revision: 0021, after 0020. Rows of the revision before say nothing until a worker of this one scans them. A worker of
the revision before cannot use LoRAs or embeddings, and would call those unusable that a worker of this one
found usable. It leaves the column as it is, and this version empties it in the row of an unusable file, which tells the
two apart, as revision 0019 does for checkpoints. The trigger can go once no such worker runs beside this version.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_TRIGGER = """
    CREATE TRIGGER model_files_keep_newer
    BEFORE UPDATE ON model_files
    FOR EACH ROW
    WHEN (OLD.usable AND NOT NEW.usable
          AND {said}
          AND NEW.parts IS NOT DISTINCT FROM OLD.parts  -- the file has not changed,
          AND NEW.strikes = OLD.strikes                 -- has crashed nothing,
          AND NEW.reason <> 'The file is gone.')        -- and is there
    EXECUTE FUNCTION model_files_keep_newer()
"""


def upgrade() -> None:
    op.add_column("model_files", sa.Column("details", JSONB(), nullable=True))
    op.execute("DROP TRIGGER model_files_keep_newer ON model_files")
    op.execute(_TRIGGER.format(said="(NEW.prediction IS NOT NULL OR NEW.details IS NOT NULL)"))


def downgrade() -> None:
    op.execute("DROP TRIGGER model_files_keep_newer ON model_files")
    op.execute(_TRIGGER.format(said="NEW.prediction IS NOT NULL"))
    op.drop_column("model_files", "details")
