"""Textual inversion: vectors for a new word, learnt from pictures alone while every network stays as it is.

Gal et al., "An image is worth one word" (2022).
"""

from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from shared.prompts.tokenizer import Tokenizer
from tools.demo_checkpoint.layout import END, POSITIONS, START

VECTORS = 4


class Word(nn.Module):
    """The vectors of one word [vectors, width], in place of the embeddings of tokens past the vocabulary."""

    def __init__(self, embeddings: nn.Embedding, like: str) -> None:
        super().__init__()
        self.first = embeddings.num_embeddings
        known = Tokenizer().encode(like)
        start = embeddings.weight.detach()[torch.tensor([known[n % len(known)] for n in range(VECTORS)])]
        self.vectors = nn.Parameter(start.clone())

    def attach(self, embeddings: nn.Embedding) -> None:
        """Let the text encoder read the word's tokens from now on."""
        embeddings.register_forward_pre_hook(self._remember)
        embeddings.register_forward_hook(self._replace)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Tokens of texts [rows, 77], each with the word at its end."""
        encode, word = Tokenizer().encode, list(range(self.first, self.first + VECTORS))
        rows = [[START, *encode(f"{text}," if text else "")[: POSITIONS - 2 - VECTORS], *word] for text in texts]
        return torch.tensor([row + [END] * (POSITIONS - len(row)) for row in rows])

    def _remember(self, _layer: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        self._read = given[0]
        return (given[0].clamp(max=self.first - 1),)

    def _replace(self, _layer: nn.Module, _given: object, answer: Tensor) -> Tensor:
        is_word = self._read >= self.first
        return torch.where(is_word[..., None], self.vectors[(self._read - self.first).clamp(min=0)], answer)


def save(word: Word, path: Path) -> None:
    """Write the vectors as an embedding file, whose name is the word."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"emb_params": word.vectors.detach().half().contiguous()}
    safetensors.torch.save_file(tensors, path.with_suffix(".partial"), {"format": "pt", "license": "Apache-2.0"})
    path.with_suffix(".partial").chmod(0o644)  # safetensors writes for the owner only
    path.with_suffix(".partial").replace(path)
