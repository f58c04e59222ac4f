"""The farm's checkpoints as Replicate's clients see models, each with one version: its file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from api.compat.models import allowed, allowed_one
from api.services import Services
from shared.accounts.principal import Principal
from shared.errors import NotFound
from shared.models.catalogue import Entry

OWNER: Final = "stepfarm"
"""The owner of all models; requests may name any other."""

_NANOSECONDS: Final = 10**9
_COG: Final = "0.9.0"  # from which on clients believe the type of the output
_NUMBER, _WHOLE, _TEXT = {"type": "number"}, {"type": "integer"}, {"type": "string"}
_PICTURE: Final = {"type": "string", "format": "uri"}
SCHEMA: Final = {
    "openapi": "3.0.2",
    "info": {"title": "Stepfarm", "version": "1"},
    "paths": {},
    "components": {
        "schemas": {
            "Input": {
                "type": "object",
                "title": "Input",
                "required": ["prompt"],
                "properties": {
                    "prompt": _TEXT, "negative_prompt": _TEXT, "width": _WHOLE, "height": _WHOLE,
                    "num_outputs": _WHOLE, "num_inference_steps": _WHOLE, "guidance_scale": _NUMBER, "seed": _WHOLE,
                    "scheduler": _TEXT, "output_format": {"enum": ["png", "jpg", "webp"]}, "image": _PICTURE,
                    "mask": _PICTURE, "prompt_strength": _NUMBER,
                },
            },
            "Output": {"type": "array", "items": _PICTURE, "title": "Output"},
        }
    },
}  # fmt: skip
"""What a model takes and gives, for those who make a form of it."""


class VersionBody(BaseModel):
    """A checkpoint's file."""

    id: str = Field(description="Its SHA-256.")
    created_at: datetime
    cog_version: str = _COG
    openapi_schema: dict[str, Any] = SCHEMA


class ReplicateModelBody(BaseModel):
    """A checkpoint."""

    url: str
    owner: str
    name: str
    description: str | None
    visibility: Literal["private"] = "private"
    github_url: None = None
    paper_url: None = None
    license_url: None = None
    run_count: int = 0
    cover_image_url: None = None
    default_example: None = None
    latest_version: VersionBody


class ModelPage(BaseModel):
    """All checkpoints that can be used."""

    previous: None = None
    next: None = None
    results: list[ReplicateModelBody]


class VersionPage(BaseModel):
    """The one version of a model."""

    previous: None = None
    next: None = None
    results: list[VersionBody]


def listed(services: Services, who: Principal, root: str) -> ModelPage:
    """Return the checkpoints that the caller may use; that of requests whose model is not known comes first."""
    return ModelPage(results=[_body(file, OWNER, root) for file in allowed(services, who)])


def model(services: Services, who: Principal, owner: str, name: str, root: str) -> ReplicateModelBody:
    """Return a checkpoint that the caller may use by its name. Raises NotFound."""
    return _body(_one(services, who, name), owner, root)


def versions(services: Services, who: Principal, name: str) -> VersionPage:
    """Return the version of a model. Raises NotFound."""
    return VersionPage(results=[_version(_one(services, who, name))])


def version(services: Services, who: Principal, name: str, identifier: str) -> VersionBody:
    """Return a version of a model. Raises NotFound."""
    found = _version(_one(services, who, name))
    if not found.id.startswith(identifier):
        raise NotFound(f"The model {name[:80]!r} has no version {identifier[:80]!r}, but {found.id!r}.")
    return found


def _one(services: Services, who: Principal, name: str) -> Entry:
    found = allowed_one(services, who, name)
    if found is None:
        raise NotFound(f"This farm has no model {name[:80]!r}.")
    return found


def _body(file: Entry, owner: str, root: str) -> ReplicateModelBody:
    return ReplicateModelBody(
        url=f"{root}/models", owner=owner, name=file.name, description=file.note, latest_version=_version(file)
    )


def _version(file: Entry) -> VersionBody:
    written = datetime.fromtimestamp(file.mtime_ns / _NANOSECONDS, UTC)
    return VersionBody(id=file.sha256 or file.name, created_at=written)
