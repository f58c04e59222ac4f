"""The headings of the gallery: days, checkpoints or sizes, as its pictures are sorted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, tzinfo
from zoneinfo import ZoneInfo

from flask import request

from api.languages import _, language
from api.pages.parameter_table import sides
from api.schemas.pictures import PictureBody
from shared.languages.catalogue import ENGLISH
from shared.pictures.orders import Order


@dataclass(frozen=True)
class Group:
    """Pictures under one heading; pages that follow add to it by its key."""

    key: str
    words: str  # the heading in the language of the page; none for pictures that share nothing
    pictures: list[PictureBody]


def groups(found: Iterable[PictureBody], order: Order) -> list[Group]:
    """Return the pictures of a page under their headings, each heading once."""
    made: dict[str, Group] = {}
    zone = _zone()
    for picture in found:
        key, words = _heading(picture, order, zone)
        made.setdefault(key, Group(key, words, [])).pictures.append(picture)
    return list(made.values())


def _heading(picture: PictureBody, order: Order, zone: tzinfo) -> tuple[str, str]:
    match order:
        case "newest" | "oldest":
            day = picture.ended_at.astimezone(zone).date()
            return day.isoformat(), _day(day)
        case "largest" | "smallest":
            upscale = picture.params.upscale
            if upscale and not upscale.is_sized:
                return "", _("Of other sizes")
            width, height = sides(picture.params)
            return f"{width}x{height}", f"{width} × {height}"
        case "checkpoint":
            checkpoint = "" if picture.params.upscale else picture.params.checkpoint
            return checkpoint, checkpoint or _("Without a checkpoint")
    return "", ""  # seeds are written below their pictures


def _day(day: date) -> str:
    """Return a day as the language of the page writes it."""
    if language() == ENGLISH:
        return day.strftime("%d %B %Y").lstrip("0")
    from babel.dates import format_date  # noqa: PLC0415 - English does without it

    return str(format_date(day, format="full", locale=language()))


def _zone() -> tzinfo:
    """Return the time zone that scripts have told in a cookie; else UTC."""
    try:
        return ZoneInfo(request.cookies.get("timezone", "UTC"))
    except (KeyError, ValueError, OSError):  # no zone of this machine's, or no name of one
        return ZoneInfo("UTC")
