"""`farm drain` and `farm resume`: workers taken out of the farm for a while, and put back."""

from __future__ import annotations

from typing import Final

from rich.markup import escape

from cli import terminal
from client.client import Client, Json
from shared.errors import Refused

ALL: Final = "*"


def drain(client: Client, wanted: str | None, reason: str, *, everything: bool, as_json: bool) -> None:
    """Have workers take nothing new."""
    _print(client.drain(_wanted(wanted, everything=everything), reason), as_json=as_json)


def resume(client: Client, wanted: str | None, *, everything: bool, as_json: bool) -> None:
    """Let workers take images again."""
    _print(client.resume(_wanted(wanted, everything=everything)), as_json=as_json)


def _wanted(wanted: str | None, *, everything: bool) -> str:
    if (wanted is None) != everything:
        raise Refused("Name one worker, or a pattern such as 'host/*', or say --all; `farm status` lists them.")
    return wanted or ALL


def _print(body: Json, *, as_json: bool) -> None:
    if as_json:
        return terminal.answer_json(body)
    for worker in body["workers"]:
        terminal.answer(f"{escape(worker['name'])}: {_words(worker)}")
    if not body["workers"]:
        terminal.answer("It is not running; the change takes effect at its next start.")
    return None


def _words(worker: Json) -> str:
    if worker["drained"] is None:
        return "takes pictures again"
    running = worker["running"]
    rest = f"finishes {running} {'picture' if running == 1 else 'pictures'} and " if running else ""
    return f"{rest}takes nothing new ({escape(worker['drained'])})"
