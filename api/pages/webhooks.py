"""The pages of webhooks: where messages go, how each fared, and the secrets, each shown once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flask import Blueprint, Response, flash, redirect, render_template, request, session
from werkzeug.wrappers import Response as AnyResponse

from api.http.body import valid
from api.languages import _, lazy, ngettext
from api.pages.query_args import number
from api.schemas.webhooks import WebhookBody, WebhookChange, WebhookRequest
from api.security import auth
from api.sentences import said
from api.services import services
from api.use_cases import webhooks as use_cases
from shared.errors import Conflict, FieldError, Refused
from shared.webhooks.deliveries import Listing
from shared.webhooks.messages import FORMATS, KINDS

FORMAT_WORDS: Final = {"standard": lazy("JSON for programs"), "discord": "Discord", "slack": "Slack"}
KIND_WORDS: Final = {
    "job.succeeded": lazy("a job succeeded"),
    "job.failed": lazy("a job failed"),
    "job.cancelled": lazy("a job was cancelled"),
    "test": lazy("a test"),
}
_STATES: Final = {"delivered": "succeeded", "dead": "failed", "waiting": "queued"}  # the colours of their badges
STATE_WORDS: Final = {"delivered": lazy("arrived"), "dead": lazy("given up"), "waiting": lazy("waits")}
_MADE: Final = "made-secret"  # in the session: a webhook and its secret that was not shown yet
_SHOWN: Final = 30  # deliveries of one webhook

blueprint = Blueprint("webhooks_pages", __name__, url_prefix="/webhooks")


@blueprint.get("")
def webhooks() -> str:
    """List the owner's webhooks, with a form for one more."""
    return _list()


@blueprint.post("")
def make() -> AnyResponse:
    """Make a webhook, whose page shows its secret this once."""
    kinds = request.form.getlist("kinds")
    given = {"url": request.form.get("url", "").strip(), "kinds": kinds or None}
    given |= {name: request.form.get(name, "") for name in ("name", "format")}
    try:
        made = use_cases.make(services(), auth.principal(), valid(WebhookRequest, given))
    except Refused as error:
        wrong = {one.field: one for one in error.fields}
        return Response(_list(typed=request.form, errors=wrong), error.status)
    return _once(made)


@blueprint.get("/<id:webhook_id>")
def webhook(webhook_id: int) -> Response:
    """Show a webhook and its latest messages, and this once the secret that was just made."""
    found = use_cases.find(services(), auth.principal(), webhook_id)
    made_for, secret = session.get(_MADE, (None, None))
    if made_for != webhook_id:
        return Response(_one(found))
    del session[_MADE]
    answer = Response(_one(found.model_copy(update={"secret": secret})))
    answer.headers["Cache-Control"] = "no-store"
    return answer


@blueprint.post("/<id:webhook_id>/rotate")
def rotate(webhook_id: int) -> AnyResponse:
    """Give a webhook a new secret, which its page shows this once."""
    return _once(use_cases.rotate(services(), auth.principal(), webhook_id))


@blueprint.post("/<id:webhook_id>/change")
def change(webhook_id: int) -> AnyResponse:
    """Pause a webhook, or let it go on."""
    is_paused = "pause" in request.form
    use_cases.change(services(), auth.principal(), webhook_id, WebhookChange(paused=is_paused))
    flash(_("Paused: nothing is sent there.") if is_paused else _("Messages are sent again."))
    return redirect(f"/webhooks/{webhook_id}", 303)


@blueprint.post("/<id:webhook_id>/test")
def test(webhook_id: int) -> AnyResponse:
    """Send a test."""
    try:
        use_cases.test(services(), auth.principal(), webhook_id)
        flash(_("A test is on its way: the list below shows whether it arrives."))
    except Conflict as conflict:
        flash(said(conflict))
    return redirect(f"/webhooks/{webhook_id}", 303)


@blueprint.post("/<id:webhook_id>/replay")
def replay(webhook_id: int) -> AnyResponse:
    """Send one message again, or all that were given up."""
    delivery = request.form.get("delivery", "")
    try:
        if delivery.isdecimal():
            use_cases.replay(services(), auth.principal(), min(int(delivery[:19]), 2**63 - 1))
            count = 1
        else:
            count = use_cases.replay_dead(services(), auth.principal(), webhook_id).deliveries
        flash(ngettext("%(num)s message is sent again.", "%(num)s messages are sent again.", count))
    except Conflict as conflict:
        flash(said(conflict))
    return redirect(f"/webhooks/{webhook_id}", 303)


@blueprint.post("/<id:webhook_id>/delete")
def delete(webhook_id: int) -> AnyResponse:
    """Delete a webhook and the record of its messages."""
    use_cases.drop(services(), auth.principal(), webhook_id)
    flash(_("The webhook is deleted."))
    return redirect("/webhooks", 303)


def _list(typed: Mapping[str, str] | None = None, errors: Mapping[str, FieldError] | None = None) -> str:
    found = use_cases.every(services(), auth.principal()).webhooks
    return render_template(
        "webhooks.html",
        webhooks=found,
        typed=typed or {},
        errors=errors or {},
        formats={name: FORMAT_WORDS[name] for name in FORMATS},
        kinds={name: KIND_WORDS[name] for name in KINDS},
    )


def _once(made: WebhookBody) -> AnyResponse:
    """Lead to the page that shows a secret once, so that nothing is made again when it is loaded again."""
    session[_MADE] = (made.id, made.secret)
    return redirect(f"/webhooks/{made.id}", 303)


def _one(webhook: WebhookBody) -> str:
    page = use_cases.listed(services(), auth.principal(), webhook.id, Listing(cursor=number("cursor"), limit=_SHOWN))
    return render_template(
        "webhook.html",
        webhook=webhook,
        page=page,
        format=FORMAT_WORDS[webhook.format],
        kind_words=KIND_WORDS,
        state_words=STATE_WORDS,
        colours=_STATES,
    )
