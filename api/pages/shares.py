"""The pages of share links: what a link shows to anybody, and the owner's list of them."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, flash, redirect, render_template, request, session
from werkzeug.wrappers import Response as AnyResponse

from api.http.body import valid
from api.http.responses import unchanging
from api.languages import _
from api.schemas.jobs import EXTENSIONS
from api.schemas.shares import ShareRequest
from api.security import auth
from api.sentences import said
from api.services import services
from api.use_cases import shares as use_cases
from shared.errors import NotFound, Refused
from shared.params.fields import MAX_ID

_MADE: Final = "made-link"  # in the session: a link that was not shown yet

blueprint = Blueprint("shares_pages", __name__)


@blueprint.get("/s/<token>")
def shown(token: str) -> Response:
    """Show to anybody what a link leads to, and nothing else of the farm."""
    found = use_cases.shown(services(), token)
    page = render_template(
        "shared.html", job=found.job, pictures=found.pictures, token=token, owner=None, runs_farm=False, signed_in=False
    )
    return _public(Response(page))


@blueprint.get("/s/<token>/<id:index>.<any(png,jpg,webp):extension>")
def picture(token: str, index: int, extension: str) -> Response:
    """Return a picture that a link shows."""
    stored = use_cases.stored(services(), token, index, "picture")
    if EXTENSIONS[stored.form] != extension:
        raise NotFound(_("This link does not show that picture."))
    return _public(unchanging(stored, f"image/{stored.form}"))


@blueprint.get("/s/<token>/<id:index>/thumbnail.webp")
def thumbnail(token: str, index: int) -> Response:
    """Return the thumbnail of a picture that a link shows."""
    return _public(unchanging(use_cases.stored(services(), token, index, "thumbnail"), "image/webp"))


@blueprint.get("/shares")
def shares() -> Response:
    """List the owner's links, and show this once the one that was just made."""
    link = session.pop(_MADE, "")
    found = use_cases.every(services(), auth.principal()).shares
    answer = Response(render_template("shares.html", shares=found, link=link))
    if link:
        answer.headers["Cache-Control"] = "no-store"
    return answer


@blueprint.post("/shares")
def make() -> AnyResponse:
    """Make a link, which the list shows this once."""
    numbers = {name: request.form.get(name, "") for name in ("job", "index")}
    given = {name: min(int(typed[:19]), MAX_ID) for name, typed in numbers.items() if typed.isdecimal()}
    wanted = valid(ShareRequest, {"job": MAX_ID} | given)
    try:
        base = services().settings.public_url.rstrip("/") or request.host_url.rstrip("/")
        made = use_cases.make(services(), auth.principal(), wanted, base)
    except (Refused, NotFound) as error:
        flash(said(error))
    else:
        session[_MADE] = made.link
    return redirect("/shares", 303)


@blueprint.post("/shares/<id:share_id>/revoke")
def revoke(share_id: int) -> AnyResponse:
    """Revoke a link."""
    use_cases.revoke(services(), auth.principal(), share_id)
    flash(_("The link leads nowhere from now on."))
    return redirect("/shares", 303)


def _public(answer: Response) -> Response:
    """Keep what a link shows out of search engines, and out of caches soon after it was revoked."""
    answer.headers["X-Robots-Tag"] = "noindex, nofollow, noarchive"
    answer.headers["Cache-Control"] = "private, max-age=60"
    return answer
