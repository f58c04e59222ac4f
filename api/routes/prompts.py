"""Help with prompts: their length in tokens, and the styles."""

from __future__ import annotations

from flask import Response

from api.http.body import read_json
from api.http.openapi import BODY, TOKENS, answers, section
from api.http.responses import reply
from api.schemas.catalogue import StylesBody, TokensBody
from api.schemas.jobs import API
from api.security import auth
from api.services import services
from api.use_cases import catalogue

blueprint = section("prompts", __name__, API)


@blueprint.post("/tokens", responses=answers(TokensBody, 200) | BODY, openapi_extensions=TOKENS)
def tokens() -> Response:
    """Count the tokens of a prompt: the largest number that any of its AND parts has at any step.

    The body is that of a job; `prompt`, `emphasis`, `steps` and `sampler` are read. Without `prompt` the
    `negative_prompt` is counted, in which AND is a word.
    """
    return reply(catalogue.tokens(services(), auth.principal(), read_json()))


@blueprint.get("/styles", responses=answers(StylesBody, 200))
def styles() -> Response:
    """List the styles."""
    return reply(catalogue.styles(services()))
