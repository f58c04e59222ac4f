"""`RenderParams`: what a person asked for. Frozen, validated once at the door, stored and rendered as it is."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shared.params.samplers import AUTOMATIC, SAMPLERS

RANDOM_SEED: Final = -1
MAX_SEED: Final = 2**64 - 1  # the largest that programs give; JSON keeps it exactly, though JavaScript does not
NATIVE_SIZE: Final = 0
AUTOMATIC_VAE: Final = "automatic"
BUILT_IN_VAE: Final = "none"

Emphasis = Literal["Original", "No norm", "Ignore", "None"]
NoiseSource = Literal["CPU", "NV"]
Tiling = Literal["none", "both", "x", "y"]
FileFormat = Literal["png", "jpeg", "webp"]
ResizeMode = Literal["resize", "crop", "fill", "latent"]
MaskedContent = Literal["fill", "original", "latent noise", "latent nothing"]
MaskArea = Literal["whole picture", "only masked"]


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("holds a NUL character, which no text may hold")
    if any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        raise ValueError("holds half of a character (a lone surrogate)")
    return text


Text = Annotated[str, AfterValidator(_storable)]
Seed = Annotated[int, Field(ge=RANDOM_SEED, le=MAX_SEED)]
Side = Annotated[int, Field(ge=0, multiple_of=8)]  # pixels
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(ge=0)]
Sigma = Annotated[float, Field(ge=0, le=10_000)]  # standard deviation of the noise, or an amount of that order


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Sampling(_Frozen):
    """What few people touch of samplers and schedules; a sampler that has no use for an option takes none."""

    eta: Share | None = Field(
        None, description="Share of noise put back at each step; none: 1, for DDIM and DDIM CFG++ 0."
    )
    s_churn: Positive = Field(0.0, le=1000, description="Noise added before each step (Euler, Heun, DPM2).")
    s_tmin: Sigma = Field(0.0, description="Churn only above this sigma.")
    s_tmax: Sigma = Field(0.0, description="Churn only below this sigma; 0: no bound.")
    s_noise: Positive = Field(1.0, le=10, description="Strength of the noise that is put back.")
    sigma_min: Sigma = Field(0.0, description="Lowest sigma of the schedule; 0: the checkpoint's.")
    sigma_max: Sigma = Field(0.0, description="Highest sigma of the schedule; 0: the checkpoint's.")
    rho: Positive = Field(
        0.0, le=100, description="Bend of Karras and Polyexponential schedules; 0: their own, 7 and 1."
    )
    discard_next_to_last_sigma: bool | None = Field(
        None, description="Leave out the last sigma but one; none: the sampler's own way."
    )
    zero_terminal_snr: bool = Field(False, description="Rescale the sigmas so that the first step sees noise alone.")


class Guidance(_Frozen):
    """Ways to guide less, or less harshly."""

    rescale: Share = Field(
        0.0, description="Bring the guided prediction's contrast back to the prompt's (CFG rescale)."
    )
    skip_below_sigma: Sigma = Field(
        0.0, description="Leave the negative prompt out of every other step below this sigma (NGMS)."
    )
    skip_all_steps: bool = Field(False, description="NGMS at every step, not at every other one.")
    skip_early: Share = Field(0.0, description="Leave the negative prompt out of this first share of the steps.")


class Noise(_Frozen):
    """Where a picture's noise comes from."""

    source: NoiseSource = Field(
        "CPU", description="CPU: torch's generator on the host; NV: the portable imitation of a CUDA card's."
    )
    variation_seed: Seed = Field(
        RANDOM_SEED, description="Second seed to lean towards; image i uses it + i; -1: random."
    )
    variation_strength: Share = Field(
        0.0, description="How far to lean to the variation seed; all images then share the first seed."
    )
    resize_width: Side = Field(0, description="Width whose picture of this seed to keep at another size; 0: none.")
    resize_height: Side = Field(0, description="Height whose picture of this seed to keep at another size; 0: none.")
    eta_seed_delta: int = Field(
        0, ge=-MAX_SEED, le=MAX_SEED, description="Added to the seed for all noise after the first (ENSD)."
    )


class Refiner(_Frozen):
    """A second checkpoint that takes over on the way."""

    checkpoint: Text = Field(description="Name or hash of the checkpoint that takes over.")
    switch_at: Share = Field(0.8, description="Share of the noise's way down after which it takes over.")


class Hires(_Frozen):
    """A second pass at a larger size over what the first pass made."""

    scale: float = Field(2.0, ge=1, le=8, description="Factor of both sides, where width and height are 0.")
    width: Side = Field(0, description="Target width; 0: by the scale, or by the height's.")
    height: Side = Field(0, description="Target height; 0: by the scale, or by the width's.")
    steps: int = Field(0, ge=0, description="Steps of the second pass; 0: as the first.")
    denoising: Share = Field(0.7, description="How much of the first pass is painted anew.")
    upscaler: Text = Field("Latent", description="What enlarges the picture in between.")
    sampler: Text = Field("", description="Sampler of the second pass; empty: as the first.")
    schedule: Text = Field("", description="Schedule of the second pass; empty: as the first.")
    prompt: Text = Field("", description="Prompt of the second pass; empty: as the first.")
    negative_prompt: Text = Field("", description="Negative prompt of the second pass; empty: as the first.")
    checkpoint: Text = Field("", description="Checkpoint of the second pass; empty: as the first.")


class Mask(_Frozen):
    """Which part of the source picture is painted anew."""

    picture: Text = Field(description="Upload, or data URL: white, or opaque where it has alpha, is painted anew.")
    blur: Positive = Field(4.0, le=64, description="Radius of the mask's soft edge in pixels.")
    invert: bool = Field(False, description="Paint anew what the mask leaves out.")
    content: MaskedContent = Field("original", description="What the masked part starts from.")
    area: MaskArea = Field(
        "whole picture", description="Render the whole picture, or only the masked part at full size."
    )
    padding: int = Field(32, ge=0, le=512, description="Pixels around the masked part that are rendered with it.")
    weight: Share = Field(1.0, description="How much an inpainting checkpoint sees of the mask.")
    soft: bool = Field(False, description="Blend by how much changed, with the mask as strength (soft inpainting).")


class Img2Img(_Frozen):
    """A picture to start from instead of noise alone."""

    picture: Text = Field(description="Upload (its SHA-256), or a data URL.")
    denoising: Share = Field(0.75, description="How much is painted anew: 0 keeps the picture, 1 all but forgets it.")
    resize_mode: ResizeMode = Field("resize", description="How the picture is brought to the size of the result.")
    exact_steps: bool = Field(False, description="Run as many steps as asked, whatever the denoising strength.")
    extra_noise: Share = Field(0.0, description="Noise added on top of the sampler's.")
    noise_multiplier: float = Field(1.0, ge=0, le=1.5, description="Factor of the first noise.")
    color_correction: bool = Field(False, description="Give the result the source's colours.")
    mask: Mask | None = Field(None, description="Inpainting: what part to paint anew.")


class RenderParams(_Frozen):
    """The complete parameters of a job, or of one image of it (`image`).

    `checkpoint` is what the person named (a name, a hash) until the door resolves it to `name [short hash]`; so are
    `seed` -1 (random), a size of 0 (the checkpoint's own), and styles, which the door writes into the prompts. What is
    stored and rendered is always resolved.
    """

    prompt: Text = Field("", description="What the picture shows.")
    negative_prompt: Text = Field("", description="What the picture should not show.")
    styles: tuple[Text, ...] = Field(
        (), strict=False, max_length=32, description="Names of styles whose texts join the prompts."
    )
    emphasis: Emphasis = Field("Original", description="How (words:1.2) weigh; None: brackets are plain text.")
    checkpoint: Text = Field("", description="Name or hash of the checkpoint; empty: the farm's own choice.")
    vae: Text = Field(
        AUTOMATIC_VAE, description="VAE file; automatic: one beside the checkpoint, if any; none: built in."
    )
    clip_skip: int = Field(1, ge=1, le=12, description="Layer of the text encoder to read, from the end; 1: the last.")
    width: Side = Field(NATIVE_SIZE, description="Pixels; 0: the checkpoint's own size.")
    height: Side = Field(NATIVE_SIZE, description="Pixels; 0: the checkpoint's own size.")
    steps: int = Field(20, ge=1, description="Denoising steps.")
    cfg_scale: Positive = Field(7.0, description="How strongly the prompt guides; 1 renders without guidance.")
    sampler: Text = Field("Euler a", description="Name of the sampler.")
    schedule: Text = Field(AUTOMATIC, description="Noise schedule; automatic: the sampler's own.")
    seed: Seed = Field(RANDOM_SEED, description="Start of the noise; image i uses seed + i; -1: random.")
    count: int = Field(1, ge=1, description="How many images.")
    exact: bool = Field(False, description="Share no card call with other images: bit-identical on one kind of card.")
    tiling: Tiling = Field("none", description="Edges that continue on the other side: a pattern without seams.")
    film: bool = Field(False, description="Keep the picture's steps as an animation and a strip.")
    format: FileFormat = Field("png", description="File format of the pictures.")
    sampling: Sampling = Field(Sampling(), description="Options of samplers and schedules.")
    guidance: Guidance = Field(Guidance(), description="Options of guidance.")
    noise: Noise = Field(Noise(), description="Where the noise comes from.")
    refiner: Refiner | None = Field(None, description="A second checkpoint that takes over on the way.")
    hires: Hires | None = Field(None, description="A second pass at a larger size.")
    img2img: Img2Img | None = Field(None, description="A picture to start from.")

    @property
    def rows(self) -> int:
        """Rows of the card that one denoising step of one image takes, before AND parts."""
        needs_both = self.sampler in SAMPLERS and SAMPLERS[self.sampler].needs_unconditional
        return 2 if needs_both or self.cfg_scale not in {0, 1} else 1  # at 0 the negative prompt guides alone

    @property
    def pictures(self) -> tuple[str, ...]:
        """The pictures that a render starts from: source, then mask; once resolved each is an upload's SHA-256."""
        if self.img2img is None:
            return ()
        mask = self.img2img.mask
        return (self.img2img.picture,) if mask is None else (self.img2img.picture, mask.picture)

    def image(self, index: int) -> Self:
        """Return the parameters of image `index` alone: what the engine, the PNG and the client see.

        Seeds count up; with a variation strength the variation seed does, and all images share the first seed.
        """
        if self.noise.variation_strength == 0:
            return self.model_copy(update={"seed": self.seed + index, "count": 1})
        noise = self.noise.model_copy(update={"variation_seed": self.noise.variation_seed + index})
        return self.model_copy(update={"noise": noise, "count": 1})

    @classmethod
    def from_stored(cls, stored: dict[str, Any]) -> Self:
        """Return parameters as a job row holds them: what is not there has its default. Raises ValidationError.

        Only what differs from the defaults is stored, so a default never changes: a new meaning gets a new field.
        """
        return cls.model_validate(stored)
