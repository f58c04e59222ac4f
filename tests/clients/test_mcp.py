"""The farm as tools for language models: by the protocol's own client."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from contextlib import suppress

import httpx
import pytest
from mcp.client import Client

from cli.mcp.serve import server
from cli.mcp.tools import Tools
from client.async_client import AsyncClient
from tests.clients.conftest import KEY
from tests.support.serving import serving
from tests.support.waiting import until

RIFF_WEBP = "57454250"


def called(farm, tool: str, arguments: dict, *, reads_files: bool = False, key: str = KEY):
    """Return what a tool answers to a client in this process."""

    async def call():
        served = server(lambda _: AsyncClient(farm.url, key), reads_files=reads_files)
        async with Client(served) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(call())


def first(answer) -> dict:
    assert not answer.is_error, answer.content
    return json.loads(answer.content[0].text)


def test_a_model_renders_looks_again_and_is_refused_in_words(farm, tmp_path):
    asked = {"prompt": "a lake at dawn", "width": 64, "height": 64, "seed": 7, "count": 2}
    rendered = called(farm, "render", asked)
    job = first(rendered)
    assert (job["state"], [image["seed"] for image in job["images"]]) == ("succeeded", [7, 8])
    assert [part.type for part in rendered.content] == ["text", "image", "image", "resource_link", "resource_link"]
    picture = f"{job['job']}.0"
    again = first(called(farm, "again", {"picture": picture, "changes": {"seed": 9}}))
    assert (again["params"]["prompt"], again["images"][0]["seed"]) == ("a lake at dawn", 9)
    assert first(called(farm, "picture_parameters", {"picture": picture}))["params"]["seed"] == 7
    assert first(called(farm, "list_models", {}))["models"] == ["demo"]

    refused = called(farm, "render", {"prompt": "a lake", "steps": 100000})
    assert refused.is_error
    assert "steps" in refused.content[0].text
    assert "accepted" in refused.content[0].text
    (tmp_path / "secret.png").write_bytes(b"not a picture")
    of_a_file = {"picture": str(tmp_path / "secret.png")}
    assert "is not a picture of the farm" in called(farm, "picture_parameters", of_a_file).content[0].text
    read = called(farm, "picture_parameters", of_a_file, reads_files=True)
    assert read.is_error
    assert "is not a picture of the farm" not in read.content[0].text
    for hostile in ("~nobody-here/x.png", "x" * 4000, "a\x00b", str(tmp_path)):
        said = called(farm, "again", {"picture": hostile}, reads_files=True).content[0].text
        assert "cannot be read" in said or "such as 12.0" in said
    assert called(farm, "list_models", {}, key="wrong").is_error


def test_a_call_that_is_given_up_cancels_the_job_it_made_alone(settings, environ, checkpoint_factory):
    checkpoint_factory("demo", native_size=64)
    with serving(settings, environ | {"FARM_API_KEYS": f"ann:{KEY}"}) as farm:
        headers = {"Authorization": f"Bearer {KEY}"}

        def states() -> list[str]:
            return [job["state"] for job in httpx.get(f"{farm.url}/api/v1/jobs", headers=headers).json()["jobs"]]

        async def given_up(tool: str, arguments: dict, when) -> None:
            async with Client(server(lambda _: AsyncClient(farm.url, KEY), reads_files=False)) as client:
                call = asyncio.create_task(client.call_tool(tool, arguments))
                await asyncio.to_thread(until, when, 10, "the call to go on")
                call.cancel()
                with suppress(asyncio.CancelledError):
                    await call

        asyncio.run(given_up("render", {"prompt": "a lake"}, lambda: states() == ["queued"]))
        until(lambda: states() == ["cancelled"], 10, "the job to be cancelled")
        waiting = called(farm, "render", {"prompt": "a hill", "wait_seconds": 0})
        job = first(waiting)
        assert (job["state"], [part.type for part in waiting.content]) == ("queued", ["text"])
        asked = iter((False, True))
        asyncio.run(given_up("job_status", {"job": job["job"], "wait_seconds": 60}, lambda: next(asked, True)))
        assert states() == ["queued", "cancelled"]


@pytest.mark.nightly
def test_the_newest_client_uses_every_tool_by_standard_input(farm, client, environ):
    newest = client("mcp")
    command = [sys.executable, "-m", "cli", "mcp"]
    told = newest.calls(
        "mcp_calls.py", *command, given=json.dumps(environ | {"FARM_URL": farm.url, "FARM_API_KEY": KEY})
    )
    assert told["tools"] == sorted(tool.__name__ for tool in Tools(lambda _: None, reads_files=True).all())
    assert told["rendered"] == ["text", "image", "image", "resource_link", "resource_link"]
    assert (told["job"]["state"], told["picture"], told["file"]) == ("succeeded", RIFF_WEBP, "89504e47")
    assert told["progress"][-1] == [1.0, 1.0, "succeeded"]
    assert told["again"]["images"][0]["seed"] == 8
    assert told["parameters"]["params"]["seed"] == 8
    assert len(told["sweep"]["images"]) == 2
    assert told["upscaled"] == ["text", "image", "resource_link"]
    assert told["models"]["models"] == ["demo"]
    assert told["refused"][0]
    assert "steps" in told["refused"][1]
    assert told["missing"][0]
    assert "cannot be cancelled" in told["cancelled"]


@pytest.mark.nightly
def test_each_caller_by_http_brings_a_key(farm, environ):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free_port = listener.getsockname()[1]
    command = [sys.executable, "-m", "cli", "mcp", "--http", "--port", str(free_port)]
    started = subprocess.Popen(command, env=environ | {"FARM_URL": farm.url, "FARM_API_KEY": KEY})
    url = f"http://127.0.0.1:{free_port}/mcp"

    async def models(key: str):
        from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415

        async with (
            httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            return await client.call_tool("list_models", {})

    try:
        until(lambda: _answers(url), 20, "the server to listen")
        assert first(asyncio.run(models(KEY)))["models"] == ["demo"]
        assert asyncio.run(models("wrong")).is_error
        foreign = httpx.post(url, json={}, headers={"Host": "evil.example"})
        assert foreign.status_code in {403, 421}
    finally:
        started.terminate()
        started.wait(10)


def _answers(url: str) -> bool:
    try:
        httpx.get(url)
    except httpx.HTTPError:
        return False
    return True
