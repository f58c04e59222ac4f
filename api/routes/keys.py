"""Keys over HTTP: list, make, revoke."""

from __future__ import annotations

from flask import Response

from api.http.body import read_json
from api.http.openapi import BODY, NEW_KEY, NOT_FOUND, answers, section
from api.http.parameters import KeyPath, KeysQuery
from api.http.responses import reply
from api.schemas.jobs import API
from api.schemas.keys import KeyBody, KeysBody, MadeKeyBody
from api.security import auth
from api.services import services
from api.use_cases import keys as use_cases

blueprint = section("keys", __name__, f"{API}/keys")


@blueprint.get("", responses=answers(KeysBody, 200))
def keys(query: KeysQuery) -> Response:
    """List your keys, or, as an admin, everybody's. Keys in `FARM_API_KEYS` are not among them."""
    return reply(use_cases.listed(services(), auth.principal(), everybodys=query.all))


@blueprint.post("", responses=answers(MadeKeyBody, 201) | BODY, openapi_extensions=NEW_KEY)
def create() -> Response:
    """Make a key. The answer alone holds the key itself.

    It may do no more than your own key, and lasts no longer. An admin makes keys for others too. The first key of a
    farm must be an admin's, because the farm asks for keys from then on.
    """
    return reply(use_cases.create(services(), auth.principal(), read_json()), 201)


@blueprint.delete("/<id:key_id>", responses=answers(KeyBody, 200) | NOT_FOUND)
def revoke(path: KeyPath) -> Response:
    """Revoke a key: within a second it opens nothing any more, and its browsers are signed out."""
    return reply(use_cases.revoke(services(), auth.principal(), path.key_id))
