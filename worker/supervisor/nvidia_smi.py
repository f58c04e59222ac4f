"""The answers of nvidia-smi about the cards, asked once by the supervisor: if one card is lost it may fail
or hang, and the workers of the others have to start all the same.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.errors import FarmError

_QUERY: Final = ("--query-gpu=index,uuid,name", "--format=csv,noheader")
_LIST: Final = ("-L",)  # knows MIG instances, and goes on past a card that is lost
_SECONDS: Final = 60.0  # from a cold driver on, for all its cards
_READ_SECONDS: Final = 1.0  # what was said meanwhile is read even where the time is up
_NO_CARDS: Final = 6  # its status for a driver without any card
_NOTHING: Final = re.compile(r"WARNING|No devices were found")  # lines that say about no card that it is missing
_CARD: Final = re.compile(r"GPU (\d+): (.+) \(UUID: (GPU-[^)]+)\)")
_INSTANCE: Final = re.compile(r"(MIG .+?)\s+Device\s+(\d+): \(UUID: (MIG-[^)]+)\)")
_CONTROL: Final = Path("/dev/nvidiactl")  # there where a process may use a card; /proc tells of the host's in any case
_HANGS: Final = "nvidia-smi does not answer: the driver hangs."
_WITHOUT: Final = "FARM_GPUS=cpu renders without the cards."


@dataclass(frozen=True)
class Card:
    """One card, `number` 2, or one MIG instance of it, `number` 2:0, whose `parent` is the card's UUID."""

    number: str
    uuid: str
    label: str
    parent: str = ""


@dataclass(frozen=True)
class Listing:
    """The cards in PCI bus order, and what was said instead of a card, for people."""

    cards: tuple[Card, ...] = ()
    trouble: str = ""


@dataclass(frozen=True)
class _Answer:
    status: int | None  # None: it hung, after the lines
    lines: tuple[str, ...]


def listing() -> Listing:
    """Return this machine's cards; of one in MIG mode its instances.

    Raises FarmError where there may be cards and none can be listed: cards that fail are not "no cards".
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return _without_program()
    answers = _answers([_ask(program, _QUERY), _ask(program, _LIST)])
    cards, strays = parse(line for answer in answers for line in answer.lines)
    said = [line for line in strays if not _NOTHING.match(line)]
    status = next((answer.status for answer in answers if answer.status not in {0, _NO_CARDS}), 0)
    trouble = " ".join(dict.fromkeys(said)) or (f"status {status}" if status else "")
    if not cards and trouble and any(answer.status != _NO_CARDS for answer in answers):
        ending = "" if status is None else f", with status {status}"
        raise FarmError(f"nvidia-smi lists no card{ending}: {trouble} {_WITHOUT}")
    return Listing(cards, trouble)


def parse(lines: Iterable[str]) -> tuple[tuple[Card, ...], list[str]]:
    """Return the cards of lines `index, uuid, name` and of those of `nvidia-smi -L`, and the lines that are neither."""
    cards: dict[int, Card] = {}
    instances: dict[int, list[Card]] = {}
    strays, latest = [], -1
    for line in filter(None, map(str.strip, lines)):
        if found := _card(line):
            latest = int(found.number)
            cards.setdefault(latest, found)
        elif (match := _INSTANCE.fullmatch(line)) and latest in cards:
            kind, number, uuid = match.groups()
            whole = cards[latest]
            one = Card(f"{latest}:{number}", uuid, f"{whole.label} {kind}", whole.uuid)
            instances.setdefault(latest, []).append(one)
        else:
            strays.append(line)
    return tuple(_in_order(cards, instances)), strays


def _card(line: str) -> Card | None:
    if match := _CARD.fullmatch(line):
        number, label, uuid = match.groups()
        return Card(number, uuid, label)
    number, uuid, label = ([part.strip() for part in line.split(",", 2)] + ["", ""])[:3]
    return Card(number, uuid, label) if re.fullmatch("[0-9]+", number) and uuid.startswith("GPU-") else None


def _in_order(cards: dict[int, Card], instances: dict[int, list[Card]]) -> Iterator[Card]:
    for number in sorted(cards):
        yield from instances.get(number) or [cards[number]]


def _without_program() -> Listing:
    if _CONTROL.exists():
        raise FarmError(
            "There is an NVIDIA driver but no nvidia-smi on PATH to ask which cards there are: install it, in a "
            f"container with NVIDIA_DRIVER_CAPABILITIES=compute,utility. {_WITHOUT}"
        )
    return Listing()


def _ask(program: str, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # noqa: S603
    except OSError as error:  # of another machine's kind, or there is no memory left
        raise FarmError(f"{program} cannot be run ({error.strerror}). {_WITHOUT}") from error


def _answers(asked: Iterable[subprocess.Popen[bytes]]) -> list[_Answer]:
    """Return what they said, within one wait for all: a driver that hangs may keep each."""
    end = time.monotonic() + _SECONDS
    return [_answer(one, max(_READ_SECONDS, end - time.monotonic())) for one in asked]


def _answer(asked: subprocess.Popen[bytes], seconds: float) -> _Answer:
    try:
        said, _ = asked.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as late:
        _give_up(asked)
        whole, end, _ = (late.output or b"").rpartition(b"\n")  # what a card has of a line may be half its UUID
        return _Answer(None, (*_lines(whole + end), _HANGS))
    return _Answer(asked.returncode, _lines(said))


def _lines(said: bytes) -> tuple[str, ...]:
    return tuple(said.decode(errors="replace").splitlines())


def _give_up(asked: subprocess.Popen[bytes]) -> None:
    """End the process, and do not wait for one that the driver holds: no signal ends it."""
    asked.kill()
    with suppress(subprocess.TimeoutExpired):
        asked.wait(1)
    if asked.stdout:
        asked.stdout.close()
