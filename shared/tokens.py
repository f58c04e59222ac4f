"""CLIP's byte-pair tokens, for the API, the form and the engine alike: the same text is the same numbers everywhere.

Vocabulary and splitting rules: Radford et al. 2021, arXiv:2103.00020; the merges ship in `shared/vocabulary`.
"""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import Final

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from shared.prompts import chunked, counted

BOS: Final = 49406
EOS: Final = 49407  # also what fills a chunk's end in Stable Diffusion 1
TOKENS: Final = 77  # a chunk with BOS and EOS
MAX_CHUNKS: Final = 16  # of a prompt; each is a row of a call that all pictures wait for
MAX_TOKENS: Final = MAX_CHUNKS * (TOKENS - 2)
MERGES: Final = Path(__file__).parent / "vocabulary" / "clip-merges.txt.gz"
_WORD_END: Final = "</w>"
_WORDS: Final = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """Text to token numbers. Threads may share one."""

    def __init__(self) -> None:
        self._bytes_to_tokens = _byte_pairs()

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`, without BOS and EOS."""
        return self._bytes_to_tokens.encode(text, add_special_tokens=False).ids

    def chunks(self, text: str) -> list[list[int]]:
        """Return the tokens of `text` in chunks of at most 75, as a text encoder reads them; at least one chunk."""
        return chunked(self.encode(text))

    def count(self, text: str) -> int:
        """Return how many tokens `text` takes, counting what full chunks leave unused at their ends."""
        return counted(self.chunks(text))


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
    """The vocabulary is every byte, every byte that ends a word, then what each merge makes, in order."""
    lines = gzip.decompress(MERGES.read_bytes()).decode().splitlines()
    merges = [(first, second) for first, second in (line.split(" ") for line in lines)]
    letters = _byte_letters()
    tokens = [*letters, *(letter + _WORD_END for letter in letters), *(first + second for first, second in merges)]
    return {token: number for number, token in enumerate(tokens)}, merges


def _byte_letters() -> list[str]:
    """The letter that stands for each byte: printable ones for themselves, the rest from 256 on (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = len(set(range(256)) - set(printable))
    return [chr(code) for code in printable] + [chr(256 + index) for index in range(rest)]
