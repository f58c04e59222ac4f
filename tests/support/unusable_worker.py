"""`python -m tests.support.unusable_worker`: the worker whose card cannot be used while FARM_HOME/unusable is there.

The file holds the seconds for which the process says so before it ends.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from shared.errors import CardError
from shared.settings import Settings
from tests.support.stub_card import StubCard
from worker import process
from worker.__main__ import end, main
from worker.supervisor.gpus import Address

REASON = "NVIDIA H200 failed at a convolution in float16: its numbers are off"


def card(address: Address, settings: Settings, *rest: object) -> StubCard:
    """Return a card, or raise CardError for this start of the process."""
    sign = Path(settings.home) / "unusable"
    if sign.exists():
        process.UNUSABLE_SECONDS = float(sign.read_text())
        raise CardError(REASON)
    return StubCard(address, settings, *rest)


if __name__ == "__main__":
    end(main(module="tests.support.unusable_worker", run_worker=partial(process.run_worker, make_card=card)))
