"""The architectures that the farm renders, by name."""

from __future__ import annotations

from typing import Final

from worker.engine.architectures.base import Architecture
from worker.engine.architectures.sd1 import SD1
from worker.engine.architectures.sd2 import SD2
from worker.engine.architectures.sdxl import SDXL, SDXLRefiner

ARCHITECTURES: Final[dict[str, Architecture]] = {
    architecture.name: architecture for architecture in (SD1(), SD2(), SDXL(), SDXLRefiner())
}
