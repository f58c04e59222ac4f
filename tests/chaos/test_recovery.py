"""With the farm's own settings: the image of a killed worker runs again in seconds, not after a lease."""

from __future__ import annotations

import time

import pytest

from shared.settings import Settings
from tests.support.waiting import until
from tests.support.workers import images, kill, ready, started, states

pytestmark = pytest.mark.alone
LEASE_SECONDS = Settings.model_fields["lease_seconds"].default
DEFAULTS = {
    f"FARM_{name.upper()}": str(Settings.model_fields[name].default)
    for name in ("lease_seconds", "beat_seconds", "look_seconds")
}


@pytest.mark.timeout(600)  # seconds, where the machine has nothing else to do
def test_a_supervised_workers_image_runs_again_long_before_its_lease_ends(environ, sessions, job_factory, tmp_path):
    gate = tmp_path / "gate"
    with started({**environ, **DEFAULTS}, "--gpus", "cpu:2", "--slots", "1"):
        pids = {worker.id: worker.pid for worker in until(lambda: ready(sessions, 2), seconds=150)}
        job_factory(prompt=f"wait for {gate}")
        until(lambda: states(sessions) == ["running"])
        began = time.monotonic()
        kill(pids[images(sessions)[0].worker_id])
        until(lambda: images(sessions)[0].attempt == 2)
        seconds = time.monotonic() - began
        gate.touch()
        until(lambda: states(sessions) == ["succeeded"])
    assert seconds < LEASE_SECONDS / 2, "about two on a machine that is not busy"
