"""How a picture was made, as far as it is kept: its start, the tokens of the prompt, some steps, one guided call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from shared.media.arrays import Pixels


class Token(NamedTuple):
    """What a text encoder reads at one place."""

    id: int | None  # None: a vector that an embedding teaches
    text: str  # empty for such a vector; U+FFFD for a part of a character
    weight: float


class PromptPart(NamedTuple):
    """One of the prompts that AND joins, as it begins: chunks of at most 75 tokens, and its weight in the sum."""

    weight: float
    chunks: tuple[tuple[Token, ...], ...]


@dataclass(frozen=True, eq=False)
class Stage:
    """One step: the latent that went in, and the picture that the network then expected at the end."""

    step: int  # from 1
    steps: int
    sigma: float
    is_second_pass: bool
    latent: Pixels  # a pixel for each cell
    expected: Pixels


@dataclass(frozen=True, eq=False)
class Pull:
    """What the network expected at one step with the prompt, and with the negative prompt alone."""

    step: int
    sigma: float
    prompted: Pixels
    unprompted: Pixels


@dataclass(frozen=True, eq=False)
class Making:
    """How a picture was made."""

    start: Pixels  # the first latent, a pixel for each cell
    stages: tuple[Stage, ...]
    pull: Pull | None  # None: it was rendered without guidance
    prompt: tuple[PromptPart, ...]
    negative_prompt: tuple[PromptPart, ...]
