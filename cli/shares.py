"""`farm share` and `farm shares`: links by which people without a key see pictures."""

from __future__ import annotations

from typing import Final

from cli import terminal
from cli.terminal import age, minute, table
from client.client import Client, Json

_HEADINGS: Final = ("link", "shows", "made", "until")


def show(client: Client, *, as_json: bool) -> None:
    """Print your links that have not ended; their addresses were shown when they were made."""
    found = client.shares()
    if as_json:
        return terminal.answer_json({"shares": found})
    return table(_HEADINGS, map(_row, found), "No link. `farm share JOB` makes one.")


def make(client: Client, job_id: int, index: int | None, days: int | None, *, as_json: bool) -> None:
    """Make a link to a job, or to one picture of it, and print it this once."""
    made = client.share(job_id, index, days=days)
    if as_json:
        return terminal.answer_json(made)
    terminal.answer(made["link"])
    return terminal.progress(
        f"Link {made['id']} to {_shown(made)}, until {minute(made['expires_at'])} UTC. Nobody can show it again; "
        f"`farm share --revoke {made['id']}` ends it."
    )


def revoke(client: Client, share_id: int, *, as_json: bool) -> None:
    """Revoke a link."""
    client.revoke_share(share_id)
    if as_json:
        return terminal.answer_json({"revoked": share_id})
    return terminal.answer(f"link {share_id}: leads nowhere any more.")


def _row(share: Json) -> tuple[object, ...]:
    return share["id"], _shown(share), age(share["created_at"]), minute(share["expires_at"])


def _shown(share: Json) -> str:
    return f"job {share['job_id']}" if share["index"] is None else f"picture {share['job_id']}.{share['index']}"
