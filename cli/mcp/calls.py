"""Steps that tools share: a job that is followed for some time, a picture by its name, refusals in words."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec

import anyio
from anyio import to_thread
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from cli.mcp.answers import Told, pictures_said
from client.async_client import AsyncClient
from client.client import FINAL
from client.errors import FarmError, Refused
from client.shapes import Job

P = ParamSpec("P")

_MOST_FILE_BYTES: Final = 64 << 20
_PICTURE: Final = re.compile(r"[1-9][0-9]{0,17}\.[0-9]{1,9}")


def answering(tool: Callable[P, Awaitable[Told]]) -> Callable[P, Awaitable[Told]]:
    """Say what the farm refuses in words that a model can act on."""

    @wraps(tool)
    async def answered(*args: P.args, **given: P.kwargs) -> Told:
        try:
            return await tool(*args, **given)
        except Refused as refused:
            fields = [f"{one.field} {one.message}; accepted: {one.accepted}" for one in refused.fields]
            raise ToolError("\n".join([str(refused), *fields])) from refused
        except FarmError as error:
            raise ToolError(str(error)) from error

    return answered


def given(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that somebody gave."""
    return {name: value for name, value in params.items() if value is not None}


async def rendered(client: AsyncClient, context: Context, params: dict[str, Any], wait_seconds: float) -> Told:
    """Submit a job and follow it for some time."""
    return await followed(client, context, await client.submit(params), wait_seconds, is_mine=True)


async def followed(
    client: AsyncClient, context: Context, job: Job, wait_seconds: float, *, is_mine: bool = False
) -> Told:
    """Follow a job for some time; a call that is cancelled meanwhile cancels the job that it has submitted."""
    try:
        with anyio.move_on_after(wait_seconds):
            if job["state"] not in FINAL:
                async with aclosing(client.watch(job["id"])) as changes:  # type: ignore[type-var]
                    async for now in changes:
                        await context.report_progress(now["progress"], 1.0, now["state"])
        return await pictures_said(client, await client.job(job["id"]))
    except anyio.get_cancelled_exc_class():
        if is_mine:
            with anyio.CancelScope(shield=True), suppress(FarmError):
                await client.cancel(job["id"])
        raise


def named(picture: str) -> tuple[int, int]:
    """Return job and index of a picture of the farm. Raises ToolError."""
    if not _PICTURE.fullmatch(picture):
        raise ToolError(f"{picture[:60]!r} is not a picture of the farm: JOB.INDEX is accepted, such as 12.0.")
    job, index = picture.split(".")
    return int(job), int(index)


async def file_of(client: AsyncClient, picture: str, *, reads_files: bool) -> bytes:
    """Return the file of a picture of the farm, or of this machine. Raises ToolError, FarmError."""
    if reads_files and not _PICTURE.fullmatch(picture):
        return await to_thread.run_sync(_read, picture)
    return await client.picture(*named(picture))


def _read(picture: str) -> bytes:
    try:
        path = Path(picture).expanduser()
        if not path.is_file():
            raise ToolError(f"{picture[:60]!r} is neither a picture of the farm, such as 12.0, nor a file.")
        with path.open("rb") as file:
            data = file.read(_MOST_FILE_BYTES + 1)
    except (OSError, RuntimeError, ValueError) as error:  # a long name, an unknown user, a NUL
        raise ToolError(f"{picture[:60]!r} cannot be read: {error}.") from error
    if len(data) > _MOST_FILE_BYTES:
        raise ToolError(f"{picture[:60]!r} is larger than {_MOST_FILE_BYTES >> 20} MiB.")
    return data
