"""`farm status`, `cancel`, `retry`, `hold`, `release` and `approve`: what the API knows, as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from rich.markup import escape

from cli import terminal
from cli.terminal import Row, age, shorten, state, table
from client.client import FINAL, Client, Json
from client.errors import NotFound
from client.shapes import Change, Image, Job
from shared.errors import STORAGE_AWAY
from shared.jobs.stored import names
from shared.params.pools import DEFAULT_POOL
from shared.params.upscale import Upscale

T = TypeVar("T")

_WORKER: Final = ("worker", "card", "state", "doing", "pictures", "seen")
_JOB: Final = ("job", "state", "pictures", "age", "prompt")
_IMAGE: Final = ("image", "state", "seed", "step", "attempt", "worker", "reason")

_NOBODY: Final = "No process does the farm's chores: nothing is cleaned up until `farm chores` runs."


def status(client: Client, job_id: int | None, *, as_json: bool) -> None:
    """Print one job, or the farm: its workers, its latest jobs, and which chores are not done."""
    if job_id is not None:
        return _print(client.job(job_id), _job, as_json=as_json)
    chores = None
    with suppress(NotFound):  # an older version of the API, while a farm is upgraded
        chores = client.catalogue("chores")
    farm = {"url": client.url} | client.catalogue("workers") | client.jobs() | {"chores": chores}
    return _print(farm, _farm, as_json=as_json)


def change(client: Client, job_id: int, scheduling: Mapping[str, Any], *, as_json: bool) -> None:
    """Change the scheduling of a job of which images wait."""
    _print(client.change(job_id, **scheduling), lambda change: _changed(change, "start as you say"), as_json=as_json)


def cancel(client: Client, job_id: int, index: int | None, *, only_waiting: bool = False, as_json: bool) -> None:
    """Cancel a job, one image of it, or what has not started."""
    cancelled = client.cancel(job_id, index, only_waiting=only_waiting)
    _print(cancelled, lambda change: _changed(change, "cancelled"), as_json=as_json)


def retry(client: Client, job_id: int, index: int | None, *, as_json: bool) -> None:
    """Put failed and cancelled images back into the queue."""
    _print(client.retry(job_id, index), lambda change: _changed(change, "put back"), as_json=as_json)


def hold(client: Client, job_id: int, *, as_json: bool) -> None:
    """Keep a job's queued images from starting."""
    _print(client.hold(job_id), lambda change: _changed(change, "held"), as_json=as_json)


def release(client: Client, job_id: int, *, as_json: bool) -> None:
    """Queue a job's held images."""
    _print(client.release(job_id), lambda change: _changed(change, "released"), as_json=as_json)


def approve(client: Client, job_id: int, *, as_json: bool) -> None:
    """Submit the sweep of a draft with all its steps."""
    _print(client.approve(job_id), lambda job: terminal.answer(f"page  {client.page(job)}"), as_json=as_json)


def describe(job: Job) -> str:
    """Return what happens to a job now, in a few words."""
    running = [image for image in job["images"] if image["state"] == "running"]
    ended, count = sum(job["counts"].get(name, 0) for name in FINAL), sum(job["counts"].values())
    total = f"{ended} of {count} pictures, " if count > 1 else ""
    if not running:
        ahead = job["position"]
        return f"{total}{job['state']}" + (f", {ahead} ahead" if ahead else "")
    first = running[0]
    phase = first["phase"] or ""
    if phase.startswith(STORAGE_AWAY):
        return total + phase
    if first["step"]:
        return f"{total}step {first['step']} of {first['steps']}"
    return total + (phase if phase.startswith("loading") else "starting")


def _print(body: T, people: Callable[[T], None], *, as_json: bool) -> None:
    (terminal.answer_json if as_json else people)(body)


def _farm(farm: Json) -> None:
    terminal.answer(f"farm  {farm['url']}\n")
    table(
        _WORKER, map(_worker_row, farm["workers"]), "No worker is running; `farm worker` starts this machine's workers."
    )
    terminal.answer("")
    table(_JOB, map(_job_row, farm["jobs"]), 'No job yet. `farm render "a red sailboat at sea"` makes one.')
    for line in undone(farm["chores"]) if farm["chores"] else ():
        terminal.answer(f"\n{line}")


def undone(chores: Json) -> list[str]:
    """Return what is wrong with the farm's chores, in words; nothing where they are done."""
    lines = [] if chores["is_anybody"] else [_NOBODY]
    if chores["overdue"]:
        ages = {chore["name"]: chore["done_at"] and age(chore["done_at"]) for chore in chores["overdue"]}
        late = [f"{name} ({f'last done {since} ago' if since else 'never done'})" for name, since in ages.items()]
        lines.append(f"Chores overdue: {', '.join(late)}. `farm logs chores` may say why.")
    return lines


def _worker_row(worker: Json) -> Row:
    return (
        escape(worker["name"]),
        escape(worker["card_name"]),
        state(worker["state"]),
        escape(worker["phase"]),
        worker["running"],
        age(worker["beat_at"]),
    )


def _job_row(job: Job) -> Row:
    counts = job["counts"]
    ended = f"{sum(counts[name] for name in FINAL)}/{sum(counts.values())}"
    return job["id"], state(job["state"]), ended, age(job["created_at"]), shorten(title(job["params"]))


def _job(job: Job) -> None:
    params, timings = job["params"], job["timings"]
    terminal.answer(f"job {job['id']}: {describe(job)}")
    terminal.answer(f"  {title(params)}")
    if not params.get("upscale"):
        terminal.answer(
            f"  {params['width']}×{params['height']}, {params['steps']} steps, {params['sampler']}, "
            f"{params['schedule']} schedule, CFG {params['cfg_scale']:g}, {params['checkpoint']}"
        )
    if strange := job.get("not_understood"):
        terminal.answer(f"  written by a newer version: {escape(names(strange))}")
    if place := in_the_queue(job):
        terminal.answer(f"  {place}")
    if job.get("expires_at") and job["state"] in {"held", "queued"}:
        terminal.answer(f"  cancelled if it has not started by {job['expires_at']}")
    if waiting := job.get("waiting"):
        terminal.answer(f"  {waiting['text']}")
    if timings["render_seconds"] is not None:
        terminal.answer(f"  waited {timings['waited_seconds']:.1f} s, rendered {timings['render_seconds']:.1f} s")
    table(_IMAGE, map(_image_row, job["images"]), "")


def title(params: Json) -> str:
    """Return the prompt, or what is done to pictures; unvalidated, because the API may be of a newer version."""
    enlarging = params.get("upscale")  # no such parameter in an older version
    return Upscale.model_construct(**enlarging).words if enlarging else str(params["prompt"])


def in_the_queue(job: Job) -> str:
    """Return whose workers a job is for and what goes before it, as far as that is not as usual."""
    pool, priority = job.get("pool", DEFAULT_POOL), job.get("priority", 0)
    words = [f"pool {pool}"] * (pool != DEFAULT_POOL) + [f"priority {priority}"] * (priority != 0)
    return ", ".join(["urgent"] * bool(job.get("urgent")) + words)


def _image_row(image: Image) -> Row:
    return (
        image["index"],
        state(image["state"]),
        image["seed"] if image["seed"] >= 0 else "",  # an enlarged picture has none
        f"{image['step']}/{image['steps']}" if image["steps"] else "",
        image["attempt"],
        escape(image["worker"] or ""),
        escape(image["reason"] or ""),
    )


def _changed(change: Change, how: str) -> None:
    count = change["images"]
    terminal.answer(f"job {change['job']['id']}: {count} {'picture' if count == 1 else 'pictures'} {how}")
