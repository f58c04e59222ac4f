"""Real rendering in tests of workers: tiny checkpoints in a models folder, claims of them, and who watches."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from shared.db.sessions import transact
from shared.messaging.events import Progress
from shared.models import recording
from shared.models.catalogue import Catalogue
from shared.models.inspection import Scanned
from shared.models.model_set import ModelSet
from shared.models.scan import scan
from shared.params.groups import Hires, Refiner
from shared.params.render import RenderParams
from shared.queue.claim import Claim
from tests.support.checkpoints import NATIVE_SIZE, inspected, located, write_tiny
from worker.encode import Pixels
from worker.in_flight import Cancellation
from worker.progress.reporter import ImageProgress

_JOB_IDS = count(17)
_SCANNED: dict[str, Scanned] = {}
"""Files by their paths as the last farm saw them: those that every farm has are looked into once a run."""


def as_in_every_farm(path: Path) -> None:
    """Give a checkpoint that has the same content in all tests the same times as well."""
    for part in (path, path.with_suffix(".yaml")):
        os.utime(part, (1, 1))


class Seen:
    """The reports of an image to a watcher."""

    def __init__(self) -> None:
        self.told: list[Progress] = []
        self.previews: list[Callable[[], Pixels]] = []

    def watch(self, claim: Claim) -> ImageProgress:
        return ImageProgress(claim, self.told.append, self._show)

    def _show(self, _: Claim, make: Callable[[], Pixels]) -> None:
        self.previews.append(make)


class Farm:
    """Tiny checkpoints and VAEs in the models folder, and their titles."""

    def __init__(self, models, sessions) -> None:
        self._models = models
        self._sessions = sessions
        for seed, name in enumerate(("base", "refiner")):
            as_in_every_farm(write_tiny(models / f"{name}.safetensors", seed=seed))

    def vae(self, name: str, colour: float) -> None:
        """Write a VAE that paints everything in one colour, -1 to 1."""
        whole = safetensors.torch.load_file(self._models / "base.safetensors")
        prefix = "first_stage_model."
        alone = {key.removeprefix(prefix): value for key, value in whole.items() if key.startswith(prefix)}
        alone["decoder.conv_out.weight"] = torch.zeros_like(alone["decoder.conv_out.weight"])
        alone["decoder.conv_out.bias"] = torch.full_like(alone["decoder.conv_out.bias"], colour)
        path = self._models / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        safetensors.torch.save_file(alone, path)

    def checkpoints(self) -> list[str]:
        """Return the SHA-256 of each checkpoint, by name."""
        return [file.sha256 for file in transact(self._sessions, Catalogue.read).entries()]

    def claim(self, **changes) -> Claim:
        """An image of `base`; `refiner` and others name files by their titles."""
        found = scan(self._models, _SCANNED.values(), inspected, locate=located)
        _SCANNED.update({file.path: file for file in found})
        seen = {file.name: file for file in found}
        transact(self._sessions, lambda session: recording.record(session, list(seen.values())))
        titles = {name: f"{name} [{file.sha256[:10]}]" for name, file in seen.items()}
        if "refiner" in changes:
            changes["refiner"] = Refiner(checkpoint=titles["refiner"], switch_at=changes["refiner"])
        if "hires" in changes:
            changes["hires"] = Hires(checkpoint=titles["refiner"], scale=changes["hires"])
        changes["vae"] = titles.get(changes.get("vae"), changes.get("vae", "automatic"))
        params = RenderParams(
            prompt="sea", checkpoint=titles["base"], width=NATIVE_SIZE, height=NATIVE_SIZE, steps=4, seed=7, **changes
        )
        return Claim(
            image_id=5, job_id=next(_JOB_IDS), index=0, attempt=1, owner="local", checkpoint=seen["base"].sha256,
            cost=1, stored=params.model_dump(mode="json"), worker_id=3,
        )  # fmt: skip


def claim_of(models: ModelSet, params: RenderParams) -> Claim:
    """Return an image of `params` with these model files."""
    return Claim(
        image_id=5, job_id=next(_JOB_IDS), index=0, attempt=1, owner="local", checkpoint=models.lane, cost=1,
        stored=params.model_dump(mode="json", exclude_defaults=True), stored_models=models.to_stored(), worker_id=3,
        companions=models.companions,
    )  # fmt: skip


def paint(card, claim) -> np.ndarray:
    return card.render(claim, Seen().watch(claim), Cancellation()).pixels
