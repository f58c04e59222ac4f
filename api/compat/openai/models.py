"""The farm's checkpoints as OpenAI's clients list models."""

from __future__ import annotations

from collections import Counter
from typing import Final, Literal

from pydantic import BaseModel, Field

from api.compat.models import allowed, known_checkpoints
from api.services import Services
from shared.accounts.principal import Principal
from shared.errors import NotFound

_NANOSECONDS: Final = 10**9


class OpenAIModelBody(BaseModel):
    """A checkpoint."""

    id: str = Field(description="Its name; its title, where several have that name.")
    object: Literal["model"] = "model"
    created: int = Field(description="When its file was written, seconds since 1970.")
    owned_by: Literal["stepfarm"] = "stepfarm"


class ModelListBody(BaseModel):
    """The checkpoints that can be used; the first is that of requests whose model is not known."""

    object: Literal["list"] = "list"
    data: list[OpenAIModelBody]


def listed(services: Services, who: Principal) -> ModelListBody:
    """Return the checkpoints that the caller may use."""
    usable = allowed(services, who)
    names = Counter(file.name for file in usable)
    ids = [file.name if names[file.name] == 1 else file.title for file in usable]
    times = [file.mtime_ns // _NANOSECONDS for file in usable]
    return ModelListBody(data=[OpenAIModelBody(id=name, created=at) for name, at in zip(ids, times, strict=True)])


def one(services: Services, name: str) -> OpenAIModelBody:
    """Return the checkpoint that a name means. Raises NotFound."""
    found = known_checkpoints(services).only(name, "checkpoint")
    if found is None:
        raise NotFound(f"This farm has no model {name[:80]!r}: GET /v1/models lists those that it has.")
    return OpenAIModelBody(id=name, created=found.mtime_ns // _NANOSECONDS)
