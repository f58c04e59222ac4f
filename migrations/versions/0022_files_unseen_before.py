"""A worker of the version before has no say in whether files are gone that it cannot see.

Revision: 0022, after 0021. Its scans skip adapters whose names end in `.bin`, and ControlNets that are folders, and
would call them gone until a worker of this version scans again: jobs that name them would be refused meanwhile. It
leaves the column `details` as it is, and this version empties it in the row of a file that is gone, which tells the two
apart, as revision 0021 does for files that cannot be used. The trigger can go once no such worker runs beside this
version.
"""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_CANNOT_BE_USED = """
          NEW.reason <> 'The file is gone.'
          AND (NEW.prediction IS NOT NULL OR NEW.details IS NOT NULL)
          AND NEW.parts IS NOT DISTINCT FROM OLD.parts  -- the file has not changed
"""
_IS_GONE = r"""
          NEW.reason = 'The file is gone.'
          AND NEW.details IS NOT NULL
          AND OLD.kind NOT IN ('checkpoint', 'vae', 'decoder', 'other')
          AND OLD.path !~* '\.(safetensors|ckpt|pt|pth|gguf)$'
"""


def upgrade() -> None:
    _replace(f"(({_CANNOT_BE_USED}) OR ({_IS_GONE}))")


def downgrade() -> None:
    _replace(_CANNOT_BE_USED)


def _replace(is_ignored: str) -> None:
    op.execute("DROP TRIGGER model_files_keep_newer ON model_files")
    op.execute(
        f"""
        CREATE TRIGGER model_files_keep_newer
        BEFORE UPDATE ON model_files
        FOR EACH ROW
        WHEN (OLD.usable AND NOT NEW.usable
              AND NEW.strikes = OLD.strikes  -- it has crashed nothing
              AND {is_ignored})
        EXECUTE FUNCTION model_files_keep_newer()
        """
    )
