"""The parts of the OpenAPI document that the routes' types do not tell: bodies, headers, bytes, errors."""

from __future__ import annotations

from typing import Any, Final

from flask_openapi3 import APIBlueprint, Info, OpenAPI, Tag
from flask_openapi3.models import Schema
from flask_openapi3.types import ResponseDict, SecuritySchemesDict
from pydantic import BaseModel

from api.problems import PROBLEM_JSON, Problem
from shared.params import RenderParams
from shared.terms import Terms

Document = dict[str, Any]

_PROBLEM: Final = {"$ref": f"#/components/schemas/{Problem.__name__}"}
_NEW_JOB: Final = "NewJob"

INFO: Final = Info(
    title="Stepfarm",
    version="1",
    summary="A render farm for diffusion models.",
    description=(
        "Submit parameters, follow the job, fetch the pictures. Every error is a problem (RFC 9457) that names "
        "each bad field and what would be accepted. A farm with keys wants `Authorization: Bearer KEY`."
    ),
)
SECURITY: Final[SecuritySchemesDict] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def problem(description: str) -> Document:
    """Return the description of an error."""
    return {"description": description, "content": {PROBLEM_JSON: {"schema": _PROBLEM}}}


def section(tag: str, module: str, prefix: str = "", name: str = "") -> APIBlueprint:
    """Return the blueprint of some routes that stand under one heading, and whose errors look like all others."""
    return APIBlueprint(
        name or tag,
        module,
        url_prefix=prefix,
        abp_tags=[Tag(name=tag)],
        abp_responses=EVERYWHERE,
        abp_security=[{"bearer": []}, {"header": []}, {}],  # the last: a farm without keys
    )


def answers(model: type[BaseModel], *statuses: int) -> ResponseDict:
    """Return the description of answers whose body is a `model`."""
    return {str(status): model for status in statuses}


def content(mimetype: str, description: str) -> ResponseDict:
    """Return the description of a 200 whose body is bytes or a stream."""
    schema = {"type": "string"} if mimetype.startswith("text/") else {"type": "string", "format": "binary"}
    return {"200": {"description": description, "content": {mimetype: {"schema": schema}}}}


NOT_FOUND: Final[ResponseDict] = {"404": problem("There is no such thing, or it is somebody else's.")}
CONFLICT: Final[ResponseDict] = {"409": problem("Its state does not allow this; the detail says which.")}
TOO_LARGE: Final[ResponseDict] = {"413": problem("The file is larger than this farm accepts.")}
EVERYWHERE: Final[ResponseDict] = {
    "401": problem("A key is needed."),
    "403": problem("The request came from a page of another site, or for a foreign host."),
    "422": problem("A field cannot be accepted."),
    "503": problem("The database or the storage is away; Retry-After says when to ask again."),
}


def _header(name: str, description: str) -> Document:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


SUBMIT: Final[Document] = {
    "parameters": [
        _header("Idempotency-Key", "1 to 200 visible ASCII characters: same key and body, same job."),
        _header("Prefer", "wait=N: hold the answer back until the job has ended, for N seconds at most (up to 60)."),
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{_NEW_JOB}"}}},
    },
}
TOKENS: Final[Document] = {"requestBody": SUBMIT["requestBody"]}
UPLOAD: Final[Document] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
}
EVENTS: Final[Document] = {
    "parameters": [
        _header("Last-Event-ID", "The id of the last event that was seen: what came after it is sent again.")
    ]
}


def describe(app: OpenAPI) -> Document:
    """Return the OpenAPI document of `app`: made once, from the routes' types and docstrings."""
    if not app.spec_json:
        schema = RenderParams.model_json_schema(ref_template="#/components/schemas/{model}")
        for name, group in schema.pop("$defs").items():
            app.components_schemas[name] = Schema(**group)
        properties = schema["properties"] | Terms.model_json_schema()["properties"]
        app.components_schemas[_NEW_JOB] = Schema(**schema | {"title": _NEW_JOB, "properties": properties})
        for path in app.api_doc["paths"].values():
            for operation in path.values():
                _unwrap(operation)
    document: Document = app.api_doc
    return document


def _unwrap(operation: Document) -> None:
    """Put a docstring's lines together again."""
    if "description" in operation:
        operation["description"] = operation["description"].replace("<br/>", " ").strip()
