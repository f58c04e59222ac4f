"""The prompt language: what the figures of the reference (test_oracles) leave open, and what hostile text does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.prompts import attention, composable, editing, extra_networks
from shared.prompts.attention import Fragment, fragments
from shared.prompts.chunks import CHUNK, COMMA, EMPTY, Word, chunked, counted
from shared.prompts.tokenizer import Tokenizer

SIGNS = [
    "(",
    ")",
    "[",
    "]",
    ":",
    "|",
    "\\",
    ",",
    " ",
    "\n",
    "#",
    "<",
    ">",
    "AND",
    "BREAK",
    "0.5",
    "3",
    "-1.2",
    "1e9",
    ".",
]
WORDS = ["a", "cat", "lora", "é", "🌅", "سماء"]
PROMPTS = st.one_of(st.text(), st.lists(st.sampled_from(SIGNS + WORDS)).map("".join))


def edited(text: str, calls: int = 10, first_pass_calls: int | None = None) -> list[tuple[int, str]]:
    return [tuple(segment) for segment in editing.schedule(text, calls, first_pass_calls)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a (b (c:1.5)) d", [("a ", 1.0), ("b ", 1.1), ("c", 1.65), (" d", 1.0)]),
        ("[[a]]", [("a", 1 / 1.21)]),
        ("(a [b) c] d", [("a ", 1.1), ("b", 1.0), (" c", 1 / 1.1), (" d", 1.0)]),  # kinds of brackets may cross
        ("a) b] c:1.2)", [("a) b] c:1.2)", 1.0)]),
        ("(a:1.3", [("a:1.3", 1.1)]),
        ("(a:+.5)(b:2.)", [("a", 0.5), ("b", 2.0)]),
        ("(a:.)(b:1.2.3)(c:1e3)", [("a:.b:1.2.3c:1e3", 1.1)]),  # no numbers
        (r"\(a\) \b \\", [(r"(a) b " + "\\", 1.0)]),
        ("BREAKFAST aBREAK", [("BREAKFAST aBREAK", 1.0)]),
        ("(a:9999999999)", [("a", 1e6)]),
    ],
)
def test_brackets_weigh_what_they_hold(text: str, expected: list[tuple[str, float]]) -> None:
    assert [fragment.text for fragment in fragments(text)] == [text for text, _ in expected]
    assert [fragment.weight for fragment in fragments(text)] == pytest.approx([weight for _, weight in expected])


def test_break_ends_a_section() -> None:
    assert attention.weighed("(a:1.2) BREAK (b) c") == [
        [Fragment("a", 1.2)],
        [Fragment("b", 1.1), Fragment(" c", 1.0)],
    ]


@pytest.mark.parametrize("text", ["(a BREAK b:1.2)", "(a BREAK b)", "[a BREAK b]", "(a BREAK b", "((a BREAK b:0.5))"])
def test_break_inside_a_weight_is_a_word(text: str) -> None:
    [chunk] = Tokenizer().chunks(text)
    assert len(chunk.tokens) == 3
    first, word, last = chunk.weights
    assert (word, first) == (-last, last)


def test_break_inside_a_weight_of_one_ends_a_section() -> None:
    assert len(Tokenizer().chunks("(a BREAK b:1)")) == 2
    assert len(Tokenizer().chunks("(a BREAK b:1.2)", "Ignore")) == 1


@pytest.mark.parametrize("text", ["BREAK", " BREAK ", "\nBREAK", "AND BREAK"])
def test_break_alone_is_one_empty_chunk(text: str) -> None:
    for part in composable.read(text):
        assert Tokenizer().chunks(part.text) == (EMPTY,)


def test_emphasis_may_be_left_out_or_left_alone() -> None:
    assert attention.weighed("(a:1.3) BREAK [b]", "Ignore") == [[Fragment("a")], [Fragment("b")]]
    assert attention.weighed("(a:1.3) BREAK [b]", "None") == [[Fragment("(a:1.3) BREAK [b]")]]


@given(st.text())
def test_what_is_escaped_is_plain_text(text: str) -> None:
    plain = text.replace("BREAK", "")
    escaped = "".join(f"\\{letter}" if letter in "()[]\\" else letter for letter in plain)
    assert fragments(escaped) == (Fragment(plain, 1.0),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b::3] c", [(3, "a b c"), (10, "a  c")]),
        ("[a:[b:c:6]:3]", [(3, "a"), (6, "b"), (10, "c")]),
        ("[(a:1.2):b:3]", [(3, "(a:1.2)"), (10, "b")]),
        ("[a:b:1e1]", [(10, "a")]),
        ("[a:b:1e999]", [(10, "a")]),
        ("[a:b:-1e999]", [(10, "b")]),
        (r"[\[a\]:b\:c:3]", [(3, r"\[a\]"), (10, r"b\:c")]),
        (":) [a:b:3] :(", [(3, ":) a :("), (10, ":) b :(")]),  # brackets without a partner
        ("((x][:y:z [a:3]", [(3, "((x][:y:z "), (10, "((x][:y:z a")]),
        ("[a:b:c:3]", [(10, "[a:b:c:3]")]),  # more than an edit has
        ("[x [a:b:3] : y]", [(3, "[x a : y]"), (10, "[x b : y]")]),  # no edit around one
        ("[(a:b:3]", [(10, "[(a:b:3]")]),
        ("(a|b) [c:d:3]", [(10, "(a|b) [c:d:3]")]),  # no rule has a place for that: all is one prompt
        ("[a|b:3]", [(10, "[a|b:3]")]),
        ("[a:b:3] \\", [(10, "[a:b:3] \\")]),
    ],
)
def test_edits_happen_where_the_grammar_has_them(text: str, expected: list[tuple[int, str]]) -> None:
    assert edited(text) == expected


def test_alternation_goes_round() -> None:
    assert [text for _, text in edited("[fe|||]male", calls=5)] == ["female", "male", "male", "male", "female"]
    assert [text for _, text in edited("[a|b] [c|d|e]", calls=4)] == ["a c", "b d", "a e", "b c"]


def test_a_second_pass_counts_on_from_the_first() -> None:
    assert edited("[a:b:25]", calls=10, first_pass_calls=20) == [(5, "a"), (10, "b")]
    assert edited("[a:b:1.5]", calls=10, first_pass_calls=20) == [(5, "a"), (10, "b")]
    assert edited("[a:b:15]", calls=10, first_pass_calls=20) == [(10, "b")]


def test_what_is_nested_too_deeply_is_one_prompt() -> None:
    deep = "[" * 101 + "a:b:3" + "]" * 101
    assert edited(deep) == [(10, deep)]
    assert len(edited("(" * 99 + "[a:b:3]" + ")" * 99)) == 2


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("cat:1.2", [("cat", 1.2)]),
        ("a :2. AND b:-.5", [("a", 2.0), (" b", -0.5)]),
        ("a : b", [("a : b", 1.0)]),
        ("HAND ANDY and", [("HAND ANDY and", 1.0)]),
        ("a # AND b\nAND c", [("a", 1.0), (" c", 1.0)]),
        ("cat <lora:ink:0.8>:1.5", [("cat", 1.5)]),
        (f"cat:{'9' * 400} AND a:-{'9' * 400}", [("cat", 1e6), (" a", -1e6)]),
    ],
)
def test_a_prompt_is_read_in_parts(text: str, parts: list[tuple[str, float]]) -> None:
    assert [tuple(part) for part in composable.read(text)] == parts


def test_a_negative_prompt_has_no_parts() -> None:
    assert composable.read("a AND b:1.2 # c", is_negative=True) == (("a AND b:1.2 \n", 1.0),)


def test_a_network_is_known_by_its_name() -> None:
    (network,) = extra_networks.networks("a <lora:ink:0.8:unet=0.5:a=b=c> b")
    assert (network.kind, network.name, network.arguments, network.options) == (
        "lora",
        "ink",
        ("ink", "0.8", "a=b=c"),
        (("unet", "0.5"),),
    )


def test_weights_travel_with_their_tokens() -> None:
    chunks = Tokenizer().chunks("cat " * 70 + ", (red house by the sea:1.3)")
    assert [len(chunk.tokens) for chunk in chunks] == [71, 5]
    assert chunks[0].tokens[-1] == COMMA
    assert set(chunks[0].weights) == {1.0}
    assert set(chunks[1].weights) == {1.3}


def test_nothing_follows_a_break_at_the_end() -> None:
    tokenizer = Tokenizer()
    assert tokenizer.chunks("a BREAK") == tokenizer.chunks("a")
    assert tokenizer.measure("a BREAK").tokens == CHUNK
    assert len(tokenizer.chunks("BREAK a")) == 2
    assert len(tokenizer.chunks("BREAK")) == 1


def test_the_longest_variant_counts() -> None:
    tokenizer = Tokenizer()
    assert tokenizer.measure("a b c AND d").tokens == 3
    assert tokenizer.measure("[a:b c d:10]", calls=20).tokens == 3
    assert tokenizer.measure("[a:b c d:30]", calls=20).tokens == 1  # never comes about
    assert tokenizer.measure("[a:b c d:30]", calls=20, first_pass_calls=20).tokens == 3  # in a second pass
    assert tokenizer.measure("a AND b", is_negative=True).tokens == 3
    assert tokenizer.measure("(a:1.2)", emphasis="None").tokens == len(tokenizer.encode("(a:1.2)"))


@pytest.mark.parametrize(
    "text", ["", " ", "\n", "#", "AND", "BREAK", "()", "[]", "🌅🏖️ at dawn", "غروب الشمس (فوق البحر:1.3)"]
)
def test_texts_that_are_hardly_any_are_prompts(text: str) -> None:
    assert Tokenizer().measure(text).tokens >= 0
    assert all(Tokenizer().chunks(part.text) for part in composable.read(text))


@given(PROMPTS, st.integers(1, 30))
@settings(max_examples=300, deadline=None)
def test_no_text_breaks_the_language(text: str, calls: int) -> None:
    for part in composable.read(text):
        assert math.isfinite(part.weight)
        segments = list(editing.schedule(part.text, calls))
        assert [end for end, _ in segments] == sorted({end for end, _ in segments})
        assert segments[-1].last == calls
        for segment in segments:
            assert all(math.isfinite(fragment.weight) for fragment in fragments(segment.text))
    assert extra_networks.networks(extra_networks.without(text)) == () or "<" in text


@given(
    st.lists(
        st.builds(Word, st.lists(st.integers(COMMA - 1, COMMA + 1), min_size=1, max_size=8).map(tuple)), max_size=120
    )
)
def test_chunks_lose_no_token_and_hold_no_more_than_they_can(words: list[Word]) -> None:
    chunks = chunked(words)
    assert [token for chunk in chunks for token in chunk.tokens] == [token for word in words for token in word.tokens]
    assert all(len(chunk.tokens) == len(chunk.weights) <= CHUNK for chunk in chunks)
    assert counted(chunks) <= CHUNK * len(chunks)


@pytest.mark.parametrize(
    "prompt", [f"[{'|'.join(map(str, range(300)))}]" + "日" * 8000, "[a|b]" * 2000, "[a|b|c|d|e|f|g]" * 660]
)
def test_what_is_far_too_long_is_found_out_soon(prompt: str) -> None:
    assert seconds(lambda: Tokenizer().measure(prompt, calls=300)) < 5


def everything(text: str) -> None:
    extra_networks.networks(text)
    fragments(text)
    for part in composable.read(text)[:20]:
        list(editing.schedule(part.text, 20))


@pytest.mark.parametrize("sign", ["[", "("])
def test_a_hundred_thousand_signs_are_read(sign: str) -> None:
    assert seconds(lambda: everything(sign * 100_000)) < 30


@pytest.mark.parametrize(
    "text",
    [
        "]" * 20_000, "[" * 10_000 + "]" * 10_000, "[a:" * 7000, "(a" * 10_000 + ":1.1)" * 4000,
        "[a|" * 7000, "[[a:b]" * 3500, ": " * 10_000,
        ":" + "1" * 20_000, ":" + " " * 20_000, " " * 20_000 + "x", "<a:" * 7000, "BREAK " * 4000, " AND a:1" * 2500,
        "\\" * 20_000, "#" * 20_000, "[a:b:.5]" * 2500,
    ],
    ids=lambda text: text[:8],
)  # fmt: skip
def test_hostile_text_takes_time_by_its_length(text: str) -> None:
    """In processor time; by its square it would be minutes."""
    assert seconds(lambda: everything(text)) < 10


def seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("[a|a]" * 50, ["a" * 50]),
        ("[a|b] sea", ["a sea", "b sea"] * 3),
        ("[[a|b]|c]", ["a", "c"] * 3),
        ("[a|[b|c|d]]", ["a", "c", "a", "b", "a", "d"]),
        ("[[a|b]:c:3]", ["a", "b", "a", "c"]),
        ("[x:[a|b]:2]", ["x", "x", "a", "b", "a", "b"]),
        ("[a|b|a]", ["a", "b", "a", "a", "b", "a"]),
    ],
)
def test_alternation_says_in_each_call_what_it_always_did(prompt, said):
    segments = list(editing.schedule(prompt, 6))
    assert segments[-1].last == 6
    ends = [0, *(segment.last for segment in segments)]
    calls = [segment.text for segment, first in zip(segments, ends, strict=False) for _ in range(segment.last - first)]
    assert calls[: len(said)] == said or calls == said * 6
    assert len({segment.text for segment in segments}) == len(set(said))


@pytest.mark.parametrize("prompt", ["[a|a]" * 1999, "[a|b]" * 1100, "[" + "|".join("a" * 4990) + "]"])
def test_what_alternation_says_again_is_not_put_together_again(prompt, monkeypatch):
    told, at = [], editing._at
    monkeypatch.setattr(editing, "_at", lambda text, call, clock: told.append(call) or at(text, call, clock))
    list(editing.schedule(prompt, 300))
    outermost = len(told) / max(1, prompt.count("|b") + 1)
    assert outermost <= 2
