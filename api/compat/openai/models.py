"""The farm's checkpoints as OpenAI's clients list models."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, Field

from api.compat.models import allowed_one, known_checkpoints
from api.services import Services
from shared.accounts.principal import Principal
from shared.admission.checkpoints import allowed_checkpoints
from shared.errors import NotFound

_NANOSECONDS: Final = 10**9


class OpenAIModelBody(BaseModel):
    """A checkpoint."""

    id: str = Field(description="Its name; its title, where that name alone would mean several.")
    object: Literal["model"] = "model"
    created: int = Field(description="When its file was written, seconds since 1970.")
    owned_by: Literal["stepfarm"] = "stepfarm"


class ModelListBody(BaseModel):
    """The checkpoints that can be used; the first is that of requests whose model is not known."""

    object: Literal["list"] = "list"
    data: list[OpenAIModelBody]


def listed(services: Services, who: Principal) -> ModelListBody:
    """Return the checkpoints that the caller may use."""
    known = known_checkpoints(services)
    usable = allowed_checkpoints(known, services.limits(who))
    # A name is looked up among all that are usable, also those that are closed to the caller.
    ids = [file.name if known.only(file.name, "checkpoint") else file.title for file in usable]
    times = [file.mtime_ns // _NANOSECONDS for file in usable]
    return ModelListBody(data=[OpenAIModelBody(id=name, created=at) for name, at in zip(ids, times, strict=True)])


def one(services: Services, who: Principal, name: str) -> OpenAIModelBody:
    """Return the checkpoint that a name means, if the caller may use it. Raises NotFound."""
    found = allowed_one(services, who, name)
    if found is None:
        raise NotFound(f"This farm has no model {name[:80]!r}: GET /v1/models lists those that you may use.")
    return OpenAIModelBody(id=name, created=found.mtime_ns // _NANOSECONDS)
