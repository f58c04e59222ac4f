"""The farm as tools for language models: each is one function, its docstring says when to use it.

A picture is named as the farm does, such as 12.0, the first of job 12. A server on the same machine as its reader also
takes the path of a file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Annotated, Any, Final

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from cli.mcp.answers import Told, job_said, pictures_said, said
from cli.mcp.calls import answering, file_of, followed, given, named, rendered
from client.async_client import AsyncClient

Tool = Callable[..., Awaitable[Told]]
Farm = Callable[[Context], AbstractAsyncContextManager[AsyncClient]]
"""Opens the farm as the caller of a tool."""

_LONGEST_WAIT: Final = 600.0

Picture = Annotated[
    str, Field(description="A picture: JOB.INDEX, such as 12.0, or the path of a file.", max_length=4096)
]
JobId = Annotated[int, Field(description="The number of a job.", ge=1)]
Index = Annotated[int | None, Field(description="One image of the job, counted from 0; left out: all.", ge=0)]
Wait = Annotated[
    float,
    Field(description="Seconds to wait for pictures; what is not ready then goes on.", ge=0, le=_LONGEST_WAIT),
]
Parameters = Annotated[
    dict[str, Any] | None,
    Field(description='Other parameters by their names in the API, such as {"hires": {"scale": 1.5}}.'),
]
_WAIT_SECONDS: Final = 50.0  # most programs give a tool a minute


class Tools:
    """The tools over a farm. `reads_files`: a picture may be the path of a file on this machine."""

    def __init__(self, farm: Farm, *, reads_files: bool) -> None:
        self._farm = farm
        self._reads_files = reads_files

    def all(self) -> tuple[Tool, ...]:
        """Return the functions."""
        return (
            self.render, self.sweep, self.again, self.upscale, self.job_status, self.cancel, self.list_models,
            self.picture_parameters, self.show_picture,
        )  # fmt: skip

    @answering
    async def render(
        self,
        context: Context,
        prompt: Annotated[str, Field(description="Describes the picture.")],
        negative_prompt: str = "",
        checkpoint: Annotated[str | None, Field(description="A model; left out: the farm's first.")] = None,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        cfg_scale: float | None = None,
        sampler: str | None = None,
        seed: Annotated[int | None, Field(description="The same seed gives the same picture; left out: drawn.")] = None,
        count: Annotated[int, Field(description="Pictures to render.", ge=1)] = 1,
        more: Parameters = None,
        wait_seconds: Wait = _WAIT_SECONDS,
    ) -> Told:
        """Render pictures from a prompt, and show them. Those not ready in time go on: ask job_status for them."""
        wanted = {
            "prompt": prompt, "negative_prompt": negative_prompt, "checkpoint": checkpoint, "width": width,
            "height": height, "steps": steps, "cfg_scale": cfg_scale, "sampler": sampler, "seed": seed, "count": count,
        }  # fmt: skip
        async with self._farm(context) as client:
            return await rendered(client, context, given(wanted) | (more or {}), wait_seconds)

    @answering
    async def sweep(
        self,
        context: Context,
        prompt: str,
        vary: Annotated[
            dict[str, list[str | float]],
            Field(
                description='One to three parameters and the values to try, such as {"cfg_scale": [4, 7, 12], '
                '"sampler": ["Euler a", "DDIM"]}.',
                min_length=1,
                max_length=3,
            ),
        ],
        more: Parameters = None,
        wait_seconds: Wait = _WAIT_SECONDS,
    ) -> Told:
        """Render one picture for each combination of values, to compare them. Its page is a contact sheet."""
        axes = [{"field": field, "values": values} for field, values in vary.items()]
        async with self._farm(context) as client:
            params = {"prompt": prompt} | (more or {}) | {"sweep": {"axes": axes}}
            return await rendered(client, context, params, wait_seconds)

    @answering
    async def again(
        self,
        context: Context,
        picture: Picture,
        changes: Annotated[
            dict[str, Any] | None,
            Field(description='To change, such as {"seed": 8}; none: the same picture.'),
        ] = None,
        wait_seconds: Wait = _WAIT_SECONDS,
    ) -> Told:
        """Render a picture again from the parameters in its file, with some of them changed."""
        async with self._farm(context) as client:
            found = await client.file_parameters(await file_of(client, picture, reads_files=self._reads_files))
            if "seed" not in found["params"]:
                raise ToolError(f"The file of {picture} has no parameters to render again.")
            return await rendered(client, context, found["params"] | (changes or {}), wait_seconds)

    @answering
    async def upscale(
        self,
        context: Context,
        picture: Picture,
        scale: Annotated[float, Field(description="How many times larger each side becomes.", gt=1, le=8)] = 2.0,
        upscaler: Annotated[str | None, Field(description="A name such as Lanczos, or a model of list_models.")] = None,
        wait_seconds: Wait = _WAIT_SECONDS,
    ) -> Told:
        """Enlarge a picture."""
        async with self._farm(context) as client:
            source = await client.upload(await file_of(client, picture, reads_files=self._reads_files))
            wanted = {"pictures": [{"picture": source["id"]}], **given({"scale": scale, "upscaler": upscaler})}
            return await rendered(client, context, {"upscale": wanted}, wait_seconds)

    @answering
    async def job_status(self, context: Context, job: JobId, wait_seconds: Wait = 0.0) -> Told:
        """Say how far a job is, why it waits or failed, and show the pictures that are ready."""
        async with self._farm(context) as client:
            return await followed(client, context, await client.job(job), wait_seconds)

    @answering
    async def cancel(self, context: Context, job: JobId, index: Index = None) -> Told:
        """Cancel a job, or one image of it. Pictures that are ready stay."""
        async with self._farm(context) as client:
            change = await client.cancel(job, index)
            return said(f"Images cancelled: {change['images']}.", job_said(client.url, change["job"]))

    @answering
    async def list_models(
        self,
        context: Context,
        kind: Annotated[str, Field(description="Such as checkpoint, lora, vae, upscaler, embedding.")] = "checkpoint",
    ) -> Told:
        """List the model files that the farm can use, by the names that parameters take."""
        async with self._farm(context) as client:
            async with aclosing(client.models(kind=kind)) as files:  # type: ignore[type-var]
                names = [file["name"] for file in [file async for file in files] if file["usable"]]
            return said({"kind": kind, "models": names})

    @answering
    async def picture_parameters(self, context: Context, picture: Picture) -> Told:
        """Read how a picture was made from its file, also of another program."""
        async with self._farm(context) as client:
            found = await client.file_parameters(await file_of(client, picture, reads_files=self._reads_files))
            return said(dict(found))

    @answering
    async def show_picture(self, context: Context, picture: Picture) -> Told:
        """Show a picture of the farm."""
        async with self._farm(context) as client:
            job, index = named(picture)
            return await pictures_said(client, await client.job(job), only=index)
