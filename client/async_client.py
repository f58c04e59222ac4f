"""The Python client of the farm's API for an event loop: the methods of `client.client`, to be awaited."""

from __future__ import annotations

from client.awaiting import Awaiting
from client.calls.all_calls import Calls


class AsyncClient(Awaiting, Calls):
    """One farm, over HTTP. What `Client` returns is awaited here, what it yields is iterated by `async for`.

    It keeps connections open: use it in an `async with`, or close it. One client may carry many calls at a time.
    """
