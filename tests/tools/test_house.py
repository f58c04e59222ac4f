"""The counts of the house on trees small enough to count by hand, and the limits that it keeps itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from tools import house

ROOT = Path(__file__).parents[2]
FILES = {
    "shared/__init__.py": "",
    "shared/errors.py": "class Refused(Exception): ...\n",
    "shared/terms.py": "from shared.queue import claim\nimport shared.errors\n",
    "shared/queue/__init__.py": "",
    "shared/queue/claim.py": "from shared import terms\nfrom . import policy\n",
    "shared/queue/policy.py": "from ..errors import Refused\n\n\ndef rank():\n    import api.app\n",
    "api/__init__.py": "",
    "api/app.py": "from shared import errors, terms\n",
    "worker/__init__.py": "",
    "worker/slots.py": "from worker.engine.loop import run\nfrom worker import engine\nimport numpy\n",
    "worker/engine/__init__.py": "",
    "worker/engine/loop.py": "def run(): ...\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    def plant(files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return plant


def counted(root: Path) -> dict[str, house.Rooms]:
    return {rooms.package: rooms for rooms in house.rooms(house.checkout(root))}


def circle(*names: str) -> set[tuple[str, str]]:
    return set(pairwise([*names, names[0]]))


def test_rooms_are_flat_modules_and_subpackages(tree):
    rooms = counted(tree(FILES))
    assert rooms["shared"].names == {"shared.errors", "shared.terms", "shared.queue"}
    assert rooms["shared"].flat == {"shared.errors", "shared.terms"}
    assert rooms["worker"].names == {"worker.slots"}
    assert rooms["worker.engine"].names == {"worker.engine.loop"}


def test_arrows_are_counted_once_whatever_the_form_of_the_import(tree):
    shared = counted(tree(FILES))["shared"]
    below = {("shared.terms", "shared.errors"), ("shared.queue", "shared.errors")}
    assert shared.inside == circle("shared.queue", "shared.terms") | below
    assert counted(tree(FILES))["api"].outside == {
        ("api.app", "shared.errors"),
        ("api.app", "shared.terms"),
    }


def test_upward_is_what_closes_a_circle_and_what_goes_against_the_declared_order(tree):
    rooms = counted(tree(FILES))
    assert rooms["shared"].upward == {("shared.queue", "shared.terms"), ("shared.queue", "api.app")}
    assert not rooms["api"].upward
    assert not rooms["worker"].upward


def test_rooms_of_a_circle_stand_on_one_floor(tree):
    assert counted(tree(FILES))["shared"].floors == 2
    assert house.floors("abcd", {("a", "b"), ("b", "c"), ("a", "d")}) == 3
    assert house.floors("", set()) == 0


@pytest.mark.parametrize(
    ("arrows", "fewest"),
    [
        (set(), 0),
        ({("a", "b"), ("b", "c"), ("a", "c")}, 0),
        (circle("a", "b", "c"), 1),
        (circle("a", "b") | circle("c", "d"), 2),
        (circle("a", "b", "c") | circle("a", "b", "d") | circle("a", "b", "e"), 1),
        ({(here, there) for here in "abcd" for there in "abcd" if here != there}, 6),
    ],
    ids=["none", "no circle", "one circle", "two apart", "one arrow of three circles", "each to each"],
)
def test_fewest_arrows_break_every_circle(arrows, fewest):
    broken = house.fewest_that_close_circles(frozenset(arrows))
    assert len(broken) == fewest
    assert not house.shortest_circle(frozenset(arrows) - broken)


SMALL = """
def public():
    return _called(_passed), _twice(), _twice(), _itself(2), _long()

def _called(key):
    return key

def _passed(value):
    return value

def _twice(): ...

def _unused(): ...

def _itself(depth):
    return _itself(depth - 1) if depth else 0

def _long():
    one = 1
    two = 2
    three = 3
    four = 4
    return one + two + three + four

class Slot:
    def __init__(self):
        self._start()
        self._stop()

    def _start(self): ...

    def _stop(self):
        def inner():
            return self
        return inner()

class Other:
    def _start(self): ...
"""


def test_small_private_functions_are_told_by_their_one_use(tree):
    (file,) = house.checkout(tree({"shared/small.py": SMALL}))["shared"]
    assert [function.name for function in file.called_once()] == ["_called", "_start", "_stop", "inner"]
    assert [function.name for function in file.passed_once()] == ["_passed"]


def test_table_has_a_row_for_each_package_that_is_there(tree):
    table = house.table(house.checkout(tree(FILES | {"shared/small.py": SMALL})))
    assert "| shared | 5 | 2 | 38 | 13 | 2 | 3.8 | 4 | 1 | 4 | 3 | 2 | 4 | 2 |" in table.splitlines(), table
    assert "circle in shared: shared.queue, shared.terms" in table
    assert "upward in shared: shared.queue -> api.app" in table
    assert "cli" not in table


def test_script_names_what_is_called_once_and_refuses_a_folder_without_packages(tree, tmp_path: Path):
    command = [sys.executable, ROOT / "tools/house.py"]
    listed = subprocess.run(
        [*command, "--list", tree({"shared/small.py": SMALL})], capture_output=True, text=True, check=True, timeout=30
    )
    assert "shared/small.py:5 _called" in listed.stdout.splitlines()
    (tmp_path / "empty").mkdir()
    refused = subprocess.run([*command, tmp_path / "empty"], capture_output=True, text=True, check=False, timeout=30)
    assert refused.returncode == 2
    assert "give the root of a checkout" in refused.stderr


@pytest.fixture(scope="module")
def checkout() -> dict[str, list[house.Source]]:
    return house.checkout(ROOT)


@pytest.mark.parametrize("package", house.DECLARED)
def test_no_arrow_of_the_house_points_up(checkout, package: str):
    (rooms,) = (found for found in house.rooms(checkout) if found.package == package)
    assert not rooms.upward


@pytest.mark.parametrize(("package", "most"), [("shared", 10), ("worker", 10), ("worker.engine", 12)])
def test_few_modules_lie_flat_in_a_package(checkout, package: str, most: int):
    (rooms,) = (found for found in house.rooms(checkout) if found.package == package)
    assert len(rooms.flat) <= most, sorted(rooms.flat)


def test_few_small_private_functions_are_called_at_one_place_alone(checkout):
    files = [file for files in checkout.values() for file in files]
    assert sum(len(file.called_once()) for file in files) < sum(len(file.functions) for file in files) / 25
