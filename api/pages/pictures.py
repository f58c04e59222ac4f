"""The pages of the gallery: all pictures with their filters, one picture, and what can be done with several."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from flask import Blueprint, Response, current_app, flash, redirect, render_template, request
from pydantic import ValidationError
from werkzeug.wrappers import Response as AnyResponse

from api.languages import Lazy, _, lazy, ngettext
from api.pages.login import inside
from api.pages.parameter_table import parameter_table
from api.pages.picture_groups import groups
from api.routes.pictures import zip_file
from api.schemas.jobs import image_page
from api.schemas.pictures import PictureAction, PictureBody, PictureChoice, PictureFilter, PicturesQuery, picture_id
from api.security import auth
from api.sentences import refusal
from api.services import services
from api.use_cases import jobs, pictures
from shared.accounts.principal import Role
from shared.errors import FieldError, NotFound, NotLooked, Refused
from shared.infotext import writer
from shared.params.fields import RANDOM_SEED
from shared.pictures.filters import PictureId
from shared.pictures.orders import Order
from shared.pictures.queries import MOST_COUNTED, is_restorable
from shared.version import version

MOST_AGAIN: Final = 20  # pictures that are rendered again at one press
_MOST_REASONS: Final = 5  # cookies hold what is shown
_IN_SIGHT: Final = frozenset({"words", "checkpoint", "sampler", "favourites", "order"})  # filters that are not folded
_ORDERS: Final[Mapping[Order, Lazy]] = {
    "newest": lazy("Newest first"),
    "oldest": lazy("Oldest first"),
    "seed": lazy("By seed"),
    "largest": lazy("Largest first"),
    "smallest": lazy("Smallest first"),
    "checkpoint": lazy("By checkpoint"),
}
_LISTED: Final = ("tag",)  # filters that may be given several times

blueprint = Blueprint("pictures_pages", __name__, url_prefix="/pictures")


@blueprint.get("")
def gallery() -> str:
    """Show the owner's pictures, or those that filters find, in the order asked for."""
    asked, misread = _asked(request.args.to_dict(flat=False))
    now = pictures.moment(services())  # what is finished later is not among those that the page counts
    counted = asked.model_copy(update={"until": min(asked.until or now, now)})
    page = pictures.page(services(), auth.principal(), asked)
    wanted = asked_for(asked)
    is_first = asked.cursor is None
    return render_template(
        "pictures.html",
        groups=groups(page.pictures, asked.order),
        next=page.next,
        asked=asked,
        wanted=wanted,
        is_narrowed=bool(wanted.keys() - {"order"}),
        orders=_ORDERS,
        counted=asked_for(counted),
        has_more_filters=bool(wanted.keys() - _IN_SIGHT),
        misread=misread,
        facets=pictures.facets(services(), auth.principal(), asked.owner) if is_first else None,
        count=pictures.count(services(), auth.principal(), counted) if is_first else None,
        most_counted=MOST_COUNTED,
        names_others=auth.principal().role == Role.ADMIN and auth.has_keys(current_app),
        undo=_undo(request.args.get("undo", "")),
        address=lambda **changes: address(wanted | changes),
    )


@blueprint.get("/<id:job_id>/<id:index>")
def picture(job_id: int, index: int) -> str:
    """Show one picture in full and its parameters."""
    found = pictures.picture(services(), auth.principal(), PictureId(job_id, index))
    if not found.links.picture and not found.is_restorable:
        raise NotFound(_("This picture was deleted."))
    text = "" if found.params.upscale else writer.text(found.params, version=version())
    return render_template("picture.html", picture=found, table=parameter_table(found.params), text=text)


@blueprint.post("/actions")
def act() -> AnyResponse:
    """Do to the chosen pictures what the pressed button says, and show the gallery as it was looked at."""
    back, action = inside(request.form.get("back", "/pictures")), request.form.get("action", "")
    if not request.form.getlist("id") and "all" not in request.form:
        flash(_("Choose some pictures first."))
        return redirect(back, 303)
    try:
        if action == "again":
            return _again()
        tag = request.form.get("tag", "") if action in ("tag", "untag") else ""
        asked = PictureAction.model_validate({"action": action, "tag": tag} | _chosen())
        done = pictures.act(services(), auth.principal(), asked)
    except ValidationError:
        flash(_("That cannot be done with pictures."))
    except Refused as refused:
        flash(refusal(refused))
    else:
        if done.undo:  # with the button that undoes it
            mark = {"undo": f"{done.undo.isoformat()}", "undone": str(done.pictures)}
            return redirect(f"{back}{'&' if '?' in back else '?'}{urlencode(mark)}", 303)
        flash(ngettext("%(num)s picture changed.", "%(num)s pictures changed.", done.pictures))
    return redirect(back, 303)


@blueprint.post("/restore")
def restore() -> AnyResponse:
    """Bring back what one deletion has deleted."""
    moment = _moment(request.form.get("undo", ""))
    if moment:
        done = pictures.act(services(), auth.principal(), PictureAction(action="restore", undo=moment))
        flash(ngettext("%(num)s picture is back.", "%(num)s pictures are back.", done.pictures))
    return redirect(inside(request.form.get("back", "/pictures")), 303)


@blueprint.post("/<id:job_id>/<id:index>/restore")
def restore_one(job_id: int, index: int) -> AnyResponse:
    """Bring back one picture, and show the page of its job."""
    done = pictures.act(services(), auth.principal(), PictureAction(action="restore", ids=[f"{job_id}.{index}"]))
    flash(ngettext("%(num)s picture is back.", "%(num)s pictures are back.", done.pictures))
    return redirect(image_page(job_id, index), 303)


@blueprint.post("/zip")
def archive() -> Response | AnyResponse:
    """Send the chosen pictures as one file."""
    try:
        return zip_file(pictures.archive(services(), auth.principal(), PictureChoice.model_validate(_chosen())))
    except (Refused, ValidationError) as refused:
        flash(refusal(refused) if isinstance(refused, Refused) else _("Choose some pictures first."))
        return redirect(inside(request.form.get("back", "/pictures")), 303)


def asked_for(asked: PictureFilter, *without: str) -> dict[str, Any]:
    """Return the filters that are set, and the order, as an address has them."""
    return asked.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"cursor", "limit", *without})


def address(wanted: Mapping[str, Any]) -> str:
    """Return the address of the gallery with these filters; empty ones are left out."""
    query = urlencode({name: value for name, value in wanted.items() if value not in ("", None, [])}, doseq=True)
    return f"/pictures?{query}" if query else "/pictures"


def _asked(given: Mapping[str, list[str]]) -> tuple[PicturesQuery, list[str]]:
    """Return what an address asks for, and the names of the filters in it that make no sense, which do not count."""
    names = {field.alias or name for name, field in PicturesQuery.model_fields.items()}
    query: dict[str, Any] = {
        name: [one for one in values if one.strip()] if name in _LISTED else values[-1].strip()
        for name, values in given.items()
        if name in names and values and values[-1].strip()
    }
    try:
        return PicturesQuery.model_validate(query), []
    except ValidationError as error:
        misread = sorted({str(one["loc"][0]) for one in error.errors(include_input=False)})
    # A place is one of an order, which may be misread.
    kept = {name: value for name, value in query.items() if name not in {*misread, "cursor"}}
    return PicturesQuery.model_validate(kept), misread


def _chosen() -> dict[str, Any]:
    """Return what a form has chosen, for a body: pictures that were ticked, or all of the filters beside them."""
    if "all" not in request.form:
        return {"ids": request.form.getlist("id")}
    asked, misread = _asked(request.form.to_dict(flat=False) | {"tag": request.form.getlist("with")})
    if misread:  # without it all pictures would be meant
        problem = FieldError(misread[0], _("cannot be read"), _("filters as shown"))
        raise Refused(_("These filters cannot be read."), (problem,))
    return {"filter": PictureFilter.model_validate(asked_for(asked, "order"))}


def _again() -> AnyResponse:
    """Submit the chosen pictures again, each with a new seed; name each that cannot be, and why."""
    ids = [picture_id(one) for one in PictureChoice.model_validate(_chosen()).ids or ()]
    if not 0 < len(ids) <= MOST_AGAIN:
        flash(_("Choose at most %(most)s pictures to render again.", most=MOST_AGAIN))
        return redirect(inside(request.form.get("back", "/pictures")), 303)
    again = [one for one in pictures.several(services(), auth.principal(), ids) if not one.params.upscale]
    refused = [reason for one in again if (reason := _refusal(one))]
    done = len(again) - len(refused)
    flash(ngettext("%(num)s picture is rendered again.", "%(num)s pictures are rendered again.", done))
    for reason in refused[:_MOST_REASONS]:
        flash(reason)
    return redirect("/jobs" if done else inside(request.form.get("back", "/pictures")), 303)


def _refusal(picture: PictureBody) -> str | None:
    """Submit a picture with a new seed; return why not if that is refused."""
    given = picture.params.model_dump(mode="json", exclude_defaults=True) | {"seed": RANDOM_SEED}
    try:
        jobs.submit(services(), auth.principal(), given)
    except (Refused, NotLooked) as refused:
        return _("Picture %(id)s: %(why)s", id=picture.id, why=refusal(refused))
    return None


def _undo(text: str) -> dict[str, Any] | None:
    """Return a deletion that the address names and that can still be undone."""
    moment, deleted = _moment(text), request.args.get("undone", type=int)
    if not deleted or not is_restorable(moment):
        return None
    return {"moment": text, "pictures": deleted}


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None
