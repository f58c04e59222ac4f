"""The page of keys: one's own, and everybody's for an admin. A new key is shown on the answer to its form alone."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, current_app, flash, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from api.languages import _
from api.schemas.keys import MadeKeyBody
from api.security import auth
from api.sentences import said
from api.services import services
from api.use_cases import keys as use_cases
from shared.accounts.principal import Role
from shared.accounts.scope import EVERYBODYS
from shared.errors import Forbidden, NotFound, Refused

_FIELDS: Final = ("name", "owner", "role", "days")
blueprint = Blueprint("keys_pages", __name__, url_prefix="/keys")


@blueprint.get("")
def keys() -> str:
    """Show the keys, and a form for another one."""
    return _page()


@blueprint.post("")
def create() -> AnyResponse:
    """Make a key and show it, once."""
    given: dict[str, object] = {name: text for name in _FIELDS if (text := request.form.get(name, "").strip())}
    days = given.get("days")
    if isinstance(days, str) and days.isdecimal() and len(days) < 9:  # others are refused by their name
        given["days"] = int(days)
    try:
        made = use_cases.create(services(), auth.principal(), given)
    except Refused as refused:
        return Response(_page(refused=refused), refused.status)
    return Response(_page(made=made), 201)


@blueprint.post("/<id:key_id>/revoke")
def revoke(key_id: int) -> AnyResponse:
    """Have a key open nothing any more."""
    try:
        key = use_cases.revoke(services(), auth.principal(), key_id)
        flash(_("The key “%(name)s” of %(owner)s opens nothing any more.", name=key.name, owner=key.owner))
    except (NotFound, Forbidden) as error:
        flash(said(error))
    return redirect("/keys", 303)


def _page(made: MadeKeyBody | None = None, refused: Refused | None = None) -> str:
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
