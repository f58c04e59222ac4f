"""CLIP's byte-pair tokens, for API, form and engine: the same text has the same token numbers everywhere.

Vocabulary and splitting rules: Radford et al. 2021, arXiv:2103.00020; the merges ship in `shared/prompts/vocabulary`.
"""

from __future__ import annotations

import gzip
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from shared.params.fields import Emphasis
from shared.prompts import attention, composable, editing
from shared.prompts.chunks import BACKTRACK, CHUNK, Chunk, Word, chunked, chunked_tokens, counted
from shared.prompts.extra_networks import without, without_comments
from shared.prompts.learned_words import NO_WORDS, LearnedWord, Words

BOS: Final = 49406
EOS: Final = 49407  # in Stable Diffusion 1 it also fills a chunk
TOKENS: Final = 77  # a chunk with BOS and EOS
MAX_CHUNKS: Final = 16  # of a prompt; each is a row of a call that all pictures wait for
MAX_TOKENS: Final = MAX_CHUNKS * (TOKENS - 2)
MAX_CHUNKS_IN_ALL: Final = 16 * MAX_CHUNKS  # of all variants by prompt editing; the card holds them to the end
MERGES: Final = Path(__file__).parent / "vocabulary" / "clip-merges.txt.gz"
_REMEMBERED: Final = 64  # prompts
_REMEMBERED_NAMES: Final = 2**14  # of learned words; a large collection has some thousands
_REMEMBERED_COLLECTIONS: Final = 16  # of learned words: one for each width of checkpoints
_BLANK: Final = re.compile(r"[^\S\x1c-\x1f]+")  # to CLIP; four more that Python takes for blank are tokens
_WORD_END: Final = "</w>"
_BYTES: Final = 256
_WORDS: Final = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

_Section = Sequence[tuple[int | LearnedWord, float]]
"""Tokens and learned words, each with its weight, up to a BREAK."""


class Length(NamedTuple):
    """The length of a prompt: its most tokens at once, unused places of full chunks included, and all its chunks."""

    tokens: int
    chunks: int
    words: frozenset[LearnedWord] = frozenset()  # that it mentions at some time

    @property
    def is_accepted(self) -> bool:
        """True within the limits of the text encoder and the card."""
        return self.tokens <= MAX_TOKENS and self.chunks <= MAX_CHUNKS_IN_ALL


def is_surely_accepted(prompt: str) -> bool:
    """Return True for most prompts that are short enough, without parsing them or counting their tokens.

    Each token takes a byte at least, a comma ends a chunk after 56 tokens at the earliest, and no wording of the prompt
    has more letters than it has itself. False: only `Tokenizer.measure` knows. A word that an embedding teaches takes
    more than its name.
    """
    plain = without(without_comments(prompt))
    most = len(_BLANK.sub("", unicodedata.normalize("NFC", plain).lower()).encode("utf-8", "replace"))
    # A part, or what follows a BREAK, has a last chunk of its own; edits may join the letters of that.
    more = sum(min(map(plain.count, word)) for word in ("AND", attention.BREAK))
    chunks = most // (CHUNK - BACKTRACK) + 1 + more
    return chunks <= MAX_CHUNKS and chunks * editing.most_wordings(plain) <= MAX_CHUNKS_IN_ALL


class Tokenizer:
    """Text to token numbers. Threads may share one."""

    def __init__(self) -> None:
        self._bytes_to_tokens = _byte_pairs()

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`, without BOS and EOS."""
        return self._bytes_to_tokens.encode(text, add_special_tokens=False).ids

    def text(self, token: int) -> str:
        """Return what a token of CLIP's vocabulary stands for; a part of a character is U+FFFD."""
        piece = str(self._bytes_to_tokens.id_to_token(token) or "").removesuffix(_WORD_END)
        return bytes(map(_bytes_of_letters().__getitem__, piece)).decode("utf-8", "replace")

    def learn(self, words: tuple[LearnedWord, ...]) -> Words:
        """Return `words` by the tokens of their names. Of names with the same tokens the first one counts."""
        return _learned(words)

    def chunks(self, text: str, emphasis: Emphasis = "Original", words: Words = NO_WORDS) -> tuple[Chunk, ...]:
        """Return the chunks of `text`, a variant of one AND part, for a text encoder; at least one.

        Each of `words` stands in it as its virtual tokens.
        """
        first, *rest = _chunked(self._read(text, emphasis, words))
        return (first, *(rest if not rest or rest[-1].tokens else rest[:-1]))  # nothing follows a BREAK at the end

    def measure(  # noqa: PLR0913 - what decides on a length
        self,
        prompt: str,
        calls: int = 20,
        emphasis: Emphasis = "Original",
        *,
        first_pass_calls: int | None = None,
        is_negative: bool = False,
        words: Words = NO_WORDS,
    ) -> Length:
        """Return the length of `prompt`, over its AND parts and all variants by prompt editing.

        Editing counts in model calls: `calls` are those of this pass; a second pass also names those of the first. A
        prompt that is too long is not read to its end.
        """
        return _measured(prompt, calls, emphasis, first_pass_calls, is_negative, words)

    def _read(self, text: str, emphasis: Emphasis, words: Words) -> list[_Section]:
        return [
            [(one, fragment.weight) for fragment in section for one in words.split(self.encode(fragment.text))]
            for section in attention.weighed(text, emphasis)
        ]


@lru_cache(_REMEMBERED)
def _measured(  # noqa: PLR0913, PLR0917 - a key
    prompt: str,
    calls: int,
    emphasis: Emphasis,
    first_pass_calls: int | None,
    is_negative: bool,  # noqa: FBT001 - as above
    words: Words,
) -> Length:
    """Return the result of `Tokenizer.measure`, cached because a form asks for the same prompt again and again."""
    tokenizer, known, length = Tokenizer(), set[str](), Length(0, 0)
    parts = composable.read(prompt, is_negative=is_negative)
    segments = (one for part in parts for one in editing.schedule(part.text, calls, first_pass_calls))
    for _, text in segments:
        if not length.is_accepted:
            break
        if text not in known:
            known.add(text)
            sections = tokenizer._read(text, emphasis, words)  # noqa: SLF001 - of this module
            chunks = _chunked(sections)
            mentioned = {one for section in sections for one, _ in section if isinstance(one, LearnedWord)}
            length = Length(max(length.tokens, counted(chunks)), length.chunks + len(chunks), length.words | mentioned)
    return length


def _chunked(sections: Iterable[_Section]) -> list[Chunk]:
    return [chunk for section in sections for chunk in _of_section(section)]


def _of_section(section: _Section) -> list[Chunk]:
    tokens = [one for one, _ in section if not isinstance(one, LearnedWord)]
    if len(tokens) == len(section):
        return chunked_tokens(tokens, [weight for _, weight in section])
    return chunked(Word(one.tokens if isinstance(one, LearnedWord) else (one,), weight) for one, weight in section)


@lru_cache(_REMEMBERED_COLLECTIONS)
def _learned(words: tuple[LearnedWord, ...]) -> Words:
    return Words((_named(word.name), word) for word in words)


@lru_cache(_REMEMBERED_NAMES)
def _named(name: str) -> tuple[int, ...]:
    return tuple(Tokenizer().encode(name))


@cache
def _byte_pairs() -> tokenizers.Tokenizer:
    vocabulary, merges = _vocabulary()
    pairs = tokenizers.Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix=_WORD_END))
    pairs.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pairs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return pairs


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return tokens and merges: each byte, each byte that ends a word, then the result of each merge, in order."""
    lines = gzip.decompress(MERGES.read_bytes()).decode().splitlines()
    merges = [(first, second) for first, second in (line.split(" ") for line in lines)]
    letters = _byte_letters()
    tokens = [*letters, *(letter + _WORD_END for letter in letters), *(first + second for first, second in merges)]
    return {token: number for number, token in enumerate(tokens)}, merges


@cache
def _bytes_of_letters() -> dict[str, int]:
    """Return the byte that each letter of a token stands for."""
    letters = _byte_letters()
    own = [ord(letter) for letter in letters if ord(letter) < _BYTES]
    rest = (byte for byte in range(_BYTES) if byte not in own)
    return {letter: ord(letter) if ord(letter) < _BYTES else next(rest) for letter in letters}


def _byte_letters() -> list[str]:
    """Return the letter of each byte: printable ones are themselves, the others from 256 on (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = len(set(range(256)) - set(printable))
    return [chr(code) for code in printable] + [chr(256 + index) for index in range(rest)]
