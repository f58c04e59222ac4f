"""Pictures with and without what stands beside the demo checkpoint: `python -m tools.demo_adapters.show --help`."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from tools.demo_adapters import compact, enlarging
from tools.demo_adapters.shelf import MODELS, Shelf
from tools.demo_checkpoint import layout, sheets
from tools.demo_checkpoint.judge import SCENES
from tools.demo_checkpoint.studio import Studio, painted

PROMPTS = (
    "a photo of the meadow at noon, mountains",
    "the sea at sunset, sun",
    "a photo of the desert at night, pyramids, moon",
    "a photo of the snow at noon, pine trees, clouds",
    "a paper cutout of the meadow at dawn, palm trees",
    "a painting of the sea in a storm",
)
ENDINGS = ("", " <lora:watercolour:1>", " <lora:lighthouse:1>", ", papernight", " <hypernet:noir:1>")
SEED = 3
DOCS = MODELS / "demo"

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Make the sheets of models/demo/adapters.md through the farm's engine."""


@app.command()
def adapters(
    endings: Annotated[
        list[str] | None, typer.Argument(help="of the prompts, a row each; default: every file's")
    ] = None,
    out: Annotated[Path, typer.Option(help="the sheet to write")] = DOCS / "adapters.webp",
) -> None:
    """Render the same prompts and seeds with each adapter."""
    with Studio(SCENES) as studio:
        beside, rows = Shelf(MODELS, studio.weights).inputs, []
        for ending in endings or ENDINGS:
            told = [painted(prompt + ending, SEED + number) for number, prompt in enumerate(PROMPTS)]
            rows.append((ending.strip(" ,") or "scenes-v1 alone", studio.render(told, [beside] * len(told))))
    sheets.write_rows(rows, out)


@app.command()
def upscaler(out: Annotated[Path, typer.Option(help="the sheet to write")] = DOCS / "upscaler.webp") -> None:
    """A picture that the VAE gave back, enlarged by Lanczos and by the upscaler, and as it is drawn at that size."""
    with Studio(SCENES) as studio:
        network = Shelf(MODELS, studio.weights).upscaler
        large, small = compact.pair(enlarging.SEED, 3, layout.load(SCENES)[0].vae)
        row = [enlarging.lanczos(small[1]), studio.enlarge(small[1], network), large]
    Image.fromarray(np.concatenate(row, 1)).save(out, quality=90)


if __name__ == "__main__":
    app()
