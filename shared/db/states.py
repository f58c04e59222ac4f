"""The states of images, jobs and workers. Who moves between them: `shared/queue/`, nobody else."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Self

UNKNOWN: Final = "unknown"


class _State(StrEnum):
    """What a row says. What this version has no word for, as a newer one wrote it, reads as `UNKNOWN`: that is no
    member, so it is never stored, counted by name or offered.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        strange = str.__new__(cls, UNKNOWN)
        strange._name_, strange._value_ = "UNKNOWN", UNKNOWN
        return strange


class ImageState(_State):
    """Where one image is on its way."""

    HELD = "held"  # not to be claimed yet: by hand, until a time, behind another job
    QUEUED = "queued"  # claimable now
    RUNNING = "running"  # a worker carries it
    SUCCEEDED = "succeeded"  # its picture is committed
    FAILED = "failed"  # ended with a reason
    CANCELLED = "cancelled"  # ended on request, or not started by its deadline

    @property
    def is_final(self) -> bool:
        return self in FINAL


FINAL = frozenset({ImageState.SUCCEEDED, ImageState.FAILED, ImageState.CANCELLED})


class JobState(_State):
    """What a job stores: open until its last image ends."""

    OPEN = "open"
    SUCCEEDED = "succeeded"  # every image succeeded
    FAILED = "failed"  # at least one image failed
    CANCELLED = "cancelled"  # none failed, at least one was cancelled


class WorkerState(_State):
    """What a worker says of itself with each beat."""

    STARTING = "starting"  # registered; torch and the card are not up yet
    READY = "ready"  # takes tickets
    DRAINED = "drained"  # finishes what it has, takes nothing new until it is resumed
    DRAINING = "draining"  # finishes what it has, takes nothing new, and ends
