"""A graph of ComfyUI's nodes, and the ways along its links. Time and depth are bounded: links may lead in circles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.infotext.found import Json, loaded

Graph = Mapping[str, Mapping[str, Any]]
"""Inputs by node, with the node's kind under `KIND`."""

KIND: Final = ""
MODELS: Final = ("model", "guider", "base_model")
"""The inputs along which a sampler's model comes."""
FAR: Final = 100  # links that are followed from one node on
_CONSTANTS: Final = ("value", "Value", "text", "string", "int", "float", "number", "seed", "STRING", "INT", "FLOAT")


def graph(document: Json) -> Graph | None:
    """Return the graph that a JSON object is or holds, or None."""
    for holder in (document, loaded(document.get("prompt")), loaded(document.get("Prompt"))):
        nodes = {
            name: {**node["inputs"], KIND: node["class_type"]}
            for name, node in (holder or {}).items()
            if isinstance(node, dict)
            and isinstance(node.get("inputs"), dict)
            and isinstance(node.get("class_type"), str)
        }
        if nodes:
            return nodes
    return None


def link_of(nodes: Graph, value: object) -> str | None:
    """Return the node that an input comes from, if it comes from one."""
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], (str, int)):
        return None
    return str(value[0]) if str(value[0]) in nodes else None


def links(nodes: Graph, name: str) -> list[str]:
    return [link for value in nodes[name].values() if (link := link_of(nodes, value)) is not None]


def reached(nodes: Graph, starts: list[str]) -> set[str]:
    """Return all nodes that lead to one of `starts`, and those themselves."""
    found: set[str] = set()
    while starts:
        name = starts.pop()
        if name not in found:
            found.add(name)
            starts += links(nodes, name)
    return found


def way(nodes: Graph, name: str, inputs: tuple[str, ...]) -> Iterator[str]:
    """Yield a node and those behind it, along the first of these inputs that is linked."""
    following: str | None = name
    for _ in range(FAR):
        if following is None:
            return
        yield following
        node = nodes[following]
        following = next((link for one in inputs if (link := link_of(nodes, node.get(one))) is not None), None)


def value_of(nodes: Graph, name: str, *inputs: str) -> Any:  # noqa: ANN401 - whatever the input holds
    """Return what one of these inputs holds, here or in the node that it comes from."""
    names = inputs
    following: str | None = name
    for _ in range(FAR):
        node = nodes[following or ""] if following else {}
        given = next((node[one] for one in names if node.get(one) is not None), None)
        following = link_of(nodes, given)
        if following is None:
            return None if isinstance(given, (list, dict)) else given
        names = (*inputs, *_CONSTANTS)
    return None


def on_the_way(nodes: Graph, name: str, inputs: tuple[str, ...], wanted: tuple[str, ...]) -> Any:  # noqa: ANN401
    """Return the first of the wanted values among the nodes along `inputs`."""
    values = (value_of(nodes, one, *wanted) for one in way(nodes, name, inputs) if nodes[one].keys() & {*wanted})
    return next((value for value in values if value is not None), None)
