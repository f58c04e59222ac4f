"""The English that a template, a script or a page shows without asking for it in the reader's language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from jinja2 import Environment, nodes

_PLACE: Final = "\x00"  # where a template puts in what it has computed
_TOLD: Final = frozenset({"aria-label", "title", "placeholder", "alt", "label", "content"})
_SILENT: Final = frozenset({"code", "kbd", "script", "style", "textarea"})
# Attributes that a macro adds to its caller's tag.
_LOOSE: Final = re.compile(r"""[\w-]+=(?:"[^"]*"|'[^']*'|\S+)|data-[\w-]+""")
_ENTITY: Final = re.compile(r"&#?\w+;")
_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_ASKS: Final = frozenset({"_", "gettext", "ngettext"})
_TEXT: Final = re.compile(r"[A-Z][a-z]+( .*)?|.*[a-z]{2,}[,.;:…]? [a-z(].*", re.DOTALL)
_IN_SCRIPT: Final = re.compile(
    r"""(?P<before>[\w.]*\(?|=== )(?P<quote>["'`])(?P<text>(?:\\.|(?!(?P=quote)).)*)(?P=quote)"""
)
_CODE: Final = re.compile(r"(?:^|\s)\.\w|\w-\w+(?: [\w-]+)*$|^px")  # a selector, names of classes, lengths
_KEYS: Final = frozenset({"Enter", "Escape", "Files", "Delete", "Shift", "Tab", "Home", "End", "Space", "Backspace"})
_REMARK: Final = re.compile(r"(?m)(?:^|\s)//.*$")
NAMES: Final = frozenset({"Stepfarm", "OpenAPI", "JSON"})


class Shown(HTMLParser):
    """Collects what a page shows and says: its text, and the attributes that are read aloud."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in _SILENT:
            self._silent.append(tag)
        told = _TOLD - {"content"} if tag == "meta" else _TOLD
        self.texts += [value for name, value in attrs if name in told and value and tag != "meta"]
        if tag == "input" and given.get("type") in ("submit", "button", "reset") and given.get("value"):
            self.texts.append(str(given["value"]))

    def handle_endtag(self, tag: str) -> None:
        if self._silent and tag == self._silent[-1]:
            self._silent.pop()

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.texts.append(data)


def shown(markup: str) -> list[str]:
    """Return the texts of a page, and those that only its attributes hold."""
    reader = Shown()
    reader.feed(markup)
    reader.close()
    return reader.texts


def literals_of_template(source: str, environment: Environment) -> Iterator[str]:
    """Yield what a template says in English without asking for it in another language."""
    markup = "".join(
        value if kind == "data" else _PLACE
        for _, kind, value in environment.lex(source)
        if kind in ("data", "variable_begin")
    )
    for text in shown(markup):
        said = _LOOSE.sub("", _ENTITY.sub("", text)).replace(_PLACE, " ")
        if set(_WORD.findall(said)) - NAMES:
            yield " ".join(said.split())
    for output in environment.parse(source).find_all((nodes.Output, nodes.CallBlock)):
        yield from (text for text in _constants(output) if _TEXT.fullmatch(text) and text not in NAMES)


def literals_of_script(source: str) -> Iterator[str]:
    """Yield the sentences of a script that do not come from the catalogue."""
    for found in _IN_SCRIPT.finditer(_REMARK.sub("", source)):
        text = re.sub(r"\$\{[^}]*\}", "", found["text"])
        is_asked = found["before"] in ("_(", "ngettext(", "=== ") or "%(" in text  # a plural comes second
        is_selector = found["before"].endswith(("querySelector(", "querySelectorAll(", "closest(", "matches("))
        is_code = is_selector or bool(set("<[{#=") & set(text)) or _CODE.search(text) or text in _KEYS
        if not is_asked and not is_code and _TEXT.fullmatch(text):
            yield text


def _constants(node: nodes.Node) -> Iterator[str]:
    """Yield the texts of an expression, apart from those that are asked for, compared or looked up."""
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name in _ASKS:
        return
    if isinstance(node, nodes.Test | nodes.Compare):
        return
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        yield node.value
    for child in node.iter_child_nodes():
        if not isinstance(child, nodes.Output):
            yield from _constants(child)


def files(folder: Path, pattern: str) -> Iterator[tuple[str, str]]:
    """Yield each file of a folder, by its path in it, with what it holds."""
    for path in sorted(folder.rglob(pattern)):
        yield path.relative_to(folder).as_posix(), path.read_text()
