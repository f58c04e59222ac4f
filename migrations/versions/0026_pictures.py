"""Finished images are listed as pictures, which people search, mark and delete.

Revision: 0026, after 0025. A trigger lists each image as it succeeds, whatever version its worker has. Those that had
succeeded before are listed by a chore, the latest first, so that the upgrade takes no longer on a large farm than on a
small one. What a picture is found by stands in its job's parameters, and a chore of this version reads them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_LIST = """
    CREATE FUNCTION images_list_picture() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO pictures (image_id, job_id, index, attempt, owner, ended_at)
        VALUES (NEW.id, NEW.job_id, NEW.index, NEW.attempt, NEW.owner, coalesce(NEW.ended_at, clock_timestamp()))
        ON CONFLICT (image_id) DO NOTHING;
        RETURN NULL;
    END
    $$
"""
_TRIGGER = """
    CREATE TRIGGER images_list_picture
    AFTER UPDATE OF state ON images
    FOR EACH ROW
    WHEN (NEW.state = 'succeeded' AND OLD.state <> 'succeeded')
    EXECUTE FUNCTION images_list_picture()
"""
# Behind the trigger, which waits for transactions that end images: no image succeeds between the two.
_BEFORE = "UPDATE farm SET unlisted_images = (SELECT max(id) FROM images)"

_FILTERED = {
    "shown": ([], ""),
    "checkpoint": (["checkpoint"], ""),
    "sampler": (["sampler"], ""),
    "size": (["width", "height"], ""),
    "seed": (["seed"], ""),
    "job": (["job_id"], ""),
    "favourite": ([], "favourite AND "),
    "tagged": ([], "tags <> '{}' AND "),
    "adapted": ([], "adapters <> '{}' AND "),
}


def upgrade() -> None:
    op.create_table(
        "pictures",
        sa.Column("image_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("checkpoint", sa.String(), nullable=True),
        sa.Column("sampler", sa.String(), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("width", sa.BigInteger(), nullable=True),
        sa.Column("height", sa.BigInteger(), nullable=True),
        sa.Column("format", sa.String(), nullable=True),
        sa.Column("words", ARRAY(sa.String()), nullable=True),
        sa.Column("adapters", ARRAY(sa.String()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("favourite", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("tags", ARRAY(sa.String()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_pictures_image_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("image_id", name="pk_pictures"),
    )
    for name, (columns, where) in _FILTERED.items():
        shown = sa.text(f"{where}deleted_at IS NULL")
        op.create_index(
            f"ix_pictures_{name}", "pictures", ["owner", *columns, "ended_at", "image_id"], postgresql_where=shown
        )
    for column in ("words", "adapters", "tags"):
        op.create_index(
            f"ix_pictures_{column}",
            "pictures",
            [column],
            postgresql_using="gin",
            postgresql_where=sa.text("deleted_at IS NULL"),
            postgresql_with={"fastupdate": "off"},
        )
    op.create_index("ix_pictures_unread", "pictures", ["image_id"], postgresql_where=sa.text("words IS NULL"))
    op.create_index(
        "ix_pictures_deleted", "pictures", ["owner", "deleted_at"], postgresql_where=sa.text("deleted_at IS NOT NULL")
    )
    op.create_index(
        "ix_pictures_to_remove",
        "pictures",
        ["deleted_at"],
        postgresql_where=sa.text("deleted_at IS NOT NULL AND removed_at IS NULL"),
    )
    op.add_column("farm", sa.Column("unlisted_images", sa.BigInteger(), nullable=True))
    op.execute(_LIST)
    op.execute(_TRIGGER)
    op.execute(_BEFORE)


def downgrade() -> None:
    op.execute("DROP TRIGGER images_list_picture ON images")
    op.execute("DROP FUNCTION images_list_picture()")
    op.drop_column("farm", "unlisted_images")
    op.drop_table("pictures")
