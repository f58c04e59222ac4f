"""Files that need Docker are checked without it: compose files against their schema, the Dockerfile by hadolint."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from shared.settings import Settings

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PARTS = ("build", "api", "oidc", "worker", "dev")
COMPOSE = ("docker-compose.yml", "deploy/compose.gpu.yml")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def services(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())["services"]


def variables(environment: dict[str, Any]) -> set[str]:
    return {name for name in environment if name.startswith("FARM_")}


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_file_fits_its_schema(name: str):
    checked = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", name)
    assert checked.returncode == 0, checked.stdout


def test_dockerfile_passes_hadolint():
    checked = run(BIN / "hadolint", "--failure-threshold", "style", "deploy/Dockerfile")
    assert checked.returncode == 0, checked.stdout


def test_every_base_image_is_pinned_to_a_patch():
    bases = re.findall(r"^FROM (\S+:\S+)", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE)
    bases += [one["image"] for one in services(COMPOSE[0]).values() if not one["image"].startswith("stepfarm-")]
    assert len(bases) == 4
    for base in bases:
        assert re.search(r":\d+\.\d+(\.\d+)?-", base), base


@pytest.mark.parametrize("target", ["api", "worker"])
def test_image_runs_as_nobody_and_has_a_health_check(target: str):
    stages = re.split(r"^FROM ", (ROOT / "deploy/Dockerfile").read_text(), flags=re.MULTILINE)
    stage = next(stage for stage in stages if stage.startswith(f"runtime AS {target}\n"))
    assert "USER 10001:10001" in stage
    assert "HEALTHCHECK" in stage


def test_compose_asks_for_keys_and_publishes_the_api_alone():
    farm = services(COMPOSE[0])
    assert farm["api"]["environment"]["FARM_API_KEYS"] == "${FARM_API_KEYS:?owner:key}"
    assert {name for name, one in farm.items() if "ports" in one} == {"api"}
    assert all(port.startswith("127.0.0.1:") for port in farm["api"]["ports"])


@pytest.mark.parametrize("name", COMPOSE)
def test_no_container_can_do_more_than_it_needs(name: str):
    for service, one in services(name).items():
        if one == {"scale": 0}:
            continue
        assert one["cap_drop"] == ["ALL"], service
        assert one["security_opt"] == ["no-new-privileges:true"], service
        assert one["read_only"] is True, service
        assert one["mem_limit"], service
        assert one["pids_limit"] <= 1024, service
        assert set(one.get("cap_add", [])) <= ({"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}), service
        assert "cap_add" not in one or service == "postgres"


def test_only_the_api_can_be_reached_from_outside_and_reach_out():
    compose = yaml.safe_load((ROOT / COMPOSE[0]).read_text())
    assert compose["networks"]["inside"] == {"internal": True}
    assert {name for name, one in compose["services"].items() if one["networks"] != ["inside"]} == {"api"}


@pytest.mark.parametrize("name", COMPOSE)
def test_no_password_has_a_default_and_no_server_is_without_one(name: str):
    text = (ROOT / name).read_text()
    passwords = re.findall(r"\$\{(FARM_\w*PASSWORD)(:?[-?])", text)
    assert {one for one, _ in passwords} == {"FARM_DATABASE_PASSWORD", "FARM_REDIS_PASSWORD"}
    assert {how for _, how in passwords} == {":?"}
    assert "--requirepass" in services(COMPOSE[0])["redis"]["command"]


def test_what_compose_asks_for_is_made_fresh_each_time():
    told = [run(ROOT / "deploy/env.sh").stdout for _ in range(2)]
    found = [dict(line.split("=", 1) for line in one.splitlines()) for one in told]
    asked = {name for one in COMPOSE for name in re.findall(r"\$\{(\w+):\?", (ROOT / one).read_text())}
    assert [one.pop("FARM_ADMINS") for one in found] == ["ann", "ann"]
    assert found[0].keys() == asked
    assert all(re.fullmatch(r"(ann:)?[0-9a-f]{48}", value) for one in found for value in one.values())
    assert len({value for one in found for value in one.values()}) == 6


def test_everything_waits_for_the_migration():
    farm = services(COMPOSE[0]) | {k: v for k, v in services(COMPOSE[1]).items() if k != "worker"}
    for name in farm.keys() - {"postgres", "redis", "migrate"}:
        assert farm[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully", name


def test_chores_need_no_card_and_no_models():
    chores = services(COMPOSE[0])["chores"]
    assert chores["command"] == ["farm", "chores"]
    assert chores["build"]["target"] == "api"
    assert chores["volumes"] == ["pictures:/pictures"]
    assert chores["healthcheck"]["test"] == ["CMD", "farm", "doctor", "chores"]  # not the API's, of the same image


def test_servers_are_healthy_before_they_are_used():
    assert all("healthcheck" in services(COMPOSE[0])[name] for name in ("postgres", "redis"))


def test_there_is_a_worker_for_each_of_eight_cards():
    cards = {name: one for name, one in services(COMPOSE[1]).items() if name != "worker"}
    devices = [one["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for one in cards.values()]
    assert devices == [[str(number)] for number in range(8)]
    assert "profiles" not in cards["worker-0"]
    for many in (2, 4, 8):
        started = [name for name, one in cards.items() if f"{many}-cards" in one.get("profiles", [f"{many}-cards"])]
        assert started == [f"worker-{number}" for number in range(many)]


def test_workers_on_cards_are_configured_as_the_one_on_the_cpu():
    base, card = services(COMPOSE[0])["worker"], services(COMPOSE[1])["worker-0"]
    assert card["volumes"] == [*base["volumes"], "compiled:/var/cache/stepfarm"]
    assert card["environment"] == base["environment"] | {"OMP_NUM_THREADS": "${FARM_WORKER_THREADS:-4}"}
    for setting in (
        "depends_on",
        "read_only",
        "tmpfs",
        "cap_drop",
        "security_opt",
        "networks",
        "mem_limit",
        "pids_limit",
    ):
        assert card[setting] == base[setting], setting


def test_containers_on_cards_of_one_machine_do_not_each_take_all_its_cores():
    for name, card in services(COMPOSE[1]).items():
        assert card == {"scale": 0} or card["environment"]["OMP_NUM_THREADS"], name


def test_a_container_on_a_card_can_compile_and_load_what_it_compiled():
    stage = re.split(r"^FROM ", (ROOT / "deploy/Dockerfile").read_text(), flags=re.MULTILINE)[-1]
    assert stage.startswith("worker AS worker-cuda\n")
    assert re.search(r"apt-get install .* gcc libc6-dev ", stage)
    assert re.findall(r"^USER (\S+)$", stage, re.MULTILINE)[-1] == "10001:10001"
    compose = yaml.safe_load((ROOT / COMPOSE[1]).read_text())
    for name, card in compose["services"].items():
        if card == {"scale": 0}:
            continue
        assert card["build"]["target"] == "worker-cuda", name
        mounts = dict(mount.split(":")[:2] for mount in card["volumes"] if not mount.endswith(":ro"))
        writable = {target for source, target in mounts.items() if source in {*compose["volumes"]}}
        caches = re.findall(r"(?:TRITON|TORCHINDUCTOR)_CACHE_DIR=(\S+)", stage)
        assert len(caches) == 2
        for place in caches:
            assert {str(folder) for folder in Path(place).parents} & writable, name
            assert not any(place.startswith(one.partition(":")[0]) for one in card["tmpfs"]), name


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_sets_only_variables_that_are_read(name: str):
    known = {f"FARM_{field.upper()}" for field in Settings.model_fields}
    for service in services(name).values():
        assert variables(service.get("environment", {})) <= known


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_everything_that_is_needed_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["oidc"],
        *project["project"]["optional-dependencies"]["worker"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
        "pip",
    ]
    names = {normal(re.split(r"[\[<>=;~ ]", text)[0]) for text in wanted}
    assert names <= constraints().keys()


def locked(part: str) -> dict[str, str]:
    """Return the versions of one part's lock."""
    entries = re.split(r"\n(?=\S)", (ROOT / f"deploy/lock/{part}.txt").read_text())
    found = {}
    for entry in entries[1:]:
        name, version = re.match(r"(\S+)==(\S+)", entry).groups()
        assert re.search(r" --hash=sha256:[0-9a-f]{64}", entry), f"{name} has no hash"
        found[name] = version
    return found


def wanted(part: str) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {
        "build": [*project["build-system"]["requires"], "pip"],
        "api": project["project"]["dependencies"],
        "oidc": project["project"]["optional-dependencies"]["oidc"],
        "worker": project["project"]["optional-dependencies"]["worker"],
        "dev": project["dependency-groups"]["dev"],
    }[part]


def test_the_lock_holds_all_pins_at_their_versions():
    """If it fails: `make lock`."""
    pinned = constraints()
    del pinned["torch"]  # its index decides which build, and tells its hash
    assert {name: version for part in PARTS for name, version in locked(part).items()} == pinned


@pytest.mark.parametrize("part", PARTS)
def test_the_lock_of_a_part_has_what_the_part_names(part: str):
    further = {"oidc": ["api"], "worker": ["api"], "dev": ["api", "oidc", "worker"]}
    parts = [*further.get(part, []), part]
    names = {normal(Requirement(text).name) for text in wanted(part)} - {"torch"}
    assert names <= {name for one in parts for name in locked(one)}


def test_the_image_of_the_api_gets_nothing_of_a_worker():
    assert not locked("api").keys() & {"torch", "diffusers", "transformers", "safetensors", "pytest"}


def test_images_install_by_hash():
    lines = (ROOT / "deploy/Dockerfile").read_text().splitlines()
    installing = [line for line in lines if "pip install" in line]
    assert len(installing) == 4
    for line in installing:
        assert "--no-deps" in line
        assert "--require-hashes" in line or line.endswith("--no-build-isolation .")


def test_what_is_installed_is_what_is_pinned():
    pinned = constraints()
    installed = {normal(one.name): one.version.split("+")[0] for one in distributions()}
    both = (pinned.keys() & installed.keys()) - {"pip"}
    assert {name: installed[name] for name in both} == {name: pinned[name] for name in both}


OF_CUDA = ("cuda-", "nvidia-", "triton")


@cache
def needs() -> list[tuple[str, Requirement]]:
    """What each pinned package that is installed needs, by its name."""
    found, without = [], left_out()
    for name in constraints():
        with suppress(PackageNotFoundError):
            for needed in map(Requirement, requires(name) or ()):
                is_of_cuda = name == "torch" and normal(needed.name).startswith(
                    OF_CUDA
                )  # a build for cards pins its own
                if normal(needed.name) not in without and not is_of_cuda:
                    found.append((name, needed))
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_what_the_pinned_packages_need_is_pinned(python: str):
    """Catches a transitive package that nobody pinned, on each Python: some need more on the first ones of a series."""
    pinned = constraints()
    for full in (f"{python}.0", f"{python}.99"):
        environment = {"python_version": python, "python_full_version": full, "extra": ""}
        for name, needed in needs():
            if needed.marker is None or needed.marker.evaluate(environment):
                version = pinned.get(normal(needed.name))
                assert version, f"{name} needs {needed} on Python {full}"
                assert needed.specifier.contains(version), f"{name} needs {needed}, and {version} is pinned"


def test_every_python_of_the_project_is_told_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    accepted = SpecifierSet(project["requires-python"])
    assert [minor for minor in range(8, 30) if f"3.{minor}" in accepted] == [int(one[2:]) for one in PYTHONS]
    told = {one.rpartition(" ")[2] for one in project["classifiers"] if "Python :: 3." in one}
    assert told == set(PYTHONS)


def test_torchvision_peft_and_accelerate_are_not_needed():
    assert not constraints().keys() & {"torchvision", "peft", "accelerate"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def program(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"deploy/{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


def left_out() -> list[str]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["lock"]["without"]


def test_what_the_farm_does_without_is_installed_by_no_lock():
    assert left_out() == ["imageio", "imageio-ffmpeg", "opencv-python", "scikit-image", "torchvision"]
    assert not {*left_out()} & ({name for part in PARTS for name in locked(part)} | constraints().keys())


def test_a_package_that_the_farm_does_without_and_that_is_missing_is_no_fault():
    missing = "spandrel 0.4.2 requires torchvision, which is not installed."
    others = [
        "celery 5.7.0 requires kombu, which is not installed.",
        "torchvision 0.28.0 has requirement torch==2.13.0, but you have torch 2.12.0.",
    ]
    check = program("check")
    assert check.faults(f"{missing}\n", left_out()) == []
    assert check.faults("\n".join([missing, *others]), left_out()) == others


def test_a_lock_is_made_without_it(monkeypatch):
    lock = program("lock")
    wheel = {"name": "spandrel", "requires_dist": ["einops", "TorchVision>=0.20; python_version > '3'"]}
    report = {"install": [{"metadata": wheel, "download_info": {"archive_info": {"hashes": {"sha256": "0"}}}}]}
    monkeypatch.setattr(lock, "ask", lambda lines, python, machine: report)
    wheels = lock.asked({"torch": "1", "spandrel": "1"}, left_out())
    assert {tuple(needed) for needed in wheels["spandrel"].needs.values()} == {("einops",)}
