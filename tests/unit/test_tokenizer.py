from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from shared.prompts.chunks import COMMA, Word, chunked, chunked_tokens
from shared.prompts.tokenizer import BOS, EOS, Tokenizer, _vocabulary, is_surely_accepted

ORACLES = Path(__file__).parents[1] / "data" / "oracles"
PROMPT_LANGUAGE = {"a BREAK b", "75w BREAK x", "70w emb(8v)", "emb"}
CASES = [
    case for case in json.loads((ORACLES / "chunks.json").read_text())["cases"] if case["case"] not in PROMPT_LANGUAGE
]


def _text(case: str) -> str:
    """The oracle's shorthand written out, a word a token: `60w , 20w`, `76 words`, `151`, `empty`."""
    if case == "empty":
        return ""
    if not case.endswith("w"):
        return "cat " * int(case.removesuffix(" words"))
    return " ".join("," if part == "," else "cat " * int(part[:-1]) for part in case.split())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_chunks_are_those_that_people_know(tokenizer: Tokenizer, case: dict) -> None:
    text = _text(case["case"])
    assert [len(chunk.tokens) for chunk in tokenizer.chunks(text)] == case["used_per_chunk"]
    assert tokenizer.measure(text).tokens == case["token_count"]


def test_chunks_lose_and_reorder_nothing(tokenizer: Tokenizer) -> None:
    text = ", ".join("a small red house by the sea" for _ in range(60))
    chunks = tokenizer.chunks(text)
    assert [token for chunk in chunks for token in chunk.tokens] == tokenizer.encode(text)
    assert len(chunks) > 3
    assert max(len(chunk.tokens) for chunk in chunks) <= 75


def test_a_comma_that_is_token_76_starts_the_next_chunk(tokenizer: Tokenizer) -> None:
    chunks = tokenizer.chunks("cat " * 60 + ", " + "cat " * 14 + ", cat")
    assert [len(chunk.tokens) for chunk in chunks] == [75, 2]
    assert chunks[1].tokens[0] == COMMA


def test_encode_gives_clips_numbers(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert tokenizer.encode("dreambeach") == [4595, 2117]
    assert tokenizer.encode(",") == [COMMA]
    assert tokenizer.encode("") == []


@pytest.mark.parametrize(
    "text",
    [
        "a photo of an astronaut's café 123 <b>",
        "Hello,  WORLD!!\n\tfoo_bar",
        "日本 の sunset 🌅 e\u0301",
        "don't I'll 3.14 (cat:1.2) ###",
        "ﬁ ² Ǆ İstanbul",
        " \u3000x\u00a0y",
    ],
)
def test_encode_agrees_with_transformers(tokenizer: Tokenizer, text: str) -> None:
    vocabulary, merges = _vocabulary()
    special = {"<|startoftext|>": BOS, "<|endoftext|>": EOS}
    reference = CLIPTokenizer(vocab={**vocabulary, **special}, merges=merges)
    assert tokenizer.encode(text) == reference(text)["input_ids"][1:-1]


@pytest.mark.parametrize(
    "piece",
    [
        ",", "1", "a ", "\u0130", "\u0958", "日", "é, ", "(a:1.2) ", "𝒜", "x,", "[a|b]", "a AND ", "a BREAK ",
        "[a:日本,:0.5]", "[a]", "[a,:0<x:y>.5] ", "[BR::0.5]EAK ", "[,|a|BREAK] ", "AN<x:y>D ", "[[a|b]|c:d:9]",
        "".join(f"[a{at},:{at}]" for at in range(9)), "a\x1c\x1d\x1e\x1f",
    ],
)  # fmt: skip
def test_what_is_surely_accepted_is_accepted_when_its_tokens_are_counted(tokenizer: Tokenizer, piece: str) -> None:
    sure = [
        times for times in (1, 3, 9, 15, 16, 40, 100, 200, 400, 600, 900, 2000) if is_surely_accepted(piece * times)
    ]
    assert all(tokenizer.measure(piece * times).is_accepted for times in sure)
    assert 2000 not in sure


def test_words_of_one_token_are_chunked_as_all_others() -> None:
    tokens = [COMMA if place % 19 in {0, 7} else place for place in range(1, 400)]
    for length in (0, 1, 74, 75, 76, 150, 151, 399):
        weights = [1.0 + place for place in range(length)]
        words = [Word((token,), weight) for token, weight in zip(tokens[:length], weights, strict=True)]
        assert chunked_tokens(tokens[:length], weights) == chunked(words)


def test_the_names_of_special_tokens_are_plain_text(tokenizer: Tokenizer) -> None:
    assert EOS not in tokenizer.encode("a <|endoftext|> b")
