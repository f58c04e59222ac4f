"""The form: filled in, read, and shown again with each field's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from flask import Blueprint, Response, flash, jsonify, redirect, render_template, request
from werkzeug.datastructures import FileStorage
from werkzeug.wrappers import Response as AnyResponse

from api.http.body import read_file
from api.http.parameters import idempotency_key
from api.http.problems import RETRY_AFTER_SECONDS
from api.languages import _, lazy
from api.pages import adapters, prefill, remix, special, status_line, vary, widgets
from api.pages.choices import KINDS_OFFERED, Option, missing, offers
from api.pages.fields import Field
from api.pages.fieldsets import SWITCHES, full_label, place
from api.pages.form_data import MASK, PICTURE, Given, every, read
from api.pages.prefill import Origin
from api.pages.query_args import number, upload
from api.security import auth
from api.sentences import said
from api.services import services
from api.use_cases import catalogue as catalogue_use_cases
from api.use_cases import images, jobs, presets, sweeps, workers
from shared.admission import sizes
from shared.admission.checkpoints import allowed_checkpoints
from shared.admission.parse import parse
from shared.admission.parse import refused as refused_for
from shared.db.states import ImageState
from shared.errors import FieldError, NotFound, NotLooked, Refused, TooLarge, Unavailable
from shared.jobs.lessons import BY_NAME
from shared.models.catalogue import Catalogue
from shared.models.kinds import Kind
from shared.params.paths import field_name
from shared.params.table import parameters
from shared.queue.queries import MOST_IMAGES, Span

STRIPS: Final = 12
FILES: Final = {"img2img.file": PICTURE, "img2img.mask.file": MASK}
"""The form's file inputs, and the fields that hold what becomes of their files."""
_INPUTS: Final = {field: name for name, field in FILES.items()}
_GONE: Final = {
    PICTURE: (lazy("The page no longer has the picture: choose it again"), lazy("a picture, or the box unticked")),
    MASK: (lazy("The page no longer has the mask: draw it again"), lazy("a mask, or the box unticked")),
}
"""The message if a box for a picture is ticked but no picture came."""
_STAYS: Final = {"/": "/#job-", "/inpaint": "/inpaint?job="}
"""The pages that stay in sight when they submit a job, and their addresses with its number."""
_TYPED: Final = "typed."
"""The prefix of the fields as they were typed, which are sent along with a picture that fills the form in."""

blueprint = Blueprint("form", __name__)


@blueprint.get("/")
def new() -> str:
    """Show the form: with the defaults, an example (`try`) or an experiment (`lesson`), or filled in from the
    job `from` or its picture `image`.

    The picture can be sent on (`to`), or a part of its parameters be used alone (`use`).
    """
    job_id, image, example = number("from"), number("image", least=0), number("try")
    if lesson := BY_NAME.get(request.args.get("lesson", "")):
        chosen = (request.args.get("checkpoint", ""), request.args.get("other", ""))
        params = parse(lesson.request(*chosen), auth.principal().owner, services().settings.limits).params
        return drawn(prefill.of_sweep(params, lesson.varying(*chosen)))
    if job_id is None:
        return drawn(prefill.of_example(example) if example else prefill.fresh())
    if "failed" in request.args:
        job = jobs.job(services(), auth.principal(), job_id, Span(limit=MOST_IMAGES, states=(ImageState.FAILED,)))
        return drawn(prefill.of_failed(job) if job.images else prefill.of_job(job))
    job = jobs.job(services(), auth.principal(), job_id, Span(-1 if image is None else image - 1, limit=1))
    if image is None or not job.images:
        if job.axes:  # some of its values stand in its images alone
            job = jobs.job(services(), auth.principal(), job_id, Span(limit=MOST_IMAGES))
        return drawn(prefill.of_job(job))
    if part := prefill.used(job, image, request.args.get("use", "")):
        return drawn(part)
    return drawn(prefill.of_image(job, image, request.args.get("to", ""), upload("source")))


@blueprint.post("/jobs")
def submit() -> AnyResponse:
    """Submit what was typed and go to the job's page, or show the form again with what was wrong.

    Where the form says that it stays in sight (`back`), go back to it.
    """
    given = posted()
    try:
        _keep_files(given)
        submitted = jobs.submit(services(), auth.principal(), read(given) | vary.read(request.form), idempotency_key())
    except Refused as refused:
        return Response(drawn(Origin(given), refused), refused.status)
    except NotLooked as early:
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return Response(drawn(Origin(given), early=early), 503, headers)
    for note in (*map(said, submitted.job.notes), vary.note(request.form)):
        if note:
            flash(note)
    if stays := _STAYS.get(request.form.get("back", "")):
        flash(remix.queued(submitted.job))
        return redirect(f"{stays}{submitted.job.id}", 303)
    return redirect(submitted.job.links.page, 303)


@blueprint.post("/vary")
def tell_sweep() -> Response:
    """Tell scripts in a line what the job of this form would be, or what is wrong with the rows that vary."""
    preview = sweeps.preview(services(), auth.principal(), read(posted()) | vary.read(request.form))
    problems = [f"{_label(one.field)}: {said(one.message)}" for one in preview.problems]
    told = problems[0] if problems else vary.words(preview)
    return Response(" · ".join(filter(None, (told, vary.note(request.form)))), mimetype="text/plain")


@blueprint.get("/strips")
def strips() -> str:
    """Show the latest jobs alone, as the studio has them beside the form."""
    return render_template("strips.html", **_strips())


@blueprint.get("/size")
def size() -> Response:
    """Tell scripts what size a picture that starts from `source` is rendered at, and what its own is."""
    checkpoint, who = request.args.get("checkpoint", ""), auth.principal()
    native = _native_size(catalogue_use_cases.offered(services(), who, ("checkpoint",), [checkpoint]), checkpoint)
    fitting = images.fitting_sizes(services(), who, upload("source") or "", native)
    if fitting is None:
        raise NotFound(_("There is no such upload."))
    return jsonify(fitting._asdict())


@blueprint.get("/choices")
def choices() -> str:
    """Show the first choices of a field for model files that hold the words of a search."""
    parameter = parameters().get(field_name(request.args.get("field", "")))
    kind = next((kind for kind in KINDS_OFFERED if parameter and kind == parameter.takes.kind), None)
    if parameter is None or kind is None:
        raise NotFound(_("No field of this name chooses a model file."))
    search = request.args.get("search", "")[:200]
    catalogue = catalogue_use_cases.offered(services(), auth.principal(), (kind,), search=search)
    if kind == "ip-adapter":  # each is offered with a word about the image encoder that it needs
        encoders = catalogue_use_cases.offered(services(), auth.principal(), ("image-encoder",))
        catalogue = replace(catalogue, files=(*catalogue.files, *encoders.files))
    found = {file.title for file in catalogue.files}
    words = search.casefold().split()
    options = [
        one
        for one in _offers(catalogue)[parameter.name]
        if one.value in found or all(word in one.label.casefold() for word in words)
    ]
    return render_template("parts/choices.html", of=widgets.choice(options))


@blueprint.post("/jobs/<id:job_id>/images/<id:index>/send")
def send(job_id: int, index: int) -> AnyResponse:
    """Make a picture an upload and go to the form that starts from it, or say why it cannot be one."""
    to = next((to for to in prefill.START_FROM if to == request.form.get("to")), prefill.START_FROM[0])
    picture = images.stored(services(), auth.principal(), job_id, index, "picture").read()
    try:
        source = images.upload(services(), auth.principal(), picture)
    except Refused as refused:
        flash(said(refused))
        return redirect(f"/jobs/{job_id}", 303)
    if to == "inpaint":
        return redirect(f"/inpaint?from={job_id}&image={index}&source={source.id}", 303)
    return redirect(f"/?from={job_id}&image={index}&to={to}&source={source.id}#{to}", 303)


@blueprint.post("/from-picture")
def from_picture() -> AnyResponse:
    """Show the form filled in with what a picture's file says, or what was wrong with the file."""
    before = posted(_TYPED) if any(name.startswith(_TYPED) for name in request.form) else None
    file = request.files.get("file")
    name = (file and file.filename) or _("The file")
    try:
        found = images.file_parameters(services(), auth.principal(), read_file())
    except Refused as refused:
        words = "; ".join(
            _("%(message)s. Accepted: %(accepted)s", message=said(one.message), accepted=said(one.accepted))
            for one in refused.fields
        ) or said(refused)
        return Response(
            drawn(Origin(before) if before else prefill.fresh(), Refused(f"{name} {words}.")), refused.status
        )
    filled = prefill.of_file(found, name)
    return Response(drawn(replace(filled, before=before)))


@blueprint.post("/typed")
def typed() -> str:
    """Show the form as it was typed, before a picture filled it in."""
    return drawn(Origin(posted()))


@blueprint.get("/typed")
@blueprint.get("/from-picture")
def from_nothing() -> AnyResponse:
    """Redirect to the form: the address alone shows nothing."""
    return redirect("/", 303)


def posted(prefix: str = "") -> Given:
    """Return the parameters in the request's form; fields that it lacks have their defaults."""
    given = prefill.fresh().given
    typed_texts = [(name.removeprefix(prefix), text) for name, text in request.form.items(multi=True)]
    fields = every(Given(typed_texts))
    for name in {*fields, *SWITCHES}:
        texts = request.form.getlist(prefix + name)
        if name in fields and _kind_of_file(fields[name]):  # a name that is typed below a list counts before its choice
            texts = [text for text in texts if text.strip()][-1:] or texts[:1]
        if texts:
            given.setlist(name, texts)
    return given


def _kind_of_file(field: Field) -> Kind | None:
    """Return the kind of the model files that a field chooses one of; None: it chooses none."""
    kind = field.parameter.takes.kind
    return next((one for one in KINDS_OFFERED if one == kind and field.kind == "text"), None)


def _by_titles(given: Given, catalogue: Catalogue, offered: Mapping[str, Sequence[Option]]) -> Given:
    """Return what was typed, with the title of each file that was named otherwise, so that lists show it as chosen."""
    titled = given.copy()
    for field in every(given).values():
        kind, text = _kind_of_file(field), given.get(field.name, "")
        is_offered = any(option.value == text for option in offered.get(field.parameter.name, ()))
        file = catalogue.only(text, kind) if kind and text and not is_offered else None
        if file:
            titled[field.name] = file.title
    return titled


def _keep_files(given: Given) -> None:
    """Make uploads of the files that came with the form, and note their ids.

    Raises TooLarge for a large file, Refused with all errors of the form; Unavailable, StorageError.
    """
    refusals: dict[str, Refused] = {}
    for name, field in FILES.items():
        file = request.files.get(name)
        if file is None or not file.filename:
            if not request.form.get(field, "unticked").strip():
                refusals[field] = Refused("", (FieldError(field, *map(str, _GONE[field])),))
            continue
        try:
            given[field] = images.upload(services(), auth.principal(), file.read()).id
        except Refused as refused:
            refusals[field] = refused
    fields = every(given)
    for name, files in request.files.lists():
        item = fields.get(name.removesuffix(".file"))
        chosen = [file for file in files if file.filename]
        if item is not None and chosen and name not in FILES:  # of an item of a list
            try:
                _keep_item_files(given, item, chosen)
            except Refused as refused:
                refusals[item.name] = refused
    if refusals:
        raise _all_wrong(given, refusals)


def _keep_item_files(given: Given, field: Field, files: Sequence[FileStorage]) -> None:
    """Make uploads of files for a field, which takes one picture or joins several to those that it holds.

    Raises as `_keep_files`.
    """
    held = [one for one in given.getlist(field.name) if one.strip()] if field.kind == "list" else []
    most = int(field.parameter.schema.get("maxItems", 1))
    if len(held) + len(files) > most:
        raise Refused("", (FieldError(field.name, _("holds too many pictures"), _("at most %(n)s", n=most)),))
    for file in files:
        held.append(images.upload(services(), auth.principal(), file.read()).id)
        given.setlist(field.name, held)


def _all_wrong(given: Given, refusals: Mapping[str, Refused]) -> Refused:
    """Return the refusal of some files, by the field that each was for, and of what is wrong beside them."""
    files = [replace(one, field=field) for field, refused in refusals.items() for one in refused.fields]
    stand_ins = given.copy()  # so that what belongs to a picture is read although there is none
    for field in refusals:
        stand_ins[field] = "refused"
    beside = jobs.problems(services(), auth.principal(), read(stand_ins))
    everything = refused_for([*files, *beside])  # the first of each field: of a file's its own reason
    kind = next((type(one) for one in refusals.values() if isinstance(one, TooLarge)), Refused)
    return kind(str(everything), everything.fields)


def drawn(origin: Origin, refused: Refused | None = None, early: NotLooked | None = None) -> str:
    """Return the page of the form, filled in, with what was wrong with it."""
    return render_template("form.html", **shown(origin, refused, early), here="/", **_strips())


def shown(origin: Origin, refused: Refused | None = None, early: NotLooked | None = None) -> dict[str, object]:
    """Return what a template draws the form of: its controls as they are filled in, and what was wrong with them."""
    who = auth.principal()
    catalogue = catalogue_use_cases.offered(services(), who, (*KINDS_OFFERED, "other"), _named(origin.given))
    limits = services().limits(who)
    checkpoints = catalogue.entries(first=limits.first_checkpoint)
    is_default_known = catalogue.is_default_known(first=limits.first_checkpoint)
    errors, offered = _by_field(refused), _offers(catalogue)
    origin = replace(origin, given=_by_titles(origin.given, catalogue, offered))
    made = widgets.controls(origin.given, errors, offered, limits)
    if not limits.may_be_urgent(who.owner):
        del made["urgent"]
    return {
        "of": made,
        "places": {*made, *FILES},
        "everyday": widgets.everyday(made),
        "sections": widgets.sections(made, missing(catalogue)),
        "errors": [(_INPUTS.get(name, name), _label(name), error) for name, error in errors.items()],
        "refused": refused,
        "early": early,
        "origin": origin,
        "no_checkpoint": _no_checkpoint(catalogue),
        "is_looking": catalogue.awaited_since is not None and not is_default_known,
        "unusable": [checkpoint for checkpoint in checkpoints if not checkpoint.usable],
        "others": catalogue.entries("other"),
        "most_files": catalogue_use_cases.OFFERED,
        "adapters": adapters.offers(catalogue, checkpoint=origin.given["checkpoint"]),
        "own_size": _own_size(catalogue, origin.given),
        "presets": presets.every(services(), who).presets,
        "limits": limits,
        "filled": _filled(origin),
        "varies": vary.rows(origin.varies or request.form, errors),
        "vary_options": vary.options(),
        "sweep_form": origin.varies or request.form,
        "farm": status_line.line(services()),
    }


def _label(name: str) -> str:
    return vary.row_label(name) if name.startswith("sweep") else full_label(name)


def _filled(origin: Origin) -> str:
    """Return the names of the fields that this form was filled in with; `all`, if none is to stay as it was left."""
    is_fresh = origin.given == prefill.fresh().given and not origin.file
    return " ".join(origin.names) or ("" if is_fresh else "all")


def _strips() -> dict[str, object]:
    """Return the latest jobs, and what is special about each beside the one before."""
    found = jobs.jobs(services(), auth.principal(), [], None, STRIPS + 1).jobs
    return {"recent": found[:STRIPS], "special": special.of_jobs(found), "examples": prefill.EXAMPLES}


def _named(given: Given) -> list[str]:
    """Return the model files that the form's fields name."""
    fields = (field for field in every(given).values() if field.parameter.takes.kind in KINDS_OFFERED)
    return [given[field.name] for field in fields if given.get(field.name, "") not in ("", field.default)]


def _offers(catalogue: Catalogue) -> dict[str, list[Option]]:
    """Return what can be chosen, by the name of the field."""
    try:
        styles = catalogue_use_cases.styles(services()).styles
    except Unavailable:  # their file is damaged: a job that names one is refused with the reason
        styles = []
    return offers(catalogue, styles, workers.served_pools(services()), services().limits(auth.principal()))


def _by_field(refused: Refused | None) -> dict[str, FieldError]:
    """Return the first thing wrong with each field, as the form has them; of a list's item as wrong with the list."""
    if refused is None:
        return {}
    first = {error.field.rstrip(".0123456789"): error for error in reversed(refused.fields)}
    return dict(sorted(first.items(), key=lambda one: place(one[0])))


def _no_checkpoint(catalogue: Catalogue) -> str:
    """Return what stands where checkpoints are chosen while there is none."""
    if catalogue.entries():
        return _("No checkpoint can be used: the reasons are below.")
    if not catalogue.has_workers:
        return _("No worker has scanned the models folder yet.")
    return _("No checkpoint found. Put one into %(folder)s.", folder=services().settings.models.first)


def _own_size(catalogue: Catalogue, given: Given) -> tuple[int, int] | None:
    """Return the size that empty boxes stand for: the checkpoint's own, in the proportions of the source picture.

    None while no checkpoint is known, and so no size either.
    """
    if not catalogue.usable():
        return None
    native = _native_size(catalogue, given["checkpoint"])
    fitting = images.fitting_sizes(services(), auth.principal(), given[PICTURE], native) if given[PICTURE] else None
    return (fitting.width, fitting.height) if fitting else sizes.own(None, native, services().settings.limits)


def _native_size(catalogue: Catalogue, wanted: str) -> int:
    """Return the size that the chosen checkpoint draws at: the first one where none, or an unknown one, is chosen."""
    usable = allowed_checkpoints(catalogue, services().limits(auth.principal()))
    shown = next((checkpoint for checkpoint in usable if checkpoint.title == wanted), usable[0] if usable else None)
    return sizes.native(shown)
