"""`farm limits`: its commands and their options. What they do is in `cli.limits`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import AsJson

limits = typer.Typer(
    help="How much of the farm owners may use: your own limits, or everybody's beside the database.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Owner = Annotated[str, typer.Argument(metavar="OWNER", help="Whose limits they are.")]


@limits.command("show")
def show_limits(
    *,
    everybodys: Annotated[bool, typer.Option("--all", help="Over FARM_URL: everybody's, for an admin.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show limits. With FARM_URL yours with what is left, else what is set for owners in the database itself."""
    from cli.limits import show
    from shared.settings import load

    show(load(), everybodys=everybodys, as_json=as_json)


@limits.command("set")
def set_limits(
    owner: Owner,
    limits: Annotated[
        list[str],
        typer.Argument(metavar="LIMIT=VALUE…", help="Such as queued=100 running=2; none: no limit, role: the role's."),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Set limits of an owner; others stay as they are.

    Numbers: queued, running, daily_images, daily_work, monthly_gpu_seconds and upload_mb. Names with commas between
    them: checkpoints and pools. Yes or no: urgent.
    """
    from cli.limits import change
    from shared.settings import load

    change(load(), owner, limits, as_json=as_json)


@limits.command("clear")
def clear_limits(owner: Owner, *, as_json: AsJson = False) -> None:
    """Give an owner the limits of the role alone."""
    from cli.limits import clear
    from shared.settings import load

    clear(load(), owner, as_json=as_json)
