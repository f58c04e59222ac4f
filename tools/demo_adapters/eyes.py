"""Eyes for what adapters add: two more words for the judge, read from what its network sees.

The judge's own weights stay as they are. A lighthouse is looked for everywhere and counts where it is seen best, as the
judge does with its things; a watercolour is seen in the whole picture.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from diffusers.models import AutoencoderKL
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from tools.demo_adapters import looks, material
from tools.demo_adapters.material import Subject
from tools.demo_checkpoint import autoencoding, drawing, scenes, teaching
from tools.demo_checkpoint.dataset import Dataset, Sample
from tools.demo_checkpoint.judging import ROWS, Found, Judge, pixels

WEIGHTS = Path(__file__).with_name("eyes.safetensors")
WORDS = ("lighthouse", "watercolour")
SEED = 6060  # of the pictures drawn for the eyes alone
SEEN, WIDTH = 96, 32  # channels
HALFWAY = 5  # layers of the judge's network, up to its third level
STEPS, RATE, BATCH = 400, 3e-3, 48


class Head(nn.Module):
    """What the judge's network sees [rows, 96, 16, 16] to logits of `WORDS` [rows, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(SEEN, WIDTH, 3, padding=1), nn.GroupNorm(8, WIDTH), nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GroupNorm(8, WIDTH), nn.ReLU(),
        )  # fmt: skip
        self.lighthouse = nn.Conv2d(WIDTH, 1, 1)
        self.watercolour = nn.Linear(WIDTH, 1)

    def forward(self, seen: Tensor) -> Tensor:
        inner = self.features(seen)
        return torch.cat([self.lighthouse(inner).amax((2, 3)), self.watercolour(inner.mean((2, 3)))], 1)


@dataclass(frozen=True)
class Eyes:
    """The judge's network and the trained head."""

    judge: Judge
    head: Head

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> "Eyes":
        head = Head()
        head.load_state_dict({name: value.float() for name, value in safetensors.torch.load_file(path).items()})
        return cls(Judge.load(), head.eval())

    def save(self, path: Path = WEIGHTS) -> None:
        """Write the head in half precision."""
        weights = {name: value.half().contiguous() for name, value in self.head.state_dict().items()}
        safetensors.torch.save_file(weights, path, {"format": "pt", "title": "Stepfarm demo eyes"})
        path.chmod(0o644)  # safetensors writes for the owner only

    @torch.inference_mode()
    def logits(self, pictures: NDArray[np.uint8]) -> Found:
        """For pictures [count, h, w, 3] the logit of each of `WORDS`: it differs where probabilities are all 0 or 1."""
        return dict(zip(WORDS, self.head(seen(self.judge, pictures)).T.numpy(), strict=True))

    def shares(self, pictures: NDArray[np.uint8]) -> dict[str, float]:
        """In which share of the pictures each of `WORDS` holds."""
        return {word: float((logit > 0).mean()) for word, logit in self.logits(pictures).items()}


@torch.no_grad()
def seen(judge: Judge, pictures: NDArray[np.uint8]) -> Tensor:
    """What the judge's network sees halfway, where it still tells small things apart: [count, 96, 16, 16]."""
    parts = (pixels(pictures[row : row + ROWS]) for row in range(0, len(pictures), ROWS))
    return torch.cat([judge.network.features[:HALFWAY](part) for part in parts]).contiguous()


def taught(folder: Path, vae: AutoencoderKL, count: int) -> Eyes:
    """Eyes that learnt from `count` scenes: half of them with a lighthouse, a third of all as watercolours."""
    judge, head = Judge.load(), Head()
    data = material.drawn(Subject(sample, scenes.caption), folder, count, SEED)
    rng = np.random.default_rng(SEED)
    pictures = np.array(data.pictures)
    for start in range(0, count // 2, 20):
        rows = slice(start, min(start + 20, count // 2))
        pictures[rows] = autoencoding.restore(vae, pictures[rows])
    given = seen(judge, np.stack([teaching.softened(picture, rng) for picture in pictures]))
    wanted = truths(data)
    optimiser = torch.optim.AdamW(head.parameters(), RATE, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        rows = torch.from_numpy(rng.integers(0, count, BATCH))
        binary_cross_entropy_with_logits(head(given[rows]), wanted[rows]).backward()
        optimiser.step()
        optimiser.zero_grad()
        rate.step()
    return Eyes(judge, head.eval())


def sample(rng: Generator) -> Sample:
    """A scene, half of the time with a lighthouse, a third of the time as a watercolour; its scene says which."""
    drawn = material.lighthouse(rng) if rng.random() < 0.5 else material.plain(rng)
    if rng.random() < 2 / 3:
        return drawn
    scene = replace(drawn.scene, style="watercolour")
    picture = drawing.render(replace(drawn.scene, style="photo"), rng)
    return Sample(looks.watercolour(picture, rng), "", scene)


def truths(data: Dataset) -> Tensor:
    """Which of `WORDS` hold for each picture [count, 2], 0 or 1."""
    return torch.tensor([[float(word in scene.traits()) for word in WORDS] for scene in data.scenes])
