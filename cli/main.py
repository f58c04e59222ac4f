"""`farm`: the command line. Each command imports what it needs when it runs, so that `farm --help` answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import error_boundary
from cli.keys_command import keys
from cli.limits_command import limits
from cli.options import AsJson
from cli.render_command import RenderCommand, SweepCommand, render, sweep
from cli.shares_command import share, shares

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
styles = typer.Typer(help="Texts that join prompts by a name.", invoke_without_command=True, rich_markup_mode=None)
app.add_typer(styles, name="styles")
presets = typer.Typer(help="Parameters under names.", invoke_without_command=True, rich_markup_mode=None)
app.add_typer(presets, name="presets")
webhooks = typer.Typer(
    help="Messages to other programs when jobs have ended.", invoke_without_command=True, rich_markup_mode=None
)
app.add_typer(webhooks, name="webhooks")
models = typer.Typer(help="Checkpoints, and what a model file is.", invoke_without_command=True, rich_markup_mode=None)
app.add_typer(models, name="models")

storage = typer.Typer(help="Where the farm's pictures lie.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(storage, name="storage")

app.add_typer(keys, name="keys")
app.add_typer(limits, name="limits")

JobId = Annotated[int, typer.Argument(metavar="JOB", min=1, help="Number of the job.")]
WorkerName = Annotated[str | None, typer.Argument(metavar="[WORKER]", help="Name, or a pattern like 'host/*'.")]
AllWorkers = Annotated[bool, typer.Option("--all", help="Every worker.")]
Image = Annotated[int | None, typer.Option(min=0, help="Only this image of the job, counted from 0.")]


@app.command()
def up(*, as_json: AsJson = False) -> None:
    """Start a farm on this machine. It stays up until Ctrl-C: PostgreSQL, Redis, the API, a worker per card, chores."""
    from cli.up import up as run

    run(_settings(), as_json=as_json)


@app.command()
def api(*, as_json: AsJson = False) -> None:
    """Start the API alone. For a farm of several machines; --json: logs in JSON."""
    from cli.standalone import serve_api

    serve_api(_settings(), as_json=as_json)


@app.command()
def worker(
    *,
    gpus: Annotated[str | None, typer.Option(help="all | 0,2 | 0:1 | cpu | cpu:2 (two on the CPU).")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Images that each carries at once; else FARM_SLOTS.")] = None,
    as_json: AsJson = False,
) -> None:
    """Start this machine's workers alone. For a farm of several machines; --json: logs in JSON."""
    from cli.standalone import become

    given = {"--gpus": gpus, "--slots": slots}
    arguments = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    become(_settings(), "worker", arguments, as_json=as_json)


@app.command()
def chores(
    *,
    now: Annotated[
        list[str] | None, typer.Option(metavar="CHORE", help="Run this chore now, in the running chores process.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start only the chores process. For a farm of several machines, one or two; --json: logs in JSON."""
    from cli.standalone import become

    arguments = [word for name in now or () for word in ("--now", name)]
    become(_settings(), "worker.maintenance.process", arguments, as_json=as_json)


app.command(cls=RenderCommand)(render)
app.command(cls=SweepCommand)(sweep)
app.command()(share)
app.command()(shares)


@app.command()
def again(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="PNG, JPEG or WebP.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Render the parameters in a picture's file again, and compare. Exit status 0: the same picture."""
    from cli.again import again as run

    raise typer.Exit(run(_settings(), file, as_json=as_json))


@app.command()
def upscale(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", exists=True, dir_okay=False, help="PNG, JPEG, WebP, BMP or GIF.")
    ],
    *,
    by: Annotated[float | None, typer.Option(help="How many times larger; 2 without a size.")] = None,
    width: Annotated[int | None, typer.Option(help="Width of the results in pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Height of the results in pixels.")] = None,
    name: Annotated[
        str | None, typer.Option("--with", metavar="NAME", help="Name or hash of an upscaler; else Lanczos.")
    ] = None,
    second: Annotated[str | None, typer.Option(metavar="NAME", help="A second upscaler, mixed into the first.")] = None,
    share: Annotated[float | None, typer.Option(help="Share of the second upscaler, 0 to 1.")] = None,
    faces: Annotated[
        str | None, typer.Option(metavar="NAME[:STRENGTH]", help="Restore faces by this face restorer.")
    ] = None,
    form: Annotated[str | None, typer.Option("--format", help="png, jpeg or webp.")] = None,
    quality: Annotated[int | None, typer.Option(help="Of JPEG and WebP files, 1 to 100; else 95.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("pictures"),
    as_json: AsJson = False,
) -> None:
    """Enlarge pictures. `farm models --kind upscaler` lists the upscalers in the models folder."""
    from cli.upscale import faces_of
    from cli.upscale import upscale as run

    given = {"scale": by, "width": width, "height": height, "upscaler": name, "second": second, "second_share": share}
    asked = {**given, "faces": faces_of(faces), "format": form, "file_quality": quality}
    options = {key: value for key, value in asked.items() if value is not None}
    raise typer.Exit(run(_settings(), files, options, out, as_json=as_json))


@app.command()
def preprocess(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="PNG, JPEG, WebP, BMP or GIF.")
    ],
    *,
    preprocessor: Annotated[str, typer.Option(metavar="NAME", help="Such as canny, blur, tile, grey or invert.")],
    threshold_a: Annotated[float | None, typer.Option(help="Its first number, such as canny's low threshold.")] = None,
    threshold_b: Annotated[float | None, typer.Option(help="Its second number: canny's high threshold.")] = None,
    resize: Annotated[str | None, typer.Option(metavar="MODE", help="crop, resize or fill.")] = None,
    width: Annotated[int | None, typer.Option(help="Width of the job in pixels; else the checkpoint's own.")] = None,
    height: Annotated[int | None, typer.Option(help="Height of the job in pixels; else the checkpoint's own.")] = None,
    checkpoint: Annotated[str | None, typer.Option(metavar="NAME", help="Whose size it is; else the first.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="PNG to write; else FILE-NAME.png.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a ControlNet would be given of a picture. Needs a running farm, and submits nothing."""
    from cli.preprocess import preprocess as run

    unit = {"preprocessor": preprocessor, "threshold_a": threshold_a, "threshold_b": threshold_b, "resize": resize}
    params = {"width": width, "height": height, "checkpoint": checkpoint}
    given, beside = ({key: one for key, one in some.items() if one is not None} for some in (unit, params))
    run(_settings(), file, {**beside, "controlnet": [given]}, out, as_json=as_json)


@app.command()
def status(
    job: Annotated[int | None, typer.Argument(metavar="[JOB]", min=1, help="Number of a job.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the workers and the latest jobs, or one job."""
    from cli import jobs
    from cli.connect import connect

    with connect(_settings()) as client:
        jobs.status(client, job, as_json=as_json)


@app.command()
def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="Print it once, for scripts.")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", min=0.2, max=3600, help="Between two looks.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show the farm live: workers, what they render, the queue, what has ended. q ends it."""
    from cli.connect import connect_awaited
    from cli.top.screen import show

    show(connect_awaited(_settings()), every, once=once, as_json=as_json)


@app.command()
def pictures(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[WORDS]...", help="Words of the prompt; all must be there.")
    ] = None,
    *,
    checkpoint: Annotated[str | None, typer.Option(metavar="NAME", help="Title, name or hash.")] = None,
    adapter: Annotated[str | None, typer.Option(metavar="NAME", help="A LoRA or hypernetwork of the prompt.")] = None,
    sampler: Annotated[str | None, typer.Option(metavar="NAME")] = None,
    size: Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    since: Annotated[str | None, typer.Option("--from", metavar="DAY", help="Finished on this day or later.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="Finished on this day or before.")] = None,
    job: Annotated[int | None, typer.Option(min=1, help="Of this job.")] = None,
    favourites: Annotated[bool, typer.Option("--favourites", help="Only favourites.")] = False,
    tag: Annotated[list[str] | None, typer.Option(help="With this tag; may be repeated.")] = None,
    owner: Annotated[str | None, typer.Option(help="For an admin: another owner, or '*' for everybody.")] = None,
    order: Annotated[
        str | None, typer.Option(help="newest, oldest, seed, largest, smallest or checkpoint.", show_default="newest")
    ] = None,
    most: Annotated[int, typer.Option("--limit", min=1, help="How many.")] = 20,
    save: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Save them there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find finished pictures of all jobs. --save FOLDER copies their files."""
    from cli.connect import connect
    from cli.pictures import show

    asked: dict[str, object] = {
        "words": " ".join(words or ()),
        "checkpoint": checkpoint,
        "adapter": adapter,
        "sampler": sampler,
        "size": size,
        "seed": seed,
        "from": since,
        "until": until,
        "job": job,
        "favourites": favourites,
        "tag": tag,
        "owner": owner,
        "order": order,
    }
    filters = {name: value for name, value in asked.items() if value is not False and value not in (None, "")}
    with connect(_settings()) as client:
        show(client, filters, most, save, as_json=as_json)


@app.command()
def cancel(
    job: JobId,
    *,
    image: Image = None,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only pictures that have not started.")] = False,
    as_json: AsJson = False,
) -> None:
    """Cancel a job."""
    from cli import jobs
    from cli.connect import connect

    if waiting and image is not None:
        raise typer.BadParameter("give either --waiting or --image", param_hint="--waiting")
    with connect(_settings()) as client:
        jobs.cancel(client, job, image, only_waiting=waiting, as_json=as_json)


@app.command()
def change(
    job: JobId,
    *,
    priority: Annotated[int | None, typer.Option(help="Higher starts first among your own images.")] = None,
    pool: Annotated[str | None, typer.Option(help="Only workers of this pool render the job.")] = None,
    urgent: Annotated[bool | None, typer.Option("--urgent/--not-urgent", help="Before everything else.")] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="INSTANT", help="Images that have not started by then are cancelled; or none.")
    ] = None,
    hold: Annotated[bool | None, typer.Option("--hold/--release", help="Hold what waits, or queue it.")] = None,
    after: Annotated[
        list[str] | None, typer.Option(metavar="JOB", help="Wait for these jobs (12,13), or for none.")
    ] = None,
    on: Annotated[str | None, typer.Option(help="success or end: what of these jobs it waits for.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change where and when the waiting pictures of a job start; running ones go on."""
    from cli import jobs
    from cli.connect import connect

    asked = {"priority": priority, "pool": pool, "urgent": urgent, "expires_at": expires, "hold": hold}
    beside = {"after": after or None, "on": on}
    given: dict[str, object] = {name: value for name, value in (asked | beside).items() if value is not None}
    if expires == "none":
        given["expires_at"] = None
    if after == ["none"]:
        given["after"] = []
    with connect(_settings()) as client:
        jobs.change(client, job, given, as_json=as_json)


@app.command()
def retry(job: JobId, *, image: Image = None, as_json: AsJson = False) -> None:
    """Render failed and cancelled pictures again. They get the same seeds."""
    from cli import jobs
    from cli.connect import connect

    with connect(_settings()) as client:
        jobs.retry(client, job, image, as_json=as_json)


@app.command()
def drain(
    name: WorkerName = None,
    *,
    reason: Annotated[str, typer.Option(help="Shown beside the worker.")] = "",
    everything: AllWorkers = False,
    as_json: AsJson = False,
) -> None:
    """Have a worker finish its pictures and take no new ones. That holds, also over restarts, until `farm resume`."""
    from cli import workers
    from cli.connect import connect

    with connect(_settings()) as client:
        workers.drain(client, name, reason, everything=everything, as_json=as_json)


@app.command()
def resume(name: WorkerName = None, *, everything: AllWorkers = False, as_json: AsJson = False) -> None:
    """Let a drained worker take pictures again."""
    from cli import workers
    from cli.connect import connect

    with connect(_settings()) as client:
        workers.resume(client, name, everything=everything, as_json=as_json)


@app.command()
def hold(job: JobId, *, as_json: AsJson = False) -> None:
    """Hold a job: waiting images do not start until it is released, and running images go on."""
    from cli import jobs
    from cli.connect import connect

    with connect(_settings()) as client:
        jobs.hold(client, job, as_json=as_json)


@app.command()
def release(job: JobId, *, as_json: AsJson = False) -> None:
    """Queue the held images of a job."""
    from cli import jobs
    from cli.connect import connect

    with connect(_settings()) as client:
        jobs.release(client, job, as_json=as_json)


@app.command()
def approve(job: JobId, *, as_json: AsJson = False) -> None:
    """Render the sweep of a draft with fewer steps, with all of them."""
    from cli import jobs
    from cli.connect import connect

    with connect(_settings()) as client:
        jobs.approve(client, job, as_json=as_json)


@app.command()
def wipe(
    owners: Annotated[list[str] | None, typer.Argument(metavar="[OWNER]...", help="Whose everything goes.")] = None,
    *,
    file: Annotated[Path | None, typer.Option("--from", help="A CSV file of owners, as for `farm keys`.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete everything of owners: keys, jobs, pictures, uploads, presets, webhooks, links, limits, usage."""
    from cli import owner_lists
    from cli.wipe import wipe as run

    listed = [row["owner"] for row in owner_lists.read(file)] if file else []
    run(_settings(), [*(owners or []), *listed], is_sure=yes, as_json=as_json)


@models.callback()
def list_models(
    context: typer.Context,
    *,
    kind: Annotated[str | None, typer.Option(help="Only of this kind: checkpoint, vae, lora, embedding…")] = None,
    search: Annotated[str | None, typer.Option(help="Only files whose name, path or trigger words hold this.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Only of this architecture: sd1, sd2, sdxl…")] = None,
    prediction: Annotated[str | None, typer.Option(help="Only of this prediction: noise or velocity.")] = None,
    rescan: Annotated[bool, typer.Option("--rescan", help="Have the models folder scanned first.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the model files, and why some cannot be used; `check` says what a file is."""
    if context.invoked_subcommand is None:
        from cli.connect import connect
        from cli.models import show

        with connect(_settings()) as client:
            filters = {"kind": kind, "search": search, "architecture": architecture, "prediction": prediction}
            show(client, filters, rescan=rescan, as_json=as_json)


@models.command("check")
def check_models(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files, diffusers folders, or folders of them.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Say what model files are, what they need and why they cannot be used. Needs no farm. Status 1: not usable."""
    from cli.model_check import check

    raise typer.Exit(check(_settings(), files, as_json=as_json))


@presets.callback()
def list_presets(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List your presets, parameters under names for `farm render --preset`; `show`, `keep` and `drop` go with it."""
    if context.invoked_subcommand is None:
        _presets("show", None, as_json=as_json)


PresetName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the preset.")]


@presets.command("show")
def show_preset(name: PresetName) -> None:
    """Print the parameters of a preset as JSON."""
    _presets("show", name, as_json=True)


@presets.command("keep")
def keep_preset(name: PresetName, job: JobId, *, as_json: AsJson = False) -> None:
    """Keep the parameters of a job as a preset, all but its seed."""
    _presets("keep", name, job, as_json=as_json)


@presets.command("drop")
def drop_preset(name: PresetName, *, as_json: AsJson = False) -> None:
    """Delete a preset."""
    _presets("drop", name, as_json=as_json)


def _presets(what: str, *given: object, as_json: bool) -> None:
    from cli import presets as commands
    from cli.connect import connect

    with connect(_settings()) as client:
        getattr(commands, what)(client, *given, as_json=as_json)


@webhooks.callback()
def list_webhooks(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List your webhooks, addresses that get a message when your jobs have ended; see docs/webhooks.md."""
    if context.invoked_subcommand is None:
        _webhooks("show", as_json=as_json)


WebhookId = Annotated[int, typer.Argument(metavar="WEBHOOK", min=1, help="Number of the webhook.")]


@webhooks.command("add")
def add_webhook(
    url: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="Where messages go; without one: where each job says.")
    ] = None,
    *,
    name: Annotated[str, typer.Option(help="For yourself.")] = "",
    form: Annotated[str, typer.Option("--format", help="standard (JSON for programs), discord or slack.")] = "standard",
    kinds: Annotated[
        list[str] | None, typer.Option("--on", help="Only then: job.succeeded, job.failed, job.cancelled.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a webhook. Its secret is printed this once."""
    _webhooks("add", {"url": url, "name": name, "format": form, "kinds": kinds or None}, as_json=as_json)


@webhooks.command("remove")
def remove_webhook(webhook: WebhookId, *, as_json: AsJson = False) -> None:
    """Delete a webhook with the record of its messages."""
    _webhooks("remove", webhook, as_json=as_json)


@webhooks.command("rotate")
def rotate_webhook(webhook: WebhookId, *, as_json: AsJson = False) -> None:
    """Give a webhook a new secret, printed this once. The old one signs as well for a day."""
    _webhooks("rotate", webhook, as_json=as_json)


@webhooks.command("test")
def send_test(webhook: WebhookId, *, as_json: AsJson = False) -> None:
    """Send a message that says no more than that it arrives."""
    _webhooks("test", webhook, as_json=as_json)


@webhooks.command("messages")
def webhook_messages(
    webhook: WebhookId,
    *,
    dead: Annotated[bool, typer.Option("--dead", help="Only those that were given up.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the latest messages of a webhook, and how they fared."""
    _webhooks("messages", webhook, dead=dead, as_json=as_json)


@webhooks.command("replay")
def replay_messages(
    webhook: WebhookId,
    message: Annotated[int | None, typer.Argument(metavar="[MESSAGE]", min=1, help="One; else all given up.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Send a message again, or all that were given up."""
    _webhooks("replay", webhook, message, as_json=as_json)


def _webhooks(what: str, *given: object, as_json: bool, **options: object) -> None:
    from cli import webhooks as commands
    from cli.connect import connect

    with connect(_settings()) as client:
        getattr(commands, what)(client, *given, as_json=as_json, **options)


@app.command()
def usage(
    *,
    since: Annotated[str | None, typer.Option("--from", metavar="DAY", help="2026-11-01; else 30 days ago.")] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="DAY", help="The last day; else today, in UTC.")] = None,
    owner: Annotated[str | None, typer.Option(help="For an admin: another owner, or '*' for everybody.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Answer in comma-separated values.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what your images took of the farm, by day and checkpoint."""
    from cli.connect import connect
    from cli.usage import show

    with connect(_settings()) as client:
        show(client, {"from": since, "to": until, "owner": owner}, as_csv=as_csv, as_json=as_json)


@app.command()
def audit(
    *,
    owner: Annotated[str | None, typer.Option(help="Only deeds of this owner, or with their things.")] = None,
    action: Annotated[str | None, typer.Option(help="Only deeds such as key.made.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show who did what with the farm, for an admin; the latest first."""
    from cli.audit import show
    from cli.connect import connect

    with connect(_settings()) as client:
        show(client, owner, action, limit=limit, as_json=as_json)


@styles.callback()
def list_styles(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List the styles, texts that join prompts by a name; `add` and `remove` change them."""
    if context.invoked_subcommand is None:
        from cli.styles import show

        show(_settings(), as_json=as_json)


@styles.command("add")
def add_style(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that jobs use.")],
    *,
    prompt: Annotated[str, typer.Option(help="Follows the prompt, or takes it in at {prompt}.")] = "",
    negative: Annotated[str, typer.Option(help="The same for the negative prompt.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="In the place of the style of this name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add a style."""
    from cli.styles import add
    from shared.prompts.styles import Style

    add(_settings(), Style(name, prompt, negative), replace=replace, as_json=as_json)


@styles.command("remove")
def remove_style(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a style. The file as it was stays beside it as .bak."""
    from cli.styles import remove

    remove(_settings(), name, yes=yes, as_json=as_json)


@app.command()
def logs(
    parts: Annotated[list[str] | None, typer.Argument(metavar="[PART]...", help="api, workers…; else all.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the logs.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Last lines of each part.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what this machine's farm has logged."""
    from cli.logs import show

    show(_settings().home / "logs", tuple(parts or ()), lines=lines, follow=follow, as_json=as_json)


@app.command()
def doctor(
    checks: Annotated[list[str] | None, typer.Argument(metavar="[CHECK]...", help="Only these checks.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Check machine and farm. Says what to do about what is wrong."""
    from cli.doctor import examine

    raise typer.Exit(examine(os.environ, tuple(checks or ()), as_json=as_json))


@app.command()
def mcp(
    *,
    http: Annotated[bool, typer.Option("--http", help="By HTTP, each caller with a key; else one, by stdin.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen at, with --http.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at, with --http.")] = 8765,
    name: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Name by which programs call it; may be repeated.")
    ] = None,
) -> None:
    """Give language models the farm as tools, by the Model Context Protocol."""
    from cli.mcp_command import serve

    serve(_settings(), (host, port) if http else None, name or ())


@database.command("upgrade")
def upgrade(*, as_json: AsJson = False) -> None:
    """Bring the database to this version. `farm up` does it by itself."""
    from cli.standalone import upgrade as run

    run(_settings(), as_json=as_json)


@database.command("redeliver")
def redeliver(*, as_json: AsJson = False) -> None:
    """Try again what was to follow from ends of jobs and was given up (`farm doctor events`)."""
    from cli.standalone import redeliver as run

    run(_settings(), as_json=as_json)


@storage.command("adopt")
def adopt(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Replace another farm's marker.")] = False,
    as_json: AsJson = False,
) -> None:
    """Mark FARM_STORAGE_URL as this farm's storage, after it was lost or moved."""
    from cli.storage import adopt as run

    run(_settings(), yes=yes, as_json=as_json)


def main() -> None:
    """Run `farm`. An error is one sentence, never a traceback."""
    sys.exit(error_boundary.run(app, as_json="--json" in sys.argv))


def _settings() -> Settings:
    from shared.settings import load

    return load()
