"""Connections to the servers that can be cut: proxies through which every byte goes, on one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHUNK = 65536


class Way:
    """A socket at `path` behind which the server at `target` answers, until it is cut or hushed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path, target: Path) -> None:
        self._loop, self._path, self._target = loop, path, target
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()

    def mend(self) -> None:
        """Let everything through, again."""
        self._run(self._mend())

    def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        self._run(self._cut())

    def hush(self) -> None:
        """Let nothing through, and tell nobody."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _mend(self) -> None:
        self._flows.set()
        if self._server is None:
            self._server = await asyncio.start_unix_server(self._carry, self._path, backlog=256)

    async def _cut(self) -> None:
        self._flows.set()
        if self._server is not None:
            self._server.close()
            self._server = None
        with suppress(FileNotFoundError):
            self._path.unlink()
        for writer in self._open:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._flows.wait()
            far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        except (OSError, asyncio.CancelledError):  # the server is away, or the loop ends
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        with suppress(asyncio.CancelledError):  # the loop ends; a cancelled handler is a complaint on stderr
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._open -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes until either side ends; then end the other side."""
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Yield an event loop that runs on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="ways", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
