"""Write deploy/lock: the packages that each part of the farm needs, pinned by constraints.txt, with their hashes.

`make lock` runs it after a change of constraints.txt or pyproject.toml. It asks pip for the wheels of each Python and
each machine, without their dependencies, and computes the dependencies from the wheels' metadata, because pip does
that only for its own Python. PyTorch is left out: an index decides about its build (deploy/pytorch.py). So is what
`without` of pyproject.toml lists, which packages ask for and the farm does without.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import requires
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "deploy/lock"
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
MACHINES: Final = ("x86_64", "aarch64")
ELSEWHERE: Final = "torch"
_MANYLINUX: Final = (*(f"_2_{minor}" for minor in range(36, 4, -1)), "2014", "2010", "1")  # Debian 12 has glibc 2.36
_AT_ONCE: Final = 2
_BEFORE: Final = {"oidc": ["api"], "worker": ["api"], "dev": ["api", "oidc", "worker"]}


@dataclass
class Wheel:
    """One package of the index: the hashes of its files, and its dependencies."""

    version: str
    hashes: set[str] = field(default_factory=set)
    needs: dict[str, list[str]] = field(default_factory=dict)  # by Python


def main() -> None:
    pins = pinned((ROOT / "constraints.txt").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheels = asked(pins, project["tool"]["lock"]["without"])
    needed = parts(project, wheels)
    LOCK.mkdir(exist_ok=True)
    for part, pythons in needed.items():
        (LOCK / f"{part}.txt").write_text(written(part, pythons, wheels))


def pinned(constraints: str) -> dict[str, str]:
    """Return the versions that constraints.txt names, by normal names."""
    lines = [line for line in constraints.splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def asked(pins: Mapping[str, str], without: Collection[str]) -> dict[str, Wheel]:
    """Ask the index for the wheels of all pins, for each Python and each machine; no wheel needs those of `without`."""
    wheels = {name: Wheel(version) for name, version in pins.items()}
    for python in PYTHONS:
        wheels[ELSEWHERE].needs[python] = requires(ELSEWHERE) or []
    ways = list(product(PYTHONS, MACHINES))
    pinned_lines = [f"{name}=={version}" for name, version in pins.items() if name != ELSEWHERE]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for (python, _), report in zip(ways, pool.map(lambda way: ask(pinned_lines, *way), ways), strict=True):
            for one in report["install"]:
                wheel = wheels[normal(one["metadata"]["name"])]
                wheel.hashes.add(one["download_info"]["archive_info"]["hashes"]["sha256"])
                lines = one["metadata"].get("requires_dist", [])
                wheel.needs[python] = [line for line in lines if normal(Requirement(line).name) not in without]
    return wheels


def ask(lines: Iterable[str], python: str, machine: str) -> dict:
    """Return pip's report of what it would install; end the program with pip's message if a wheel is missing."""
    platforms = [f"--platform=manylinux{since}_{machine}" for since in _MANYLINUX] + [f"--platform=linux_{machine}"]
    with TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text("\n".join(lines))
        options = ["--dry-run", "--quiet", "--no-deps", "--ignore-installed", "--only-binary=:all:", "--report=-"]
        where = [f"--python-version={python}", *platforms, f"--target={folder}/nowhere"]
        command = [sys.executable, "-m", "pip", "install", *options, *where, f"--requirement={wanted}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit(f"Python {python} on {machine}: {answer.stderr}")
    return json.loads(answer.stdout)


def parts(project: Mapping, wheels: Mapping[str, Wheel]) -> dict[str, dict[str, set[str]]]:
    """Return what each part needs, each package with its Pythons. All have what the API has, and dev has all."""
    roots = {
        "build": [*project["build-system"]["requires"], "pip"],
        "api": project["project"]["dependencies"],
        "oidc": project["project"]["optional-dependencies"]["oidc"],
        "worker": project["project"]["optional-dependencies"]["worker"],
        "dev": project["dependency-groups"]["dev"],
    }
    found = {part: needed(wanted, wheels) for part, wanted in roots.items()}
    for part in ("oidc", "worker", "dev"):
        for name in [name for before in _BEFORE[part] for name in found[before]]:
            found[part].pop(name, None)
    return found


def needed(roots: Iterable[str], wheels: Mapping[str, Wheel]) -> dict[str, set[str]]:
    """Return the names of all that `roots` need, directly or not, each with the Pythons that need it."""
    found: dict[str, set[str]] = {}
    for python in PYTHONS:
        for name in closure(roots, python, wheels) - {ELSEWHERE}:
            found.setdefault(name, set()).add(python)
    return found


def closure(roots: Iterable[str], python: str, wheels: Mapping[str, Wheel]) -> set[str]:
    """Return the packages that one Python needs, for all of its patch releases."""
    waiting, seen = [Requirement(root) for root in roots], set()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            one = (normal(wanted.name), extra)
            if one in seen:
                continue
            seen.add(one)
            if one[0] not in wheels:
                sys.exit(f"{wanted} is needed on Python {python}, but constraints.txt does not pin it: add it there.")
            lines = map(Requirement, wheels[one[0]].needs[python])
            waiting += [line for line in lines if is_wanted(line, python, extra, wheels, one[0])]
    return {name for name, _ in seen}


def is_wanted(line: Requirement, python: str, extra: str, wheels: Mapping[str, Wheel], by: str) -> bool:
    if by == ELSEWHERE and normal(line.name) not in wheels:
        return False  # libraries of CUDA, which that build of PyTorch pins itself
    last = ({"python_version": python, "python_full_version": f"{python}.{n}", "extra": extra} for n in (0, 99))
    return line.marker is None or any(line.marker.evaluate(environment) for environment in last)


def written(part: str, pythons: Mapping[str, set[str]], wheels: Mapping[str, Wheel]) -> str:
    """Return the lock of one part as pip reads it."""
    lines = [f"# What {part} needs, with the hashes of its wheels. Made by `make lock` from constraints.txt."]
    for name in sorted(pythons):
        some = sorted(pythons[name])
        marker = "" if len(some) == len(PYTHONS) else " ; " + " or ".join(f'python_version == "{one}"' for one in some)
        hashes = [f"    --hash=sha256:{one}" for one in sorted(wheels[name].hashes)]
        lines.append(" \\\n".join([f"{name}=={wheels[name].version}{marker}", *hashes]))
    return "\n".join(lines) + "\n"


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
