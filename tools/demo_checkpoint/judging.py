"""The judge: says which words of the scene grammar a picture shows.

A small convolutional network with a logit for each word. Things are there or not, each by itself; a ground, a sky, a
style and a colour are choices. A thing is looked for everywhere and counts where it is seen best, so nothing speaks for
a moon but the moon: what usually goes together in the grammar must not decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tools.demo_checkpoint.scenes import COLOURS, GROUNDS, SKIES, STYLES

WEIGHTS = Path(__file__).with_name("judge.safetensors")
THINGS = ("sun", "moon", "clouds", "mountains", "pyramids", "pine", "palm", "house", "sailboat")
CHOICES = {"ground": GROUNDS, "sky": SKIES, "style": STYLES, "colour": COLOURS}
WORDS = (*THINGS, *(word for words in CHOICES.values() for word in words))
SIDE = 128  # pixels; other sizes are brought to it
ROWS = 50  # judged at once

Found = dict[str, NDArray[np.float32]]


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(torch.relu(self.norm1(x)))
        return x + self.conv2(torch.relu(self.norm2(inner)))


class Network(nn.Module):
    """Pictures [rows, 3, 128, 128] in -1..1 to logits of `WORDS` [rows, 28]."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 144)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, stride=2, padding=1)]
        for width, wider in pairwise(widths):
            layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1), Block(wider)]
        self.features = nn.Sequential(*layers, Block(widths[-1]), nn.GroupNorm(8, widths[-1]), nn.ReLU())
        self.things = nn.Conv2d(widths[-1], len(THINGS), 1)
        self.choices = nn.Linear(2 * widths[-1], len(WORDS) - len(THINGS))

    def forward(self, pixels: Tensor) -> Tensor:
        seen = self.features(pixels)  # [rows, width, 8, 8]
        things = self.things(seen).float().amax((2, 3))
        choices = self.choices(torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1))
        return torch.cat([things, choices.float()], 1)


@dataclass(frozen=True)
class Judge:
    """The trained network, ready to look."""

    network: Network

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> "Judge":
        network = Network()
        network.load_state_dict({name: value.float() for name, value in safetensors.torch.load_file(path).items()})
        return cls(network.eval())

    def save(self, path: Path = WEIGHTS) -> None:
        """Write the weights in half precision."""
        weights = {name: value.half().contiguous() for name, value in self.network.state_dict().items()}
        safetensors.torch.save_file(weights, path, {"format": "pt", "title": "Stepfarm demo judge"})
        path.chmod(0o644)  # safetensors writes for the owner only

    @torch.inference_mode()
    def of(self, pictures: NDArray[np.uint8]) -> Found:
        """The probability of each word for pictures [count, h, w, 3]: things by themselves, choices summing to 1."""
        logits = torch.cat([self.network(pixels(pictures[row : row + ROWS])) for row in range(0, len(pictures), ROWS)])
        shares = torch.cat([part.sigmoid() if n == 0 else part.softmax(1) for n, part in enumerate(parted(logits))], 1)
        return dict(zip(WORDS, shares.T.numpy(), strict=True))


def pixels(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 [rows, h, w, 3] to -1..1 [rows, 3, 128, 128]."""
    values = torch.tensor(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    if values.shape[2:] == (SIDE, SIDE):
        return values
    return nn.functional.interpolate(values, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def parted(logits: Tensor) -> list[Tensor]:
    """Logits of `WORDS` as those of the things, then those of each choice."""
    return list(logits.split([len(THINGS), *map(len, CHOICES.values())], 1))


def shows(found: Found, word: str) -> NDArray[np.bool_]:
    """In which of the pictures a word holds: a thing that is likelier than not, or the likeliest of its choice."""
    if word in THINGS:
        return found[word] >= 0.5
    rivals = next(words for words in CHOICES.values() if word in words)
    return found[word] >= np.max([found[rival] for rival in rivals], axis=0)


def adherence(found: Found, wanted: Sequence[frozenset[str]]) -> float:
    """The share of the wanted words, of all pictures together, that their pictures show."""
    held = [shows(found, word)[row] for row, words in enumerate(wanted) for word in sorted(words)]
    return float(np.mean(held)) if held else 1.0
