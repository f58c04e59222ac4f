"""The page of limits: what is left to oneself; for an admin also what is set for owners, with a form to set more."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, flash, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from api.languages import _
from api.security import auth
from api.services import services
from api.use_cases import limits as use_cases
from shared.accounts.limits import AS_ROLE, LIMITS, written
from shared.accounts.scope import EVERYBODYS
from shared.errors import Refused

blueprint = Blueprint("limits_pages", __name__, url_prefix="/limits")
_OWNER: Final = "owner"


@blueprint.get("")
def limits() -> str:
    """Show limits; with the name of an owner the form holds what is set for this one."""
    return _page(request.args.get(_OWNER, ""))


@blueprint.post("")
def change() -> AnyResponse:
    """Set limits of an owner: a field without a value leaves it to the role."""
    owner = request.form.get(_OWNER, "")
    given = {name: request.form.get(name, "").strip() or AS_ROLE for name in LIMITS}
    try:
        row = use_cases.change(services(), auth.principal(), owner, given)
    except Refused as refused:
        return Response(_page(owner, refused), refused.status)
    flash(_("The limits of %(owner)s are set.", owner=row.owner))
    return redirect("/limits", 303)


@blueprint.post("/clear")
def clear() -> AnyResponse:
    """Give an owner the limits of the role alone."""
    owner = request.form.get(_OWNER, "")
    try:
        row = use_cases.clear(services(), auth.principal(), owner)
    except Refused as refused:
        return Response(_page(owner, refused), refused.status)
    flash(_("%(owner)s has the limits of the role again.", owner=row.owner))
    return redirect("/limits", 303)


def _page(owner: str, refused: Refused | None = None) -> str:
    who = auth.principal()
    is_admin = who.scope == EVERYBODYS
    owners = use_cases.every(services()).owners if is_admin else []
    set_for = {
        one.owner: {name: written(one.limits[name]) for name in sorted(one.limits, key=[*LIMITS, *one.limits].index)}
        for one in owners
    }
    return render_template(
        "limits.html",
        own=use_cases.own(services(), who),
        owners=[one for one in owners if one.limits],
        written=set_for,
        is_admin=is_admin,
        known=LIMITS,
        errors={one.field: one for one in refused.fields} if refused else {},
        given=request.form if refused else {_OWNER: owner, **set_for.get(owner, {})},
        here="/limits",
    )
