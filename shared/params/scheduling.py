"""`Scheduling`: which workers may render a job, which jobs it precedes, when it may start, and by when it must.

It belongs to the job and changes no picture, so the engine does not know it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

from shared.params import facts
from shared.params.facts import Fact, Option, Takes
from shared.params.fields import MAX_ID, Parameters
from shared.params.pools import DEFAULT_POOL, POOL

_ID: Final = re.compile(r"[0-9]{1,19}")
MOST_BEFORE: Final = 100  # jobs that one job waits for
HIGHEST_PRIORITY: Final = 100  # and the lowest is as far below 0
_FIRST_YEAR_BEYOND: Final = 9999  # which some zones are in already when it is not 9999 in others


def _instant(given: object) -> object:
    """Return the instant that a text names. Raises ValueError for anything else, and without a zone."""
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            raise ValueError("is not an instant in ISO 8601") from None
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


def _ids(given: object) -> object:
    """Return the ids in a list, each once; of texts such as `12, 13` those that stand in them."""
    items = given if isinstance(given, list | tuple) else [given]
    parts = [part for item in items for part in (item.replace(",", " ").split() if isinstance(item, str) else [item])]
    return tuple(dict.fromkeys(int(part) if _ID.fullmatch(part) else part for part in map(str, parts)))


def _pool(name: str) -> str:
    if not POOL.fullmatch(name):
        raise ValueError("is not the name of a pool")
    return name


DependsOn = Literal["success", "end"]
JobId = Annotated[int, Field(ge=1, le=MAX_ID)]
Instant = Annotated[AwareDatetime, BeforeValidator(_instant), AfterValidator(_in_utc)]


class Scheduling(Parameters):
    """Which workers may render a job, which jobs it precedes, when it may start, and by when it must."""

    pool: Annotated[
        str,
        AfterValidator(_pool),
        Takes("pool"),
        Fact(
            "Only workers of this pool render the job",
            group=facts.QUEUE,
            placeholder=DEFAULT_POOL,
            option=Option("--pool"),
        ),
    ] = DEFAULT_POOL
    priority: Annotated[
        int,
        Field(ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY),
        Fact(
            f"From -{HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}; higher starts first among the images of one owner, and "
            "the shares of other owners stay as they are",
            group=facts.QUEUE,
            placeholder="0",
            option=Option("--priority", help="Higher starts first among your own images (-100 to 100)."),
        ),
    ] = 0
    urgent: Annotated[
        bool,
        Fact(
            "Starts before everything that is not urgent, whoever owns it; a farm with keys says who may ask for it",
            group=facts.QUEUE,
            option=Option("--urgent"),
        ),
    ] = False
    expires_at: Annotated[
        Instant | None,
        Takes("instant"),
        Fact(
            "Images that have not started by then are cancelled",
            label="Start by",
            group=facts.WHEN,
            option=Option("--expires", metavar="INSTANT"),
        ),
    ] = None
    hold: Annotated[
        bool,
        Fact(
            "Hold the job until somebody releases it",
            label="Hold until released",
            group=facts.WHEN,
            option=Option("--hold", help="Hold the job until `farm release JOB`; the command does not wait for it."),
        ),
    ] = False
    hold_until: Annotated[
        Instant | None,
        Takes("instant"),
        Fact(
            "Hold the job until then; it is queued by itself",
            group=facts.WHEN,
            option=Option("--hold-until", metavar="INSTANT"),
        ),
    ] = None
    hold_behind: Annotated[
        int | None,
        Field(ge=1, le=MAX_ID),
        Takes("job"),
        Fact(
            "Hold the job until the job of this id has ended or is deleted",
            label="Hold behind job",
            group=facts.WHEN,
            option=Option("--hold-behind", metavar="JOB"),
        ),
    ] = None
    after: Annotated[
        tuple[JobId, ...],
        BeforeValidator(_ids),
        Field(max_length=MOST_BEFORE),
        Takes("jobs"),
        Fact(
            "Hold the job until these jobs have succeeded, or ended",
            label="Wait for jobs",
            group=facts.WHEN,
            option=Option("--after", metavar="JOB"),
        ),
    ] = ()
    on: Annotated[
        DependsOn,
        Fact(
            "What it waits for; if one of them does not succeed, the job is cancelled, unless it waits for their end",
            label="Wait until they",
            group=facts.WHEN,
            labels={"success": "have succeeded", "end": "have ended"},
            option=Option("--on"),
        ),
    ] = "success"
    webhook: Annotated[
        str | None,
        Takes("address"),
        Fact(
            "Address that gets a message when the job has ended",
            label="Webhook",
            group=facts.WHEN,
            option=Option("--webhook", metavar="URL"),
        ),
    ] = None

    @property
    def holds(self) -> list[str]:
        """The names of the fields that hold the job; only one may be given."""
        return [name for name in ("hold", "hold_until", "hold_behind", "after") if getattr(self, name)]


NO_SCHEDULING: Final = Scheduling()


def utc_words(instant: datetime) -> str:
    """`2030-01-31 03:00 UTC`."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
