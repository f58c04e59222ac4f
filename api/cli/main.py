"""`farm`: the command line. Each command imports what it needs when it runs, so that `farm --help` answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.errors import FarmError

if TYPE_CHECKING:
    from shared.settings import Settings

app = typer.Typer(
    name="farm",
    help="Stepfarm, a render farm for diffusion models. Settings are FARM_* variables; see docs/configuration.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
database = typer.Typer(help="The farm's database.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(database, name="db")

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
JobId = Annotated[int, typer.Argument(metavar="JOB", min=1, help="Number of the job.")]
Image = Annotated[int | None, typer.Option(min=0, help="Only this image of the job, counted from 0.")]
Size = Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Pixels; else the checkpoint's own.")]


@app.command()
def up(*, as_json: AsJson = False) -> None:
    """Start a farm on this machine. It stays up until Ctrl-C: PostgreSQL, Redis, the API and one worker per card."""
    from api.cli.up import up as run

    run(_settings(), as_json=as_json)


@app.command()
def api(*, as_json: AsJson = False) -> None:
    """Start the API alone. For a farm of several machines; --json: logs in JSON."""
    from api.cli.alone import serve_api

    serve_api(_settings(), as_json=as_json)


@app.command()
def worker(
    *,
    gpus: Annotated[str | None, typer.Option(help="all | 0,2 | cpu | cpu:2 (two on the CPU); else FARM_GPUS.")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Images that each carries at once; else FARM_SLOTS.")] = None,
    as_json: AsJson = False,
) -> None:
    """Start this machine's workers alone. For a farm of several machines; --json: logs in JSON."""
    from api.cli.alone import become_worker

    given = {"--gpus": gpus, "--slots": slots}
    arguments = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    become_worker(_settings(), arguments, as_json=as_json)


@app.command()
def render(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the picture shows.")],
    *,
    negative: Annotated[str | None, typer.Option(help="What it should not show.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Name or hash; `farm models` lists them.")] = None,
    size: Size = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    cfg: Annotated[float | None, typer.Option(help="How strongly the prompt guides.")] = None,
    sampler: Annotated[str | None, typer.Option(help="Such as 'Euler a', 'DPM++ 2M'.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Noise schedule.")] = None,
    seed: Annotated[int | None, typer.Option(help="Start of the noise; else random.")] = None,
    count: Annotated[int | None, typer.Option(help="How many pictures, with seeds from SEED on.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("pictures"),
    as_json: AsJson = False,
) -> None:
    """Render a picture to ./pictures. The farm that is up does it, or one that is started for it and stopped again."""
    from api.cli.render import render as run

    width, height = _pixels(size)
    asked: dict[str, Any] = {
        "prompt": prompt, "negative_prompt": negative, "checkpoint": checkpoint, "width": width, "height": height,
        "steps": steps, "cfg_scale": cfg, "sampler": sampler, "schedule": schedule, "seed": seed, "count": count,
    }  # fmt: skip
    params = {name: value for name, value in asked.items() if value is not None}
    raise typer.Exit(run(_settings(), params, out, as_json=as_json))


@app.command()
def status(
    job: Annotated[int | None, typer.Argument(metavar="[JOB]", min=1, help="Number of a job.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the workers and the latest jobs, or one job."""
    from api.cli import jobs
    from api.cli.client import Client

    with Client.connect(_settings()) as client:
        jobs.status(client, job, as_json=as_json)


@app.command()
def cancel(job: JobId, *, image: Image = None, as_json: AsJson = False) -> None:
    """Cancel a job."""
    from api.cli import jobs
    from api.cli.client import Client

    with Client.connect(_settings()) as client:
        jobs.cancel(client, job, image, as_json=as_json)


@app.command()
def retry(job: JobId, *, image: Image = None, as_json: AsJson = False) -> None:
    """Render failed and cancelled pictures again. They get the same seeds."""
    from api.cli import jobs
    from api.cli.client import Client

    with Client.connect(_settings()) as client:
        jobs.retry(client, job, image, as_json=as_json)


@app.command()
def models(
    *,
    rescan: Annotated[bool, typer.Option("--rescan", help="Have the models folder scanned first.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the checkpoints, and why some cannot be used."""
    from api.cli import jobs
    from api.cli.client import Client

    with Client.connect(_settings()) as client:
        jobs.models(client, rescan=rescan, as_json=as_json)


@app.command()
def logs(
    parts: Annotated[list[str] | None, typer.Argument(metavar="[PART]...", help="api, workers; else all.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Last lines of each part.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what this machine's farm has logged."""
    from api.cli.logs import show

    show(_settings().home / "logs", tuple(parts or ()), lines=lines, follow=follow, as_json=as_json)


@app.command()
def doctor(
    checks: Annotated[list[str] | None, typer.Argument(metavar="[CHECK]...", help="Only these checks.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Check machine and farm. Says what to do about what is wrong."""
    from api.cli.doctor import examine

    raise typer.Exit(examine(os.environ, tuple(checks or ()), as_json=as_json))


@database.command("upgrade")
def upgrade(*, as_json: AsJson = False) -> None:
    """Bring the database to this version. `farm up` does it by itself."""
    from api.cli.alone import upgrade as run

    run(_settings(), as_json=as_json)


def main() -> None:
    """Run `farm`. What goes wrong is told in a sentence, never as a traceback."""
    as_json = "--json" in sys.argv
    try:
        app()
    except FarmError as error:
        from api.cli.terminal import complain

        complain(error, as_json=as_json)
        sys.exit(1)


def _settings() -> Settings:
    from shared.settings import load

    return load()


def _pixels(size: str | None) -> tuple[int | None, int | None]:
    if size is None:
        return None, None
    width, _, height = size.lower().replace("×", "x").partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"{size!r} is not WIDTHxHEIGHT, such as 512x768.", param_hint="--size")
    return int(width), int(height)
