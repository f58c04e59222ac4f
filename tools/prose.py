"""Find expressions of `tools/prose.txt` in what people read: pages, documentation, messages, docstrings and comments.

A line of the list is a regular expression, a tab and what to write instead; `#` begins a comment. Expressions match
whole words, in capitals or not, and over the end of a line. Of Python, comments and strings are read, and of f-strings
what stands outside the braces.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
LIST: Final = ROOT / "tools/prose.txt"
FOLDERS: Final = (
    *("api", "cli", "client", "shared", "worker"),
    *("bench", "deploy", "docs", "models", "tests", "tools", "migrations", ".ci"),
)
SUFFIXES: Final = (".md", ".py", ".html", ".js", ".css", ".svg", ".yaml", ".yml", ".toml", ".sh", ".env", "")
LEFT_OUT: Final = ("tests/tools/test_prose.py",)  # quotes what the list forbids

_STRING_OR_COMMENT: Final = re.compile(
    r"""(?P<comment>\#[^\n]*)
      | (?P<quotes>\'{3}|"{3}) (?:[^\\]|\\.)*? (?P=quotes)
      | '(?:[^\\'\n]|\\.)*' | "(?:[^\\"\n]|\\.)*"
    """,
    re.DOTALL | re.VERBOSE,
)
"""What can hold a `#`. The standard library's tokenizer finds the same comments, ten times as slowly."""


@dataclass(frozen=True)
class Text:
    """Something that people read, and the line of its file where it begins."""

    line: int
    text: str


@dataclass(frozen=True)
class Expression:
    """An expression that is not used, and what is written instead."""

    words: str  # a regular expression
    pattern: re.Pattern[str]  # of these as whole words
    instead: str

    def lines(self, text: Text) -> Iterator[tuple[int, str]]:
        """Yield where in the file the expression stands, and in which words."""
        for found in self.pattern.finditer(text.text):
            yield text.line + text.text.count("\n", 0, found.start()), " ".join(found[0].split())


def expressions(listed: str) -> list[Expression]:
    """Return the expressions of a list. Raises ValueError for a line that is not one."""
    return [
        _expression(number, line)
        for number, line in enumerate(listed.splitlines(), start=1)
        if line.strip() and not line.startswith("#")
    ]


def _expression(number: int, line: str) -> Expression:
    written, tab, instead = line.partition("\t")
    if not (tab and written and instead.strip()):
        raise ValueError(f"line {number}: write a regular expression, a tab and what to write instead")
    try:
        spaced = written.replace(" ", r"\s+")
        pattern = re.compile(_whole_words(spaced), re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"line {number}: {written!r} is not a regular expression: {error}") from None
    return Expression(spaced, pattern, instead.strip())


def _whole_words(expression: str) -> str:
    return rf"(?<!\w)(?:{expression})(?!\w)"


def texts(name: str, source: str) -> Iterator[Text]:
    """Yield what people read of a file: of Python the strings and comments, of others all."""
    if name.endswith(".py"):
        try:
            yield from [*_strings(ast.parse(source)), *_comments(source)]
        except SyntaxError:  # ruff says more about it
            yield Text(1, source)
    else:
        yield Text(1, source)


def _strings(tree: ast.AST) -> Iterator[Text]:
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.JoinedStr):
            parts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield Text(node.lineno, "".join(parts))
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                yield Text(node.lineno, node.value)
        else:
            for value in reversed([*vars(node).values()]):
                if isinstance(value, list):
                    left.extend(one for one in reversed(value) if isinstance(one, ast.AST))
                elif isinstance(value, ast.AST):
                    left.append(value)


def _comments(source: str) -> Iterator[Text]:
    """Yield the comments of Python; those of lines in a row are one text, since sentences go on over lines."""
    block: list[str] = []
    first = line = end = 0
    for found in _STRING_OR_COMMENT.finditer(source):
        if not found["comment"]:
            continue
        line += source.count("\n", end, found.start())
        end = found.start()
        if block and line != first + len(block):
            yield Text(first + 1, "\n".join(block))
            block = []
        if not block:
            first = line
        block.append(found["comment"].lstrip("# "))
    if block:
        yield Text(first + 1, "\n".join(block))


def read_by_people(root: Path) -> list[Path]:
    """Return the files of a checkout in which people read."""
    files = [*root.iterdir(), *chain.from_iterable((root / folder).rglob("*") for folder in FOLDERS)]
    names = {path.relative_to(root).as_posix(): path for path in files if path.suffix in SUFFIXES and path.is_file()}
    return [names[name] for name in sorted(names) if name not in LEFT_OUT and not name.endswith("LICENSE")]


def findings(root: Path, forbidden: Sequence[Expression]) -> Iterator[str]:
    """Yield a line for each expression that stands in a file of the checkout."""
    anything = re.compile(_whole_words("|".join(f"(?:{expression.words})" for expression in forbidden)), re.IGNORECASE)
    for path in read_by_people(root):
        name = path.relative_to(root).as_posix()
        for text in texts(name, path.read_text(encoding="utf-8", errors="replace")):
            if anything.search(text.text):  # one search is enough for nearly every text
                yield from (f"{name}:{line}" for line in _found(text, forbidden))


def _found(text: Text, forbidden: Sequence[Expression]) -> Iterator[str]:
    for expression in forbidden:
        for line, words in expression.lines(text):
            yield f"{line}: “{words}”: {expression.instead}"


def main() -> int:
    """Print what was found; return 1 if it is anything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT, help="the checkout to read")
    parser.add_argument("--list", type=Path, default=LIST, help="the expressions")
    options = parser.parse_args()
    try:
        forbidden = expressions(options.list.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        parser.error(f"{options.list}: {error}")
    found = list(findings(options.folder.resolve(), forbidden))
    print("\n".join(found), end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
