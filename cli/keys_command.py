"""`farm keys`: its commands and their options. What they do is in `cli.keys`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson

keys = typer.Typer(
    help="Keys that open the farm: yours, or everybody's beside the database.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@keys.command("list")
def list_keys(
    *,
    everybodys: Annotated[bool, typer.Option("--all", help="Over FARM_URL: everybody's, for an admin.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the keys. With FARM_URL it asks that farm for yours, else the database itself for everybody's."""
    from cli.keys import show
    from shared.settings import load

    show(load(), everybodys=everybodys, as_json=as_json)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for, such as laptop.")],
    *,
    file: Annotated[
        Path | None,
        typer.Option("--from", help="A CSV file with a line for each owner: one key for each, printed as CSV."),
    ] = None,
    limits: Annotated[str, typer.Option(help="With --from: limits of each, such as 'queued=20 running=2'.")] = "",
    owner: Annotated[str | None, typer.Option(help="Whose it is; else yours, or beside the database admin's.")] = None,
    role: Annotated[str | None, typer.Option(help="viewer, user, operator or admin; else user.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="For how many days; else until it is revoked.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, once. The first one of a farm must be an admin's.

    With --from a key for each owner of a list; its columns are owner, and perhaps name, role and days.
    """
    from cli import owner_lists
    from cli.keys import create
    from shared.settings import load

    usual = {"name": name, "owner": owner, "role": role, "days": days}
    if file is None:
        create(load(), usual, as_json=as_json)
    else:
        owner_lists.create(load(), file, usual, shlex.split(limits), as_json=as_json)


@keys.command("revoke")
def revoke_key(
    key: Annotated[int, typer.Argument(metavar="KEY", min=1, help="Its number, as `farm keys list` says.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Revoke a key: it opens nothing any more."""
    from cli.keys import revoke
    from shared.settings import load

    revoke(load(), key, as_json=as_json)
