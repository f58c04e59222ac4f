"""`python -m worker.machine`: the answers of PyTorch and nvidia-smi about this machine, as one line of JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import Final

import torch

from shared.errors import FarmError
from worker.engine import devices
from worker.supervisor import gpus as cards

NOT_ASKED: Final = "cpu"  # as FARM_GPUS says it


def told(gpus: str) -> dict[str, object]:
    """Return PyTorch's version and CUDA, the cards that `gpus` means, and what is wrong with them."""
    machine: dict[str, object] = {"version": torch.__version__, "cuda": torch.version.cuda}
    machine |= {"cards": [], "error": "", "missing": "", "why": ""}
    if gpus.startswith(NOT_ASKED):
        return machine
    try:
        there = cards.present(os.environ)
        served = cards.asked(gpus, there)
    except FarmError as error:
        return {**machine, "error": str(error)}
    names = [f"{card.name} {card.label}" for card in served if card.uuid]
    return {**machine, "cards": names, "missing": there.trouble, "why": devices.why_none() if names else ""}


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(told(sys.argv[1]))}\n")
