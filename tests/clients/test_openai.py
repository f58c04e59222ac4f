"""OpenAI's own client, the newest, against the farm."""

from __future__ import annotations

import json

import pytest

from tests.clients.conftest import KEY
from tests.clients.recordings import kept, parts

PNG, WEBP = "89504e47", "52494646"


@pytest.mark.nightly
def test_the_newest_client_renders_edits_streams_and_lists(farm, client, tmp_path):
    newest = client("openai")
    told = newest.calls("openai_calls.py", farm.url, KEY)
    assert (told["models"], told["model"]) == (["demo"], "demo")
    generated = told["generated"]
    assert generated["files"] == [WEBP, WEBP]
    assert generated["model"].startswith("demo [")
    assert (generated["size"], generated["quality"], generated["output_format"]) == ("64x64", "low", "webp")
    assert generated["usage"]["images"] == 2
    assert generated["usage"]["input_tokens"] == generated["usage"]["total_tokens"] > 0
    assert all(url.startswith(f"{farm.url}/api/v1/jobs/") for url in generated["urls"])
    assert told["edited"]["files"] == [PNG]
    kinds = [kind for kind, _ in told["events"]]
    assert kinds[-1] == "image_generation.completed"
    assert set(kinds[:-1]) <= {"image_generation.partial_image"}
    assert told["events"][-1][1] == PNG
    assert told["refused"][:3] == [400, "invalid_request_error", "background"]
    assert told["missing"] == [404, "not_found"]
    recorded = {"client": "openai", "version": newest.version, "requests": farm.requests}
    (tmp_path / "openai.json").write_text(json.dumps(recorded, indent=1))
    assert [parts(one) for one in farm.requests] == [parts(one) for one in kept("openai")["requests"]], (
        f"{newest.version} asks in another way: look at it, and keep {tmp_path}/openai.json as tests/data/clients"
    )
