"""Pictures as clients of OpenAI's Images API read them: in one answer, or as events while they are made."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Final, Self

from pydantic import BaseModel, Field

from api.compat.openai.request import Quality, Wanted
from api.schemas.jobs import ImageBody, JobBody
from api.services import Services
from api.use_cases import catalogue, images, jobs
from shared.accounts.principal import Principal
from shared.db.states import ImageState

BACKGROUND: Final = "opaque"


class Tokens(BaseModel):
    """Tokens by what they stand for."""

    text_tokens: int
    image_tokens: int = 0


class Usage(BaseModel):
    """The work that pictures took. The farm's models have tokens of text alone."""

    input_tokens: int = Field(description="Of the prompt and the negative prompt.")
    output_tokens: int = 0
    total_tokens: int
    input_tokens_details: Tokens
    output_tokens_details: Tokens = Tokens(text_tokens=0)
    images: int = Field(description="Pictures that were rendered.")
    steps: int = Field(description="Their denoising steps together.")
    seconds: float = Field(description="The seconds that they took together, from start to end.")


class Picture(BaseModel):
    """One picture."""

    b64_json: str = Field(description="The file, in base64.")
    url: str | None = Field(None, description="A link to it, if asked for; it needs the same key.")
    seed: int


class ImagesBody(BaseModel):
    """Rendered pictures. Those that failed are left out."""

    created: int = Field(description="Seconds since 1970.")
    model: str = Field(description="The checkpoint that rendered them, whatever was asked for.")
    background: str
    output_format: str
    quality: Quality | None = Field(description="Null where the steps were given.")
    size: str
    usage: Usage
    data: list[Picture]


class PartialImage(BaseModel):
    """An event: a preview of a picture, a small WebP."""

    type: str
    b64_json: str
    partial_image_index: int
    index: int = Field(description="Which of the pictures.")
    model: str
    created_at: int
    size: str
    quality: str
    background: str
    output_format: str


class Completed(BaseModel):
    """An event: a picture is complete."""

    type: str
    b64_json: str
    index: int
    seed: int
    model: str
    created_at: int
    size: str
    quality: str
    background: str
    output_format: str
    usage: Usage


@dataclass(frozen=True)
class Rendered:
    """A job, seen by who asked for its pictures."""

    services: Services
    who: Principal
    wanted: Wanted
    job: JobBody

    @classmethod
    def find(cls, services: Services, who: Principal, wanted: Wanted, job_id: int) -> Self:
        """Return the job as it is now. Raises NotFound."""
        return cls(services, who, wanted, jobs.job(services, who, job_id))

    @cached_property
    def tokens(self) -> int:
        """The tokens of its prompts."""
        params = self.job.params
        given = params.model_dump(mode="json", include={"checkpoint", "steps", "sampler", "emphasis"})
        prompts = {"prompt": params.prompt}, {"negative_prompt": params.negative_prompt}
        return sum(catalogue.tokens(self.services, self.who, given | prompt).tokens for prompt in prompts)

    @property
    def succeeded(self) -> list[ImageBody]:
        """Its images that have pictures."""
        return [image for image in self.job.images if image.state == ImageState.SUCCEEDED.value and image.links.picture]

    def picture(self, image: ImageBody) -> str:
        """Return the file of an image in base64. Raises NotFound, StorageError."""
        stored = images.stored(self.services, self.who, self.job.id, image.index, "picture")
        return _base64(stored.read())

    def usage(self, of: Iterable[ImageBody]) -> Usage:
        """Return what some images took."""
        seconds = [image.seconds or 0.0 for image in of]
        return Usage(
            input_tokens=self.tokens,
            total_tokens=self.tokens,
            input_tokens_details=Tokens(text_tokens=self.tokens),
            images=len(seconds),
            steps=len(seconds) * self.job.params.steps,
            seconds=round(sum(seconds), 3),
        )

    def said(self) -> dict[str, Any]:
        """Return what the answer and each event say about the pictures."""
        params = self.job.params
        return {
            "model": params.checkpoint,
            "size": f"{params.width}x{params.height}",
            "background": BACKGROUND,
            "output_format": params.format,
        }

    def again(self) -> Self:
        """Return the same job as it is now. Raises NotFound."""
        return self.find(self.services, self.who, self.wanted, self.job.id)

    def preview(self, index: int) -> bytes | None:
        """Return the latest preview of a running image; None if there is none."""
        return self.services.events.preview(self.job.id, index)

    def partial(self, index: int, number: int, preview: bytes) -> PartialImage:
        """Return the event of a preview, which is number `number` of its picture."""
        said = self._said_of_event("partial_image") | {"output_format": "webp"}
        return PartialImage(b64_json=_base64(preview), partial_image_index=number, index=index, **said)

    def completed(self, image: ImageBody) -> Completed:
        """Return the event of a complete picture. Raises NotFound, StorageError."""
        said = self._said_of_event("completed")
        return Completed(
            b64_json=self.picture(image), index=image.index, seed=image.seed, usage=self.usage([image]), **said
        )

    def _said_of_event(self, kind: str) -> dict[str, Any]:
        quality = self.wanted.quality or "auto"
        return self.said() | {"type": f"{self.wanted.kind}.{kind}", "quality": quality, "created_at": int(time.time())}

    def body(self, root: str) -> Iterator[str]:
        """Return the JSON of an `ImagesBody` in parts, each picture read when it is needed; links begin with `root`.

        Raises NotFound, StorageError before the first part.
        """
        pictures = self._pictures(root)
        head = {
            "created": int(self.job.created_at.timestamp()),
            **self.said(),
            "quality": self.wanted.quality,
            "usage": self.usage(self.succeeded).model_dump(),
        }
        return chain([json.dumps(head)[:-1], ', "data": [', next(pictures)], pictures, ["]}"])

    def _pictures(self, root: str) -> Iterator[str]:
        for number, image in enumerate(self.succeeded):
            url = f"{root}{image.links.picture}" if self.wanted.with_links else None
            one = Picture(b64_json=self.picture(image), url=url, seed=image.seed)
            yield (", " if number else "") + one.model_dump_json(exclude_none=True)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
