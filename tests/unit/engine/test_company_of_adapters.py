"""Pictures with no, one or three adapters in flight together: each as it is alone, all in one call a turn."""

from __future__ import annotations

import numpy as np
import pytest

from bench import adapters, company
from tests.support.conditioned import with_empty_caches
from tests.unit.engine.conftest import Small
from worker.engine.loop.engine import Engine

NIGHTLY = (pytest.mark.nightly, pytest.mark.timeout(900))


@pytest.mark.parametrize(
    ("kind", "count", "steps"),
    [("sd1", 8, 2), pytest.param("sd1", 24, 6, marks=NIGHTLY), pytest.param("sdxl", 24, 6, marks=NIGHTLY)],
    ids=str,
)
def test_pictures_with_other_adapters_each_are_in_company_what_they_are_alone(
    engine: Engine, small: Small, kind: str, count: int, steps: int
) -> None:
    weights = small(kind)
    jobs = adapters.jobs(count, adapters.drawn(weights, rank=8), side=64, steps=steps)
    alone = [company.start(engine, {company.NAME: with_empty_caches(weights)}, job) for job in jobs]
    fresh = with_empty_caches(weights)
    with company.rows_counted([weights]) as rows:
        together = company.together(engine, {company.NAME: fresh}, jobs, in_flight=8)
    for job, picture, other in zip(jobs, alone, together, strict=True):
        assert np.array_equal(picture, other), job.params.prompt
    plain = [company.start(engine, {company.NAME: fresh}, job) for job in adapters.without(jobs[1:3])]
    assert all((one != other).any() for one, other in zip(plain, alone[1:3], strict=True))
    assert sum(rows) == 2 * sum(job.params.steps for job in jobs)
    assert len(rows) <= sum(job.params.steps for job in jobs)
