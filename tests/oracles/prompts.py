"""What people's prompts and styles mean, against figures of a reference implementation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from shared.prompts import attention, composable, editing, extra_networks, styles
from shared.prompts.chunks import COMMA, Word, chunked, counted

Case = dict[str, Any]
VECTORS = 8  # of the learned word that the reference's figures have


def check_attention(case: Case) -> None:
    fragments = attention.fragments(case["text"])
    if case.get("literal"):
        assert "".join(text for text, _ in fragments) == re.sub(r"[()]", "", case["text"])
        assert [weight for text, weight in fragments if ":" in text] == [1.1]
        return
    assert [text for text, _ in fragments] == [text for text, _ in case["fragments"]]
    assert [weight for _, weight in fragments] == pytest.approx([weight for _, weight in case["fragments"]])


def check_schedule(case: Case) -> None:
    if case.get("hires_steps") is None:
        segments = editing.schedule(case["text"], case["steps"])
    else:
        segments = editing.schedule(case["text"], case["hires_steps"], first_pass_calls=case["steps"])
    assert [list(segment) for segment in segments] == case["segments"]


def check_composable(case: Case) -> None:
    assert [list(part) for part in composable.read(case["text"])] == case["parts"]


def check_chunks(case: Case) -> None:
    sections = attention.weighed(_written_out(case["case"]))
    chunks = [chunk for section in sections for chunk in chunked(_words(section))]
    assert [len(chunk.tokens) for chunk in chunks] == case["used_per_chunk"]
    assert counted(chunks) == case["token_count"]


def check_extra_networks(case: Case) -> None:
    found: dict[str, list[Any]] = {}
    for network in extra_networks.networks(case["text"]):
        found.setdefault(network.kind, []).append([list(network.arguments), dict(network.options)])
    assert extra_networks.without(case["text"]) == case["cleaned"]
    assert found == case["networks"]


def check_styles(case: Case) -> None:
    assert styles.merge(case["prompt"], [case["style"]]) == case["merged"]


def _written_out(case: str) -> str:
    """The shorthand of the chunk cases: `60w , 20w`, `76 words`, `151`, `empty`; all else is the prompt itself."""
    if case == "empty":
        return ""
    if count := re.fullmatch(r"(\d+)(?: words)?", case):
        return "cat " * int(count[1])
    return re.sub(r"(\d+)w\b", lambda words: "cat " * int(words[1]), case)


def _words(fragments: list[attention.Fragment]) -> Iterator[Word]:
    """Every word a token, `emb` a learned one of eight."""
    for fragment in fragments:
        for word in re.findall(r"\w+|,", fragment.text):
            tokens = {",": (COMMA,), "emb": (0,) * VECTORS}.get(word, (1,))
            yield Word(tokens, fragment.weight)
