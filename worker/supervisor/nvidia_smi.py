"""The cards that nvidia-smi lists. Only the supervisor runs it, once: if one card is lost it may fail or hang, and the
workers of the other cards must start anyway.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.errors import FarmError

_QUERY: Final = ("--query-gpu=index,uuid,name", "--format=csv,noheader")
_LIST: Final = ("-L",)  # knows MIG instances, and goes on past a card that is lost
_SECONDS: Final = 60.0  # from a cold driver on, for all its cards
_READ_SECONDS: Final = 1.0  # output that is there already is read even when the time is up
_NO_CARDS: Final = 6  # its status for a driver without any card
_NO_TROUBLE: Final = re.compile(r"WARNING|No devices were found")  # lines that name no missing card
_CARD: Final = re.compile(r"GPU (\d+): (.+) \(UUID: (GPU-[^)]+)\)")
_INSTANCE: Final = re.compile(r"(MIG .+?)\s+Device\s+(\d+): \(UUID: (MIG-[^)]+)\)")
_CONTROL: Final = Path("/dev/nvidiactl")  # exists if this process may use a card
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
    """The cards in PCI bus order, and the messages printed in place of cards, for people."""

    cards: tuple[Card, ...] = ()
    trouble: str = ""


@dataclass(frozen=True)
class _Answer:
    status: int | None  # None: it hung after these lines
    lines: tuple[str, ...]


def listing() -> Listing:
    """Return this machine's cards, and instead of a card in MIG mode its instances.

    Raises FarmError if there may be cards and none can be listed: cards that fail are not "no cards".
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return _without_program()
    processes = [_start(program, _QUERY), _start(program, _LIST)]
    end = time.monotonic() + _SECONDS  # one wait for both: a driver that hangs may hold each
    answers = [_answer(process, max(_READ_SECONDS, end - time.monotonic())) for process in processes]
    cards, strays = parse(line for answer in answers for line in answer.lines)
    messages = [line for line in strays if not _NO_TROUBLE.match(line)]
    status = next((answer.status for answer in answers if answer.status not in {0, _NO_CARDS}), 0)
    trouble = " ".join(dict.fromkeys(messages)) or (f"status {status}" if status else "")
    if not cards and trouble and any(answer.status != _NO_CARDS for answer in answers):
        ending = "" if status is None else f", with status {status}"
        raise FarmError(f"nvidia-smi lists no card{ending}: {trouble} {_WITHOUT}")
    return Listing(cards, trouble)


def parse(lines: Iterable[str]) -> tuple[tuple[Card, ...], list[str]]:
    """Return the cards in lines `index, uuid, name` and in those of `nvidia-smi -L`, and the lines that are neither."""
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
    listed = [card for number in sorted(cards) for card in instances.get(number, [cards[number]])]
    return tuple(listed), strays


def _card(line: str) -> Card | None:
    if match := _CARD.fullmatch(line):
        number, label, uuid = match.groups()
        return Card(number, uuid, label)
    number, uuid, label = ([part.strip() for part in line.split(",", 2)] + ["", ""])[:3]
    return Card(number, uuid, label) if re.fullmatch("[0-9]+", number) and uuid.startswith("GPU-") else None


def _without_program() -> Listing:
    if _CONTROL.exists():
        raise FarmError(
            "There is an NVIDIA driver but no nvidia-smi on PATH to ask which cards there are: install it, in a "
            f"container with NVIDIA_DRIVER_CAPABILITIES=compute,utility. {_WITHOUT}"
        )
    return Listing()


def _start(program: str, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # noqa: S603
    except OSError as error:  # built for another machine, or there is no memory left
        raise FarmError(f"{program} cannot be run ({error.strerror}). {_WITHOUT}") from error


def _answer(process: subprocess.Popen[bytes], seconds: float) -> _Answer:
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as late:
        _give_up(process)
        whole, end, _ = (late.output or b"").rpartition(b"\n")  # the last line may end within a UUID
        return _Answer(None, (*_lines(whole + end), _HANGS))
    return _Answer(process.returncode, _lines(output))


def _lines(output: bytes) -> tuple[str, ...]:
    return tuple(output.decode(errors="replace").splitlines())


def _give_up(process: subprocess.Popen[bytes]) -> None:
    """Kill the process, and do not wait long: a process that the driver holds cannot be ended by a signal."""
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(1)
    if process.stdout:
        process.stdout.close()
