"""`farm top`: the farm in a terminal, live, or once for a script."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from cli import terminal
from cli.terminal import Terminal
from cli.top import drawing, keys
from cli.top.drawing import Screenful, View
from cli.top.look import Look, look, steps_per_second
from client.async_client import AsyncClient
from client.errors import FarmError

_KEPT: Final = 10  # looks, of which steps are counted
_WIDE: Final = 200  # columns of what is not for a terminal
_SIGNALS: Final = (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)


def show(client: AsyncClient, seconds: float, *, once: bool, as_json: bool) -> None:
    """Show the farm until `q` or Ctrl-C, looked at again after so many seconds; once for a script or into a file."""
    if not once and not as_json and terminal.out.is_terminal and sys.stdin.isatty():
        with suppress(KeyboardInterrupt):
            asyncio.run(Top(client, terminal.out, sys.stdin.fileno()).run(seconds))
        return
    found = asyncio.run(_looked_once(client))
    if as_json:
        terminal.answer_json(as_object(found))
    else:
        _print(found)


async def _looked_once(client: AsyncClient) -> Look:
    async with client:
        return await look(client)


def _print(found: Look) -> None:
    parts = [
        drawing.head(found, {}),
        Text(""),
        *drawing.body(found, {}, View(), terminal.out.width if terminal.out.is_terminal else _WIDE),
    ]
    if terminal.out.is_terminal:
        terminal.out.print(*parts)
        return
    wide = Terminal(highlight=False, width=_WIDE)
    for line in drawing.lines(parts, wide):
        terminal.answer("".join(segment.text for segment in line).rstrip())


def as_object(found: Look) -> dict[str, object]:
    """Return a look as JSON of a program."""
    return {
        "url": found.url,
        "workers": found.workers,
        "died": found.died,
        "owners": found.owners,
        "jobs": [vars(job) for job in found.jobs],
        "rendering": [vars(image) for image in found.rendering],
        "ended": found.ended,
    }


class Top:
    """The farm on a screen, with what is remembered between two looks."""

    def __init__(self, client: AsyncClient, console: Console, keyboard: int) -> None:
        self._client = client
        self._console = console
        self._keyboard = keyboard
        self._view = View()
        self._looks: list[Look] = []
        self._trouble = ""
        self._news = asyncio.Event()
        self._quits = False
        self._is_stopped = False
        self._laid_out: tuple[object, list[list[Segment]]] = (None, [])

    async def run(self, seconds: float) -> None:
        """Show the farm until a key ends it. Raises FarmError if it cannot be seen to begin with."""
        async with self._client:
            self._looks.append(await look(self._client))
            looking = asyncio.create_task(self._look_again(seconds))
            try:
                while not self._quits:
                    await self._shown(looking)
                    if self._is_stopped:
                        self._is_stopped = False
                        signal.raise_signal(signal.SIGTSTP)  # returns when the shell continues this process
            finally:
                looking.cancel()

    async def _shown(self, looking: asyncio.Task[None]) -> None:
        """Show the farm until a key or a signal ends it, or Ctrl-Z stops it; leave the terminal as it was."""
        with self._keys_and_signals(), Live(console=self._console, screen=True, auto_refresh=False) as shown:
            while not (self._quits or self._is_stopped):
                shown.update(self._screenful(), refresh=True)
                await self._news.wait()
                self._news.clear()
                if looking.done():
                    looking.result()  # raises what it did not expect

    async def _look_again(self, seconds: float) -> None:
        try:
            while True:
                await asyncio.sleep(seconds)
                try:
                    self._looks = [*self._looks[1 - _KEPT :], await look(self._client)]
                    self._trouble = ""
                except FarmError as error:  # it may come back
                    self._trouble = str(error)
                self._news.set()
        finally:
            self._news.set()

    @contextmanager
    def _keys_and_signals(self) -> Iterator[None]:
        """Have keys and signals change what is shown, within the context. An ignored signal (nohup) stays ignored."""
        loop = asyncio.get_running_loop()
        with ExitStack() as before:
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    loop.add_signal_handler(number, self._signalled, number)
                    before.callback(loop.remove_signal_handler, number)
            before.enter_context(keys.at_once(self._keyboard))
            loop.add_reader(self._keyboard, self._pressed)
            before.callback(loop.remove_reader, self._keyboard)
            yield

    def _signalled(self, number: signal.Signals) -> None:
        """Quit or stop as a signal asks; a new size of the terminal has everything drawn again."""
        self._quits |= number in {signal.SIGTERM, signal.SIGHUP}
        self._is_stopped |= number == signal.SIGTSTP
        self._news.set()

    def _pressed(self) -> None:
        read = os.read(self._keyboard, 1024)
        if not read:  # the terminal has gone
            self._quits = True
        for key in keys.names(read):
            self._press(key)
        self._news.set()

    def _press(self, key: str) -> None:
        view, page = self._view, max(1, self._console.height - 3)
        moves = {"up": -1, "down": 1, "page up": -page, "page down": page, "home": -view.top, "end": 10**6}
        if key == "quit":
            self._quits = True
        elif key == "workers":
            self._view = replace(view, workers_by=(view.workers_by + 1) % len(drawing.WORKER_ORDERS))
        elif key == "jobs":
            self._view = replace(view, jobs_by=(view.jobs_by + 1) % len(drawing.JOB_ORDERS))
        else:
            self._view = replace(view, top=view.top + moves[key])

    def _lines(self, found: Look, rates: dict[str, float]) -> list[list[Segment]]:
        """Return all lines, laid out again only where they are others: to move over them is at once."""
        view = self._view
        of = (found.at, view.workers_by, view.jobs_by, self._console.width)
        if self._laid_out[0] != of:
            self._laid_out = of, drawing.lines(drawing.body(found, rates, view, self._console.width), self._console)
        return self._laid_out[1]

    def _screenful(self) -> Screenful:
        found = self._looks[-1]
        rates = steps_per_second(self._looks)
        every = self._lines(found, rates)
        most = max(0, len(every) - max(1, self._console.height - 2))
        self._view = replace(self._view, top=min(max(0, self._view.top), most))
        head = drawing.head(found, rates, self._trouble)
        return Screenful(head, every[self._view.top :], drawing.foot(self._view))
