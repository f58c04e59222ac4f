"""Count the house: sizes, small private functions and the graph of imports, one row for each top package.

A **room** is a flat module or a subpackage directly in a top package; `worker.engine` is a top package of its own and
no room of `worker`. An **arrow** says that some module of one room imports some module of another, however often.
**Floors** are the rooms on the longest path of arrows; rooms that import each other in a circle stand on one floor.
**Upward** arrows are the fewest whose removal leaves no circle among the rooms of a package, plus every arrow to
another package that `DECLARED` does not allow. The number does not depend on the order in which files are read; where
several sets of arrows are equally small, the first by name is listed.

Sizes are lines, of files that are not empty and of functions from `def` to their last line. A **small private**
function is named with a leading underscore or nested in another function, has five lines or fewer, and its name is
mentioned once beside its definition: **called once** if that is a call, which could hold its lines instead, or
**passed once** if that hands the function on as a value.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import Final

DECLARED: Final = {  # what each top package may import
    "api": {"shared"},
    "cli": {"api", "client", "shared"},
    "client": set[str](),
    "shared": set[str](),
    "worker": {"shared", "worker.engine"},
    "worker.engine": {"shared"},  # only what the import contract of pyproject.toml lists
}
SMALL: Final = 5
HEAD: Final = (
    *("package", "files", "median", "largest", "functions", "median", "p90", "called once", "passed once"),
    *("rooms", "flat", "floors", "arrows", "upward"),
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Arrow = tuple[str, str]


@dataclass(frozen=True)
class Source:
    """A file of Python: what it defines and imports."""

    path: Path
    module: str
    text: str

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def functions(self) -> list[tuple[Function, ast.AST]]:
        """Every function with what encloses it: a function, a class or the module."""
        return list(_functions(self.tree))

    def imported(self) -> Iterator[str]:
        """Yield the dotted names that the file imports, those of relative imports from the root."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                package = self.module if self.path.stem == "__init__" else self.module.rpartition(".")[0]
                name = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                yield from (f"{name}.{alias.name}" for alias in node.names)

    def called_once(self) -> list[Function]:
        """Return the small private functions that one place calls."""
        return [function for function, scope in self.functions if _small_private_uses(function, scope) == ["called"]]

    def passed_once(self) -> list[Function]:
        """Return the small private functions that one place hands on."""
        return [function for function, scope in self.functions if _small_private_uses(function, scope) == ["passed"]]


def _functions(scope: ast.AST, node: ast.AST | None = None) -> Iterator[tuple[Function, ast.AST]]:
    for child in ast.iter_child_nodes(node or scope):
        if isinstance(child, Function):
            yield child, scope
        yield from _functions(child if isinstance(child, Function | ast.ClassDef) else scope, child)


def _small_private_uses(function: Function, scope: ast.AST) -> list[str]:
    is_private = function.name.startswith("_") or isinstance(scope, Function)
    if not is_private or function.name.endswith("__") or length(function) > SMALL:
        return []
    return _mentions(scope)[function.name]


@cache
def _mentions(scope: ast.AST) -> defaultdict[str, list[str]]:
    called = {node.func for node in ast.walk(scope) if isinstance(node, ast.Call)}
    found = defaultdict[str, list[str]](list)
    for node in ast.walk(scope):
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            found[name].append("called" if node in called else "passed")
    return found


def length(function: Function) -> int:
    """Return the lines of a function, from `def` to its last."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def sources(root: Path, package: str) -> list[Source]:
    """Return the files of a top package, without those of a top package inside it."""
    paths = sorted(root.joinpath(*package.split(".")).rglob("*.py"))
    files = [Source(path, _module(path.relative_to(root)), path.read_text(encoding="utf-8")) for path in paths]
    return [file for file in files if package_of(file.module) == package]


def _module(path: Path) -> str:
    return ".".join(path.parent.parts if path.stem == "__init__" else path.with_suffix("").parts)


@dataclass(frozen=True)
class Rooms:
    """The rooms of one top package and the arrows that leave them."""

    package: str
    names: frozenset[str]
    flat: frozenset[str]
    inside: frozenset[Arrow]
    outside: frozenset[Arrow]  # to rooms of other top packages

    @cached_property
    def upward(self) -> frozenset[Arrow]:
        allowed = DECLARED[self.package]
        against = {(here, there) for here, there in self.outside if package_of(there) not in allowed}
        return fewest_that_close_circles(self.inside) | against

    @property
    def floors(self) -> int:
        return floors(self.names, self.inside)


def package_of(name: str) -> str | None:
    """Return the top package of a dotted name: the longest that holds it."""
    return max((package for package in DECLARED if f"{name}.".startswith(f"{package}.")), key=len, default=None)


def room_of(name: str) -> str | None:
    """Return the room of a dotted name: the first part below its top package."""
    package = package_of(name)
    inner = name.removeprefix(package).lstrip(".") if package else ""
    return f"{package}.{inner.split('.')[0]}" if inner else None


def rooms(files: Mapping[str, list[Source]]) -> list[Rooms]:
    """Return the rooms of every top package, by the files of each."""
    names = {package: _rooms_of(some) for package, some in files.items()}
    known = frozenset[str]().union(*names.values())
    return [_linked(package, names[package], known, some) for package, some in files.items()]


def _rooms_of(files: list[Source]) -> frozenset[str]:
    return frozenset(room for file in files if (room := room_of(file.module)))


def _linked(package: str, names: frozenset[str], known: frozenset[str], files: list[Source]) -> Rooms:
    arrows = {
        (here, there)
        for file in files
        for imported in file.imported()
        if (here := room_of(file.module)) and (there := room_of(imported)) in known and here != there and there
    }
    inside = frozenset(arrow for arrow in arrows if arrow[1] in names)
    flat = frozenset(file.module for file in files if file.module in names and file.path.stem != "__init__")
    return Rooms(package, names, flat, inside, frozenset(arrows - inside))


def fewest_that_close_circles(arrows: frozenset[Arrow]) -> frozenset[Arrow]:
    """Return a smallest set of arrows without which the rest has no circle."""
    return next(found for budget in count() if (found := _cut(arrows, budget)) is not None)


def _cut(arrows: frozenset[Arrow], budget: int) -> frozenset[Arrow] | None:
    """Return at most `budget` arrows that break every circle, or None: one of each shortest circle has to go."""
    circle = shortest_circle(arrows)
    if not circle:
        return frozenset()
    for arrow in circle if budget else ():
        if (rest := _cut(arrows - {arrow}, budget - 1)) is not None:
            return rest | {arrow}
    return None


def shortest_circle(arrows: frozenset[Arrow]) -> list[Arrow]:
    """Return the arrows of a shortest circle, the first by name among equals; none if there is no circle."""
    found = (_way_back(start, arrows) for start in sorted({here for here, _ in arrows}))
    return min((way for way in found if way), key=len, default=[])


def _way_back(start: str, arrows: frozenset[Arrow]) -> list[Arrow]:
    ways: list[list[Arrow]] = [[arrow] for arrow in sorted(arrows) if arrow[0] == start]
    seen: set[str] = set()
    for way in ways:  # grows while it is read: breadth first
        here = way[-1][1]
        if here == start:
            return way
        if here not in seen:
            seen.add(here)
            ways += [[*way, arrow] for arrow in sorted(arrows) if arrow[0] == here]
    return []


def circles(names: Collection[str], arrows: Collection[Arrow]) -> list[frozenset[str]]:
    """Return the groups of names that reach each other; a name in no circle is a group of its own."""
    reached = {name: _reached(name, arrows) for name in names}
    groups = {frozenset({name, *(other for other in reached[name] if name in reached[other])}) for name in names}
    return sorted(groups, key=sorted)


def _reached(start: str, arrows: Collection[Arrow]) -> set[str]:
    seen, ahead = set[str](), [start]
    while ahead:
        here = ahead.pop()
        new = {there for origin, there in arrows if origin == here} - seen
        seen |= new
        ahead += new
    return seen


def floors(names: Collection[str], arrows: Collection[Arrow]) -> int:
    """Return how many groups of rooms stand on the longest path of arrows."""
    groups = circles(names, arrows)
    group_of = {name: group for group in groups for name in group}
    below = {group: {group_of[there] for here, there in arrows if here in group} - {group} for group in groups}
    heights: dict[frozenset[str], int] = {}
    while len(heights) < len(groups):
        ready = [group for group in groups if group not in heights and below[group] <= heights.keys()]
        heights |= {group: 1 + max((heights[lower] for lower in below[group]), default=0) for group in ready}
    return max(heights.values(), default=0)


def sizes(files: list[Source]) -> list[object]:
    """Return the cells about files and functions."""
    lines = [file.lines for file in files if file.lines]
    functions = [length(function) for file in files for function, _ in file.functions]
    p90 = quantiles(functions, n=10, method="inclusive")[-1] if len(functions) > 1 else sum(functions)
    called = sum(len(file.called_once()) for file in files)
    passed = sum(len(file.passed_once()) for file in files)
    middle = [median(lines or [0]), max(lines, default=0), len(functions), median(functions or [0])]
    return [len(lines), *middle, p90, called, passed]


def checkout(root: Path) -> dict[str, list[Source]]:
    """Return the files of every top package that the folder has."""
    return {package: files for package in DECLARED if (files := sources(root, package))}


def table(files: Mapping[str, list[Source]]) -> str:
    """Return the Markdown table of a checkout, with its circles, upward arrows and arrows between packages below."""
    found = rooms(files)
    rows: list[list[object]] = [[*HEAD], ["---", *["--:"] * (len(HEAD) - 1)]]
    for package in found:
        graph = (len(package.names), len(package.flat), package.floors, len(package.inside), len(package.upward))
        rows.append([package.package, *sizes(files[package.package]), *graph])
    rows.append(["all", *sizes([file for some in files.values() for file in some]), *[""] * 5])
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join([*lines, "", *_below(found)])


def _cell(cell: object) -> str:
    return f"{cell:g}" if isinstance(cell, float) else str(cell)


def _below(found: list[Rooms]) -> Iterator[str]:
    for package in found:
        for group in circles(package.names, package.inside):
            if len(group) > 1:
                yield f"circle in {package.package}: {', '.join(sorted(group))}"
        for here, there in sorted(package.upward):
            yield f"upward in {package.package}: {here} -> {there}"
        for other in DECLARED:
            if arrows := sum(package_of(there) == other for _, there in package.outside):
                yield f"{package.package} -> {other}: {arrows}"


def main() -> None:
    """Print the table, and with --list the small private functions that are called once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[1], help="the checkout to count")
    parser.add_argument("--list", action="store_true", help="name what is called once")
    options = parser.parse_args()
    root = options.folder.resolve()
    files = checkout(root)
    if not files:
        parser.error(f"{root} has none of {', '.join(DECLARED)}: give the root of a checkout")
    print(table(files))
    for file in [file for some in files.values() for file in some] if options.list else ():
        for function in file.called_once():
            print(f"{file.path.relative_to(root)}:{function.lineno} {function.name}")


if __name__ == "__main__":
    main()
