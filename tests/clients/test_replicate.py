"""Replicate's own client, the newest, against the farm."""

from __future__ import annotations

import json

import pytest

from tests.clients.conftest import KEY
from tests.clients.recordings import kept, parts


@pytest.mark.nightly
def test_the_newest_client_predicts_waits_streams_lists_and_cancels(farm, client, tmp_path):
    newest = client("replicate")
    told = newest.calls("replicate_calls.py", farm.url, KEY)
    assert told["models"] == ["demo"]
    assert [len(told[name]) for name in ("run", "run with a version", "with a picture")] == [2, 1, 1]
    assert all(link.startswith(f"{farm.url}/api/v1/jobs/") for link in told["run"])
    assert told["created"]["status"] == "starting"
    assert told["cancelled"]["status"] == "canceled"
    assert told["created"]["id"] in told["listed"]
    assert [kind for kind, _ in told["events"]] == ["output", "done"]
    assert (told["deployed"]["status"], told["progress"]) == ("succeeded", 1.0)
    assert told["deployed"]["metrics"]["image_count"] == 1
    assert told["refused"][0] == 422
    recorded = {"client": "replicate", "version": newest.version, "requests": farm.requests}
    (tmp_path / "replicate.json").write_text(json.dumps(recorded, indent=1))
    # It looks again twice a second until a picture is there: how often is not the client's affair.
    asked, known = (
        [*dict.fromkeys(map(str, map(parts, one)))] for one in (farm.requests, kept("replicate")["requests"])
    )
    assert asked == known, (
        f"{newest.version} asks in another way: look at it, and keep {tmp_path}/replicate.json as tests/data/clients"
    )
