"""`farm render`: from a prompt to a PNG on this machine's disk, over the API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cli import render_request, sweep, terminal
from cli.connect import client_of, connect
from cli.embedded.home import running
from cli.jobs import describe
from cli.screen import show as screen
from cli.screen.choice import Show
from client.client import Client
from client.errors import NotRunning, Refused, Unavailable
from client.shapes import Job
from shared.errors import FarmError
from shared.settings import Settings

Tell = Callable[[Job], None]

_PATIENCE_SECONDS: Final = 120.0  # for a first look at the models folder: PyTorch is imported before it
_PAUSE_SECONDS: Final = 1.0


def render(  # noqa: PLR0913 - what was typed
    settings: Settings,
    params: Mapping[str, Any],
    pictures: Mapping[str, Path],
    folder: Path,
    *,
    as_json: bool,
    preset: str | None = None,
    show: Show = Show.NEVER,
) -> int:
    """Submit, follow, save, show, report; return the exit status. Ctrl-C cancels the job.

    What `params` leave open is as a `preset` of the owner has it; an empty prompt leaves it open.

    `pictures` are the files to upload first, by the dotted names of the parameters that name them.
    """
    check_folder(folder)
    files = {name: file_bytes(path) for name, path in pictures.items()}
    how, abilities = screen.chosen(Show.NEVER if as_json else show, terminal.out)
    with joined(settings, terminal.no_progress if as_json else terminal.progress) as client:
        params = render_request.over(client.preset(preset)["params"], params) if preset else params
        ids = {name: uploaded(client, pictures[name], data) for name, data in files.items()}
        job = submitted(client, render_request.nested(ids, into=params), quiet=as_json)
        is_held = job["state"] == "held" and params.get("hold")
        if is_held or params.get("sweep", {}).get("draft"):  # by hand: until nobody knows when
            return _held(client, job, as_json=as_json)
        job = follow(client, job["id"], quiet=as_json)
        done = [image for image in job["images"] if image["state"] == "succeeded"]
        saved = [save(client, job, image, folder, sweep.stem(job, image)) for image in done]
        screen.show(saved, how, abilities, terminal.out)
        _report(client, job, saved, as_json=as_json)
    return 0 if job["state"] == "succeeded" else 1


def preview(
    settings: Settings,
    params: Mapping[str, Any],
    pictures: Mapping[str, Path],
    *,
    as_json: bool,
    preset: str | None = None,
) -> int:
    """Say what a sweep would be; return the exit status: 1 where it would be refused."""
    files = {name: file_bytes(path) for name, path in pictures.items()}
    with joined(settings, terminal.no_progress if as_json else terminal.progress) as client:
        params = render_request.over(client.preset(preset)["params"], params) if preset else params
        ids = {name: uploaded(client, pictures[name], data) for name, data in files.items()}
        return sweep.show(client, render_request.nested(ids, into=params), as_json=as_json)


def submitted(client: Client, params: Mapping[str, Any], *, quiet: bool) -> Job:
    """Submit a job and return it; wait for a farm that does not know its models yet, or whose database is away.

    A submission whose answer was lost is sent once more, with its key: it may have made the job.
    """
    key, deadline, has_told, was_lost = str(uuid.uuid4()), time.monotonic() + _PATIENCE_SECONDS, quiet, False
    while True:
        try:
            with _end_told():
                job = client.submit(params, idempotency_key=key)
            break
        except Unavailable as away:
            if time.monotonic() > deadline:
                raise
            if not has_told:
                terminal.progress(f"{away} Waiting.")
            has_told = True
        except NotRunning as lost:
            if was_lost or not lost.was_sent:
                raise
            was_lost = True
        time.sleep(_PAUSE_SECONDS)
    for note in [] if quiet else job.get("notes", []):  # none from an API of an older version
        terminal.progress(note)
    return job


@contextmanager
def joined(settings: Settings, tell: Callable[[str], None]) -> Iterator[Client]:
    """Yield a client of the farm that is there, else of one started for as long as the context lasts."""
    if settings.url or running(settings.home):
        with connect(settings) as client:
            yield client
        return
    from cli.checkpoints import await_first  # noqa: PLC0415 - a second's work, spared where a farm is up
    from cli.farm import Farm  # noqa: PLC0415 - as above

    with Farm(settings, tell) as farm, client_of(farm.url, settings) as client:
        tell("Looking for checkpoints.")
        await_first(client, settings)
        yield client


def follow(client: Client, job_id: int, *, quiet: bool) -> Job:
    """Show how far the job is until it has ended, and return it as it ended, with its images. Ctrl-C cancels it."""
    with _end_told():
        shown = nullcontext(_nothing if quiet else _lines()) if quiet or not terminal.err.is_terminal else _bar()
        with shown as show:
            tell_why = _nothing if quiet else _reasons()

            def tell(job: Job) -> None:
                tell_why(job)
                show(job)

            return client.wait(job_id, progress=tell)


@contextmanager
def _end_told() -> Iterator[None]:
    """Have Ctrl-C within the context say what came of the job."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        for note in getattr(interrupt, "__notes__", ()):
            terminal.progress(note)
        raise


@contextmanager
def _bar() -> Iterator[Tell]:
    """Yield what shows a job as a bar, gone at the end."""
    share = TextColumn("{task.percentage:>3.0f} %")
    columns = (TextColumn("{task.description}"), BarColumn(), share, TimeElapsedColumn())
    with Progress(*columns, console=terminal.err, transient=True) as progress:
        bar = progress.add_task("waiting", total=1.0)
        yield lambda job: progress.update(bar, completed=job["progress"], description=describe(job))


def _lines() -> Tell:
    """Return what shows a job as a line at each quarter: for logs, where a bar would be noise."""
    shown_quarter = -1

    def show(job: Job) -> None:
        nonlocal shown_quarter
        quarter = int(job["progress"] * 4)
        if quarter > shown_quarter:
            shown_quarter = quarter
            terminal.progress(f"{job['progress']:4.0%}  {describe(job)}")

    return show


def _reasons() -> Tell:
    """Return what says why a job waits, once for each reason; an image that is next starts too soon to tell."""
    shown_code = "next"

    def tell(job: Job) -> None:
        nonlocal shown_code
        waiting = job.get("waiting")
        if waiting and waiting["code"] != shown_code:
            shown_code = waiting["code"]
            if shown_code != "next":
                terminal.progress(waiting["text"])

    return tell


def _nothing(_: Job) -> None:
    """Show nothing: the answer is for a program."""


def save(client: Client, job: Mapping[str, Any], image: Mapping[str, Any], folder: Path, stem: str = "") -> Path:
    """Write a picture under a name that is not taken, by default its job, index and seed, and return its path."""
    data = client.fetch(image["links"]["picture"])
    stem = stem or f"{job['id']:05d}-{image['index']}-seed{image['seed']}"
    suffix = Path(image["links"]["picture"]).suffix
    names = chain([f"{stem}{suffix}"], (f"{stem}-{number}{suffix}" for number in count(2)))
    path = next(folder / name for name in names if not (folder / name).exists())
    try:
        path.write_bytes(data)
    except OSError as error:
        raise FarmError(
            f"{path} cannot be written ({error.strerror}): choose another --out. "
            f"The farm keeps the picture: {client.page(job)}"
        ) from error
    return path


def _held(client: Client, job: Job, *, as_json: bool) -> int:
    """Say how a job that is held by hand goes on."""
    if as_json:
        terminal.answer_json({"job": job, "page": client.page(job), "files": []})
    else:
        terminal.answer(f"page  {client.page(job)}")
        terminal.answer(f"held  `farm release {job['id']}` queues it")
    return 0


def _report(client: Client, job: Job, files: list[Path], *, as_json: bool) -> None:
    page = client.page(job)
    if as_json:
        terminal.answer_json({"job": job, "page": page, "files": [str(file.absolute()) for file in files]})
        return
    seeds = [image["seed"] for image in job["images"]]
    for file in files:
        terminal.answer(str(file))
    terminal.answer(f"page  {page}")
    terminal.answer(f"seed  {seeds[0]}" if len({*seeds}) == 1 else f"seeds {seeds[0]} to {seeds[-1]}")
    for image in job["images"]:
        if image["state"] != "succeeded":
            terminal.warn(f"Picture {image['index']} {image['state']}: {image['reason'] or 'no reason given'}")


def uploaded(client: Client, path: Path, data: bytes) -> str:
    """Return the id under which the farm keeps a file's picture. Raises Refused that names the file."""
    try:
        sha256: str = client.upload(data)["id"]
    except Refused as refused:
        problems = tuple(replace(problem, field=str(path)) for problem in refused.fields)
        raise type(refused)(f"{path} cannot be used.", problems) from None
    return sha256


def file_bytes(path: Path) -> bytes:
    """Return what a file holds. Raises FarmError that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FarmError(f"{path} cannot be read ({error.strerror}).") from error


def check_folder(folder: Path) -> None:
    """Make the folder now: a picture that cannot be written should not be rendered first."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FarmError(f"{folder} cannot be made ({error.strerror}); choose another folder with --out.") from error
