"""`Scheduling`: who may render a job, what it goes before, when it may start, and by when it must.

They are the job's, not the picture's: the engine knows none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from shared.params.pools import DEFAULT_POOL, POOL

_MAX_ID: Final = 2**63 - 1  # PostgreSQL's bigint
HIGHEST_PRIORITY: Final = 100  # and the lowest is as far below 0
_FIRST_YEAR_BEYOND: Final = 9999  # which some zones are in already when it is not 9999 in others


def _instant(given: object) -> object:
    """Return the instant that a text tells, in UTC; whatever else was given as it is."""
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            raise ValueError("is no instant in ISO 8601") from None
    if not isinstance(given, datetime):
        raise ValueError("must be an instant, written as text")  # noqa: TRY004 - pydantic understands this one
    if given.tzinfo is None:
        raise ValueError("has no time zone")
    return given


def _in_utc(instant: datetime) -> datetime:
    try:
        instant = instant.astimezone(UTC)
    except OverflowError:
        raise ValueError("is too far away") from None
    if instant.year >= _FIRST_YEAR_BEYOND:
        raise ValueError("is too far away")
    return instant


def _pool(name: str) -> str:
    if not POOL.fullmatch(name):
        raise ValueError("is no name of a pool")
    return name


Instant = Annotated[AwareDatetime, BeforeValidator(_instant), AfterValidator(_in_utc)]


class Scheduling(BaseModel):
    """Who may render the images of a job, what they go before, when they may start, and by when they must."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    pool: Annotated[str, AfterValidator(_pool)] = Field(
        DEFAULT_POOL, description="Only workers of this pool render it."
    )
    priority: int = Field(
        0,
        ge=-HIGHEST_PRIORITY,
        le=HIGHEST_PRIORITY,
        description="Higher goes first among the images of the same owner; other owners' shares stay as they are.",
    )
    urgent: bool = Field(
        False,
        description="Goes before all that is not urgent, whoever that belongs to; a farm with keys says whose may.",
    )
    expires_at: Instant | None = Field(
        None, description="What has not started by then is cancelled: an instant of ISO 8601 with its zone."
    )
    hold: bool = Field(False, description="Hold the job until it is released by hand.")
    hold_until: Instant | None = Field(None, description="Hold the job until then, and queue it by itself.")
    hold_behind: int | None = Field(
        None,
        ge=1,
        le=_MAX_ID,
        description="Hold the job until the job of this id has ended, however it ends, or is gone.",
    )

    @property
    def holds(self) -> list[str]:
        """The fields that hold the job; more than one contradict each other."""
        return [name for name in ("hold", "hold_until", "hold_behind") if getattr(self, name)]


NO_SCHEDULING: Final = Scheduling()


def told(instant: datetime) -> str:
    """Return an instant for people, wherever they are."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
