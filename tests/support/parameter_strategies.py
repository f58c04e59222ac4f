"""Random parameters as admission lets them through: every field, resolved, of one image."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from shared.params.fields import MAX_SEED
from shared.params.render import RenderParams
from shared.params.samplers import SAMPLERS
from shared.params.upscalers import UPSCALERS
from shared.prompts.extra_networks import networks

words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=60)
prompts = (
    words
    | st.lists(words, max_size=4).map("\n".join)
    | st.sampled_from(["a cat, (red:1.2)", "x\nNegative prompt: y", "Steps: 1, Seed: 2, Size: 8x8", " padded ", "\n"])
).filter(lambda text: not networks(text))  # refused at admission
names = words.filter(lambda name: name and not name.isspace())
hashes = st.text("0123456789abcdef", min_size=10, max_size=10)
titles = st.builds("{} [{}]".format, names, hashes)
pictures = st.text("0123456789abcdef", min_size=64, max_size=64)
sides = st.integers(8, 256).map(lambda cells: 8 * cells)
sides_or_none = st.just(0) | sides
shares = st.floats(0, 1)
sigmas = st.floats(0, 100)
flags = st.booleans()


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the fields: the others have their defaults."""
    return st.fixed_dictionaries({}, optional=fields)


@st.composite
def scheduled(draw: st.DrawFn) -> dict[str, str]:
    """A sampler, and a schedule that it takes."""
    sampler = draw(st.sampled_from(sorted(SAMPLERS)))
    return {"sampler": sampler, "schedule": draw(st.sampled_from(SAMPLERS[sampler].schedules))}


mask = st.builds(
    lambda picture, rest: {"picture": picture} | rest,
    pictures,
    some(
        blur=st.floats(0, 64), invert=flags, padding=st.integers(0, 512), weight=shares, soft=flags,
        content=st.sampled_from(["fill", "original", "latent noise", "latent nothing"]),
        area=st.sampled_from(["whole picture", "only masked"]),
    ),
)  # fmt: skip
img2img = st.builds(
    lambda picture, rest: {"img2img": {"picture": picture} | rest},
    pictures,
    some(
        denoising=shares, exact_steps=flags, extra_noise=shares, noise_multiplier=st.floats(0, 1.5), mask=mask,
        color_correction=flags, resize_mode=st.sampled_from(["resize", "crop", "fill", "latent"]),
    ),
)  # fmt: skip
hires = st.builds(
    lambda rest, schedule: {"hires": rest | schedule},
    some(
        scale=st.floats(1, 8), width=sides_or_none, height=sides_or_none, steps=st.integers(0, 150), denoising=shares,
        upscaler=st.sampled_from(UPSCALERS), prompt=prompts, negative_prompt=prompts, checkpoint=titles,
    ),
    st.just({}) | scheduled(),
)  # fmt: skip
known_sizes = st.fixed_dictionaries({"width": st.integers(1, 8192), "height": st.integers(1, 8192)})
parts = some(
    noise=some(
        source=st.sampled_from(["CPU", "NV"]), variation_seed=st.integers(-1, MAX_SEED), variation_strength=shares,
        resize_width=sides_or_none, resize_height=sides_or_none, eta_seed_delta=st.integers(-MAX_SEED, MAX_SEED),
    ),
    sampling=some(
        eta=st.none() | shares, s_churn=sigmas, s_tmin=sigmas, s_tmax=sigmas, s_noise=st.floats(0, 10),
        sigma_min=sigmas, sigma_max=sigmas, rho=sigmas, discard_next_to_last_sigma=st.none() | flags,
        zero_terminal_snr=flags,
    ),
    guidance=some(rescale=shares, skip_below_sigma=sigmas, skip_all_steps=flags, skip_early=shares),
    refiner=st.builds(lambda title, at: {"checkpoint": title, "switch_at": at}, titles, shares),
    vae=st.sampled_from(["automatic", "none"]) | titles,
    emphasis=st.sampled_from(["Original", "No norm", "Ignore", "None"]),
    clip_skip=st.integers(1, 12), exact=flags, film=flags, intermediates=flags,
    tiling=st.sampled_from(["none", "both", "x", "y"]),
    format=st.sampled_from(["png", "jpeg", "webp"]),
    original_size=known_sizes, target_size=known_sizes, sdxl_clip_l_skip=flags,
    faces=st.builds(lambda title, rest: {"restorer": title} | rest, titles, some(strength=shares, fidelity=shares)),
    crop=some(left=st.integers(0, 8192), top=st.integers(0, 8192)),
)  # fmt: skip
everyday = st.fixed_dictionaries(
    {
        "prompt": prompts, "negative_prompt": prompts, "checkpoint": titles, "width": sides, "height": sides,
        "steps": st.integers(1, 150), "cfg_scale": st.floats(0, 30), "seed": st.integers(0, MAX_SEED),
    }
)  # fmt: skip


def resolved() -> st.SearchStrategy[RenderParams]:
    """Return random parameters of one image, complete."""
    return st.builds(
        lambda *given: RenderParams(**{name: value for one in given for name, value in one.items()}),
        everyday,
        scheduled(),
        parts,
        st.just({}) | img2img | hires,
    )
