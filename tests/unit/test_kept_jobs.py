"""Jobs that a process keeps for polls: as many as there is room for, and none that takes the room of many."""

from __future__ import annotations

import pytest

from api import kept_jobs
from api.kept_jobs import Answer, KeptJob, KeptJobs


@pytest.fixture
def jobs(monkeypatch):
    monkeypatch.setattr(kept_jobs, "_MOST_BYTES", 100)
    monkeypatch.setattr(kept_jobs, "_LARGEST", 40)
    monkeypatch.setattr(kept_jobs, "_MOST", 5)
    return KeptJobs()


@pytest.fixture
def keep(jobs):
    def keep(job_id, size):
        jobs.keep(job_id, KeptJob("rows", 1.0, Answer(b"x" * size, "tag")))

    return keep


def known(jobs):
    return [job_id for job_id in range(10) if jobs.find(job_id, "rows", 0.0)]


def test_those_asked_for_longest_ago_go_when_their_bytes_are_too_many(jobs, keep):
    for job_id in range(3):
        keep(job_id, 30)
    assert jobs.find(0, "rows", 0.0)
    keep(3, 30)
    assert known(jobs) == [0, 2, 3]


def test_job_that_is_kept_anew_counts_once(jobs, keep):
    for size in (40, 30, 20, 40):
        keep(0, size)
    keep(1, 30)
    keep(2, 30)
    assert known(jobs) == [0, 1, 2]


def test_large_job_is_not_kept_nor_what_was_known_of_it(jobs, keep):
    keep(0, 30)
    keep(1, 30)
    keep(1, 41)
    assert known(jobs) == [0]


def test_small_ones_are_not_countless(jobs, keep):
    for job_id in range(7):
        keep(job_id, 1)
    assert known(jobs) == [2, 3, 4, 5, 6]
