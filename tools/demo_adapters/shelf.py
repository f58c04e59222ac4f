"""The files beside a checkpoint, read by the farm's engine."""

import hashlib
from functools import cached_property
from pathlib import Path

from tools.demo_checkpoint.judge import SCENES
from tools.demo_checkpoint.studio import Inputs
from worker.engine.adapters import control_nets, hypernetworks
from worker.engine.adapters.control_nets import ControlNet
from worker.engine.adapters.reading import load as low_rank_files
from worker.engine.architectures.conditioning import Adapter
from worker.engine.architectures.weights import Weights
from worker.engine.loading import embeddings
from worker.engine.upscaling import files as upscaler_files
from worker.engine.upscaling.architectures import PixelNetwork

MODELS = SCENES.parents[1]


class Shelf:
    """The adapters, embeddings and the control net of a models folder, for one checkpoint."""

    def __init__(self, models: Path, weights: Weights) -> None:
        self._models, self._weights = models, weights

    @cached_property
    def inputs(self) -> Inputs:
        """All adapters and embeddings, by the names that prompts have for them."""
        weights, device = self._weights, self._weights.device
        adapters: dict[str, Adapter] = {
            f"lora:{path.stem}": low_rank_files.load(path, sha256(path), weights) for path in self._paths("Lora")
        }
        adapters |= {
            f"hypernet:{path.stem}": hypernetworks.load(path, sha256(path), path.stem, device, weights.dtype)
            for path in self._paths("hypernetworks", ".pt")
        }
        words = {
            path.stem: embeddings.load(path, sha256(path), device, weights.dtype) for path in self._paths("embeddings")
        }
        return Inputs(adapters=adapters, embeddings=words)

    @cached_property
    def control_net(self) -> ControlNet:
        path = self._models / "ControlNet" / "scenes-edges.safetensors"
        return control_nets.load(path, self._weights.device, self._weights.dtype)

    @cached_property
    def upscaler(self) -> PixelNetwork:
        path = self._models / "ESRGAN" / "scenes-compact-x4.safetensors"
        return upscaler_files.load(path, self._weights.device, self._weights.dtype)

    def _paths(self, folder: str, suffix: str = ".safetensors") -> list[Path]:
        return sorted((self._models / folder).glob(f"*{suffix}"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
