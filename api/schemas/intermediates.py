"""Bodies of how a picture was made."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from api.schemas.jobs import API


class TokenBody(BaseModel):
    """What a text encoder reads at one place."""

    id: int | None = Field(description="CLIP's number of it; null for a vector that an embedding teaches.")
    text: str
    weight: float


class PromptPartBody(BaseModel):
    """One of the prompts that AND joins."""

    weight: float
    chunks: list[list[TokenBody]] = Field(description="Tokens in chunks of at most 75, without their start and end.")


class StageBody(BaseModel):
    """One step."""

    step: int = Field(description="From 1.")
    steps: int
    sigma: float = Field(description="How much noise the latent has: the deviation.")
    second_pass: bool


class GuidanceBody(BaseModel):
    """The step at which the picture was asked for with the prompt and without it."""

    step: int
    sigma: float
    gain: float = Field(description="How many times larger the difference is shown than it is.")


class IntermediatesLinks(BaseModel):
    """Links to the pictures of how an image was made; null for one that was not kept."""

    noise: str = Field(description="The first latent: a block for each of its cells.")
    latents: str | None = Field(description="The latent at each of `steps`, and below it what was expected of it.")
    guidance: str | None = Field(description="Expected with the prompt, without it, and the difference around grey.")
    picture: str


class Kept(BaseModel):
    """How a picture was made, as it is stored."""

    start: tuple[int, int] = Field(description="Width and height of the latent in cells.")
    steps: list[StageBody]
    guidance: GuidanceBody | None = Field(description="Null if it was rendered without guidance.")
    prompt: list[PromptPartBody] = Field(description="The tokens that it begins with.")
    negative_prompt: list[PromptPartBody]


class IntermediatesBody(Kept):
    """How a picture was made."""

    links: IntermediatesLinks

    @classmethod
    def of(cls, stored: bytes, job_id: int, index: int, picture: str) -> Self:
        """Return the body of what is stored for an image. Raises ValidationError."""
        kept = Kept.model_validate_json(stored)
        here = f"{API}/jobs/{job_id}/images/{index}"
        links = IntermediatesLinks(
            noise=f"{here}/noise.webp",
            latents=f"{here}/latents.webp" if kept.steps else None,
            guidance=f"{here}/guidance.webp" if kept.guidance else None,
            picture=picture,
        )
        return cls(**dict(kept), links=links)
