"""The jobs that a worker leaves to newer ones."""

from __future__ import annotations

from types import SimpleNamespace

from worker import unreadable_jobs
from worker.unreadable_jobs import UnreadableJobs


def test_only_so_many_are_remembered_the_latest(monkeypatch):
    monkeypatch.setattr(unreadable_jobs, "MOST", 2)
    known = UnreadableJobs()
    for job_id, owner in enumerate(["ann", "bob", "cem"]):
        known.add(SimpleNamespace(job_id=job_id, owner=owner, checkpoint="c"), f"mood {job_id}")
    assert known.reasons() == {1: "mood 1", 2: "mood 2"}
    lanes = [SimpleNamespace(owner=owner, checkpoint="c") for owner in ("ann", "cem")]
    assert [known.may_wait_in(lane) for lane in lanes] == [False, True]
