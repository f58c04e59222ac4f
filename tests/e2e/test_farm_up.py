"""The whole way from an HTTP POST to a PNG: `farm up` with real PostgreSQL, Redis, server, Celery and engine."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from bench import plain
from tests.e2e import farms
from tests.support import ip_adapters, small_checkpoints
from tests.support.checkpoints import NATIVE_SIZE, write_tiny
from tests.support.servers import clean_environment
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)
RENDER = {"prompt": "a red sailboat at sea", "steps": 4, "seed": 7}


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A farm's settings: a home and a models folder of its own, any free port, everything embedded."""
    folder = tmp_path_factory.mktemp("farm")
    (folder / "models").mkdir()
    write_tiny(folder / "models" / "tiny.safetensors")
    xl = small_checkpoints.build("sdxl")
    small_checkpoints.write_file(xl, folder / "models" / "xl.safetensors")
    for name in ("ipadapter", "clip_vision"):
        (folder / "models" / name).mkdir()
    ip_adapters.write(ip_adapters.build(xl), folder / "models" / "ipadapter" / "plain")
    ip_adapters.write_encoder(ip_adapters.encoder(), folder / "models" / "clip_vision" / "vit")
    return clean_environment() | {
        "FARM_HOME": str(folder / "home"),
        "FARM_MODELS": str(folder / "models"),
        "FARM_PORT": "0",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def farm(environ: dict[str, str]) -> Iterator[farms.Up]:
    """The farm that most tests of this file share; the last ones stop it and start it again."""
    with farms.up(environ) as started:
        until(lambda: checkpoints(started.url), farms.START_SECONDS, "the checkpoint to be found")
        yield started


def get(url: str) -> dict:
    answer = httpx.get(url, timeout=60)
    assert answer.is_success, answer.text
    return answer.json()


def checkpoints(url: str) -> list[dict]:
    return get(f"{url}/api/v1/checkpoints")["checkpoints"]


def usable(url: str, kind: str) -> list[dict]:
    return [one for one in get(f"{url}/api/v1/models?kind={kind}")["models"] if one["usable"]]


def job(url: str, job_id: int) -> dict:
    return get(f"{url}/api/v1/jobs/{job_id}")


def submit(url: str, **params: object) -> dict:
    answer = httpx.post(f"{url}/api/v1/jobs", json=RENDER | params, timeout=60)
    assert answer.status_code == 202, answer.text
    return answer.json()


def ended(url: str, job_id: int) -> dict:
    def look() -> dict | None:
        found = job(url, job_id)
        return found if found["state"] in {"succeeded", "failed", "cancelled"} else None

    return until(look, 120, f"the end of job {job_id}")


def whole_family(pid: int) -> dict[int, str]:
    """Return the farm's processes once both servers and the worker's are among them."""
    found = farms.family(pid)
    parts = {"postgres", "valkey-server"} <= set(found.values()) and any(is_worker(child) for child in found)
    return found if parts else {}


def is_worker(pid: int) -> bool:
    with suppress(OSError):  # it ended meanwhile
        return b"--card" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).tobytes()


def picture(url: str, job_id: int) -> bytes:
    return httpx.get(f"{url}/api/v1/jobs/{job_id}/images/0/picture.png", timeout=60).raise_for_status().content


def test_post_becomes_a_png(farm: farms.Up):
    done = ended(farm.url, submit(farm.url)["id"])
    assert done["state"] == "succeeded", done["images"]
    image = Image.open(io.BytesIO(picture(farm.url, done["id"])))
    assert (image.format, image.size) == ("PNG", (NATIVE_SIZE, NATIVE_SIZE))
    assert image.text["parameters"].startswith(f"{RENDER['prompt']}\nSteps: 4, Sampler: Euler a")
    assert "Seed: 7" in image.text["parameters"]


def test_post_for_sdxl_becomes_a_png_that_names_its_sizes(farm: farms.Up):
    until(lambda: len(checkpoints(farm.url)) == 2, farms.START_SECONDS, "both checkpoints to be found")
    sizes = {"original_size": {"width": 2048, "height": 1024}, "crop": {"top": 8}}
    done = ended(farm.url, submit(farm.url, checkpoint="xl", width=64, height=64, **sizes)["id"])
    assert done["state"] == "succeeded", done["images"]
    image = Image.open(io.BytesIO(picture(farm.url, done["id"])))
    assert (image.format, image.size) == ("PNG", (64, 64))
    assert "SDXL original size: 2048x1024" in image.text["parameters"]


@pytest.mark.parametrize(("language", "command"), [("sh", ("sh", "-eu", "-c")), ("python", (sys.executable, "-c"))])
def test_example_of_the_readme_saves_a_picture(
    farm: farms.Up, environ: dict[str, str], tmp_path: Path, language: str, command: tuple[str, ...]
):
    if language == "sh" and shutil.which("curl") is None:
        pytest.skip("no curl")
    address = "http://127.0.0.1:8321"
    blocks = re.findall(rf"^```{language}\n(.*?)^```", (farms.ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (example,) = (block for block in blocks if address in block)
    program = example.replace(address, farm.url)
    subprocess.run([*command, program], cwd=tmp_path, env=environ, timeout=100, check=True)
    assert Image.open(tmp_path / "sailboat.png").text["parameters"].startswith("a red sailboat")


def test_farm_paints_what_a_plain_loop_paints(farm: farms.Up, environ: dict[str, str]):
    done = ended(farm.url, submit(farm.url)["id"])
    networks = plain.load(Path(environ["FARM_MODELS"]) / "tiny.safetensors")
    expected = plain.picture(networks, str(RENDER["prompt"]), 7, steps=4, side=NATIVE_SIZE)
    distance = np.abs(np.asarray(Image.open(io.BytesIO(picture(farm.url, done["id"])))).astype(int) - expected)
    assert (distance > 1).mean() <= 0.001
    assert distance.max() <= 8


def test_farm_is_ready_and_keeps_its_home_closed(farm: farms.Up, environ: dict[str, str]):
    ready = get(f"{farm.url}/readyz")
    assert ready["status"] == "ready", ready
    home = Path(environ["FARM_HOME"])
    assert home.stat().st_mode & 0o777 == 0o700
    pictures = [path for path in (home / "pictures").rglob("*") if path.is_file()]
    assert pictures
    assert {path.stat().st_mode & 0o077 for path in [home / "pictures", *pictures]} == {0}


@pytest.mark.nightly
def test_second_up_is_refused_with_the_address_of_the_first(farm: farms.Up, environ: dict[str, str]):
    second = farms.run(environ, "up")
    assert second.returncode == 1
    assert farm.url in second.stderr


def test_render_uses_the_farm_that_is_up(farm: farms.Up, environ: dict[str, str], tmp_path: Path):
    options = ["--seed=7", "--steps=4", f"--out={tmp_path}", "--json"]
    answer = farms.run(environ, "render", *options, "--", RENDER["prompt"])
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert told["page"] == f"{farm.url}/jobs/{told['job']['id']}"
    first = ended(farm.url, submit(farm.url)["id"])
    assert pixels(Path(told["files"][0]).read_bytes()) == pixels(picture(farm.url, first["id"]))
    assert farm.process.poll() is None


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A picture to start from."""
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "source.webp")
    return str(tmp_path / "source.webp")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--hires=1.5", "--format=jpeg"], marks=pytest.mark.nightly),
        ["--init={source}", "--denoising=0.6"],
        pytest.param(["--film", "--sampler=DPM++ SDE"], marks=pytest.mark.nightly),
    ],
    ids=["a second pass, as JPEG", "painted over", "filmed"],
)
def test_a_picture_is_rendered_again_to_the_pixel(
    farm: farms.Up, environ: dict[str, str], tmp_path: Path, source: str, options: list[str]
):
    given = [option.format(source=source) for option in options]
    rendered = farms.run(environ, "render", "--seed=7", "--steps=4", *given, f"--out={tmp_path}", "--json", "sea")
    assert rendered.returncode == 0, rendered.stderr
    [file] = json.loads(rendered.stdout)["files"]
    answer = farms.run(environ, "again", "--json", file)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    told = json.loads(answer.stdout)
    assert (told["identical"], told["left_out"]) == (True, [])


def test_a_picture_that_follows_another_one_is_rendered_again_to_the_pixel(
    farm: farms.Up, environ: dict[str, str], tmp_path: Path, source: str
):
    until(lambda: usable(farm.url, "ip-adapter") and usable(farm.url, "image-encoder"), 60, "both files to be found")
    given = ["--checkpoint=xl", "--size=64x64", "--seed=7", "--steps=2", f"--out={tmp_path}", "--json", "sea"]
    rendered = farms.run(environ, "render", f"--ip-adapter=plain={source}:0.8", *given)
    assert rendered.returncode == 0, rendered.stderr
    told = json.loads(rendered.stdout)
    [file], [unit] = told["files"], told["job"]["params"]["ip_adapters"]
    assert (unit["model"][:7], unit["weight"], len(unit["pictures"])) == ("plain [", 0.8, 1)
    answer = farms.run(environ, "again", "--json", file)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    assert (json.loads(answer.stdout)["identical"], json.loads(answer.stdout)["left_out"]) == (True, [])


def test_a_filmed_picture_shows_its_steps(farm: farms.Up):
    done = ended(farm.url, submit(farm.url, film=True, steps=6)["id"])
    [image] = done["images"]
    film, strip = (
        Image.open(io.BytesIO(httpx.get(f"{farm.url}{image['links'][kind]}", timeout=60).content))
        for kind in ("film", "strip")
    )
    assert film.size == (NATIVE_SIZE, NATIVE_SIZE)
    assert film.n_frames > 1
    assert strip.width // NATIVE_SIZE == 6


def test_refused_render_names_the_field(farm: farms.Up, environ: dict[str, str], tmp_path: Path):
    answer = farms.run(environ, "render", "--sampler=Euler b", f"--out={tmp_path}", "sea")
    assert answer.returncode == 1
    assert "sampler" in answer.stderr
    assert "Euler a" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_ctrl_c_cancels_what_is_rendered(farm: farms.Up, environ: dict[str, str], tmp_path: Path):
    client = farms.start(environ, "render", "--steps=150", "--count=40", f"--out={tmp_path}", "--json", "a long one")

    def running() -> dict | None:
        jobs = get(f"{farm.url}/api/v1/jobs")["jobs"]
        return next(
            (one for one in jobs if one["params"]["prompt"] == "a long one" and one["state"] == "running"), None
        )

    found = until(running, 60, "the job to run")
    os.killpg(client.pid, signal.SIGINT)
    client.communicate(timeout=60)
    assert client.returncode == 130
    assert ended(farm.url, found["id"])["state"] == "cancelled"


@pytest.mark.parametrize(
    "command",
    [
        *(pytest.param((name,), marks=pytest.mark.nightly) for name in ("status", "logs")),
        ("models",),
        ("db", "upgrade"),
    ],
    ids=" ".join,
)
def test_command_answers_people_and_programs(farm: farms.Up, environ: dict[str, str], command: tuple[str, ...]):
    people, programs = farms.run(environ, *command), farms.run(environ, *command, "--json")
    assert people.returncode == programs.returncode == 0, people.stderr + programs.stderr
    assert people.stdout
    for line in programs.stdout.splitlines():
        json.loads(line)


def test_status_and_retry_and_cancel_of_a_job(farm: farms.Up, environ: dict[str, str]):
    done = ended(farm.url, submit(farm.url)["id"])
    shown = farms.run(environ, "status", str(done["id"]))
    assert f"job {done['id']}: succeeded" in shown.stdout
    for change in ("cancel", "retry"):
        refused = farms.run(environ, change, str(done["id"]))
        assert refused.returncode == 1
        assert "succeeded" in refused.stderr


def test_doctor_finds_a_farm_that_is_up_well(farm: farms.Up, environ: dict[str, str]):
    answer = farms.run(environ, "doctor", "--json")
    found = json.loads(answer.stdout)
    assert answer.returncode == 0, [finding for finding in found.values() if finding["level"] == "bad"]
    assert {"database", "migrations", "redis", "storage", "api", "workers", "chores", "models"} <= found.keys()


def test_no_call_of_a_network_broke(farm: farms.Up):
    """The pictures would have come out nevertheless, row by row."""

    def broken() -> list[float]:
        lines = httpx.get(f"{farm.url}/metrics", timeout=60).text.splitlines()
        return [float(line.split()[-1]) for line in lines if line.startswith("farm_broken_calls_total{")]

    assert set(until(broken, 30, "the worker's beat")) == {0.0}


def test_api_that_is_killed_starts_again(farm: farms.Up):
    before = farms.family(farm.process.pid)
    api = [pid for pid in before if "api.serve" in Path(f"/proc/{pid}/cmdline").read_text()]
    for pid in api:
        os.kill(pid, signal.SIGKILL)
    assert api
    assert httpx.get(f"{farm.url}/livez", timeout=60).is_success  # the socket stayed: who comes early waits


def test_farm_that_stops_leaves_nothing_and_the_next_start_finds_everything(farm: farms.Up, environ: dict[str, str]):
    """However it is stopped: by Ctrl-C, by kill -9."""
    done = ended(farm.url, submit(farm.url, prompt="yesterday's")["id"])
    yesterday = picture(farm.url, done["id"])
    processes = farms.family(farm.process.pid)
    assert {"postgres", "valkey-server"} <= set(processes.values())
    assert farm.stop() == 0
    assert farms.gone(processes), processes
    with farms.up(environ) as killed:
        assert job(killed.url, done["id"])["params"]["prompt"] == "yesterday's"
        assert picture(killed.url, done["id"]) == yesterday
        processes = farms.family(killed.process.pid)
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait()
        farms.await_end(processes)


@pytest.mark.nightly
def test_farm_that_was_killed_starts_again_and_ends_by_term(environ: dict[str, str], tmp_path: Path):
    fresh = environ | {"FARM_HOME": str(tmp_path / "home")}
    with farms.up(fresh) as killed:
        until(lambda: checkpoints(killed.url), farms.START_SECONDS, "the checkpoint to be found")
        job_id = submit(killed.url)["id"]
        processes = farms.family(killed.process.pid)
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait()
        farms.await_end(processes)
    with farms.up(fresh) as again:
        assert ended(again.url, job_id)["state"] == "succeeded"
        processes = farms.family(again.process.pid)
        assert again.stop(signal.SIGTERM) == 0
        assert farms.gone(processes), processes


def test_render_without_a_farm_starts_one_and_stops_it(environ: dict[str, str], tmp_path: Path):
    """What `make render` does in a fresh clone: all of it for one picture, and nothing left."""
    (tmp_path / "models").mkdir()
    write_tiny(tmp_path / "models" / "tiny.safetensors")
    fresh = environ | {"FARM_HOME": str(tmp_path / "home"), "FARM_MODELS": str(tmp_path / "models")}
    client = farms.start(fresh, "render", "--seed=7", "--steps=4", f"--out={tmp_path}", "--", RENDER["prompt"])
    processes = until(lambda: whole_family(client.pid), farms.START_SECONDS, "the farm's processes")
    out, _ = client.communicate(timeout=200)
    assert client.returncode == 0, out
    path, page, seed = out.splitlines()
    assert Image.open(io.BytesIO(Path(path).read_bytes())).size == (NATIVE_SIZE, NATIVE_SIZE)
    assert page.startswith("page  http://127.0.0.1:")
    assert seed == "seed  7"
    assert farms.gone(processes), processes
