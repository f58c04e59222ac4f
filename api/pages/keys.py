"""The page of keys: one's own, and everybody's for an admin. A new key is shown once."""

from __future__ import annotations

from typing import Final, NamedTuple

from flask import Blueprint, Response, current_app, flash, redirect, render_template, request, session
from werkzeug.wrappers import Response as AnyResponse

from api.languages import _
from api.security import auth
from api.sentences import said
from api.services import services
from api.use_cases import keys as use_cases
from shared.accounts.principal import Role
from shared.accounts.scope import EVERYBODYS
from shared.errors import Forbidden, NotFound, Refused

_FIELDS: Final = ("name", "owner", "role", "days")
_MADE: Final = "made-key"  # in the session: whose the new key is that was not shown yet, and the key
blueprint = Blueprint("keys_pages", __name__, url_prefix="/keys")


class _Made(NamedTuple):
    owner: str
    key: str


@blueprint.get("")
def keys() -> Response:
    """Show the keys, a form for another one, and this once the key that was just made."""
    made = session.pop(_MADE, None)
    return Response(_page()) if made is None else _with_key(_Made(*made))


@blueprint.post("")
def create() -> AnyResponse:
    """Make a key, which the page shows this once.

    It leads there, so that no other one is made when the answer is loaded again. The farm's first key closes that page
    to this browser, and so is shown at once.
    """
    is_open = not auth.has_keys(current_app)
    given: dict[str, object] = {name: text for name in _FIELDS if (text := request.form.get(name, "").strip())}
    days = given.get("days")
    if isinstance(days, str) and days.isdecimal() and len(days) < 9:  # others are refused by their name
        given["days"] = int(days)
    try:
        made = use_cases.create(services(), auth.principal(), given)
    except Refused as refused:
        return Response(_page(refused=refused), refused.status)
    if is_open:
        return _with_key(_Made(made.owner, made.key))
    session[_MADE] = _Made(made.owner, made.key)
    return redirect("/keys", 303)


@blueprint.post("/<id:key_id>/revoke")
def revoke(key_id: int) -> AnyResponse:
    """Have a key open nothing any more."""
    try:
        key = use_cases.revoke(services(), auth.principal(), key_id)
        flash(_("The key “%(name)s” of %(owner)s opens nothing any more.", name=key.name, owner=key.owner))
    except (NotFound, Forbidden) as error:
        flash(said(error))
    return redirect("/keys", 303)


def _with_key(made: _Made) -> Response:
    """Return the page with a new key; no browser keeps it."""
    answer = Response(_page(made=made))
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _page(made: _Made | None = None, refused: Refused | None = None) -> str:
    who = auth.principal()
    is_admin = who.scope == EVERYBODYS
    return render_template(
        "keys.html",
        keys=use_cases.listed(services(), who, everybodys=is_admin).keys,
        made=made,
        errors={one.field: one for one in refused.fields} if refused else {},
        given=request.form,
        is_admin=is_admin,
        may_make=who.role.includes(Role.USER),
        roles=[role for role in Role if who.role.includes(role)],
        is_open=not auth.has_keys(current_app),
        here="/keys",
    )
