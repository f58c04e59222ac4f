"""The parts of the OpenAPI document that do not follow from the routes' types: bodies, headers, bytes, errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any, Final

from flask_openapi3 import APIBlueprint, Info, OpenAPI, Tag
from flask_openapi3.models import Schema
from flask_openapi3.types import ParametersTuple, ResponseDict, SecuritySchemesDict
from flask_openapi3.utils import parse_parameters
from pydantic import BaseModel

from api.http.parameters import IDEMPOTENCY_KEY, MAX_WAIT_SECONDS
from api.http.problems import PROBLEM_JSON, Problem
from api.schemas.keys import NewKeyBody
from api.schemas.limits import LimitsChange
from api.schemas.pictures import PictureAction, PictureChange, PictureChoice
from api.schemas.shares import ShareRequest
from api.schemas.webhooks import WebhookChange, WebhookRequest
from shared.admission import changing
from shared.admission.accepted import NAMES, bounds
from shared.admission.axes.request import KEY, SweepRequest
from shared.params.fields import NATIVE_SIZE
from shared.params.render import RenderParams
from shared.params.scheduling import Scheduling
from shared.params.table import parameters
from shared.params.upscalers import UPSCALERS
from shared.settings import Limits

Document = dict[str, Any]

_DESCRIBING: Final = Lock()  # sections are shared by all applications of a process
_PROBLEM: Final = {"$ref": f"#/components/schemas/{Problem.__name__}"}
_NEW_JOB: Final = "NewJob"
_CHANGE: Final = "JobChange"
_PROMPT: Final = "Prompt"
_CONTROLS: Final = "Controls"
_BODIES: Final = (
    PictureChange, PictureAction, PictureChoice, WebhookRequest, WebhookChange, ShareRequest, NewKeyBody, LimitsChange,
)  # fmt: skip
"""Other bodies, by the names of their models."""

_PARTS: Final = {
    _PROMPT: ("prompt", "negative_prompt", "emphasis", "steps", "sampler"),
    _CHANGE: changing.FIELDS,
    _CONTROLS: ("controlnet", "img2img", "width", "height", "checkpoint"),
}
"""Bodies that hold a part of a job's parameters."""

INFO: Final = Info(
    title="Stepfarm",
    version="1",
    summary="A render farm for diffusion models.",
    description=(
        "Submit parameters, follow the job, fetch the pictures. Every error is a problem (RFC 9457) that names "
        "each bad field and what would be accepted. A farm with keys needs `Authorization: Bearer KEY`."
    ),
)
SECURITY: Final[SecuritySchemesDict] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def problem(description: str) -> Document:
    """Return the description of an error."""
    return {"description": description, "content": {PROBLEM_JSON: {"schema": _PROBLEM}}}


class Section(APIBlueprint):
    """Routes under one heading. What they take and answer is described only when the document is asked for.

    To make the schemas of all routes takes a quarter of the time in which the API would start.
    """

    def __init__(
        self,
        name: str,
        module: str,
        prefix: str,
        bodies: Sequence[type[BaseModel]],
        **known: Any,  # noqa: ANN401 - as its base's
    ) -> None:
        super().__init__(name, module, url_prefix=prefix, **known)
        self._bodies = bodies
        self._undescribed: list[Callable[[], object]] = []

    def _collect_openapi_info(self, rule: str, func: Callable[..., Any], **known: Any) -> ParametersTuple:  # noqa: ANN401
        self._undescribed.append(partial(super()._collect_openapi_info, rule, func, **known))
        return parse_parameters(func, doc_ui=False)

    def describe_in(self, app: OpenAPI) -> None:
        """Write the routes into the document of `app`, which is made of them afterwards."""
        while self._undescribed:
            self._undescribed.pop(0)()
        app.tags += [tag for tag in self.tags if tag not in app.tags]
        app.paths |= self.paths
        app.components_schemas |= self.components_schemas
        for model in self._bodies:
            _describe_body(app, model)


def section(tag: str, module: str, prefix: str = "", name: str = "") -> Section:
    """Return the blueprint of routes under one heading, with the errors that every route may have."""
    return Section(name or tag, module, prefix, (), **_every_route(tag, EVERYWHERE))


def door(tag: str, module: str, prefix: str, errors: ResponseDict, bodies: Sequence[type[BaseModel]] = ()) -> Section:
    """Return the blueprint of routes whose errors have a shape of their own, and which name `bodies` by themselves."""
    return Section(tag, module, prefix, bodies, **_every_route(tag, errors))


def _every_route(tag: str, errors: ResponseDict) -> dict[str, Any]:
    return {
        "abp_tags": [Tag(name=tag)],
        "abp_responses": errors,
        "abp_security": [{"bearer": []}, {"header": []}, {}],  # the last: a farm without keys
    }


def answers(model: type[BaseModel], *statuses: int) -> ResponseDict:
    """Return the description of answers whose body is a `model`."""
    return {str(status): model for status in statuses}


def content(mimetype: str, description: str) -> ResponseDict:
    """Return the description of a 200 whose body is bytes or a stream."""
    schema = {} if mimetype.startswith("text/") else {"schema": {"type": "string", "format": "binary"}}
    return {"200": {"description": description, "content": {mimetype: schema}}}


NOT_FOUND: Final[ResponseDict] = {"404": problem("There is no such thing, or it belongs to another owner.")}
CONFLICT: Final[ResponseDict] = {"409": problem("Its state does not allow this; `detail` names the state.")}
UNCHANGED: Final[ResponseDict] = {"304": {"description": "The version in If-None-Match is still the current one."}}
TOO_LARGE: Final[ResponseDict] = {"413": problem("The body is larger than this farm accepts.")}
BODY: Final[ResponseDict] = TOO_LARGE | {
    "400": problem("The body is not JSON, or has far more values than a job."),
    "415": problem("The Content-Type is not application/json, or there is a Content-Encoding."),
}
EVERYWHERE: Final[ResponseDict] = {
    "401": problem("A key is needed."),
    "403": problem("Your key may not do this, or the request came from a page of another site, or for a foreign host."),
    "422": problem("A field cannot be accepted."),
    "429": problem(
        "Too many requests came with this key within a minute, or too many wrong keys from this address; Retry-After "
        "gives the seconds until the next one is answered."
    ),
    "503": problem("The database or the storage is away; Retry-After gives the seconds until the next try."),
}


def _header(name: str, description: str, **schema: str) -> Document:
    schema = {"type": "string"} | schema
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def reference(model: str) -> Document:
    """Return the reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{model}"}


def _json(schema: str) -> Document:
    return {"required": True, "content": {"application/json": {"schema": reference(schema)}}}


def takes(model: type[BaseModel]) -> Document:
    """Return the description of a route that reads a `model` of its section's bodies."""
    return {"requestBody": _json(model.__name__)}


SUBMIT: Final[Document] = {
    "parameters": [
        _header(
            "Idempotency-Key",
            "1 to 200 visible ASCII characters. The same key with the same body leads to the same job.",
            pattern=f"^{IDEMPOTENCY_KEY.pattern}$",
        ),
        _header(
            "Prefer",
            f"wait=N: answer when the job has ended, or after N seconds, at most {MAX_WAIT_SECONDS}.",
        ),
    ],
    "requestBody": _json(_NEW_JOB),
}
SWEEP_PREVIEW: Final[Document] = {"requestBody": _json(_NEW_JOB)}
CHANGE: Final[Document] = {"requestBody": _json(_CHANGE)}
TOKENS: Final[Document] = {"requestBody": _json(_PROMPT)}
NEW_KEY: Final[Document] = {"requestBody": _json(NewKeyBody.__name__)}
LIMITS_CHANGE: Final[Document] = {"requestBody": _json(LimitsChange.__name__)}
PRESET: Final[Document] = {"requestBody": _json(_NEW_JOB)}
CONTROL_PREVIEW: Final[Document] = {"requestBody": _json(_CONTROLS)}
SHARE: Final[Document] = {"requestBody": _json(ShareRequest.__name__)}
WEBHOOK_NEW: Final[Document] = {"requestBody": _json(WebhookRequest.__name__)}
WEBHOOK_CHANGE: Final[Document] = {"requestBody": _json(WebhookChange.__name__)}
PICTURE_CHANGE: Final[Document] = {"requestBody": _json(PictureChange.__name__)}
PICTURE_ACTION: Final[Document] = {"requestBody": _json(PictureAction.__name__)}
PICTURE_CHOICE: Final[Document] = {"requestBody": _json(PictureChoice.__name__)}
PICTURE_BYTES: Final[Document] = {"contentType": "image/png, image/jpeg, image/webp"}
"""What a file in a form is."""
UPLOAD: Final[Document] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                },
                "encoding": {"file": PICTURE_BYTES},
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
}
EVENTS: Final[Document] = {
    "parameters": [_header("Last-Event-ID", "The id of the last event that the client has: later ones are sent.")]
}
LOOK: Final[Document] = {
    "parameters": [_header("If-None-Match", "The ETag of an earlier answer: 304 if nothing has changed.")]
}


def describe(app: OpenAPI, limits: Limits) -> Document:
    """Return the OpenAPI document of `app`, made once from routes, docstrings and the farm's limits."""
    with _DESCRIBING:
        if not app.spec_json:
            _describe(app, limits)
    document: Document = app.api_doc
    return document


def _describe(app: OpenAPI, limits: Limits) -> None:
    for described in app.blueprints.values():
        if isinstance(described, Section):
            described.describe_in(app)
    schema = RenderParams.model_json_schema(ref_template="#/components/schemas/{model}")
    _bound(schema, limits)
    sweep = SweepRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, group in (schema.pop("$defs") | sweep.pop("$defs")).items():
        app.components_schemas[name] = Schema(**group)
    properties = (
        schema["properties"]
        | Scheduling.model_json_schema()["properties"]
        | {KEY: {"anyOf": [sweep, {"type": "null"}]}}
    )
    for title, names in _PARTS.items():
        part = {name: properties[name] for name in names}
        app.components_schemas[title] = Schema(type="object", title=title, properties=part)
    app.components_schemas[_NEW_JOB] = Schema(**schema | {"title": _NEW_JOB, "properties": properties})
    for model in _BODIES:
        _describe_body(app, model)
    for path in app.api_doc["paths"].values():
        for operation in path.values():
            _unwrap(operation)


def _describe_body(app: OpenAPI, model: type[BaseModel]) -> None:
    body = model.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, inner in body.pop("$defs", {}).items():
        app.components_schemas[name] = Schema(**inner)
    app.components_schemas[model.__name__] = Schema(**body)


def _bound(schema: Document, limits: Limits) -> None:
    """Write into the schema of parameters what this farm accepts of each, beyond what their types say."""
    bounded = bounds(limits)
    for name, parameter in parameters().items():
        field, kind = _field(schema, name), parameter.takes.kind
        if kind in NAMES:  # spellings of other programs are understood as well
            field["enum"] = [*(("",) if "" in parameter.fact.means else ()), *NAMES[kind]]
        elif kind == "upscaler":
            field["anyOf"] = [{"enum": [*UPSCALERS]}, {"description": "the name or hash of a model file"}]
        elif kind == "prompt":
            field["maxLength"] = limits.max_prompt_chars
        elif name in bounded:
            least, most = bounded[name]
            if field.pop("multipleOf", None):  # a side
                field |= {"anyOf": [{"const": NATIVE_SIZE}, {"minimum": least, "maximum": most, "multipleOf": 8}]}
                del field["minimum"]
            else:
                field |= {"minimum": least, "maximum": most}


def _field(schema: Document, name: str) -> Document:
    """Return the schema of the parameter of this dotted name, in its group's."""
    *groups, last = name.split(".")
    for group in groups:
        found = schema["properties"][group]
        kinds = [*found.get("anyOf", [found]), found.get("items", {})]
        reference = next(kind["$ref"] for kind in kinds if "$ref" in kind)
        schema = {**schema["$defs"][reference.rpartition("/")[2]], "$defs": schema["$defs"]}
    field: Document = schema["properties"][last]
    return field


def _unwrap(operation: Document) -> None:
    """Join the lines of a docstring."""
    if "description" in operation:
        operation["description"] = operation["description"].replace("<br/>", " ").strip()
