"""The page of the audit log, for admins: who did what with the farm."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from flask import Blueprint, render_template, request

from api.languages import lazy
from api.pages import audit_details, query_args
from api.pages.query_args import number
from api.services import services
from api.use_cases import audit as use_cases
from shared.accounts.audit import Action

LINES_OF_A_PAGE: Final = 50
WORDS: Final = {
    Action.KEY_MADE: lazy("made a key"),
    Action.KEY_REVOKED: lazy("revoked a key"),
    Action.LIMITS_SET: lazy("set limits"),
    Action.LIMITS_CLEARED: lazy("cleared limits"),
    Action.OWNER_WIPED: lazy("deleted everything of an owner"),
    Action.SESSION_BEGUN: lazy("signed in"),
    Action.SIGN_IN_REFUSED: lazy("was not signed in"),
    Action.WORKER_DRAINED: lazy("paused a worker"),
    Action.WORKER_RESUMED: lazy("resumed a worker"),
    Action.WEBHOOK_MADE: lazy("made a webhook"),
    Action.WEBHOOK_CHANGED: lazy("changed a webhook"),
    Action.WEBHOOK_ROTATED: lazy("gave a webhook a new secret"),
    Action.WEBHOOK_DELETED: lazy("deleted a webhook"),
    Action.SHARE_MADE: lazy("made a share link"),
    Action.SHARE_REVOKED: lazy("revoked a share link"),
    Action.JOB_APPROVED: lazy("approved a draft"),
    Action.JOB_CANCELLED: lazy("cancelled a job"),
    Action.JOB_CHANGED: lazy("changed a job"),
    Action.JOB_DELETED: lazy("deleted a job"),
    Action.JOB_HELD: lazy("held a job"),
    Action.JOB_RELEASED: lazy("released a job"),
    Action.JOB_RETRIED: lazy("retried a job"),
    Action.PICTURES_DELETED: lazy("deleted pictures"),
    Action.PICTURES_MARKED: lazy("marked pictures"),
    Action.PICTURES_RESTORED: lazy("restored pictures"),
}
blueprint = Blueprint("audit_pages", __name__, url_prefix="/audit")


@blueprint.get("")
def audit() -> str:
    """List who did what, the latest first."""
    owner = query_args.owner()
    action = next((action for action in Action if action == request.args.get("action")), None)
    cursor = number("cursor")
    page = use_cases.listed(services(), owner, action, cursor, LINES_OF_A_PAGE)
    kept = {name: value for name, value in (("owner", owner), ("action", action)) if value}
    return render_template(
        "audit.html",
        lines=page.lines,
        next=page.next and f"/audit?{urlencode(kept | {'cursor': page.next})}",
        latest=cursor and f"/audit?{urlencode(kept)}",
        asked_owner=owner or "",  # `owner` is who looks
        action=action,
        words=WORDS,
        thing=audit_details.thing,
        details=audit_details.details,
    )
