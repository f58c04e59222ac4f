"""Types of the fields of parameters: what JSON can hold of each, and what its values name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from shared.params import paths
from shared.params.facts import Fact, Takes, ValueKind

Metadata = TypeVar("Metadata")

RANDOM_SEED: Final = -1
MAX_ID: Final = 2**63 - 1  # PostgreSQL's bigint
MAX_SEED: Final = 2**64 - 1  # the largest that programs give; JSON keeps it exactly, though JavaScript does not
NATIVE_SIZE: Final = 0
AUTOMATIC_VAE: Final = "automatic"
SOURCE: Final = "img2img.picture"
MASK: Final = "img2img.mask.picture"
"""The dotted names of the fields that name the pictures a render starts from."""
OF_ONE: Final = (0, 1, 0.05)
OF_TWO: Final = (0, 2, 0.05)
"""The sliders of a share, and of a strength whose usual value is 1."""

Emphasis = Literal["Original", "No norm", "Ignore", "None"]
NoiseSource = Literal["CPU", "NV"]
Tiling = Literal["none", "both", "x", "y"]
FileFormat = Literal["png", "jpeg", "webp"]
ResizeMode = Literal["resize", "crop", "fill", "latent"]
MaskedContent = Literal["fill", "original", "latent noise", "latent nothing"]
MaskArea = Literal["whole picture", "only masked"]
NewContent = Literal["fill", "edge", "mirror", "latent noise"]


def checked_text(text: str) -> str:
    """Return a text that PostgreSQL and UTF-8 can hold. Raises ValueError."""
    if "\x00" in text:
        raise ValueError("holds a NUL character, which no text may hold")
    if not text.isascii() and any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        raise ValueError("holds half of a character (a lone surrogate)")
    return text


Text = Annotated[str, AfterValidator(checked_text)]
Prompt = Annotated[Text, Takes("prompt")]
StyleName = Annotated[Text, Takes("style")]
SamplerName = Annotated[Text, Takes("sampler")]
ScheduleName = Annotated[Text, Takes("schedule")]
UpscalerName = Annotated[Text, Takes("upscaler")]
CheckpointName = Annotated[Text, Takes("checkpoint")]
VaeName = Annotated[Text, Takes("vae")]
ControlNetName = Annotated[Text, Takes("controlnet")]
IPAdapterName = Annotated[Text, Takes("ip-adapter")]
ImageEncoderName = Annotated[Text, Takes("image-encoder")]
FaceRestorerName = Annotated[Text, Takes("face-restorer")]
SourcePicture = Annotated[Text, Takes("picture")]
Seed = Annotated[int, Field(ge=RANDOM_SEED, le=MAX_SEED), Takes("seed")]
Side = Annotated[int, Field(ge=0, multiple_of=8), Takes(least="min_size", most="max_size")]  # pixels
Extension = Annotated[int, Field(ge=0, le=2048, multiple_of=8)]  # pixels
Share = Annotated[float, Field(ge=0, le=1)]
ActsAfter = Annotated[Share, Fact("Share of the steps after which it begins", slider=OF_ONE)]
ActsUntil = Annotated[Share, Fact("Share of the steps after which it ends", slider=OF_ONE)]
Strength = Annotated[float, Field(ge=0, le=2)]
Positive = Annotated[float, Field(ge=0)]
Sigma = Annotated[float, Field(ge=0, le=10_000)]  # standard deviation of the noise, or an amount of that order


class Parameters(BaseModel):
    """A group of parameters: frozen, strict, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the JSON Schema, each field described by its fact."""
        described = handler(schema)
        properties = handler.resolve_ref_schema(described).get("properties", {})
        for name, field in cls.model_fields.items():
            if fact := metadata(field, Fact):
                properties[name]["description"] = fact.description
        return described

    def of_kind(self, kind: ValueKind) -> dict[str, Any]:
        """Return the values of this kind by dotted path, in this group, in its lists, and in all groups within."""
        return {paths.dotted(path): value for path, value in _of_kind(self, kind)}


def metadata(field: FieldInfo, kind: type[Metadata]) -> Metadata | None:
    """Return what the annotation of a field holds of this kind, the outermost one; None if there is none."""
    found = [one for one in (*_within(field.annotation), *field.metadata) if isinstance(one, kind)]
    return found[-1] if found else None


def _of_kind(group: Parameters, kind: ValueKind) -> Iterator[tuple[paths.Path, Any]]:
    for name, is_of_kind in _fields(type(group), kind).items():
        value = getattr(group, name)
        if is_of_kind and isinstance(value, tuple):
            yield from (((name, at), item) for at, item in enumerate(value))
        elif is_of_kind:
            yield (name,), value
        elif isinstance(value, Parameters):
            yield from (((name, *path), inner) for path, inner in _of_kind(value, kind))
        elif isinstance(value, tuple):
            items = [(at, item) for at, item in enumerate(value) if isinstance(item, Parameters)]
            yield from (((name, at, *path), inner) for at, item in items for path, inner in _of_kind(item, kind))


@cache
def _fields(model: type[Parameters], kind: ValueKind) -> dict[str, bool]:
    """Return the fields that are of this kind (True), or groups and lists of groups with such fields (False)."""
    found: dict[str, bool] = {}
    for name, field in model.model_fields.items():
        if (takes := metadata(field, Takes)) and takes.kind == kind:
            found[name] = True
        elif any(_fields(group, kind) for group in _groups(field.annotation)):
            found[name] = False
    return found


def _groups(annotation: Any) -> Iterator[type[Parameters]]:  # noqa: ANN401 - a type
    """Yield the groups that a field may hold: alone, in a union or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, Parameters):
        yield annotation
    for inner in get_args(annotation):
        yield from _groups(inner)


def _within(annotation: Any) -> Iterator[object]:  # noqa: ANN401 - a type
    """Yield the metadata inside a union or a list."""
    for inner in get_args(annotation):
        yield from _within(inner)
    yield from getattr(annotation, "__metadata__", ())
