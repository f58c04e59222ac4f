"""`farm mcp`: serve the farm's tools to programs that speak the Model Context Protocol, by standard input or HTTP."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from cli import terminal
from cli.connect import connect
from cli.mcp.tools import Farm, Tools
from client.async_client import AsyncClient
from shared.settings import Settings
from shared.version import version

_INSTRUCTIONS: Final = (
    "A farm that renders pictures with diffusion models. render shows pictures of a prompt; sweep compares values of "
    "parameters; again and upscale start from a picture. Pictures are called JOB.INDEX, such as 12.0. Jobs go on when "
    "a call stops waiting: job_status shows them."
)
_READS_FILES: Final = " Where a picture is asked for, the path of a file on this machine is taken too."
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def by_stdio(settings: Settings) -> None:
    """Serve one program by standard input and output, with this shell's key, until it closes them."""
    url, key = _farm_of(settings)
    server(lambda _: AsyncClient(url, key), reads_files=True).run("stdio")


def by_http(settings: Settings, host: str, port: int, names: Collection[str]) -> None:
    """Serve programs at http://HOST:PORT/mcp until stopped. Each brings its own key as `Authorization: Bearer`.

    `names` are those by which programs call this machine, beside the host and loopback: others are refused, because a
    page in somebody's browser can make up a name for any address.
    """
    url, _ = _farm_of(settings)
    terminal.warn(f"MCP at http://{_written(host)}:{port}/mcp, for the farm at {url}. Ctrl-C stops it.")
    known = [_written(name) for name in (*_LOOPBACK, host, *names)]
    written = [form for name in known for form in (name, f"{name}:*")]
    origins = [f"{scheme}://{name}" for scheme in ("http", "https") for name in written]
    security = TransportSecuritySettings(allowed_hosts=written, allowed_origins=origins)
    http = server(lambda context: AsyncClient(url, _key_of(context)), reads_files=False)
    http.run("streamable-http", host=host, port=port, transport_security=security)


def server(farm: Farm, *, reads_files: bool) -> MCPServer[None]:
    """Return the server of the farm's tools and pictures."""
    served: MCPServer[None] = MCPServer(
        "stepfarm",
        title="Stepfarm",
        instructions=_INSTRUCTIONS + (_READS_FILES if reads_files else ""),
        version=version(),
        log_level="WARNING",
    )
    for tool in Tools(farm, reads_files=reads_files).all():
        served.add_tool(tool, structured_output=False)

    @served.resource("stepfarm://pictures/{job}/{index}", mime_type="image/*", description="The file of a picture.")
    async def picture(job: int, index: int, context: Context) -> bytes:
        async with farm(context) as client:
            return await client.picture(job, index)

    return served


def _farm_of(settings: Settings) -> tuple[str, str]:
    """Return the address of the farm that this shell means, and its key. Raises NotRunning, SettingsError."""
    with connect(settings) as client:
        return client.url, settings.api_key or next(iter(settings.api_keys), "")


def _key_of(context: Context) -> str:
    kind, _, key = (context.headers or {}).get("authorization", "").partition(" ")
    return key.strip() if kind.casefold() == "bearer" else ""


def _written(host: str) -> str:
    """Return a host as an address has it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host
