"""Embeddings (textual inversion, Gal et al. 2022, arXiv:2208.01618): vectors that stand in a prompt for a learned word.

They are rows of the table of CLIP's vocabulary that only the prompts have which mention the word. The name of the file
is the word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from shared.prompts.learned_words import LearnedWord, virtual_tokens
from worker.engine.architectures.base import TextEncoder
from worker.engine.devices import Device
from worker.engine.transfers import to_device

Vectors = Mapping[str, Tensor]
"""By diffusers' name of the text encoder that reads them: [vectors, width]."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """One embedding on a card."""

    sha256: str
    vectors: Vectors

    @property
    def count(self) -> int:
        """How many tokens of a prompt its word takes up."""
        return len(next(iter(self.vectors.values())))

    @property
    def bytes(self) -> int:
        """The size of its vectors in memory."""
        return sum(one.nbytes for one in self.vectors.values())

    def fits(self, encoders: Sequence[TextEncoder]) -> bool:
        """Return whether it was made for text encoders of these widths; to others its word is a text like any other."""
        return {one.name: one.width for one in encoders} == {name: one.shape[1] for name, one in self.vectors.items()}

    def word(self, name: str) -> LearnedWord:
        """Return the word that it teaches under this name."""
        return LearnedWord(name, self.sha256, self.count)

    def by_token(self, encoder: TextEncoder) -> dict[int, Tensor]:
        """Return its vectors [width] for a text encoder, by their virtual tokens."""
        vectors = self.vectors[encoder.name]
        return dict(zip(virtual_tokens(self.sha256, self.count), vectors.unbind(), strict=True))


@contextmanager
def taught(encoder: TextEncoder, rows: Sequence[Mapping[int, Tensor]], device: Device) -> Iterator[None]:
    """Within the block, each row of a call of `encoder` has these vectors [width] at these places of its tokens.

    Other places, and other rows, have what the table of its vocabulary says. For one thread at a time: the engine's.
    """
    placed = [(row, place, vector) for row, places in enumerate(rows) for place, vector in places.items()]
    if not placed:
        yield
        return
    numbers, places, vectors = zip(*placed, strict=True)
    indices = [to_device(torch.tensor(one), device) for one in (numbers, places)]
    hook = encoder.vocabulary.register_forward_hook(partial(_replaced, indices, torch.stack(vectors)))
    try:
        yield
    finally:
        hook.remove()


def _replaced(indices: list[Tensor], vectors: Tensor, _table: nn.Module, _tokens: object, found: Tensor) -> Tensor:
    """Return what the table gives for a call [rows, tokens, width], with other vectors at some places."""
    return found.index_put(tuple(indices), vectors.to(found.dtype))
