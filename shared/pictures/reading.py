"""Words and names that pictures are found by, read from their jobs' parameters; finished images of before are listed.

Nothing here is in anybody's way: a worker that finishes an image writes one row by a trigger and reads no parameters,
and the rows that are read here are skipped while somebody else holds them.
"""

from __future__ import annotations

import re
from typing import Any, Final

import structlog
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from shared.jobs import stored
from shared.params.geometry import hires_size
from shared.params.render import RenderParams
from shared.pictures import words
from shared.pictures.filters import stored_seed
from shared.prompts.adapters import BadTag, used

log = structlog.get_logger(__name__)

BATCH: Final = 200
_BEHIND_PROMPT: Final = re.compile(r"(?:^|\n)(?:Negative prompt|Steps): ")  # in the parameters of a file
_IDS: Final = 5000  # of images that are looked through at once, whether or not they are there

# Index: ix_pictures_unread. The latest first: they are what people look for.
_UNREAD = text("""
    SELECT image_id, pictures.job_id, pictures.index AS place, images.changes
    FROM pictures
    JOIN images ON images.id = image_id
    WHERE words IS NULL
    ORDER BY image_id DESC
    LIMIT :batch
    FOR UPDATE OF pictures SKIP LOCKED
""")
_PARAMS = text("SELECT id, params FROM jobs WHERE id = ANY(:job_ids)")

_READ = text("""
    UPDATE pictures
    SET checkpoint = read.checkpoint,
        sampler = read.sampler,
        seed = read.seed,
        width = read.width,
        height = read.height,
        format = read.format,
        words = read.words,
        adapters = read.adapters
    FROM jsonb_to_recordset(:read) AS read (
        image_id bigint, checkpoint text, sampler text, seed bigint, width bigint, height bigint, format text,
        words varchar[], adapters varchar[]
    )
    WHERE pictures.image_id = read.image_id
""").bindparams(bindparam("read", type_=JSONB))

# A job that is being deleted is waited for, in the order in which everybody locks images.
_LIST = text("""
    WITH done AS (
        SELECT id, job_id, index, attempt, owner, ended_at
        FROM images
        WHERE id > :last - :ids
          AND id <= :last
          AND state = 'succeeded'
        ORDER BY id
        FOR KEY SHARE
    )
    INSERT INTO pictures (image_id, job_id, index, attempt, owner, ended_at)
    SELECT id, job_id, index, attempt, owner, coalesce(ended_at, clock_timestamp())
    FROM done
    ON CONFLICT (image_id) DO NOTHING
""")
_LAST = text("SELECT unlisted_images FROM farm FOR UPDATE")
_LOWER = text("UPDATE farm SET unlisted_images = CASE WHEN unlisted_images > :ids THEN unlisted_images - :ids END")


def read(session: Session) -> int:
    """Fill in what the latest pictures that nobody has read are found by, at most `BATCH`; return how many."""
    unread = session.execute(_UNREAD, {"batch": BATCH}).all()
    if not unread:
        return 0
    job_ids = list({row.job_id for row in unread})
    params = {row.id: row.params for row in session.execute(_PARAMS, {"job_ids": job_ids})}
    found = [
        {"image_id": row.image_id, **_understood(params[row.job_id], row)} for row in unread if row.job_id in params
    ]
    session.execute(_READ, {"read": found})
    return len(found)


def list_older(session: Session) -> bool:
    """List finished images from before there was a list, some ids at a time; return whether there may be more."""
    last = session.scalar(_LAST)
    if last is None:
        return False
    session.execute(_LIST, {"last": last, "ids": _IDS})
    session.execute(_LOWER, {"ids": _IDS})
    return True


def _understood(params: object, row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row of `_UNREAD`
    """Return what a picture is found by; where its parameters make no sense, nothing, so that it is not read again."""
    try:
        return _found_by(stored.image(params, row.place, row.changes).params)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        log.warning("picture is found by nothing", job=row.job_id, index=row.place, reason=repr(error))
        return {"words": [], "adapters": []}


def _found_by(params: RenderParams) -> dict[str, Any]:
    """Return what a picture of these parameters is found by; of an enlarged one its size may be nobody's to know."""
    if params.upscale:
        is_sized = params.upscale.is_sized
        width, height = (params.upscale.width, params.upscale.height) if is_sized else (None, None)
        prompt = _BEHIND_PROMPT.split(params.upscale.pictures[0].parameters, maxsplit=1)[0]
        found = words.of_prompt(prompt)
        return {"width": width, "height": height, "format": params.format, "words": found, "adapters": []}
    size = (params.width, params.height)
    width, height = hires_size(*size, params.hires).final if params.hires else size
    prompts = (params.prompt, params.hires.prompt if params.hires else "")
    return {
        "checkpoint": params.checkpoint or None,
        "sampler": params.sampler,
        "seed": stored_seed(params.seed),
        "width": width,
        "height": height,
        "format": params.format,
        "words": words.of_prompt(params.prompt),
        "adapters": sorted({name for prompt in prompts for name in _adapters(prompt)}),
    }


def _adapters(prompt: str) -> list[str]:
    try:
        return [use.name for use in used(prompt)]
    except BadTag:  # of a newer version
        return []
