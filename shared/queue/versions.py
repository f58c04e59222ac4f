"""Whether a job's rows have changed: one question for many jobs, which reads neither parameters nor prompts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from sqlalchemy import Connection

MOST_IMAGES: Final = 100
"""Jobs with more images have no version: to tell it would cost as much as to read them."""

# PostgreSQL writes the number of the transaction that made it into each row (xmin), so that every change is another
# version, by whichever process. Indexes: the keys of jobs, images (job_id, index) and pictures.
_VERSIONS: Final = """
    SELECT id, owner,
           CASE WHEN count <= %(most)s THEN (
               SELECT concat_ws(
                   ' ', jobs.xmin, string_agg(concat_ws('.', images.xmin, pictures.xmin), ' ' ORDER BY images.index)
               )
               FROM images
               LEFT JOIN pictures ON pictures.image_id = images.id
               WHERE images.job_id = jobs.id
           ) END AS fingerprint
    FROM jobs
    WHERE id = ANY(%(job_ids)s)
"""


class Version(NamedTuple):
    """Whose job it is, and the fingerprint of its rows; None of a large job."""

    owner: str
    fingerprint: str | None


def versions(connection: Connection, job_ids: Collection[int]) -> dict[int, Version]:
    """Return the versions of the jobs that exist: two that are equal are of the same job, images and pictures."""
    found = connection.exec_driver_sql(_VERSIONS, {"job_ids": list(job_ids), "most": MOST_IMAGES})
    return {job_id: Version(owner, fingerprint) for job_id, owner, fingerprint in found}
