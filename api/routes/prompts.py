"""What helps to write a prompt: its length in tokens, and the styles that may join it."""

from __future__ import annotations

from flask import Response

from api.http.body import read_json
from api.http.openapi import BODY, TOKENS, answers, section
from api.http.responses import reply
from api.schemas.catalogue import StylesBody, TokensBody
from api.schemas.jobs import API
from api.services import services
from api.use_cases import jobs

blueprint = section("prompts", __name__, API)


@blueprint.post("/tokens", responses=answers(TokensBody, 200) | BODY, openapi_extensions=TOKENS)
def tokens() -> Response:
    """Count the tokens of a prompt: the most that any of its AND parts takes at any time.

    The body is that of a job, of which `prompt`, `emphasis`, `steps` and `sampler` count; without a `prompt` it is the
    `negative_prompt` that counts, in which AND is a word like any other.
    """
    return reply(jobs.tokens(services(), read_json()))


@blueprint.get("/styles", responses=answers(StylesBody, 200))
def styles() -> Response:
    """List the styles that a job may name."""
    return reply(jobs.styles(services()))
