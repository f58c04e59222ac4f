"""The facts of one parameter beside its type and its default. Form, command line, documentation and the text in
pictures are made from these facts.

A fact stands in the annotation of its field: `steps: Annotated[int, Field(ge=1), Fact("Denoising steps")] = 20`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from shared.params.codecs import Codec

ValueKind = Literal[
    "prompt", "style", "sampler", "schedule", "upscaler", "checkpoint", "vae", "controlnet", "ip-adapter",
    "image-encoder", "face-restorer", "picture", "seed", "pool", "instant", "job", "jobs", "address",
]  # fmt: skip
"""What a value names or is, where its JSON type says too little."""


@dataclass(frozen=True)
class Group:
    """A section of the form, of the command line's help and of the parameters that a job's page lists.

    Fields stand in the order of the model, those in `order` before the others.
    """

    name: str
    title: str
    summary: str = ""
    order: tuple[str, ...] = ()


EVERYDAY: Final = Group(
    "everyday",
    "Settings",
    order=(
        *("prompt", "negative_prompt", "styles", "checkpoint", "width", "height"),
        *("sampler", "schedule", "steps", "cfg_scale", "seed", "count"),
    ),
)
IMG2IMG: Final = Group(
    "img2img",
    "img2img & inpainting",
    "start from a picture, or repaint a part of one",
    order=tuple(
        f"img2img.{name}"
        for name in (
            *("picture", "denoising", "resize_mode", "extra_noise", "noise_multiplier", "exact_steps"),
            *("color_correction", "mask.picture", "mask.content", "mask.area", "mask.padding", "mask.blur"),
            *("mask.weight", "mask.soft", "mask.invert"),
            *("outpaint.left", "outpaint.right", "outpaint.top", "outpaint.bottom"),
            *("outpaint.feather", "outpaint.content"),
        )
    ),
)
HIRES: Final = Group(
    "hires",
    "Hires",
    "a second pass at a larger size",
    order=tuple(
        f"hires.{name}"
        for name in (
            *("scale", "width", "height", "upscaler", "denoising", "steps", "sampler", "schedule", "checkpoint"),
            *("prompt", "negative_prompt"),
        )
    ),
)
FACES: Final = Group("faces", "Restore faces", "sharpen the faces of the finished picture")
CONTROLNET: Final = Group("controlnet", "ControlNet", "follow the edges, depths or poses of a picture")
IP_ADAPTER: Final = Group("ip-adapter", "IP-Adapter", "follow what pictures show, and their style")
SAMPLING: Final = Group("sampling", "Sampling options", "eta, churn, the range of sigmas")
GUIDANCE: Final = Group("guidance", "Guidance", "emphasis, clip skip, guiding less")
NOISE: Final = Group("noise", "Noise & variation", "a picture close to another seed's, seeds of other programs")
REFINER: Final = Group(
    "refiner",
    "Refiner & VAE",
    "a second checkpoint for the end, another decoder",
    order=("refiner.checkpoint", "refiner.switch_at"),
)
SDXL: Final = Group(
    "sdxl",
    "SDXL",
    "original size, crop, target size, clip skip",
    order=tuple(f"{name}.{side}" for name in ("original_size", "target_size") for side in ("width", "height")),
)
OUTPUT: Final = Group(
    "output",
    "Output",
    "file format, film, seamless tiles, exactness",
    order=("format", "file_quality", "film", "intermediates", "tiling", "exact"),
)
QUEUE: Final = Group("queue", "Queue", "which workers, and what goes first")
WHEN: Final = Group("when", "When", "a deadline, or a reason to wait")

GROUPS: Final = (
    EVERYDAY,
    IMG2IMG,
    CONTROLNET,
    IP_ADAPTER,
    HIRES,
    FACES,
    SAMPLING,
    GUIDANCE,
    NOISE,
    REFINER,
    SDXL,
    OUTPUT,
    QUEUE,
    WHEN,
)
"""Every group, in the order in which people see them."""


@dataclass(frozen=True)
class Option:
    """An option of `farm render`; a name without dashes is a positional argument.

    `beside` names fields of the same group that the option sets together with this one, `codec` reads them all. `sets`
    is what a flag sets where that is not true.
    """

    name: str
    help: str = ""  # where the command line has more to say than the parameter itself
    metavar: str = ""
    sets: object = True
    beside: tuple[str, ...] = ()
    codec: Codec | None = None

    @property
    def is_argument(self) -> bool:
        """True for what is given by its position."""
        return not self.name.startswith("-")


@dataclass(frozen=True)
class Key:
    """A name in the text that pictures carry, under which the field is written and read.

    Without a codec of its own the field's type tells how. `beside` names fields of the same group that are written
    together with this one. Unless it is written always, a key is left out where its fields have their defaults.
    """

    name: str
    codec: Codec | None = None
    beside: tuple[str, ...] = ()
    is_always: bool = False
    is_sign: bool = False  # of an optional group, that it was used; the key of a required field always is
    applies: Callable[[Any], bool] = lambda _: True  # to these parameters


@dataclass(frozen=True)
class Takes:
    """Metadata of a field's type: what its values name, and which of the farm's limits bound them."""

    kind: ValueKind | None = None
    role: str = ""  # of a model file, in the job's `ModelSet`
    least: str = ""  # names of fields of `Limits`
    most: str = ""


@dataclass(frozen=True, eq=False)
class Fact:
    """The facts of one field; `help` is a sentence without its full stop."""

    help: str
    means: Mapping[Any, str] = field(default_factory=dict)  # what single values stand for
    label: str = ""  # else the field's name
    group: Group | None = None  # else that of the group of fields around it
    placeholder: str = ""  # in an empty box; else what its default means
    slider: tuple[float, float, float] | None = None  # lowest, highest, step: of a number that people try out
    labels: Mapping[Any, str] = field(default_factory=dict)  # of choices
    option: Option | None = None
    keys: tuple[Key, ...] = ()
    architectures: Mapping[str, str] = field(default_factory=dict)
    """Those whose pictures it changes, each with the name of the flag that it needs there, if any; empty: all."""
    is_listed: bool = False  # on a job's page even at its default, where its group is used
    more: str = ""  # an explanation for beginners, below the form

    @property
    def description(self) -> str:
        """What the field is, and what single values of it mean."""
        return "; ".join([self.help, *(f"{_word(value)}: {meaning}" for value, meaning in self.means.items())]) + "."

    def hint(self, default: object) -> str:
        """Return the description for the form, where a box is left empty for a default that stands for something."""
        words = {value: "empty" if value == default and is_blank(value) else _word(value) for value in self.means}
        return "; ".join([self.help, *(f"{words[value]}: {meaning}" for value, meaning in self.means.items())]) + "."


def is_blank(default: object) -> bool:
    """True for a default that a form shows as an empty box, if it has a meaning of its own."""
    return default is None or default in ("", 0)


def _word(value: object) -> str:
    return {None: "null", "": "empty"}.get(value, str(value))  # type: ignore[call-overload, no-any-return]
