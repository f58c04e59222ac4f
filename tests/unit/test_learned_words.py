"""Words that embeddings teach: how prompts are matched with them, counted and cut into chunks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.params.fields import Emphasis
from shared.prompts import composable, editing
from shared.prompts.chunks import CHUNK, Word, chunked
from shared.prompts.learned_words import MOST_VECTORS, NO_WORDS, VOCABULARY, LearnedWord, virtual_tokens
from shared.prompts.tokenizer import EOS, Tokenizer

TOKENIZER = Tokenizer()
CHUNKS = json.loads((Path(__file__).parents[1] / "data" / "oracles" / "chunks.json").read_text())["cases"]
STYLE = LearnedWord("ink-style", "a" * 64, 3)
LONGER = LearnedWord("ink-style extra", "b" * 64, 2)
ONE = LearnedWord("badhand", "c" * 64, 1)
WORDS = TOKENIZER.learn((STYLE, LONGER, ONE))


def tokens(text: str, emphasis: Emphasis = "Original") -> list[int]:
    return [token for chunk in TOKENIZER.chunks(text, emphasis, WORDS) for token in chunk.tokens]


def plain(text: str) -> list[int]:
    return TOKENIZER.encode(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a ink-style cat", [*plain("a"), *STYLE.tokens, *plain("cat")]),
        ("a INK-Style, cat", [*plain("a"), *STYLE.tokens, *plain(", cat")]),  # as the tokenizer lowers it
        ("ink - style", STYLE.tokens),  # the same tokens
        ("ink-style extra", LONGER.tokens),  # the longest name
        ("ink-style extras", [*STYLE.tokens, *plain("extras")]),
        ("ink-styled", plain("ink-styled")),
        ("badhand badhands", [*ONE.tokens, *plain("badhands")]),
        ("ink-(style:1.2)", plain("ink-style")),  # a name is within one weight
        ("ink-style<lora:x:1>", [*STYLE.tokens, *plain("<lora:x:1>")]),
        ("badhand badhand", [*ONE.tokens, *ONE.tokens]),
    ],
)
def test_a_word_is_matched_by_the_tokens_of_its_name(text: str, expected: list[int]) -> None:
    assert tokens(text) == list(expected)


def test_a_word_weighs_as_its_brackets_say_with_all_its_vectors() -> None:
    [chunk] = TOKENIZER.chunks("a (ink-style:1.3) [badhand]", words=WORDS)
    assert chunk.tokens == (*plain("a"), *STYLE.tokens, *ONE.tokens)
    assert chunk.weights == pytest.approx([1.0, 1.3, 1.3, 1.3, 1 / 1.1])
    assert tokens("(ink-style:1.3)", "None") == [*plain("("), *STYLE.tokens, *plain(":1.3)")]


def test_of_two_words_with_the_tokens_of_one_name_the_first_counts() -> None:
    first, second = LearnedWord("Mood", "d" * 64, 1), LearnedWord("mood", "e" * 64, 2)
    (chunk,) = TOKENIZER.chunks("mood", words=TOKENIZER.learn((first, second)))
    assert chunk.tokens == first.tokens
    assert TOKENIZER.chunks("a", words=TOKENIZER.learn((LearnedWord(" ", "f" * 64, 1),))) == TOKENIZER.chunks("a")


def test_of_two_names_of_one_file_a_prompt_mentions_those_that_it_holds() -> None:
    first, second = LearnedWord("bad", "d" * 64, 2), LearnedWord("easyneg", "d" * 64, 2)
    for names in ((first, second), (second, first)):
        words = TOKENIZER.learn(names)
        assert TOKENIZER.measure("a photo, (BAD:1.2)", words=words).words == {first}
        assert TOKENIZER.measure("easyneg", words=words).words == {second}
        assert TOKENIZER.measure("[bad:easyneg:5]", words=words).words == {first, second}
        [bad, easyneg] = [TOKENIZER.chunks(word.name, words=words) for word in (first, second)]
        assert bad == easyneg  # the same vectors


def test_virtual_tokens_are_beyond_the_vocabulary_and_of_one_file_alone() -> None:
    assert VOCABULARY == EOS + 1
    every = [virtual_tokens(sha256, MOST_VECTORS) for sha256 in ("0" * 64, "f" * 63 + "e", "f" * 64, "")]
    assert len({token for file in every for token in file}) == len(every) * MOST_VECTORS
    assert min(token for file in every for token in file) >= VOCABULARY
    assert virtual_tokens("0" * 64, 2) == every[0][:2]


@pytest.mark.parametrize("case", [case for case in CHUNKS if "emb" in case["case"]], ids=lambda case: case["case"])
def test_words_take_up_what_people_know(case: dict) -> None:
    words = TOKENIZER.learn((LearnedWord("emb", "a" * 64, 8),))
    text = {"emb": "emb", "70w emb(8v)": "cat " * 70 + "emb cat"}[case["case"]]
    assert [len(chunk.tokens) for chunk in TOKENIZER.chunks(text, words=words)] == case["used_per_chunk"]
    assert TOKENIZER.measure(text, words=words).tokens == case["token_count"]


@pytest.mark.parametrize(
    ("before", "vectors", "used"),
    [
        ("cat " * 72, 3, [75]),
        ("cat " * 73, 3, [73, 3]),  # whole in the next chunk
        ("cat " * 60 + ", " + "cat " * 13, 3, [74, 3]),  # with room left no comma is looked for
        ("cat " * 60 + ", " + "cat " * 14, 3, [61, 17]),  # a full chunk ends after its comma, as before any token
        ("cat " * 60 + ", " + "cat " * 14, 75, [61, 14, 75]),
        ("", 75, [75]),
        ("a", 75, [1, 75]),
    ],
)
def test_no_end_of_a_chunk_tears_a_word(before: str, vectors: int, used: list[int]) -> None:
    words = TOKENIZER.learn((LearnedWord("ink", "a" * 64, vectors),))
    chunks = TOKENIZER.chunks(f"{before}ink", words=words)
    assert [len(chunk.tokens) for chunk in chunks] == used
    assert chunks[-1].tokens[-vectors:] == virtual_tokens("a" * 64, vectors)


def test_a_word_longer_than_a_chunk_ends_nothing() -> None:
    assert [len(one.tokens) for one in chunked([Word((1,)), Word((2,) * 90)])] == [1, 90]


def test_a_prompt_says_which_words_it_mentions_at_any_time() -> None:
    def mentioned(prompt: str, **how: bool) -> set[str]:
        return {word.name for word in TOKENIZER.measure(prompt, words=WORDS, **how).words}

    assert mentioned("cat") == set()
    assert mentioned("a [ink-style:badhand:5] AND (ink-style extra)") == {"ink-style", "badhand", "ink-style extra"}
    assert mentioned("[badhand:ink-style:0]") == {"ink-style"}  # never said
    assert mentioned("cat # badhand") == set()
    assert mentioned("a AND badhand:1.2", is_negative=True) == {"badhand"}
    assert TOKENIZER.measure("badhand").words == TOKENIZER.measure("badhand", words=NO_WORDS).words == frozenset()


PIECES = st.sampled_from(
    [word.name for word in (STYLE, LONGER, ONE)]
    + [
        "INK-STYLE",
        "ink",
        "-",
        "style",
        "cat",
        ",",
        " ",
        "(",
        ")",
        "[",
        "]",
        ":",
        "|",
        "BREAK",
        " AND ",
        "0.5",
        ":1.2)",
    ]
)


@given(st.lists(PIECES, max_size=60).map("".join), st.sampled_from(["Original", "Ignore", "None"]))
@settings(max_examples=60, deadline=None)
def test_a_count_is_that_of_the_chunks_with_all_words_or_those_that_are_mentioned(
    text: str, emphasis: Emphasis
) -> None:
    """The form and the API know all words of the farm, the engine only those that the prompt mentions."""
    length = TOKENIZER.measure(text, 10, emphasis, words=WORDS)
    few = TOKENIZER.learn(tuple(sorted(length.words)))
    used = 0
    for part in composable.read(text):
        for _, said in editing.schedule(part.text, 10):
            chunks = TOKENIZER.chunks(said, emphasis, few)
            assert chunks == TOKENIZER.chunks(said, emphasis, WORDS)
            assert all(len(chunk.tokens) == len(chunk.weights) <= CHUNK for chunk in chunks)
            used = max(used, CHUNK * (len(chunks) - 1) + len(chunks[-1].tokens))
    assert used <= length.tokens <= used + CHUNK
    assert length.tokens == used or "BREAK" in text  # which ends a chunk before nothing, too
