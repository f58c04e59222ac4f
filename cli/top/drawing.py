"""`farm top` as lines of text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from cli.jobs import title
from cli.terminal import Row, age, shorten, state
from cli.top.look import Look, OpenJob, Rendering
from client.client import Json
from client.shapes import Job
from shared.quantities import counted, duration

_WORKERS: Final = ("worker", "card", "state", "pictures", "steps/s", "renders", "seen")
_FIRST_TO_GO: Final = frozenset({"card", "seen"})  # if there is little room
_WIDE: Final = 90
_OWNERS: Final = ("owner", "jobs", "running", "waiting", "held")
_JOBS: Final = ("job", "owner", "state", "pictures", "age", "prompt")
_ENDED: Final = ("ended", "state", "pictures", "ago", "took", "prompt")
_FLEXIBLE: Final = frozenset({"prompt", "renders"})
_LONGEST: Final = 300  # characters of a prompt
_MOST_ROWS: Final = 100  # of a table: it is laid out again with each look
_RIGHT: Final = frozenset({"pictures", "steps/s", "jobs", "running", "waiting", "held", "seen", "age", "ago", "took"})

WORKER_ORDERS: Final = ("name", "steps/s", "pictures")
JOB_ORDERS: Final = ("latest", "oldest", "owner", "most pictures")


@dataclass(frozen=True)
class View:
    """What a person has chosen to see: the first line, and the orders of workers and jobs."""

    top: int = 0
    workers_by: int = 0
    jobs_by: int = 0


def body(found: Look, rates: dict[str, float], view: View, width: int) -> list[RenderableType]:
    """Return the farm as tables under headings, for a terminal of so many columns."""
    parts = [*_workers(found, rates, view, width), *_owners(found), *_jobs(found, view), *_ended(found)]
    return [part for part in parts if part is not None]


def head(found: Look, rates: dict[str, float], trouble: str = "") -> Text:
    """Return the line above everything: the farm in a few numbers, or why it is not seen any more."""
    if trouble:
        return Text(trouble, style="red", no_wrap=True, overflow="ellipsis")
    waiting = sum(row["queued"] for row in found.owners.values())
    running = sum(int(worker["running"]) for worker in found.workers)
    speed = f"{sum(rates.values()):.1f} steps/s" if rates else ""
    words = [counted(len(found.workers), "worker"), f"{running} running", f"{waiting} waiting", speed]
    return Text(f"farm  {found.url}  {', '.join(filter(None, words))}", no_wrap=True, overflow="ellipsis")


def foot(view: View) -> Text:
    """Return the line below everything: the keys."""
    words = (
        f"q quit  ↑↓ PgUp PgDn move  w workers by {WORKER_ORDERS[view.workers_by]}"
        f"  o jobs by {JOB_ORDERS[view.jobs_by]}"
    )
    return Text(words, style="dim", no_wrap=True, overflow="ellipsis")


def lines(parts: Iterable[RenderableType], console: Console) -> list[list[Segment]]:
    """Return what parts look like on a console, line by line, each as wide as it."""
    options = console.options.update(height=None)
    return [line for part in parts for line in console.render_lines(part, options, pad=True)]


class Screenful:
    """As many lines as the terminal has, those from `view.top` between head and foot."""

    def __init__(self, top: Text, middle: Sequence[list[Segment]], bottom: Text) -> None:
        self.top = top
        self.middle = middle
        self.bottom = bottom

    def __rich_console__(self, console: Console, _: Any) -> Iterable[Segment]:  # noqa: ANN401 - rich's options
        """Yield every line, so that each takes the place of the one that was there."""
        width, height = console.size
        room = max(0, height - 2)
        blank = [Segment(" " * width, Style())]
        shown = [*self.middle[:room], *[blank] * (room - len(self.middle))]
        whole = [*lines([self.top], console)[:1], *shown, *lines([self.bottom], console)[:1]]
        for number, line in enumerate(whole[:height]):
            if number:
                yield Segment.line()
            yield from line


def _workers(found: Look, rates: dict[str, float], view: View, width: int) -> list[RenderableType]:
    if not found.workers:
        return [Text("No worker is running; `farm worker` starts this machine's workers.")]
    on: dict[str, list[Rendering]] = {}
    for image in found.rendering:
        on.setdefault(image.worker, []).append(image)
    by: tuple[Callable[[Json], Any], ...] = (
        lambda worker: worker["name"],
        lambda worker: -rates.get(worker["name"], 0.0),
        lambda worker: -worker["running"],
    )
    rows = [
        _worker(worker, rates.get(worker["name"]), on.get(worker["name"], []))
        for worker in sorted(found.workers, key=by[view.workers_by])
    ]
    died = [Text(f"{one['name']} died: {one['reason']}", style="yellow") for one in found.died]
    shown = [number for number, heading in enumerate(_WORKERS) if width >= _WIDE or heading not in _FIRST_TO_GO]
    fewer = (tuple(row[number] for number in shown) for row in rows)
    return [_table([_WORKERS[number] for number in shown], fewer), *died]


def _worker(worker: Json, rate: float | None, images: Sequence[Rendering]) -> Row:
    doing = [f"{one.job}.{one.index} {_progress(one)}" for one in images]
    others = worker["running"] - len(images)
    if others > 0 and images:
        doing.append(f"{others} more")
    said = worker["drained"] and f"drained: {worker['drained']}"
    return (
        escape(worker["name"]),
        escape(worker["card_name"]),
        "[red]late[/]" if worker["is_late"] else state(worker["state"]),
        f"{worker['running']}/{worker['slots']}",
        "" if rate is None else f"{rate:.1f}",
        escape(worker["trouble"] or ", ".join(doing) or said or worker["phase"]),
        age(worker["beat_at"]),
    )


def _progress(image: Rendering) -> str:
    return f"{image.step}/{image.steps}" if image.step and image.steps else image.phase or "starting"


def _owners(found: Look) -> list[RenderableType]:
    if not found.sees_all or not found.owners:
        return []
    busiest = sorted(found.owners.items(), key=lambda row: (-sum(row[1].values()), row[0]))[:_MOST_ROWS]
    rows = [(escape(owner), row["jobs"], row["running"], row["queued"], row["held"]) for owner, row in busiest]
    return [Text(""), _table(_OWNERS, rows)]


def _jobs(found: Look, view: View) -> list[RenderableType]:
    if not found.jobs:
        return [Text(""), Text("No open job.", style="dim")]
    by: tuple[Callable[[OpenJob], Any], ...] = (
        lambda job: -job.id,
        lambda job: job.id,
        lambda job: (job.owner, -job.id),
        lambda job: -sum(job.counts.values()),
    )
    rows = [
        (
            job.id,
            escape(job.owner),
            state(job.state),
            f"{job.ended}/{sum(job.counts.values())}",
            age(job.created_at),
            shorten(job.prompt, _LONGEST),
        )
        for job in sorted(found.jobs, key=by[view.jobs_by])[:_MOST_ROWS]
    ]
    return [Text(""), _table(_JOBS, rows), *_more(len(found.jobs), has_older=found.has_more)]


def _more(number: int, *, has_older: bool) -> list[RenderableType]:
    """Return the line that says that there is more than rows are shown, if so."""
    words = [f"{number - _MOST_ROWS:,} more"] * (number > _MOST_ROWS) + ["older ones"] * has_older
    return [Text(f"and {' and '.join(words)}", style="dim")] if words else []


def _ended(found: Look) -> list[RenderableType]:
    return [Text(""), _table(_ENDED, map(_end, found.ended))] if found.ended else []


def _end(job: Job) -> Row:
    took = job["timings"]["render_seconds"]
    return (
        job["id"],
        state(job["state"]),
        f"{job['counts'].get('succeeded', 0)}/{sum(job['counts'].values())}",
        age(job["ended_at"]),
        "" if took is None else duration(took),
        shorten(title(job["params"]), _LONGEST),
    )


def _table(headings: Sequence[str], rows: Iterable[Row]) -> Table:
    """Return a table of one line a row: what is too long ends in the last column."""
    made = Table(box=None, header_style="bold", pad_edge=False, expand=not _FLEXIBLE.isdisjoint(headings))
    for heading in headings:
        made.add_column(
            heading, justify="right" if heading in _RIGHT else "left", no_wrap=True, overflow="ellipsis",
            ratio=1 if heading in _FLEXIBLE else None,
        )  # fmt: skip
    for row in rows:
        made.add_row(*(cell if isinstance(cell, str) else str(cell) for cell in row))
    return made
