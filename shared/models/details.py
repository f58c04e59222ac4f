"""Details in the content of a model file, beside its kind and architecture, as the catalogue holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.quantities import counted

MOST_WORDS: Final = 32
_LONGEST: Final = 120  # characters of a text, which people or their programs wrote into the file
_SHOWN: Final = 5  # trigger words in a line
_MOST: Final = 64  # values of a list or an object
_DEEPEST: Final = 3

Count = Annotated[int, Field(gt=0)]


class Details(BaseModel):
    """The details of one model file. Other versions of the farm may know more of them, or fewer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    form: Literal["rows", "merged", "plain", "plus", "full"] | None = Field(
        default=None,
        description="Of a LoRA: applied image by image (rows), or merged into a copy of the checkpoint. Of an "
        "IP-Adapter: what makes its tokens of a picture.",
    )
    algorithm: str | None = Field(
        default=None, description="For people, of a LoRA (LoRA, LoCon, LoHa, …) or an upscaler (ESRGAN, SwinIR, …)."
    )
    rank: Count | None = Field(default=None, description="Largest rank of a LoRA.")
    trigger_words: tuple[str, ...] = Field(default=(), description="What it was trained on, the commonest first.")
    alias: str | None = Field(default=None, description="Another name, from its metadata.")
    short_hash: str | None = Field(default=None, description="The hash that pictures of other programs name.")
    vectors: dict[str, Count] = Field(default={}, description="Vectors of an embedding by text encoder.")
    scale: Count | None = Field(default=None, description="How much larger an upscaler makes a picture.")
    width: Count | None = Field(default=None, description="Channels of the U-Net's first level.")
    context: Count | None = Field(default=None, description="Width of the text that the U-Net reads.")
    types: Count | None = Field(default=None, description="Kinds of pictures that a union ControlNet tells apart.")
    image_features: Literal["projected", "hidden"] | None = Field(
        default=None,
        description="What an IP-Adapter reads of an image encoder: its result, or the layer before the last.",
    )
    image_width: Count | None = Field(default=None, description="Width of the image features that an IP-Adapter reads.")
    tokens: Count | None = Field(
        default=None,
        description="Tokens that an IP-Adapter makes of a picture; not there if the image encoder decides it.",
    )
    projected: Count | None = Field(default=None, description="Width of an image encoder's result.")
    hidden: Count | None = Field(default=None, description="Width of an image encoder's layers.")

    def words(self, name: str) -> str:
        """What people see of it in a line beside the file's name: `LoCon, rank 8, also called Ink; ink, wash`."""
        has_other_name = self.alias and self.alias.casefold() != name.casefold()
        facts = (
            self.algorithm,
            f"rank {self.rank}" if self.rank else None,
            counted(max(self.vectors.values()), "vector") if self.vectors else None,
            f"x{self.scale}" if self.scale else None,
            f"{self.form}, for image features of width {self.image_width}" if self.image_width else None,
            f"{counted(self.tokens, 'token')} of a picture" if self.tokens else None,
            f"image features of widths {self.projected} and {self.hidden}" if self.projected and self.hidden else None,
            f"also called {self.alias}" if has_other_name else None,
        )
        return "; ".join(filter(None, (", ".join(filter(None, facts)), ", ".join(self.trigger_words[:_SHOWN]))))

    @classmethod
    def read(cls, stored: object) -> Self:
        """Return the details that the catalogue holds, without values that this version does not understand."""
        known = dict(stored) if isinstance(stored, Mapping) else {}
        try:
            return cls.model_validate(known)
        except ValidationError as error:
            bad = {problem["loc"][0] for problem in error.errors(include_url=False)}
            return cls.model_validate({name: value for name, value in known.items() if name not in bad})


def recorded(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return details as the catalogue can hold them: bounded, of finite numbers and of text without control characters.

    The texts come from model files, whose authors wrote what they liked.
    """
    found = _cleaned(details)
    if isinstance(words := found.get("trigger_words"), list):
        found["trigger_words"] = list(dict.fromkeys(word for word in words if word))[:MOST_WORDS]
    return {name: value for name, value in found.items() if value not in (None, "", [], {})}


def _cleaned(value: Any, depth: int = 0) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        text = value[: 2 * _LONGEST].encode(errors="ignore").decode()
        printable = "".join(letter if letter.isprintable() else " " for letter in text)
        return " ".join(printable.split())[:_LONGEST].strip()
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return {_cleaned(str(name)): _cleaned(one, depth + 1) for name, one in [*value.items()][:_MOST]}
    if isinstance(value, list | tuple) and depth < _DEEPEST:
        return [_cleaned(one, depth + 1) for one in value[:_MOST]]
    is_number = isinstance(value, int | float) and abs(value) < 1e15 and math.isfinite(value)
    return value if is_number else None
