"""Signing in and out: a key is exchanged for a cookie."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, Response, current_app, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from api.languages import _
from api.security import auth, provider_sign_in
from api.sentences import said
from shared.errors import FarmError, FieldError, Forbidden, TooManyTries, Unauthorized, Unavailable

blueprint = Blueprint("entry", __name__)


@blueprint.get("/sign-in")
def sign_in() -> AnyResponse | str:
    """Show the sign-in page; without keys, go to the form."""
    if not auth.has_keys(current_app):
        return redirect("/", 303)
    return _page(inside(request.args.get("next", "/")))


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


@blueprint.get("/sign-in/provider")
def provider() -> AnyResponse:
    """Lead to the provider that signs people in."""
    wanted = inside(request.args.get("next", "/"))
    try:
        return provider_sign_in.begin(wanted)
    except Unavailable as error:
        return _refused(error)


@blueprint.get("/sign-in/callback")
def callback() -> AnyResponse:
    """Sign in the person that the provider has sent back, and go to the page that they asked for."""
    try:
        wanted = provider_sign_in.finish()
    except (Forbidden, TooManyTries, Unavailable) as error:
        answer = _refused(error)
    else:
        answer = Response(render_template("signed_in.html", next=wanted))
    provider_sign_in.forget(answer)
    return answer


def _refused(error: FarmError) -> Response:
    answer = Response(_page("/", refusal=said(error)), error.status)
    if isinstance(error, TooManyTries):
        answer.headers["Retry-After"] = str(error.seconds)
    return answer


def _again(wanted: str, message: str, status: int) -> Response:
    return Response(_page(wanted, error=FieldError("key", message, "")), status)


def _page(wanted: str, error: FieldError | None = None, refusal: str = "") -> str:
    at = provider_sign_in.name()
    return render_template("sign_in.html", next=wanted, error=error, refusal=refusal, provider=at)


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
