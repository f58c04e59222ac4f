"""The pages of jobs: one with its pictures, the list, and what can be done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Final, get_args
from urllib.parse import urlencode

from flask import Blueprint, current_app, flash, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from api.languages import Lazy, _, lazy, ngettext
from api.pages import query_args, special
from api.pages.form_data import read
from api.pages.login import inside
from api.pages.parameter_table import followed, parameter_table
from api.pages.query_args import number
from api.schemas.jobs import ChangeBody, DisplayState, ImageBody, image_page
from api.security import auth
from api.sentences import refusal, said
from api.services import services
from api.use_cases import enlarge, sheets
from api.use_cases import jobs as use_cases
from shared.accounts.principal import Role
from shared.errors import Conflict, Refused
from shared.infotext import writer
from shared.params.pools import DEFAULT_POOL
from shared.queue.queries import MOST_IMAGES, NO_IMAGES, Span
from shared.sheets.arrangement import arranged
from shared.version import version

IMAGES_OF_A_PAGE: Final = 60
JOBS_OF_A_PAGE: Final = 20
STATES: Final[tuple[DisplayState, ...]] = get_args(DisplayState)
blueprint = Blueprint("jobs_pages", __name__, url_prefix="/jobs")


@dataclass(frozen=True)
class Pages:
    """Where a page stands among others, counted from 1."""

    number: int
    total: int

    @property
    def previous(self) -> int | None:
        return self.number - 1 if self.number > 1 else None

    @property
    def next(self) -> int | None:
        return self.number + 1 if self.number < self.total else None


@blueprint.get("")
def jobs() -> str:
    """List one's own jobs, or those that an admin names, the latest first."""
    state = next((state for state in STATES if state == request.args.get("state")), None)
    cursor = number("cursor")
    who, owner = auth.principal(), query_args.owner()
    page = use_cases.jobs(services(), who, [state] if state else [], cursor, JOBS_OF_A_PAGE, owner=owner)
    kept = {name: value for name, value in (("owner", owner), ("state", state)) if value}
    return render_template(
        "jobs.html",
        jobs=page.jobs,
        special=special.of_jobs(page.jobs),
        next=page.next and address(kept | {"cursor": page.next}),
        latest=cursor and address(kept),
        tabs={one: address(kept | {"state": one}) for one in (None, *STATES)},
        state=state,
        others=owner,
        names_others=who.role == Role.ADMIN and auth.has_keys(current_app),
    )


def address(asked: Mapping[str, object]) -> str:
    """Return the address of the list that is so filtered."""
    query = urlencode({name: value for name, value in asked.items() if value})
    return f"/jobs?{query}" if query else "/jobs"


@blueprint.get("/<id:job_id>")
def job(job_id: int) -> str:
    """Show a job: how far it is, its pictures, its parameters."""
    wanted = number("image", least=0)
    page = number("page") or (wanted or 0) // IMAGES_OF_A_PAGE + 1
    body = use_cases.job(services(), auth.principal(), job_id, _of_page(page))
    pages = Pages(min(page, total := max(1, -(-body.count // IMAGES_OF_A_PAGE))), total)
    if page > total:
        body = use_cases.job(services(), auth.principal(), job_id, _of_page(total))
    sheet = None
    if body.axes and MOST_IMAGES >= body.count == prod(len(axis.values) for axis in body.axes):
        sheet = arranged(body.spec.axes)
        body = use_cases.job(services(), auth.principal(), job_id, Span(limit=MOST_IMAGES))
    opened = next((image for image in body.images if image.index == wanted), None) if sheet else None
    images = [opened] if opened else body.images
    first_image = body.spec.image(images[0].index)
    if first_image.upscale:
        text = first_image.upscale.pictures[0].parameters
    else:
        text = writer.text(first_image, version=version(), hashes=images[0].hashes)
    table = parameter_table(body.params, body.not_understood)
    return render_template(
        "job.html",
        job=body,
        images=_changed_ones(images),
        pages=pages,
        page_size=IMAGES_OF_A_PAGE,
        more=min(IMAGES_OF_A_PAGE, body.count - pages.number * IMAGES_OF_A_PAGE),
        table=table,
        followed=followed(body.params),
        text=text,
        upscalers=enlarge.names(services()),
        restorers=enlarge.face_restorers(services()),
        behind=[] if body.is_final else use_cases.waiting_for(services(), auth.principal(), job_id),
        sheet=sheet,
        cells=_changed_ones(body.images) if sheet and "images" in request.args else None,
        has_picture=sheet is not None and sheets.latest(services(), body) is not None,
        opened=opened,
        opened_table=parameter_table(body.spec.image(opened.index)) if opened else [],
    )


def _of_page(page: int) -> Span:
    """Return the images of a page, counted from 1."""
    return Span((page - 1) * IMAGES_OF_A_PAGE - 1, IMAGES_OF_A_PAGE)


def _changed_ones(images: list[ImageBody]) -> list[ImageBody]:
    """Return the images that a page asks for which shows the others already: `?images=3,5`; without that, all."""
    asked = request.args.get("images")
    if asked is None:
        return images
    wanted = {*asked.split(",")}
    return [image for image in images if str(image.index) in wanted]


@blueprint.post("/<id:job_id>/images/<id:index>/upscale")
def upscale(job_id: int, index: int) -> AnyResponse:
    """Enlarge one image, and show the job that does."""
    scale, upscaler = request.form.get("scale", ""), request.form.get("upscaler") or enlarge.names(services())[0]
    try:
        factor = float(scale) if scale.isdecimal() else 2.0
        how: dict[str, object] = {"scale": factor, "upscaler": upscaler}
        if restorer := request.form.get("faces"):
            how["faces"] = {"restorer": restorer}
        enlarging = enlarge.picture(services(), auth.principal(), job_id, index, how)
    except Refused as refused:
        flash(refusal(refused))
        return redirect(_back(job_id, index), 303)
    flash(_("Enlarges image %(number)s of job %(job)s.", number=index + 1, job=job_id))
    return redirect(f"/jobs/{enlarging.job.id}", 303)


@blueprint.post("/<id:job_id>/change")
def change(job_id: int) -> AnyResponse:
    """Change the scheduling of a job, as far as its form says something else than the job."""
    body = use_cases.job(services(), auth.principal(), job_id, NO_IMAGES)
    typed, left_empty = read(request.form), {"pool": DEFAULT_POOL, "priority": 0, "urgent": False, "expires_at": None}
    wanted = {name: typed.get(name, default) for name, default in left_empty.items()}
    now = {name: getattr(body, name) for name in wanted}
    given = {name: value for name, value in wanted.items() if value != now[name]}
    if _minute(given.get("expires_at")) == _minute(now["expires_at"]):  # the form has no seconds
        given.pop("expires_at", None)
    if not given:
        flash(_("Nothing was changed."))
        return redirect(f"/jobs/{job_id}", 303)
    try:
        return _change(job_id, partial(use_cases.change, given=given), lazy("%(images)s start as you say now."))
    except Refused as refused:
        flash(refusal(refused))
    return redirect(f"/jobs/{job_id}", 303)


def _minute(instant: object) -> str:
    return str(instant or "")[:16].replace("T", " ")


@blueprint.post("/<id:job_id>/cancel")
def cancel(job_id: int) -> AnyResponse:
    """Cancel what has not ended, or only what waits."""
    cancels = partial(use_cases.cancel, only_waiting="waiting" in request.form)
    return _change(job_id, cancels, lazy("%(images)s cancelled; Retry undoes that."))


@blueprint.post("/<id:job_id>/images/<id:index>/cancel")
def cancel_image(job_id: int, index: int) -> AnyResponse:
    """Cancel one image."""
    return _change(job_id, use_cases.cancel, lazy("%(images)s cancelled; Retry undoes that."), index)


@blueprint.post("/<id:job_id>/retry")
def retry(job_id: int) -> AnyResponse:
    """Put what failed or was cancelled back into the queue."""
    return _change(job_id, use_cases.retry, lazy("%(images)s back in the queue, with the same seed as before."))


@blueprint.post("/<id:job_id>/images/<id:index>/retry")
def retry_image(job_id: int, index: int) -> AnyResponse:
    """Put one image back into the queue."""
    return _change(job_id, use_cases.retry, lazy("%(images)s back in the queue, with the same seed as before."), index)


@blueprint.post("/<id:job_id>/hold")
def hold(job_id: int) -> AnyResponse:
    """Hold the queued images of a job."""
    return _change(job_id, use_cases.hold, lazy("%(images)s held until you press Release."))


@blueprint.post("/<id:job_id>/release")
def release(job_id: int) -> AnyResponse:
    """Queue the held images of a job."""
    return _change(job_id, use_cases.release, lazy("%(images)s in the queue now."))


@blueprint.post("/<id:job_id>/approve")
def approve(job_id: int) -> AnyResponse:
    """Submit the sweep of a draft with all its steps, and go to its job."""
    try:
        made = use_cases.approve(services(), auth.principal(), job_id).job
    except (Conflict, Refused) as error:
        flash(refusal(error))
        return redirect(f"/jobs/{job_id}", 303)
    return redirect(made.links.page, 303)


@blueprint.get("/<id:job_id>/delete")
def ask_delete(job_id: int) -> str:
    """Ask before what cannot be undone."""
    body = use_cases.job(services(), auth.principal(), job_id, NO_IMAGES)
    return render_template("delete.html", job=body, pictures=body.counts["succeeded"])


@blueprint.post("/<id:job_id>/delete")
def delete(job_id: int) -> AnyResponse:
    """Delete a job and its pictures."""
    try:
        use_cases.delete(services(), auth.principal(), job_id)
    except Conflict as conflict:
        flash(said(conflict))
        return redirect(f"/jobs/{job_id}", 303)
    flash(_("Job %(id)s is deleted.", id=job_id))
    return redirect("/jobs", 303)


def _change(job_id: int, change: Callable[..., ChangeBody], words: Lazy, index: int | None = None) -> AnyResponse:
    """Make a change and say what it did, or why it could not be done, on the page that it was asked from."""
    try:
        changed = change(services(), auth.principal(), job_id, *(() if index is None else (index,)))
        flash(str(words) % {"images": ngettext("%(num)s image", "%(num)s images", changed.images)})
    except Conflict as conflict:
        flash(said(conflict))
    return redirect(_back(job_id, index), 303)


def _back(job_id: int, index: int | None) -> str:
    """Return the address of what was changed: the list as it was looked at, the studio, the job, or its image."""
    back = request.form.get("back", "")
    if back.startswith(("/jobs?", "/inpaint?job=")) or back in ("/jobs", "/"):
        return inside(back)
    if index is None:
        return f"/jobs/{job_id}"
    return image_page(job_id, index)
