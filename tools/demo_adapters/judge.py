"""Measure the effects of adapters on the demo's pictures: `python -m tools.demo_adapters.judge --help`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from tools.demo_adapters import effects
from tools.demo_adapters.effects import Trials
from tools.demo_adapters.eyes import Eyes
from tools.demo_adapters.shelf import MODELS, Shelf, sha256
from tools.demo_checkpoint import asking
from tools.demo_checkpoint.judge import SCENES, counted, replaced, tabled
from tools.demo_checkpoint.judging import Judge
from tools.demo_checkpoint.measures import Row
from tools.demo_checkpoint.studio import Studio

app = typer.Typer(add_completion=False)

MEASURES: dict[str, tuple[Callable[[Trials], Iterator[Row]], int]] = {
    "watercolour": (effects.watercolour, 4),
    "lighthouse": (effects.lighthouse, 5),
    "papernight": (effects.papernight, 4),
    "edges": (effects.edges, 3),
    "noir": (effects.noir, 4),
    "upscaler": (effects.upscaler, 0),
}
"""The measures, and how many pictures of each prompt they take."""


@app.command()
def main(
    prompts: Annotated[int, typer.Option(min=4, help="how many prompts each file is tried with")] = 40,
    models: Annotated[Path, typer.Option(help="the models folder with the files to judge")] = MODELS,
    only: Annotated[list[str] | None, typer.Option(help=f"of {', '.join(MEASURES)}; default: all")] = None,
    page: Annotated[Path | None, typer.Option(help="a page to write the table into, between its marks")] = None,
) -> None:
    """Render prompts with each of the shipped files (Euler a, 12 steps, 128x128) and say what is found in them."""
    chosen = [measure for name, measure in MEASURES.items() if not only or name in only]
    total = prompts * sum(count for _, count in chosen)
    with counted("pictures", total) as count, Studio(SCENES, count) as studio:
        asked = asking.prompts(prompts, effects.SEED)
        trials = Trials(studio, Shelf(models, studio.weights), Judge.load(), Eyes.load(), asked)
        rows = [row for measure, _ in chosen for row in measure(trials)]
    text = f"{heading(prompts)}\n\n{tabled(rows)}"
    print(text)
    if page:
        page.write_text(replaced(page.read_text(encoding="utf-8"), text), encoding="utf-8")


def heading(prompts: int) -> str:
    """The line that names the settings."""
    return (
        f"`{SCENES.stem}` [{sha256(SCENES)[:10]}], {prompts} prompts drawn by seed {effects.SEED}, a quarter of them "
        f"held-out combinations; Euler a, {effects.STEPS} steps, CFG 7, 128x128:"
    )


if __name__ == "__main__":
    app()
