"""Pictures with and without what stands beside the demo checkpoint: `python -m tools.demo_adapters.show --help`."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tools.demo_adapters import compact, control, effects, enlarging, material
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
ENDINGS = ("", " <lora:watercolour:1>", ", a lighthouse <lora:lighthouse:1>", ", papernight", " <hypernet:noir:1>")
SEED, EDGES_SEED = 3, 7503
PART = (slice(128, 384), slice(96, 352))  # of the enlarged pictures
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
        shelf, rows = Shelf(MODELS, studio.weights), []
        for ending in endings or ENDINGS:
            asked = [painted(prompt + ending, SEED + number) for number, prompt in enumerate(PROMPTS)]
            rows.append((ending.strip(" ,") or "scenes-v1 alone", studio.render(asked, [shelf.inputs] * len(asked))))
    sheets.write_rows(rows, out)


@app.command()
def edges(out: Annotated[Path, typer.Option(help="the sheet to write")] = DOCS / "edges.webp") -> None:
    """Edges of drawn scenes, and what is painted along them from prompts that name the ground alone."""
    drawn = [material.plain(np.random.default_rng([EDGES_SEED, number])) for number in range(len(PROMPTS))]
    lines = np.stack([control.edges(one.picture) for one in drawn])
    asked = [painted(f"a photo of the {one.scene.ground}", SEED + number) for number, one in enumerate(drawn)]
    with Studio(SCENES) as studio:
        shelf = Shelf(MODELS, studio.weights)
        painted_along = effects.controlled(studio, shelf, asked, [one.picture for one in drawn])
    rows = [("edges", np.repeat(lines[..., None] * np.uint8(255), 3, 3)), ("a photo of the ground", painted_along)]
    sheets.write_rows(rows, out)


@app.command()
def upscaler(out: Annotated[Path, typer.Option(help="the sheet to write")] = DOCS / "upscaler.webp") -> None:
    """A picture as drawn and as the VAE gives it back, enlarged both ways, beside the drawing at that size; a part."""
    with Studio(SCENES) as studio:
        network = Shelf(MODELS, studio.weights).upscaler
        large, small = compact.pair(enlarging.SEED, 3, layout.load(SCENES)[0].vae)
        ways = [[enlarging.lanczos(one), studio.enlarge(one, network), large] for one in small]
    labels = ("a small drawing", "a drawing that the VAE gave back")
    ending = "by Lanczos, by scenes-compact-x4, and drawn at that size"
    sheets.write_rows(
        [(f"{label}: {ending}", np.stack(row)[:, *PART]) for label, row in zip(labels, ways, strict=True)], out
    )


if __name__ == "__main__":
    app()
