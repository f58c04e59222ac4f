"""Signing in and out: a key is exchanged for a cookie."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, Response, current_app, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from api.languages import _
from api.security import auth
from api.sentences import said
from shared.errors import FieldError, TooManyTries, Unauthorized

blueprint = Blueprint("entry", __name__)


@blueprint.get("/sign-in")
def sign_in() -> AnyResponse | str:
    """Show the sign-in page; without keys, go to the form."""
    if not auth.has_keys(current_app):
        return redirect("/", 303)
    return render_template("sign_in.html", next=inside(request.args.get("next", "/")), error=None)


@blueprint.post("/sign-in")
def submit_key() -> AnyResponse:
    """Exchange the key for a cookie and go to the page that the person asked for."""
    wanted = inside(request.form.get("next", "/"))
    try:
        auth.sign_in(current_app, request.form.get("key", "").strip())
    except Unauthorized as error:
        advice = _("Check it for missing letters, or ask the person who runs this farm.")
        return _again(wanted, f"{said(error)} {advice}", error.status)
    except TooManyTries as error:
        answer = _again(wanted, said(error), error.status)
        answer.headers["Retry-After"] = str(error.seconds)
        return answer
    return redirect(wanted, 303)


def _again(wanted: str, message: str, status: int) -> Response:
    return Response(render_template("sign_in.html", next=wanted, error=FieldError("key", message, "")), status)


@blueprint.post("/sign-out")
def sign_out() -> AnyResponse:
    """End this browser's session and go to the sign-in page."""
    auth.sign_out()
    return redirect("/sign-in", 303)


def inside(address: str) -> str:
    """Return `address` if it is a page of this farm, else the first page: nobody is sent elsewhere."""
    try:
        parts = urlsplit(address.replace("\\", "/"))
    except ValueError:  # half an IPv6 address
        return "/"
    is_ours = not parts.scheme and not parts.netloc and parts.path.startswith("/") and not parts.path.startswith("//")
    return address if is_ours and address.isprintable() else "/"
