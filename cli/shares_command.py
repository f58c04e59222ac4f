"""`farm share` and `farm shares`: their options. What they do is in `cli.shares`."""

from __future__ import annotations

import re
from typing import Annotated, Final

import typer

from cli.options import AsJson

_PICTURE: Final = re.compile(r"([1-9][0-9]{0,17})(?:\.([0-9]{1,18}))?")


def share(
    what: Annotated[
        str | None, typer.Argument(metavar="JOB[.INDEX]", help="17: all pictures of job 17; 17.0: its first.")
    ] = None,
    *,
    days: Annotated[int | None, typer.Option(min=1, help="After which the link ends; else 30.")] = None,
    revoke: Annotated[int | None, typer.Option(metavar="LINK", min=1, help="End this link at once.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a link by which anybody sees a picture, or all of a job, or revoke one. `farm shares` lists them."""
    from cli import shares as commands
    from cli.connect import connect
    from shared.settings import load

    if (what is None) == (revoke is None):
        raise typer.BadParameter("give a job, a picture or --revoke LINK", param_hint="JOB[.INDEX]")
    if revoke is not None:
        with connect(load()) as client:
            return commands.revoke(client, revoke, as_json=as_json)
    found = _PICTURE.fullmatch(what or "")
    if not found:
        raise typer.BadParameter(f"{what} is neither a job such as 17 nor a picture such as 17.0")
    index = None if found[2] is None else int(found[2])
    with connect(load()) as client:
        return commands.make(client, int(found[1]), index, days, as_json=as_json)


def shares(*, as_json: AsJson = False) -> None:
    """List your share links that have not ended."""
    from cli.connect import connect
    from cli.shares import show
    from shared.settings import load

    with connect(load()) as client:
        show(client, as_json=as_json)
