"""`farm render` as people type it: its options, each the name of a parameter."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

Number = int | None
Amount = float | None
Text = str | None

_HOW: Final = "How it is made"
_LARGER: Final = "A second pass at a larger size"
_FROM: Final = "From a picture"
_MORE: Final = "Variations and the rest"
_WHEN: Final = "When"
_OUT: Final = "Where it goes"


def _option(section: str, text: str, *names: str, **more: Any) -> Any:  # noqa: ANN401 - typer's own
    return typer.Option(*names, help=text, rich_help_panel=section, **more)


def _file(text: str) -> Any:  # noqa: ANN401 - as above
    return _option(_FROM, text, metavar="FILE", exists=True, dir_okay=False, readable=True)


def instant(text: str | None) -> str | None:
    """Return the instant that an option names with its zone; without one it is meant in this machine's."""
    try:
        return text and datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no instant, such as 2030-01-31T03:00 or 2030-01-31T03:00Z.") from None


def render(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the picture shows.")],
    *,
    negative: Annotated[Text, _option(_HOW, "What it should not show.")] = None,
    style: Annotated[list[str] | None, _option(_HOW, "Name of a style; may be repeated.", metavar="NAME")] = None,
    checkpoint: Annotated[Text, _option(_HOW, "Name or hash; `farm models` lists them.")] = None,
    vae: Annotated[Text, _option(_HOW, "VAE file, `none` for the checkpoint's own.")] = None,
    size: Annotated[Text, _option(_HOW, "Pixels; else the checkpoint's own.", metavar="WIDTHxHEIGHT")] = None,
    steps: Annotated[Number, _option(_HOW, "Denoising steps.")] = None,
    cfg: Annotated[Amount, _option(_HOW, "How strongly the prompt guides.")] = None,
    sampler: Annotated[Text, _option(_HOW, "Such as 'Euler a', 'DPM++ 2M Karras'.")] = None,
    schedule: Annotated[Text, _option(_HOW, "Noise schedule.")] = None,
    seed: Annotated[Number, _option(_HOW, "Start of the noise; else random.")] = None,
    count: Annotated[Number, _option(_HOW, "How many pictures, with seeds from SEED on.")] = None,
    clip_skip: Annotated[Number, _option(_HOW, "Layer of the text encoder, from the end.")] = None,
    hires: Annotated[Amount, _option(_LARGER, "Factor of both sides.", metavar="SCALE")] = None,
    hires_upscaler: Annotated[Text, _option(_LARGER, "Latent, Lanczos, Nearest, …")] = None,
    hires_steps: Annotated[Number, _option(_LARGER, "Steps; else as the first pass.")] = None,
    hires_denoising: Annotated[Amount, _option(_LARGER, "How much is painted anew, 0 to 1.")] = None,
    init: Annotated[Path | None, _file("Picture to start from.")] = None,
    denoising: Annotated[Amount, _option(_FROM, "How much is painted anew, 0 to 1.")] = None,
    resize: Annotated[Text, _option(_FROM, "resize, crop, fill or latent.", metavar="MODE")] = None,
    mask: Annotated[Path | None, _file("What to paint anew: white, or opaque.")] = None,
    mask_blur: Annotated[Amount, _option(_FROM, "Soft edge of the mask, pixels.")] = None,
    mask_content: Annotated[Text, _option(_FROM, "fill, original, latent noise or latent nothing.")] = None,
    mask_invert: Annotated[bool | None, _option(_FROM, "Paint anew what the mask leaves out.", "--mask-invert")] = None,
    only_masked: Annotated[
        bool, _option(_FROM, "Render the masked part alone, in full size.", "--only-masked")
    ] = False,
    variation: Annotated[Amount, _option(_MORE, "How far to lean to another seed, 0 to 1.", metavar="STRENGTH")] = None,
    variation_seed: Annotated[Number, _option(_MORE, "That seed; else random.")] = None,
    refiner: Annotated[Text, _option(_MORE, "Checkpoint that takes over on the way.")] = None,
    refiner_at: Annotated[Amount, _option(_MORE, "After which share of the way, 0 to 1.")] = None,
    tiling: Annotated[Text, _option(_MORE, "both, x or y: edges that continue on the other side.")] = None,
    exact: Annotated[bool | None, _option(_MORE, "Bit-identical: share no call with others.", "--exact")] = None,
    film: Annotated[bool | None, _option(_MORE, "Keep the steps as an animation.", "--film")] = None,
    param: Annotated[
        list[str] | None,
        _option(
            _MORE, "Any other parameter, such as sampling.eta=0.5; docs/parameters.md lists them.", metavar="NAME=VALUE"
        ),
    ] = None,
    pool: Annotated[Text, _option(_WHEN, "Only workers of this pool render it.")] = None,
    priority: Annotated[Number, _option(_WHEN, "Higher goes first among your own, -100 to 100.")] = None,
    urgent: Annotated[bool | None, _option(_WHEN, "Before all that is not urgent.", "--urgent")] = None,
    expires: Annotated[
        Text, _option(_WHEN, "Cancel what has not started by then.", metavar="INSTANT", callback=instant)
    ] = None,
    hold: Annotated[
        bool | None, _option(_WHEN, "Hold it until `farm release JOB`; nothing is waited for.", "--hold")
    ] = None,
    hold_until: Annotated[Text, _option(_WHEN, "Hold it until then.", metavar="INSTANT", callback=instant)] = None,
    hold_behind: Annotated[Number, _option(_WHEN, "Hold it until that job has ended.", metavar="JOB")] = None,
    file_format: Annotated[Text, _option(_OUT, "png, jpeg or webp.", "--format")] = None,
    out: Annotated[Path, _option(_OUT, "Folder to write to.")] = Path("pictures"),
    as_json: Annotated[bool, _option(_OUT, "Answer in JSON, for programs.", "--json")] = False,
) -> None:
    """Render a picture to ./pictures. The farm that is up does it, or one that is started for it and stopped again."""
    from cli import wishes
    from cli.render import render as run
    from shared.settings import load

    width, height = pixels(size)
    asked: dict[str, Any] = {
        "prompt": prompt, "negative_prompt": negative, "styles": style or None, "checkpoint": checkpoint, "vae": vae,
        "width": width, "height": height, "steps": steps, "cfg_scale": cfg, "sampler": sampler, "schedule": schedule,
        "seed": seed, "count": count, "clip_skip": clip_skip, "tiling": tiling, "exact": exact, "film": film,
        "format": file_format, "hires.scale": hires, "hires.upscaler": hires_upscaler, "hires.steps": hires_steps,
        "hires.denoising": hires_denoising, "img2img.denoising": denoising, "img2img.resize_mode": resize,
        "img2img.mask.blur": mask_blur, "img2img.mask.content": mask_content, "img2img.mask.invert": mask_invert,
        "img2img.mask.area": "only masked" if only_masked else None, "noise.variation_strength": variation,
        "noise.variation_seed": variation_seed, "refiner.checkpoint": refiner, "refiner.switch_at": refiner_at,
        "pool": pool, "priority": priority, "urgent": urgent, "expires_at": expires, "hold": hold,
        "hold_until": hold_until, "hold_behind": hold_behind,
    }  # fmt: skip
    pictures = _given({"img2img.picture": init, "img2img.mask.picture": mask})
    params = wishes.nested(_given(asked) | wishes.read(param or ()))
    raise typer.Exit(run(load(), params, pictures, out, as_json=as_json))


def pixels(size: str | None) -> tuple[int | None, int | None]:
    """Return the sides that `--size` names."""
    if size is None:
        return None, None
    width, _, height = size.lower().replace("×", "x").partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"{size!r} is not WIDTHxHEIGHT, such as 512x768.", param_hint="--size")
    return int(width), int(height)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}
