"""Judge a demo checkpoint by what its pictures show: `python -m tools.demo_checkpoint.judge --help`."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from shared.params.render import RenderParams
from tools.demo_checkpoint import asking, dataset, effects
from tools.demo_checkpoint.asking import Asked
from tools.demo_checkpoint.effects import Trials
from tools.demo_checkpoint.judging import Judge
from tools.demo_checkpoint.measures import Row, Seen, absence, accuracy, against, choice, complete, fall, presence
from tools.demo_checkpoint.studio import Studio, painted

SCENES = Path(__file__).parents[2] / "models" / "Stable-diffusion" / "scenes-v1.safetensors"
START, END = "<!-- judge -->", "<!-- end of judge -->"
FRESH_SEED = 9001  # scenes that neither the checkpoint nor the judge was trained on

app = typer.Typer(add_completion=False)


@app.command()
def main(
    checkpoint: Annotated[Path, typer.Option(help="the checkpoint to judge")] = SCENES,
    prompts: Annotated[int, typer.Option(min=20, help="how many prompts, every fourth a held-out combination")] = 200,
    seed: Annotated[int, typer.Option(help="of the prompts, and of the pictures' noise from there on")] = asking.SEED,
    readme: Annotated[Path | None, typer.Option(help="a page to write the table into, between its marks")] = None,
) -> None:
    """Render prompts drawn from the scene grammar (Euler a, 20 steps, 128x128) and say what the judge finds in them."""
    judge = Judge.load()
    listed = asking.prompts(prompts, seed)
    trials = prompts // 20
    with counted("pictures", 3 * prompts + effects.RENDERINGS * trials) as count, Studio(checkpoint, count) as studio:
        rows = [*checkpoint_rows(judge, studio, listed, seed), *effects.rows(Trials(studio, judge, trials))]
    rows += judge_rows(judge, 5 * prompts)
    table = f"{heading(checkpoint, prompts, seed)}\n\n{tabled(rows)}"
    print(table)
    if readme:
        readme.write_text(replaced(readme.read_text(encoding="utf-8"), table), encoding="utf-8")


def checkpoint_rows(judge: Judge, studio: Studio, listed: Sequence[Asked], seed: int) -> Iterator[Row]:
    """The measures of the checkpoint: guided, unguided, and with a thing of each prompt in the negative prompt."""

    def seen(told: Sequence[RenderParams]) -> Seen:
        return Seen(listed, judge.of(studio.render(told)))

    numbered = [(one, seed + number) for number, one in enumerate(listed)]
    guided = seen([painted(one.text, noise) for one, noise in numbered])
    plain = seen([painted(one.text, noise, cfg_scale=1.0) for one, noise in numbered])
    negated = seen([painted(one.text, noise, negative_prompt=one.negative) for one, noise in numbered])

    yield _shared("named things present", presence, guided, 0.9)
    yield _shared("things not named absent", absence, guided, 0.9)
    yield _shared("named colour of a house or a sail right", partial(choice, name="colour"), guided, 0.85)
    for name in ("ground", "sky", "style"):
        yield _shared(f"named {name} right", partial(choice, name=name), guided)
    yield _shared("a whole prompt right, with nothing else there", complete, guided)
    change = f"{against(guided):.1%} to {against(negated):.1%}: by {fall(guided, negated):.0%}"
    yield Row("a named thing in the negative prompt becomes rarer", "by 67 %", change, fall(guided, negated) >= 2 / 3)
    rise = f"{presence(plain):.1%} to {presence(guided):.1%}"
    yield Row("named things present, from CFG 1 to CFG 7", "rises", rise, presence(guided) > presence(plain))


def _shared(what: str, measure: Callable[[Seen], float], seen: Seen, least: float | None = None) -> Row:
    """A row of one share, of all prompts and of the two kinds apart."""
    share, known, unknown = (measure(part) for part in (seen, seen.only(held_out=False), seen.only(held_out=True)))
    value = f"{share:.1%} (trained {known:.1%}, held out {unknown:.1%})"
    return Row(what, "" if least is None else f"{least:.0%}", value, None if least is None else share >= least)


def judge_rows(judge: Judge, count: int) -> Iterator[Row]:
    """What the judge itself is worth: on fresh scenes, a quarter of them combinations kept out of training."""
    samples = [dataset.sample(FRESH_SEED, index, held_out=index % 4 == 3) for index in range(count)]
    right = accuracy(judge.of(np.stack([one.picture for one in samples])), [one.scene for one in samples])
    worst = min(right, key=right.__getitem__)
    value = f"{np.mean(list(right.values())):.1%}, least {right[worst]:.1%} ({worst})"
    yield Row(f"the judge right about each label of {count} fresh scenes", "97%", value, right[worst] >= 0.97)


def heading(checkpoint: Path, prompts: int, seed: int) -> str:
    """The line that names the checkpoint and the settings."""
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:10]
    return (
        f"`{checkpoint.stem}` [{digest}], {prompts} prompts drawn by seed {seed}, a quarter of them held-out "
        "combinations; Euler a, 20 steps, CFG 7, 128x128:"
    )


def tabled(rows: Sequence[Row]) -> str:
    """Rows as a table in Markdown."""
    return "\n".join(["| measure | target | value | met |", "| --- | --- | --- | --- |", *map(str, rows)])


def replaced(page: str, text: str) -> str:
    """The page with `text` between its marks; ValueError if it has no marks."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"the page has no {START} … {END}")
    return f"{before}{START}\n{text}\n{END}{after}"


@contextmanager
def counted(what: str, total: int) -> Iterator[object]:
    """A progress bar of `total`; yields the function that counts one more."""
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


if __name__ == "__main__":
    app()
