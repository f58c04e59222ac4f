"""Part 0: what the machine is, and what it reaches: the roofline that later parts are held against."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import torch

from bench.card import clocks
from bench.card.bench import Bench

PRODUCT = "product, bfloat16"
COPY = "copy on the card"
TO_CARD, TO_HOST, PAGEABLE = "to the card, pinned", "to the host, pinned", "to the card, pageable"


def run(bench: Bench) -> None:
    """Report what there is, then measure it."""
    bench.now("what the machine is")
    _facts(bench)
    bench.now("matrix products")
    _product(bench)
    bench.now("copies")
    _copies(bench)


def _facts(bench: Bench) -> None:
    card = bench.card
    facts = torch.cuda.get_device_properties(card.torch)
    bench.note("card", f"{facts.name}, sm {facts.major}{facts.minor}, {facts.multi_processor_count} multiprocessors")
    bench.note("memory", card.memory_bytes / 2**30, "GiB")
    cudnn = torch.backends.cudnn.version()
    bench.note("software", f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}, driver {_driver()}")
    enabled = {
        "cuDNN": torch.backends.cuda.cudnn_sdp_enabled(),
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "math": torch.backends.cuda.math_sdp_enabled(),
    }
    bench.note("attention", ", ".join(name for name, is_on in enabled.items() if is_on))


def _driver() -> str:
    if not shutil.which("nvidia-smi"):
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.split("\n")
    return said[0].strip() or "unknown"


def _product(bench: Bench) -> None:
    side = bench.scale.product
    one, other = (torch.randn(side, side).to(bench.card.torch, torch.bfloat16) for _ in range(2))
    took = clocks.seconds(lambda: one @ other, 2 * bench.scale.repeats, warm=3)
    bench.note(PRODUCT, 2 * side**3 / took / 1e12, "TFLOP/s")


def _copies(bench: Bench) -> None:
    size, card = bench.scale.copy_bytes, bench.card.torch
    here, there = (torch.zeros(size, dtype=torch.uint8, device=card) for _ in range(2))
    pageable = torch.zeros(size, dtype=torch.uint8)
    pinned = pageable.pin_memory()
    copies: dict[str, Callable[[], object]] = {
        COPY: lambda: there.copy_(here),
        TO_CARD: lambda: here.copy_(pinned, non_blocking=True),
        TO_HOST: lambda: pinned.copy_(here, non_blocking=True),
        PAGEABLE: lambda: here.copy_(pageable),
    }
    for name, copy in copies.items():
        moved = 2 * size if name == COPY else size  # read and written
        bench.note(name, moved / clocks.seconds(copy, bench.scale.repeats) / 1e9, "GB/s")
