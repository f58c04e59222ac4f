"""`farm upscale`: the job that it submits, and where the results lie."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from PIL import Image
from typer.testing import CliRunner

from cli import main, upscale
from shared.params.upscale import MOST_KEPT, MOST_PICTURES


class Client:
    """Keeps what it is given, and finishes every picture but the last."""

    def __init__(self):
        self.uploads = []
        self.wanted = {}

    def upload(self, data):
        self.uploads.append(data)
        return {"id": f"{len(self.uploads)}" * 64}

    def submit(self, params, idempotency_key):
        self.wanted = params
        return {"id": 17, "state": "queued"}

    def watch(self, job_id):
        states = ["succeeded"] * (len(self.wanted["upscale"]["pictures"]) - 1) + ["failed"]
        links = {"picture": "/picture.webp"}
        images = [{"index": at, "state": state, "links": links, "reason": "no room"} for at, state in enumerate(states)]
        yield {"id": job_id, "state": "failed", "progress": 1.0, "waiting": None, "images": images}

    def fetch(self, link):
        return link.encode()

    def page(self, job):
        return f"http://farm/jobs/{job['id']}"


@pytest.fixture
def client(monkeypatch):
    client = Client()

    @contextmanager
    def joined(*_):
        yield client

    monkeypatch.setattr(upscale, "joined", joined)
    monkeypatch.setattr(upscale, "follow", lambda client, job, quiet: next(client.watch(job)))
    return client


def test_files_become_one_job_and_results_are_called_like_them(client, tmp_path):
    files = []
    for name in ("sea", "land"):
        files.append(tmp_path / f"{name}.png")
        Image.new("RGB", (4, 4)).save(files[-1])
    options = ["--by", "3", "--with", "4x-sharp", "--share", "0.2", "--format", "webp"]
    options += ["--quality", "80", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main.app, ["upscale", *map(str, files), *options])
    assert (client.wanted["format"], client.wanted["file_quality"]) == ("webp", 80)
    assert client.wanted["upscale"] == {
        "scale": 3,
        "upscaler": "4x-sharp",
        "second_share": 0.2,
        "pictures": [{"picture": "1" * 64, "parameters": ""}, {"picture": "2" * 64, "parameters": ""}],
    }
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sea-00017.webp"]
    assert done.exit_code == 1
    assert "land.png failed: no room" in done.output


def test_more_files_than_a_job_may_have_make_further_jobs(client, tmp_path, monkeypatch):
    jobs = []
    submit = client.submit
    monkeypatch.setattr(client, "submit", lambda params, **key: jobs.append(params) or submit(params, **key))
    monkeypatch.setattr(upscale, "_texts", lambda files, _: ["x" * MOST_KEPT] * 6 + [""] * (len(files) - 6))
    Image.new("RGB", (4, 4)).save(tmp_path / "sea.png")
    options = ["--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(main.app, ["upscale", *[str(tmp_path / "sea.png")] * (MOST_PICTURES + 5), *options])
    assert [len(job["upscale"]["pictures"]) for job in jobs] == [4, MOST_PICTURES, 1]
    assert len(done.stdout.splitlines()) == 3
    assert done.exit_code == 1


def test_faces_are_asked_for_by_name_and_strength(client, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    asked = ["upscale", str(tmp_path / "a.png"), "--faces", "GFPGANv1.4:0.8", "--out", str(tmp_path)]
    CliRunner().invoke(main.app, asked)
    assert client.wanted["upscale"]["faces"] == {"restorer": "GFPGANv1.4", "strength": 0.8}
    assert upscale.faces_of("GFPGANv1.4") == {"restorer": "GFPGANv1.4", "strength": 1.0}
    assert upscale.faces_of("C:faces") == {"restorer": "C:faces", "strength": 1.0}
