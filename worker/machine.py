"""`python -m worker.machine`: what PyTorch and nvidia-smi report about this machine, as JSON for `farm doctor`."""

from __future__ import annotations

import json
import os
import sys
from typing import Final

import torch

from shared.errors import FarmError
from worker.engine import devices
from worker.supervisor import gpus

_CPU: Final = "cpu"  # as FARM_GPUS has it: nvidia-smi is not run


def facts(selection: str) -> dict[str, object]:
    """Return PyTorch's version and CUDA, the cards that `selection` (FARM_GPUS) means, and what is wrong with them."""
    machine: dict[str, object] = {"version": torch.__version__, "cuda": torch.version.cuda}
    machine |= {"cards": [], "error": "", "missing": "", "why": ""}
    if selection.startswith(_CPU):
        return machine
    try:
        present = gpus.present(os.environ)
        cards = gpus.select(selection, present)
    except FarmError as error:
        return {**machine, "error": str(error)}
    names = [f"{card.name} {card.label}" for card in cards if card.uuid]
    return {**machine, "cards": names, "missing": present.trouble, "why": devices.why_no_card() if names else ""}


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(facts(sys.argv[1]))}\n")
