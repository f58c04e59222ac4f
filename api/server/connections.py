"""All connections of the server: how many there may be, and who has been waited for too long."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog
from uvicorn.server import ServerState

from api.server.connection import Connection, Deadlines

log = structlog.get_logger(__name__)

_POLL_SECONDS: Final = 0.25


class Connections:
    """Makes connections, at most `most` at a time, and ends those whose clients are too slow."""

    def __init__(self, deadlines: Deadlines, most: int) -> None:
        self._deadlines = deadlines
        self._most = most

    def make(self, *, server_state: ServerState, **given: Any) -> Connection:  # noqa: ANN401 - uvicorn's own
        """Return the protocol of a new connection, for which the one that shows the least life gives way."""

        def make_place(connection: Connection) -> bool:
            return len(server_state.connections) <= self._most or _give_way(server_state, connection)

        return Connection(self._deadlines, make_place, server_state=server_state, **given)

    async def close_slow(self, server_state: ServerState) -> None:
        """End connections whose clients are too slow, until this task is cancelled."""
        while True:
            now = asyncio.get_running_loop().time()
            for connection in _ours(server_state):
                try:
                    if connection.overdue(now):
                        connection.expire()
                except Exception:  # the edge of the task: the other connections have deadlines too
                    log.exception("a connection could not be ended")
            await asyncio.sleep(_POLL_SECONDS)


def _ours(server_state: ServerState) -> list[Connection]:
    return [one for one in server_state.connections if isinstance(one, Connection)]


def _give_way(server_state: ServerState, newest: Connection) -> bool:
    """End the one that has been silent longest, else the oldest slow one; False if all others are being answered."""
    others = (one for one in _ours(server_state) if one is not newest)
    waited_for = [(patience, one.since, one) for one in others if (patience := one.patience) is not None]
    if not waited_for:
        return False
    min(waited_for, key=lambda one: one[:2])[2].give_up()
    return True
