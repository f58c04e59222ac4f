"""Requests of clients of AUTOMATIC1111's web UI, with the values that it takes for fields that they leave out.

Fields that are not named here are left alone: clients send much that concerns a program on one card and no farm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared.admission.parse import refused
from shared.errors import FieldError
from shared.wording import message, spelled, wanted

Sent = TypeVar("Sent", bound=BaseModel)

MOST_IMAGES: Final = 64
"""Pictures that one request brings back: all of them are in memory at once."""
_MOST_ERRORS: Final = 50

Base64 = Annotated[str, Field(description="A picture in base64, with or without `data:image/png;base64,` before it.")]


class Body(BaseModel):
    """The JSON of a request; null stands for a field that was left out."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def without_nulls(cls, given: object) -> object:
        """Return what was given, without what says nothing."""
        return {name: one for name, one in given.items() if one is not None} if isinstance(given, Mapping) else given

    def has(self, name: str) -> bool:
        """Return whether the client said something about a field."""
        return name in self.model_fields_set


def needs(*fields: str) -> ConfigDict:
    """Return the configuration of a request that is refused without these fields, as the document then says.

    Their defaults are what is checked, and refused, where they are left out.
    """
    return ConfigDict(json_schema_extra={"required": [*fields]})


class Generation(Body):
    """What txt2img and img2img have in common."""

    prompt: str = ""
    negative_prompt: str = ""
    styles: tuple[str, ...] = ()
    seed: int = Field(-1, description="-1: a random one.")
    subseed: int = -1
    subseed_strength: float = 0
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    sampler_name: str = ""
    sampler_index: str = Field("Euler", description="The sampler, where `sampler_name` is empty.")
    scheduler: str = Field("", description="A schedule's name or label.")
    batch_size: int = Field(1, ge=1, le=MOST_IMAGES)
    n_iter: int = Field(
        1, ge=1, le=MOST_IMAGES, description=f"Times `batch_size` it is the number of pictures, {MOST_IMAGES} at most."
    )
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    restore_faces: bool = False
    tiling: bool = False
    eta: float = 1.0
    s_min_uncond: float = 0.0
    s_churn: float = 0.0
    s_tmax: float = 0.0
    s_tmin: float = 0.0
    s_noise: float = 1.0
    override_settings: dict[str, Any] = Field({}, description="Options for this request alone.")
    refiner_checkpoint: str = ""
    refiner_switch_at: float = 0.8
    disable_extra_networks: bool = False
    denoising_strength: float = 0.75
    script_name: str = Field("", description="`x/y/z plot` or `prompt matrix`.")
    script_args: list[Any] = []
    alwayson_scripts: dict[str, Any] = Field({}, description="`controlnet` with its units.")
    send_images: bool = True
    infotext: str = Field("", description="The text of a picture, for what the request says nothing about.")


class Txt2Img(Generation):
    """The request of txt2img."""

    denoising_strength: float = 0.7
    enable_hr: bool = False
    firstphase_width: int = 0
    firstphase_height: int = 0
    hr_scale: float = 2.0
    hr_upscaler: str = "Latent"
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    hr_checkpoint_name: str = ""
    hr_sampler_name: str = ""
    hr_scheduler: str = ""
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    firstpass_image: str = ""


class Img2ImgRequest(Generation):
    """The request of img2img."""

    model_config = needs("init_images")

    init_images: list[Base64] = Field([], min_length=1, max_length=1, description="One picture.", validate_default=True)
    resize_mode: int = Field(0, ge=0, le=3, description="0 stretch, 1 crop, 2 fill, 3 stretch the latent.")
    mask: Base64 = Field("", description="White, or opaque if it has alpha, is repainted.")
    latent_mask: Base64 = ""
    mask_blur: float = 4
    mask_blur_x: float = 4
    mask_blur_y: float = 4
    inpainting_fill: int = Field(0, ge=0, le=3, description="0 fill, 1 original, 2 latent noise, 3 latent nothing.")
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = 0
    inpainting_mask_invert: bool = False
    initial_noise_multiplier: float = 1.0


class Extras(Body):
    """How pictures are enlarged."""

    resize_mode: int = Field(0, ge=0, le=1, description="0 by a factor, 1 to a size.")
    gfpgan_visibility: float = 0
    codeformer_visibility: float = 0
    codeformer_weight: float = 0
    upscaling_resize: float = 2
    upscaling_resize_w: int = 512
    upscaling_resize_h: int = 512
    upscaler_1: str = "None"
    upscaler_2: str = "None"
    extras_upscaler_2_visibility: float = 0


class ExtraSingle(Extras):
    """The request of extra-single-image."""

    model_config = needs("image")

    image: Base64 = Field("", min_length=1, validate_default=True)


class Named(Body):
    """A picture of extra-batch-images."""

    model_config = needs("data")

    data: Base64 = Field("", min_length=1, validate_default=True)
    name: str = ""


class ExtraBatch(Extras):
    """The request of extra-batch-images."""

    model_config = needs("imageList")

    imageList: list[Named] = Field([], min_length=1, max_length=MOST_IMAGES, validate_default=True)  # noqa: N815 - as clients write it


class OnePicture(Body):
    """The request of png-info and of interrogate."""

    model_config = needs("image")

    image: Base64 = Field("", min_length=1, validate_default=True)


class Options(BaseModel):
    """Options by their names; null stands for an option's default."""

    model_config = ConfigDict(extra="allow", frozen=True)


def read(model: type[Sent], given: object) -> Sent:
    """Return what a client has sent. Raises Refused that names every field of a wrong form."""
    if not isinstance(given, Mapping):
        raise refused([FieldError("body", f"must be an object, not {spelled(given)}", "an object")])
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = error.errors(include_url=False)[:_MOST_ERRORS]
    raise refused(FieldError(".".join(map(str, one["loc"])), message(one), wanted(one)) for one in problems)
