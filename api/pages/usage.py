"""The page of usage: what images took of the farm, day by day and by checkpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, NamedTuple
from urllib.parse import urlencode

from flask import Blueprint, Response, render_template, request

from api.languages import _, lazy, number
from api.pages import query_args
from api.pages.filters import size_words, time_words
from api.schemas.usage import UsageBody, UsageDayBody, UsedBody
from api.security import auth
from api.services import services
from api.use_cases import usage as use_cases
from shared.accounts.principal import EVERYBODY, Role
from shared.errors import Refused

HEIGHT: Final = 100  # of a plot, in its own units
_FIRST, _LAST = date(2000, 1, 1), date(9000, 1, 1)
_MEASURES: Final[tuple[tuple[str, object, Callable[..., str]], ...]] = (
    ("images", lazy("Pictures"), number),
    ("gpu_seconds", lazy("GPU time"), time_words),
    ("bytes", lazy("Data"), size_words),
)
blueprint = Blueprint("usage_pages", __name__, url_prefix="/usage")


class Bar(NamedTuple):
    """One day of a plot."""

    x: int
    height: float
    words: str


@dataclass(frozen=True)
class Plot:
    """How much of one thing was taken each day."""

    heading: object
    total: str
    most: str  # of a day
    bars: list[Bar]


@blueprint.get("")
def usage() -> Response:
    """Show usage on the last 30 days, or those that are asked for."""
    who, owner = auth.principal(), query_args.owner()
    try:
        body, refused = use_cases.listed(services(), who, owner, _day("from"), _day("to")), None
    except Refused as error:
        body, refused = use_cases.listed(services(), who, owner), error
    asked = {"owner": owner or "", "from": body.first.isoformat(), "to": body.last.isoformat()}
    page = render_template(
        "usage.html",
        usage=body,
        asked=asked,
        csv=f"/api/v1/usage.csv?{urlencode({name: given for name, given in asked.items() if given})}",
        refused=refused,
        plots=list(_plots(body)),
        height=HEIGHT,
        checkpoints=_sums(body.days, lambda one: one.name or one.checkpoint[:10]),
        owners=_sums(body.days, lambda one: one.owner) if body.owner is None else [],
        is_admin=who.role == Role.ADMIN,
        everybody=EVERYBODY,
    )
    return Response(page, refused.status if refused else 200)


def _day(name: str) -> date | None:
    """Return the query's day of this name, if it is one: people edit addresses."""
    try:
        given = date.fromisoformat(request.args.get(name, ""))
    except ValueError:
        return None
    return given if _FIRST <= given <= _LAST else None


def _plots(body: UsageBody) -> Iterator[Plot]:
    by_day: defaultdict[date, list[UsedBody]] = defaultdict(list)
    for one in body.days:
        by_day[one.day].append(one)
    days = [body.first + timedelta(days=after) for after in range((body.last - body.first).days + 1)]
    sums = [UsedBody.sum_of(by_day[day]) for day in days]
    for measure, heading, words in _MEASURES:
        taken = [getattr(one, measure) for one in sums]
        most = max(taken)
        bars = [
            Bar(x, round(HEIGHT * one / most, 2), _("%(day)s: %(much)s", day=days[x].isoformat(), much=words(one)))
            for x, one in enumerate(taken)
            if one
        ]
        yield Plot(heading, words(getattr(body.total, measure)), words(most), bars)


def _sums(lines: Iterable[UsageDayBody], key: Callable[[UsageDayBody], str]) -> list[tuple[str, UsedBody]]:
    """Return what was taken by each of something, the most GPU time first."""
    grouped: defaultdict[str, list[UsedBody]] = defaultdict(list)
    for one in lines:
        grouped[key(one)].append(one)
    sums = [(name, UsedBody.sum_of(several)) for name, several in grouped.items()]
    return sorted(sums, key=lambda one: (-one[1].gpu_seconds, one[0]))
