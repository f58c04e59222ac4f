"""Whether a farm renders stored pictures again to the pixel: pictures of many kinds, asked for, read, asked for again.

Joins the farm that is up, or starts one for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import BytesIO
from typing import Any, Final

from PIL import Image, ImageDraw

from cli import terminal
from cli.again import Difference, rendered
from cli.render import joined
from client.client import Client
from shared.infotext.reader import read
from shared.settings import load

SIDE: Final = 128
PROMPT: Final = "a painting of a meadow with a house at noon"
OVER: Final[dict[str, Any]] = {"denoising": 0.6}
KINDS: Final[dict[str, dict[str, Any]]] = {
    "Euler a": {},
    "DPM++ 2M SDE, portable noise": {"sampler": "DPM++ 2M SDE", "noise": {"source": "NV"}},
    "Heun with churn": {"sampler": "Heun", "sampling": {"s_churn": 3.0}},
    "DDIM with eta": {"sampler": "DDIM", "sampling": {"eta": 0.5}},
    "editing, AND, weights": {"prompt": "(meadow:1.2) [at noon:at night:0.5] AND a moon :0.5"},
    "variation of a resized seed": {"noise": {"variation_seed": 3, "variation_strength": 0.3, "resize_width": 64,
                                              "resize_height": 64}},
    "guidance rescaled": {"sampler": "DPM++ 2M", "guidance": {"rescale": 0.7}, "clip_skip": 2},
    "without seams": {"tiling": "both"},
    "hires fix": {"hires": {"scale": 1.5, "upscaler": "Lanczos", "steps": 10}},
    "img2img": {"img2img": OVER},
    "inpainting": {"img2img": OVER | {"mask": {"content": "latent noise", "area": "only masked"}}},
    "exact": {"exact": True},
    "JPEG": {"format": "jpeg"},
    "WebP": {"format": "webp"},
}  # fmt: skip


def main() -> int:
    """Print the table; return 0 where every picture came out again within the farm's promise."""
    with joined(load(), terminal.progress) as client:
        differences = dict(compared(client))
    for kind, difference in differences.items():
        terminal.answer(f"{kind:28}  {difference}")
    identical = sum(difference.is_identical for difference in differences.values())
    terminal.answer(f"{identical} of {len(differences)} kinds identical to the pixel")
    return 0 if all(difference.keeps_promise for difference in differences.values()) else 1


def compared(client: Client) -> Iterator[tuple[str, Difference]]:
    """Yield each kind and how far its two pictures are apart."""
    for seed, (kind, wishes) in enumerate(KINDS.items(), 1):
        asked = {"prompt": PROMPT, "width": SIDE, "height": SIDE, "seed": seed} | _with_pictures(client, wishes)
        _, first = rendered(client, asked, quiet=True)
        said = read(first.text)
        if said.left_out:
            raise SystemExit(f"{kind}: {said.left_out}")
        _, second = rendered(client, said.params, quiet=True)
        yield kind, Difference.between(first.pixels, second.pixels)


def _with_pictures(client: Client, wishes: dict[str, Any]) -> dict[str, Any]:
    """Return `wishes` with pictures to start from uploaded: a gradient, and a disc as its mask."""
    if "img2img" not in wishes:
        return wishes
    over = wishes["img2img"] | {"picture": _uploaded(client, Image.radial_gradient("L").convert("RGB"))}
    if "mask" in over:
        disc = Image.new("L", (SIDE, SIDE))
        ImageDraw.Draw(disc).ellipse((40, 40, 90, 90), fill=255)
        over["mask"] = over["mask"] | {"picture": _uploaded(client, disc)}
    return wishes | {"img2img": over}


def _uploaded(client: Client, picture: Image.Image) -> str:
    file = BytesIO()
    picture.save(file, "PNG")
    return str(client.upload(file.getvalue())["id"])


if __name__ == "__main__":
    sys.exit(main())
