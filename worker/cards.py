"""Which cards this machine has and which of them a worker was asked to serve. No torch: the supervisor stays small."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.errors import FarmError

_QUERY: Final = ("--query-gpu=index,uuid,name", "--format=csv,noheader")
_NO_CARDS: Final = 6  # nvidia-smi's status for a driver without any card
_WITHOUT: Final = "FARM_GPUS=cpu renders without the cards."


@dataclass(frozen=True)
class Address:
    """Where a card is: `name` as people know it (cuda:2, cpu:0), `uuid` of a real card, none for a share of the CPU."""

    name: str
    uuid: str = ""
    label: str = "CPU"


def present(environ: Mapping[str, str]) -> tuple[Address, ...]:
    """Return the NVIDIA cards in PCI bus order: those that CUDA_VISIBLE_DEVICES leaves, where it is set.

    Raises FarmError when there is an nvidia-smi that cannot tell: cards that fail are not "no cards".
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        answer = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise FarmError(f"nvidia-smi does not answer: the driver hangs. {_WITHOUT}") from None
    if answer.returncode not in {0, _NO_CARDS}:
        said = " ".join((answer.stderr or answer.stdout).split())
        raise FarmError(f"nvidia-smi failed with status {answer.returncode}: {said} {_WITHOUT}")
    return _visible(parse(answer.stdout), environ.get("CUDA_VISIBLE_DEVICES"))


def parse(listing: str) -> tuple[Address, ...]:
    """Return the cards of nvidia-smi's lines `index, uuid, name`."""
    lines = [[part.strip() for part in line.split(",", 2)] for line in listing.splitlines() if line.count(",") >= 2]
    return tuple(Address(f"cuda:{index}", uuid, label) for index, uuid, label in lines)


def _visible(cards: tuple[Address, ...], only: str | None) -> tuple[Address, ...]:
    if only is None:
        return cards
    named = {part.strip() for part in only.split(",") if part.strip()}
    return tuple(card for card in cards if card.uuid in named or card.name.removeprefix("cuda:") in named)


def asked(gpus: str, cards: tuple[Address, ...]) -> tuple[Address, ...]:
    """Return what `--gpus` names: all | 0,2 | cpu | cpu:N. `all` without any card is one worker on the CPU.

    Raises FarmError for anything else and for a card that is not there.
    """
    if gpus == "all":
        return cards or (Address("cpu:0"),)
    kind, _, count = gpus.partition(":")
    if kind == "cpu" and (not count or (count.isdecimal() and int(count) > 0)):
        return tuple(Address(f"cpu:{index}") for index in range(int(count or 1)))
    return tuple(find(f"cuda:{part.strip()}", cards) for part in gpus.split(","))


def find(name: str, cards: tuple[Address, ...]) -> Address:
    """Return the card called `name`. Raises FarmError that lists the cards there are."""
    if name.startswith("cpu:") and name.removeprefix("cpu:").isdecimal():
        return Address(name)
    for card in cards:
        if card.name == name:
            return card
    there = ", ".join(card.name for card in cards) or "no card at all"
    raise FarmError(f"There is no card {name!r} here: this machine has {there}. Accepted: all, 0,2, cpu, cpu:2.")


def pin(card: Address) -> None:
    """Let this process see `card` alone, as cuda:0; to be called before torch is imported."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = card.uuid
