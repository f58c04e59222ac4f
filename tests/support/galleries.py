"""Galleries for tests: jobs whose images have succeeded, and many pictures at once."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import text

from shared.db import sessions as database
from shared.db.tables import Job
from shared.maintenance.pictures import list_pictures
from tests.support.queueing import Farmhand

_JOBS = text("""
    INSERT INTO jobs (owner, state, params, checkpoint, count, unfinished)
    SELECT owner, 'succeeded', '{"prompt": "a boat"}', 'c', :images, 0
    FROM unnest(CAST(:owners AS text[])) AS owner
    RETURNING id
""")
_IMAGES = text("""
    INSERT INTO images (
        job_id, index, state, owner, checkpoint, pool, memory_class, urgent, priority, cost, attempt, strikes, ended_at
    )
    SELECT jobs.id, n, 'succeeded', owner, 'c', 'default', 6, false, 0, 1, 1, 0, now() - make_interval(mins => n::int)
    FROM jobs, generate_series(0, jobs.count - 1) AS n
""")
# One in seven of a prompt with a rare word, one in a hundred a favourite, six checkpoints, eight sizes.
_PICTURES = text("""
    INSERT INTO pictures (
        image_id, job_id, index, attempt, owner, ended_at, checkpoint, sampler, seed, width, height, format, words,
        adapters, favourite, tags
    )
    SELECT id, job_id, index, 1, owner, ended_at, 'c' || index % 6, 's' || index % 5, index, 512, 512 + index % 8,
           'png',
           ARRAY['a', 'boat', 'w' || index % 97, CASE index % 7 WHEN 0 THEN '日落' ELSE 'sea' END],
           CASE index % 11 WHEN 0 THEN ARRAY['ink'] ELSE '{}' END,
           index % 100 = 0,
           CASE index % 13 WHEN 0 THEN ARRAY['good'] ELSE '{}' END
    FROM images
""")


def fill(sessions: database.Sessions, images: int, owners: tuple[str, ...] = ("ann", "bob")) -> list[int]:
    """Give each owner a job of so many pictures, a minute apart; return the ids of the jobs."""
    with sessions.begin() as session:
        session.execute(text("SET LOCAL statement_timeout = '300s'"))
        ids = list(session.scalars(_JOBS, {"owners": list(owners), "images": images}))
        session.execute(_IMAGES)
        session.execute(_PICTURES)
    with sessions.kw["bind"].connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE pictures"))
    return ids


def finished(sessions: database.Sessions, make: Callable[..., Job], **params: object) -> Job:
    """Return a job of `make` whose images a worker has finished, and whose pictures can be found."""
    job, hand = make(**params), Farmhand(sessions)
    worker = hand.worker()
    while claim := worker.claim():
        hand.finish(claim)
    list_pictures(sessions)
    return job
