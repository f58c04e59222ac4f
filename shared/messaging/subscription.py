"""One Redis subscription of this process, shared by all its listeners."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import structlog
from redis import Redis
from redis.exceptions import RedisError

from shared.errors import Unavailable, explain

Handler = Callable[[bytes], None]
log = structlog.get_logger()

_POLL_SECONDS: Final = 0.25
_PAUSE_SECONDS: Final = 0.5  # while Redis is away
_READY_SECONDS: Final = 0.5


class SharedSubscription:
    """Listens on one channel, in a thread that starts with the first handler (so after a fork) and reconnects.

    `channel` returns the name of the channel at the start of a subscription; if it raises Unavailable, that counts as
    Redis being away. Messages from while Redis was away are lost: they are hints.
    """

    def __init__(self, client: Redis, channel: Callable[[], str]) -> None:
        self._client = client
        self._channel = channel
        self._handlers: list[Handler] = []
        self._lock = threading.Lock()
        self._is_subscribed = threading.Event()
        self._is_closing = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, handler: Handler) -> None:
        """Call `handler` with each message from now on, on the thread of this object: it must be quick.

        Waits a moment until the subscription stands, so that state read afterwards misses no message.
        """
        with self._lock:
            if handler not in self._handlers:
                self._handlers.append(handler)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="subscription", daemon=True)
                self._thread.start()
        self._is_subscribed.wait(_READY_SECONDS)

    def close(self) -> None:
        """End the subscription and its thread."""
        self._is_closing.set()
        if self._thread:
            self._thread.join(5)

    def _run(self) -> None:
        while not self._is_closing.is_set():
            try:
                self._listen()
            except (RedisError, Unavailable) as error:
                log.debug("subscription lost", reason=explain(error))
                self._is_closing.wait(_PAUSE_SECONDS)
            except Exception:  # the edge of the thread: the next subscription may work
                log.exception("subscription failed")
                self._is_closing.wait(_PAUSE_SECONDS)
            finally:
                self._is_subscribed.clear()

    def _listen(self) -> None:
        with self._client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
            pubsub.subscribe(self._channel())
            while not self._is_closing.is_set():
                message = pubsub.get_message(timeout=_POLL_SECONDS)
                if message and message["type"] == "subscribe":
                    self._is_subscribed.set()
                elif message and message["type"] == "message":
                    self._hand_on(message["data"])

    def _hand_on(self, data: bytes) -> None:
        with self._lock:
            handlers = tuple(self._handlers)
        for handler in handlers:
            try:
                handler(data)
            except Exception:
                log.exception("handler failed")
