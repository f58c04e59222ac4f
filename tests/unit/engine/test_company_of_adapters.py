"""Pictures with no, one or three LoRAs, or an IP-Adapter, in flight together: each as it is alone, and in few calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch

from bench import adapters, company
from bench.company import Job
from tests.support import image_prompted, ip_adapters, small_checkpoints
from tests.support.conditioned import with_empty_caches
from tests.unit.engine.conftest import Small
from worker.engine.adapters.ip_adapters import load
from worker.engine.devices import Device
from worker.engine.loading import image_encoders
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import IPAdapterInput

IN_FLIGHT: Final = 8
NIGHTLY = (pytest.mark.nightly, pytest.mark.timeout(900))


@pytest.mark.parametrize(
    ("kind", "count", "steps"),
    [("sd1", 5, 3), pytest.param("sd1", 24, 6, marks=NIGHTLY), pytest.param("sdxl", 24, 6, marks=NIGHTLY)],
    ids=str,
)
def test_pictures_with_other_adapters_each_are_in_company_what_they_are_alone(
    engine: Engine, small: Small, tmp_path: Path, *, kind: str, count: int, steps: int
) -> None:
    weights = small(kind)
    mixed = adapters.jobs(count, adapters.drawn(weights, rank=8), side=64, steps=steps)
    jobs, unread = (_following(mixed, kind, engine.device, tmp_path) for _ in range(2))
    alone = [company.start(engine, {company.NAME: with_empty_caches(weights)}, job) for job in jobs]
    fresh = with_empty_caches(weights)
    with company.rows_counted([weights]) as rows:
        together = company.together(engine, {company.NAME: fresh}, unread, in_flight=IN_FLIGHT)
    for job, picture, other in zip(jobs, alone, together, strict=True):
        assert np.array_equal(picture, other), job.params.prompt
    plain = [company.start(engine, {company.NAME: fresh}, job) for job in adapters.without(jobs[1:3])]
    assert all((one != other).any() for one, other in zip(plain, alone[1:3], strict=True))
    in_all = sum(job.params.steps for job in jobs)
    assert sum(rows) == 2 * in_all
    # Each picture may begin and end by itself, because its texts, its picture to follow and its VAE take turns.
    assert len(rows) <= in_all / IN_FLIGHT + 2 * len(jobs)


def _following(jobs: Sequence[Job], kind: str, on: Device, folder: Path) -> list[Job]:
    """Return `jobs`, every fourth of which follows a picture too."""
    encoder = image_encoders.load(ip_adapters.write_encoder(ip_adapters.encoder(), folder / "eyes"), on, torch.float32)
    written = ip_adapters.write(ip_adapters.build(small_checkpoints.build(kind)), folder / "adapter")
    picture = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    given = IPAdapterInput(image_prompted.unit(picture), load(written, on, torch.float32), encoder, (picture,))
    return [replace(job, ip_adapters=(given,)) if place % 4 == 3 else job for place, job in enumerate(jobs)]
