"""The checkpoints of a person's jobs: those that they may use, and which one a text means, or no text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shared.errors import FieldError
from shared.models.catalogue import Catalogue, Entry
from shared.settings import Limits
from shared.wording import choices


def allowed_checkpoints(catalogue: Catalogue, limits: Limits) -> list[Entry]:
    """Return the checkpoints that can be used and may be; the first is that of jobs that name none."""
    return catalogue.usable(first=limits.first_checkpoint, allowed=limits.of_owner.checkpoints)


def named_checkpoint(
    catalogue: Catalogue, text: str, limits: Limits, is_offered: Callable[[Entry], bool] = lambda _: True
) -> Entry:
    """Return the checkpoint that a text means, also one that may not be used; empty: the first of those that may be.

    Raises as `Catalogue.resolve`.
    """
    file = catalogue.resolve(text, first=limits.first_checkpoint, is_offered=is_offered)
    return file if text else next(iter(allowed_checkpoints(catalogue, limits)), file)


def not_allowed(catalogue: Catalogue, file: Entry, limits: Limits, field: str) -> list[FieldError]:
    """Return the problem of a checkpoint that the owner's jobs may not use, if it is one."""
    allowed = limits.of_owner.checkpoints
    if allowed is None or catalogue.is_allowed(file, allowed):
        return []
    return [closed_checkpoint(field, file.title, allowed)]


def closed_checkpoint(field: str, title: str, allowed: Sequence[str]) -> FieldError:
    """Return the problem of a checkpoint that is not among the allowed ones."""
    return FieldError(field, f"{title} is not among the checkpoints of your jobs", choices(allowed))
