"""Model files, samplers and schedules over HTTP."""

from __future__ import annotations

from flask import Response, request

from api.http.openapi import NOT_FOUND, UNCHANGED, answers, content, section
from api.http.parameters import CheckpointsQuery, ModelPath, ModelsQuery
from api.http.responses import reply
from api.schemas.catalogue import (
    CheckpointsBody,
    DecodersBody,
    ModelsBody,
    OthersBody,
    SamplersBody,
    SchedulesBody,
    VaesBody,
)
from api.schemas.jobs import API
from api.security import auth
from api.services import services
from api.use_cases import catalogue
from api.use_cases.catalogue import Part
from shared.models.facets import FACETS, FACETS_OF_ALL

PREVIEW = content("image/webp", "The picture, without its original metadata.")

blueprint = section("catalogue", __name__, API)


@blueprint.get("/models", responses=answers(ModelsBody, 200))
def models(query: ModelsQuery) -> Response:
    """List the model files of all kinds, a page at a time; if one cannot be used, with the reason."""
    filters = query.model_dump(include={*FACETS_OF_ALL})
    part = Part(query.cursor, query.limit)
    return reply(catalogue.models(services(), auth.principal(), filters, query.search, part))


@blueprint.get("/models/<hash:sha256>/preview.webp", responses=PREVIEW | NOT_FOUND | UNCHANGED)
def preview(path: ModelPath) -> Response:
    """Get the picture that lies beside a model file, at most 192 pixels wide and high."""
    found = catalogue.preview(services(), auth.principal(), path.sha256)
    unchanged = request.if_none_match.contains_weak(tag := found.tag)
    answer = Response(status=304) if unchanged else Response(found.read(), mimetype="image/webp")
    answer.set_etag(tag)
    answer.headers["Cache-Control"] = "private, no-cache"  # another picture may lie there by the next time
    return answer


@blueprint.get("/checkpoints", responses=answers(CheckpointsBody, 200))
def checkpoints(query: CheckpointsQuery) -> Response:
    """List the checkpoints; if one cannot be used, with the reason."""
    filters = query.model_dump(include={*FACETS})
    return reply(catalogue.checkpoints(services(), auth.principal(), filters, Part(query.cursor, query.limit)))


@blueprint.get("/vaes", responses=answers(VaesBody, 200))
def vaes() -> Response:
    """List the VAE files; if one cannot be used, with the reason."""
    return reply(catalogue.vaes(services()))


@blueprint.get("/decoders", responses=answers(DecodersBody, 200))
def decoders() -> Response:
    """List the tiny decoders for previews; if one cannot be used, with the reason."""
    return reply(catalogue.decoders(services()))


@blueprint.get("/others", responses=answers(OthersBody, 200))
def others() -> Response:
    """List the files in the models folder of kinds that the farm cannot use, with their kinds."""
    return reply(catalogue.others(services()))


@blueprint.post("/checkpoints/rescan", responses={202: None})
def rescan() -> Response:
    """Have the workers scan the models folder now; the list follows within seconds."""
    catalogue.rescan(services())
    return Response(status=202)


@blueprint.get("/samplers", responses=answers(SamplersBody, 200))
def samplers() -> Response:
    """List the samplers and the schedules that each takes."""
    return reply(SamplersBody.all())


@blueprint.get("/schedules", responses=answers(SchedulesBody, 200))
def schedules() -> Response:
    """List the schedules."""
    return reply(SchedulesBody.all())
