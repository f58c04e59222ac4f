"""The demo's pictures to look at, rendered from shipped checkpoints: `python -m tools.demo_checkpoint.show --help`."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from shared.jobs.lessons import LESSONS
from tools.demo_checkpoint import asking, lessons, sheets
from tools.demo_checkpoint.judge import SCENES, counted, replaced
from tools.demo_checkpoint.judging import Judge
from tools.demo_checkpoint.lessons import Outcome
from tools.demo_checkpoint.studio import Studio, painted

PIXEL = SCENES.with_name("scenes-pixel-v1.safetensors")
DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"lessons.md": "en", "lessons.zh.md": "zh"}
CONTACTS = 48

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Render the demo's sheets through the farm's engine."""


@app.command("lessons")
def hold_lessons(
    checkpoint: Annotated[Path, typer.Option(help="the checkpoint of the lessons")] = SCENES,
    other: Annotated[Path, typer.Option(help="the one it is compared with")] = PIXEL,
    docs: Annotated[Path, typer.Option(help="folder of the pages between whose marks the figures go")] = DOCS,
) -> None:
    """Make the six experiments of docs/lessons.md: a sheet each, with what the judge finds in it."""
    judge, outcomes = Judge.load(), dict[str, list[Outcome]]()
    with counted("pictures", lessons.pictures_needed()) as count, ExitStack() as open_studios:
        studios = [open_studios.enter_context(Studio(path, count)) for path in (checkpoint, other)]
        for lesson in LESSONS:
            outcomes[lesson.name] = lessons.held(lesson, studios, judge)
            rows = [(f"{lessons.said(one.label)}: {one.figures}", one.pictures) for one in outcomes[lesson.name]]
            (docs / "lessons").mkdir(exist_ok=True)
            sheets.write_rows(rows, docs / "lessons" / f"{lesson.name}.webp")
    for name, language in PAGES.items():
        page, made = docs / name, lessons.page(outcomes, "lessons", language)
        page.write_text(replaced(page.read_text(encoding="utf-8"), made), encoding="utf-8")


@app.command()
def contact(
    out: Annotated[Path, typer.Option(help="the sheet to write")],
    checkpoint: Annotated[Path, typer.Option(help="the checkpoint to look at")] = SCENES,
    count: Annotated[int, typer.Option(help="how many prompts")] = CONTACTS,
    seed: Annotated[int, typer.Option(help="of the first picture; the next has the next")] = 7,
) -> None:
    """Render a contact sheet: the sheet's own prompts, then others drawn from the scene grammar."""
    texts = [*sheets.PROMPTS, *(one.text for one in asking.prompts(count))][:count]
    with counted("pictures", count) as counter, Studio(checkpoint, counter) as studio:
        pictures = studio.render([painted(text, seed + number) for number, text in enumerate(texts)])
    sheets.write(pictures, out, captions=texts)


if __name__ == "__main__":
    app()
