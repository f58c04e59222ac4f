"""Calls of a program with the Model Context Protocol's own client: prints the answers of `farm mcp`, as JSON."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Any

from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client


def kinds(answer: Any) -> list[str]:
    return [part.type for part in answer.content]


async def main(command: list[str]) -> None:
    told: dict[str, Any] = {}
    progress = []

    async def follow(done: float, total: float | None, message: str | None) -> None:
        progress.append([done, total, message])

    server = StdioServerParameters(command=command[0], args=command[1:], env=dict(json.load(sys.stdin)))
    async with Client(stdio_client(server)) as client:
        told["tools"] = sorted(tool.name for tool in (await client.list_tools()).tools)
        asked = {"prompt": "a lake at dawn", "width": 64, "height": 64, "seed": 7, "count": 2}
        rendered = await client.call_tool("render", asked, progress_callback=follow)
        job = json.loads(rendered.content[0].text)
        told |= {
            "rendered": kinds(rendered),
            "job": job,
            "picture": base64.b64decode(rendered.content[1].data)[8:12].hex(),
        }
        told["file"] = base64.b64decode(
            (await client.read_resource(str(rendered.content[3].uri))).contents[0].blob  # type: ignore[union-attr]
        )[:4].hex()
        again = {"picture": f"{job['job']}.0", "changes": {"seed": 8}}
        told["again"] = json.loads((await client.call_tool("again", again)).content[0].text)
        parameters = await client.call_tool("picture_parameters", {"picture": f"{job['job']}.1"})
        told["parameters"] = json.loads(parameters.content[0].text)
        vary = {"prompt": "a lake", "vary": {"cfg_scale": [4, 7]}, "more": {"width": 64, "height": 64, "seed": 3}}
        told["sweep"] = json.loads((await client.call_tool("sweep", vary)).content[0].text)
        told["upscaled"] = kinds(await client.call_tool("upscale", {"picture": f"{job['job']}.0"}))
        told["models"] = json.loads((await client.call_tool("list_models", {})).content[0].text)
        refused = await client.call_tool("render", {"prompt": "a lake", "steps": 100000})
        told["refused"] = [refused.is_error, refused.content[0].text]
        missing = await client.call_tool("job_status", {"job": 99999})
        told["missing"] = [missing.is_error, missing.content[0].text]
        cancelled = await client.call_tool("cancel", {"job": job["job"]})
        told["cancelled"] = cancelled.content[0].text
    told["progress"] = progress
    json.dump(told, sys.stdout)


asyncio.run(main(sys.argv[1:]))
