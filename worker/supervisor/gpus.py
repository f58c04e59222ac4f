"""Which cards this machine has, and which of them FARM_GPUS selects. No torch: the supervisor stays small."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from shared.errors import FarmError
from worker.supervisor import nvidia_smi

log = structlog.get_logger(__name__)

_ALLOCATOR: Final = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # the second is its older name
_HIDES_ALL: Final = {"", "NoDevFiles"}  # the second is Slurm's, for a job without cards
_HIDES_THE_REST: Final = "-1"
_ACCEPTED: Final = "all, 0,2, 0:1 (a MIG instance), GPU-… or MIG-… (how its UUID begins), cpu, cpu:2"


@dataclass(frozen=True)
class Address:
    """A card: `name` as people know it (cuda:2, cuda:2:1, cpu:0), `uuid` of a real one, "" for the CPU."""

    name: str
    uuid: str = ""
    label: str = "CPU"
    parent: str = ""  # UUID of the card that it is a MIG instance of

    def options(self) -> list[str]:
        """Return the options that make a worker's process serve this card without asking nvidia-smi."""
        return ["--card", self.name, *(["--uuid", self.uuid, f"--label={self.label}"] if self.uuid else [])]


@dataclass(frozen=True)
class Present:
    """The cards of this machine that may be used; a card with MIG instances is its instances."""

    cards: tuple[Address, ...] = ()
    trouble: str = ""  # what nvidia-smi says about cards that it cannot list: a missing card may be one of these
    only: str | None = None  # CUDA_VISIBLE_DEVICES, if it is set


def present(environ: Mapping[str, str]) -> Present:
    """Return the NVIDIA cards in PCI bus order, or those that CUDA_VISIBLE_DEVICES names, in its order.

    Raises FarmError if cards may be there and none can be listed, or if the variable names a card that is not there.
    """
    listing = nvidia_smi.listing()
    every = tuple(Address(f"cuda:{card.number}", card.uuid, card.label, card.parent) for card in listing.cards)
    if listing.trouble:
        log.warning("cards missing", reason=listing.trouble, found=[card.name for card in every])
    only = environ.get("CUDA_VISIBLE_DEVICES")
    whole = Present(every, listing.trouble)
    return whole if only is None else Present(_visible(whole, only), listing.trouble, only)


def _visible(whole: Present, only: str) -> tuple[Address, ...]:
    if only.strip() in _HIDES_ALL:
        return ()
    named: list[str] = []
    for part in filter(None, map(str.strip, only.split(","))):
        if part == _HIDES_THE_REST:
            break
        named.append(part)
    try:
        return _all_of(named, whole)
    except _UnknownError as unknown:
        raise FarmError(
            f"CUDA_VISIBLE_DEVICES={only} names {unknown}. {_shown(whole)} Accepted: numbers as nvidia-smi gives them, "
            "UUIDs or how they begin, by commas; unset: all cards."
        ) from None


def select(gpus: str, here: Present) -> tuple[Address, ...]:
    """Return the cards that `--gpus` names: all | 0,2 | 0:1 | GPU-… | cpu | cpu:N. `all` without any card is the CPU.

    Raises FarmError for anything else and for a card that is not there.
    """
    if gpus == "all":
        return here.cards or (Address("cpu:0"),)
    kind, _, count = gpus.partition(":")
    if kind == "cpu" and (not count or (count.isdecimal() and int(count) > 0)):
        return tuple(Address(f"cpu:{index}") for index in range(int(count or 1)))
    try:
        return _all_of((part.strip() for part in gpus.split(",")), here)
    except _UnknownError as unknown:
        raise FarmError(f"FARM_GPUS={gpus} names {unknown}. {_shown(here)} Accepted: {_ACCEPTED}.") from None


def find(name: str, here: Present) -> Address:
    """Return the card called `name`. Raises FarmError that lists the cards there are."""
    if name.startswith("cpu:") and name.removeprefix("cpu:").isdecimal():
        return Address(name)
    found = _chosen(name, here.cards) if name.startswith("cuda:") else ()
    if len(found) == 1:
        return found[0]
    what = f"{name!r} is several MIG instances" if found else f"There is no card {name!r} here"
    raise FarmError(f"{what}. {_shown(here)} Accepted: cuda:2, cuda:0:1 (a MIG instance), cpu:0.")


def pin(card: Address) -> None:
    """Let this process see `card` alone, as cuda:0. Call it before torch is imported."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = card.uuid
    if card.uuid and not any(os.environ.get(name) for name in _ALLOCATOR):
        # Activations change their size with every mix of rows; segments that grow leave no gaps between them.
        os.environ[_ALLOCATOR[0]] = "expandable_segments:True"


class _UnknownError(Exception):
    """Names that mean no card, or more than one; the caller adds where they were written."""


def _all_of(names: Iterable[str], here: Present) -> tuple[Address, ...]:
    """Return the cards that `names` mean, in their order, each card once.

    If nvidia-smi could not list some cards, a missing one may be among them, and the others start without it.
    """
    found = {name: _chosen(name, here.cards) for name in names}
    missing = [name for name, cards in found.items() if not cards]
    cards = tuple(dict.fromkeys(card for some in found.values() for card in some))
    if missing and not (here.trouble and cards):
        raise _UnknownError(", ".join(f"{name!r}, which is not a card here" for name in missing))
    if missing:
        log.warning("cards left out", named=missing, reason=here.trouble)
    return cards


def _chosen(name: str, cards: tuple[Address, ...]) -> tuple[Address, ...]:
    """Return the cards with this number, instance or beginning of a UUID; a card means all its instances."""
    if name.startswith(("GPU-", "MIG-")):
        found = tuple(card for card in cards if card.uuid.startswith(name) or card.parent.startswith(name))
        if len({card.parent or card.uuid if name.startswith("GPU-") else card.uuid for card in found}) > 1:
            raise _UnknownError(f"{name!r}, with which several UUIDs begin")
        return found
    wanted = f"cuda:{name.removeprefix('cuda:')}"
    return tuple(card for card in cards if card.name == wanted or card.name.startswith(f"{wanted}:"))


def _shown(here: Present) -> str:
    names = ", ".join(card.name for card in here.cards)
    uuids = ", ".join(card.uuid for card in here.cards)
    found = f"{names} ({uuids})" if here.cards else "no card at all"
    whose = "This machine has" if here.only is None else f"CUDA_VISIBLE_DEVICES={here.only} leaves"
    return f"{whose} {found}.{f' nvidia-smi says: {here.trouble}' if here.trouble else ''}"
