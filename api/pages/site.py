"""The web pages, joined: their routes, and what every template may use."""

from __future__ import annotations

from hashlib import sha256
from http import HTTPStatus

from flask import Flask, Response, current_app, request
from markupsafe import Markup

from api.pages import (
    adapters,
    assets,
    audit,
    compare,
    form,
    inpaint,
    jobs,
    keys,
    lessons,
    limits,
    login,
    made,
    models,
    pictures,
    presets,
    queue,
    remix,
    shares,
    usage,
    webhooks,
    workers,
)
from api.pages.filters import FILTERS
from api.security import auth, proxy_user
from api.security.origin import SAFE_METHODS
from api.services import services
from shared.accounts.principal import Role


def init_app(app: Flask) -> None:
    """Add the pages to the application; `id` (a path's converter), `auth` and `problems` are there already."""
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(FILTERS)
    app.jinja_env.globals.update(asset=assets.address, csrf_field=csrf_field)  # macros see globals only
    app.context_processor(_who)
    app.after_request(_tag)
    app.after_request(_limit_keeping)
    first = (assets, login, form, inpaint, adapters, jobs, made, remix)
    accounts = (keys, usage, limits, audit)
    for page in (*first, pictures, compare, lessons, models, presets, webhooks, shares, workers, *accounts, queue):
        app.register_blueprint(page.blueprint)


def csrf_field() -> Markup:
    """Return the hidden field that every form carries."""
    return Markup('<input type="hidden" name="{}" value="{}">').format(auth.CSRF_FIELD, auth.csrf_token())


def _limit_keeping(answer: Response) -> Response:
    """Have browsers forget pages of signed-in people, so that going back after signing out shows nothing.

    Without keys browsers keep a page and its inputs for going back, but ask the farm before they show it again.
    """
    if answer.mimetype == "text/html":
        answer.headers.setdefault("Cache-Control", "no-store" if auth.has_keys(current_app) else "private, no-cache")
    return answer


def _tag(answer: Response) -> Response:
    """Give a page an ETag, so that scripts, which ask every few seconds, get 304 for the page that they have."""
    if answer.mimetype == "text/html" and answer.status_code == HTTPStatus.OK and request.method in SAFE_METHODS:
        answer.set_etag(sha256(answer.get_data()).hexdigest()[:32], weak=True)
        answer.make_conditional(request)
    return answer


def _who() -> dict[str, object]:
    """The caller, if it is known: an error page may come earlier."""
    who = auth.known()
    return {
        "owner": who and who.owner,
        "is_admin_here": who is not None and who.role == Role.ADMIN,
        "runs_farm": who is not None and who.role.includes(Role.OPERATOR),
        "signed_in": auth.is_signed_in(),
        "by_proxy": who is not None and proxy_user.names_somebody(services().settings),
    }
