"""Live events over Redis: progress, changes of state, previews, orders to workers.

They are hints, and PostgreSQL holds the truth. No call here waits for Redis or fails without it: while Redis is away,
messages are lost and reads return nothing.

    job:{id}:progress   hash   image index -> its latest progress
    job:{id}:events     stream the latest events, for a reader that reconnects with the id of its last one
    preview:{id}:{i}    string WebP
    events, orders      channels

Each name begins with the farm's own prefix (`shared.db.farm`), because channels have no database number.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final, TypeVar

from pydantic import TypeAdapter
from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import RedisError
from redis.retry import Retry

from shared.db.farm import FarmId
from shared.db.states import ImageState
from shared.errors import Unavailable
from shared.messaging.redis_health import RedisHealth
from shared.messaging.sender import Sender
from shared.messaging.subscription import SharedSubscription

T = TypeVar("T")

_EVENTS: Final = "events"
_ORDERS: Final = "orders"
_KEPT_EVENTS: Final = 200  # of a job
_KEPT_SECONDS: Final = 3600
_PREVIEW_SECONDS: Final = 600
_AWAY_SECONDS: Final = 1.0  # after a failure readers get nothing, at once, for this long
_TIMEOUT_SECONDS: Final = 1.0
_GATHER_SECONDS: Final = 0.02  # between two batches: fifty changes a second are enough for a page
_BACKLOG: Final = 500  # events that one slow subscriber may be behind


@dataclass(frozen=True)
class Progress:
    """The progress of one attempt of an image: `step` of `steps` are done."""

    kind: ClassVar = "progress"
    job: int
    index: int
    attempt: int
    step: int
    steps: int
    phase: str


@dataclass(frozen=True)
class PreviewChanged:
    """The preview of a running image is there, or has changed. Not kept, because the next one comes soon."""

    kind: ClassVar = "preview"
    job: int
    index: int


@dataclass(frozen=True)
class ImageChanged:
    """An image moved to another state."""

    kind: ClassVar = "image"
    job: int
    index: int
    state: str


@dataclass(frozen=True)
class JobChanged:
    """A job moved to another state."""

    kind: ClassVar = "job"
    job: int
    state: str


@dataclass(frozen=True)
class JobEnded:
    """A job of an owner has ended; `id` is that of the event in the outbox. Kept there, and not in Redis."""

    kind: ClassVar = "ended"
    id: int
    job: int
    owner: str
    state: str


Event = Progress | PreviewChanged | ImageChanged | JobChanged | JobEnded
_KINDS: Final[dict[str, TypeAdapter[Event]]] = {
    event.kind: TypeAdapter(event) for event in (Progress, PreviewChanged, ImageChanged, JobChanged, JobEnded)
}


@dataclass(frozen=True)
class Received:
    """An event with its id in the stream of its job, which only rises; an event that is not kept has none ("")."""

    id: str
    event: Event


@dataclass(frozen=True)
class _Preview:
    job: int
    index: int
    webp: bytes


@dataclass(frozen=True)
class _Order:
    cancel: Mapping[int, int] = field(default_factory=dict)  # image id -> attempt
    rescan: bool = False


_Message = Event | _Preview | _Order

# One round trip an event: keep it, give it its id, publish it.
# KEYS: stream, hash. ARGV: event, kind, index, state, channel.
_PUBLISH: Final = f"""
    local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', {_KEPT_EVENTS}, '*', 'event', ARGV[1])
    redis.call('EXPIRE', KEYS[1], {_KEPT_SECONDS})
    if ARGV[2] == 'progress' then
        redis.call('HSET', KEYS[2], ARGV[3], ARGV[1])
        redis.call('EXPIRE', KEYS[2], {_KEPT_SECONDS})
    elseif ARGV[2] == 'image' and ARGV[4] ~= '{ImageState.RUNNING}' then
        redis.call('HDEL', KEYS[2], ARGV[3])
    end
    redis.call('PUBLISH', ARGV[5], id .. ' ' .. ARGV[1])
"""


class Subscription:
    """A bounded queue of events; if its reader is slow, it drops the oldest."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Received] = queue.Queue(_BACKLOG)
        self._notify: Callable[[], object] | None = None

    @contextmanager
    def notifying(self, notify: Callable[[], object]) -> Iterator[None]:
        """Call `notify`, on another thread, for each event within the block: for readers without a waiting thread."""
        self._notify = notify
        try:
            yield
        finally:
            self._notify = None

    def get(self, timeout: float) -> Received | None:
        """Return the next event; None if none comes within `timeout` seconds."""
        try:
            return self._waiting.get(block=timeout > 0, timeout=timeout)
        except queue.Empty:
            return None

    def put(self, received: Received) -> None:
        """Add an event."""
        if self._waiting.full():
            with suppress(queue.Empty):
                self._waiting.get_nowait()
        self._waiting.put_nowait(received)
        if notify := self._notify:
            notify()


class Events:
    """The farm's events, for one process. Safe for many threads; connections and threads start at the first use."""

    def __init__(self, redis_url: str, farm_id: FarmId) -> None:
        self._farm_id = farm_id
        self._redis = Redis.from_url(
            redis_url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),  # once: a connection from before a restart of Redis breaks at its first use
        )
        self._health = RedisHealth(self._redis, farm_id)
        self._sender: Sender[_Message] = Sender("events", self._deliver, gather_seconds=_GATHER_SECONDS)
        self._subscriptions: dict[int | str | None, set[Subscription]] = {}
        self._lock = threading.Lock()
        self._events = SharedSubscription(self._redis, lambda: farm_id.key(_EVENTS))
        self._orders = SharedSubscription(self._redis, lambda: farm_id.key(_ORDERS))
        self._away_until = 0.0

    @property
    def dropped(self) -> int:
        """How many messages were lost since the start, because Redis was away."""
        return self._sender.dropped

    def publish(self, event: Event) -> None:
        """Send an event to all subscribers. Newer progress of an image replaces progress that has not left yet."""
        key = (event.job, event.index) if isinstance(event, Progress) else object()
        self._sender.put(key, event)

    def put_preview(self, job: int, index: int, webp: bytes) -> None:
        """Keep `webp` as the preview of an image for ten minutes."""
        self._sender.put(("preview", job, index), _Preview(job, index, webp))

    def announce_cancel(self, attempts: Mapping[int, int]) -> None:
        """Tell the workers that these attempts (image id -> attempt) are cancelled; so does their next heartbeat."""
        if attempts:
            self._sender.put(tuple(attempts.items()), _Order(dict(attempts)))

    def announce_rescan(self) -> None:
        """Ask the workers to scan the models folder now."""
        self._sender.put("rescan", _Order(rescan=True))

    def listen_cancels(self, callback: Callable[[Mapping[int, int]], None]) -> None:
        """Call `callback` with the attempts that are cancelled from now on, on a thread of this object."""

        def call(data: bytes) -> None:
            if attempts := _order(data).cancel:
                callback(attempts)

        self._orders.add(call)

    def listen_rescans(self, callback: Callable[[], None]) -> None:
        """Call `callback` when a scan is asked for, on a thread of this object."""
        self._orders.add(lambda data: callback() if _order(data).rescan else None)

    @contextmanager
    def subscribe(self, job: int | str | None = None) -> Iterator[Subscription]:
        """Yield the events of a job, of all jobs, or the ends of an owner's jobs, from now on. All of a process share
        one subscription at Redis.

        Subscribe first and read the state afterwards, so that no change falls between the two.
        """
        subscription = Subscription()
        with self._lock:
            self._subscriptions.setdefault(job, set()).add(subscription)
        self._events.add(self._hand_on)
        try:
            yield subscription
        finally:
            with self._lock:
                self._subscriptions[job].discard(subscription)
                if not self._subscriptions[job]:
                    del self._subscriptions[job]

    def progress(self, job: int) -> dict[int, Progress]:
        """Return the latest progress of each running image of a job, by index; compare its attempt with the image's."""
        found: dict[bytes, bytes] = self._read(lambda redis: redis.hgetall(self._farm_id.key(_progress_key(job))), {})
        parsed = [event for text in found.values() for event in _parsed(text)]
        return {event.index: event for event in parsed if isinstance(event, Progress)}

    def replay(self, job: int, after: str) -> list[Received]:
        """Return the kept events of a job after the event with the id `after`."""
        found: list[Any] = self._read(
            lambda redis: redis.xrange(self._farm_id.key(_events_key(job)), min=f"({after}"), []
        )
        return [
            Received(identifier.decode(), event)
            for identifier, fields in found
            for event in _parsed(fields.get(b"event", b""))
        ]

    def preview(self, job: int, index: int) -> bytes | None:
        """Return the latest preview of an image (WebP), or None."""
        return self._read(lambda redis: redis.get(self._farm_id.key(_preview_key(job, index))), None)

    def previews(self, job: int, indexes: Sequence[int]) -> frozenset[int]:
        """Return the indexes of the images of a job that have a preview now."""
        if not indexes:
            return frozenset()

        def ask(redis: Redis) -> list[int]:
            with redis.pipeline(transaction=False) as pipeline:
                for index in indexes:
                    pipeline.exists(self._farm_id.key(_preview_key(job, index)))
                return pipeline.execute()

        found: list[int] = self._read(ask, [])
        return frozenset(index for index, is_there in zip(indexes, found, strict=False) if is_there)

    def trouble(self) -> str | None:
        """Return why Redis takes no messages, and what would help; None if it works."""
        return self._health.trouble()

    def flush(self, seconds: float = 2.0) -> bool:
        """Wait until all published messages have left or were lost; False if that takes longer."""
        return self._sender.flush(seconds)

    def close(self) -> None:
        """Send the waiting messages, and end the threads and connections."""
        self._sender.close()
        self._events.close()
        self._orders.close()
        self._redis.close()

    def _hand_on(self, data: bytes) -> None:
        """Give an event to the subscribers of its job and of all jobs; it is parsed once for all of them."""
        identifier, _, text = data.decode().partition(" ")
        for event in _parsed(text):
            received = Received(identifier, event)
            with self._lock:
                wanted = (event.owner,) if isinstance(event, JobEnded) else (event.job, None)
                subscriptions = [one for key in wanted for one in self._subscriptions.get(key, ())]
            for subscription in subscriptions:
                subscription.put(received)

    def _deliver(self, batch: Mapping[object, _Message]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for message in batch.values():
                _send(pipeline, self._farm_id, message)
            pipeline.execute()

    def _read(self, ask: Callable[[Redis], Any], otherwise: T) -> T:
        if time.monotonic() < self._away_until:
            return otherwise
        try:
            answer: T = ask(self._redis)
        except (RedisError, Unavailable):
            self._away_until = time.monotonic() + _AWAY_SECONDS
            return otherwise
        return answer


def _send(pipeline: Pipeline, farm_id: FarmId, message: _Message) -> None:
    match message:
        case _Preview():
            pipeline.set(farm_id.key(_preview_key(message.job, message.index)), message.webp, ex=_PREVIEW_SECONDS)
            changed = PreviewChanged(message.job, message.index)
            pipeline.publish(farm_id.key(_EVENTS), f" {json.dumps({'kind': changed.kind} | vars(changed))}")
        case JobEnded():
            pipeline.publish(farm_id.key(_EVENTS), f" {json.dumps({'kind': message.kind} | vars(message))}")
        case _Order():
            pipeline.publish(farm_id.key(_ORDERS), json.dumps(asdict(message)))
        case _:
            text = json.dumps({"kind": message.kind} | vars(message))
            index, state = getattr(message, "index", ""), getattr(message, "state", "")
            keys = map(farm_id.key, (_events_key(message.job), _progress_key(message.job)))
            pipeline.eval(_PUBLISH, 2, *keys, text, message.kind, index, state, farm_id.key(_EVENTS))


def _parsed(text: str | bytes) -> list[Event]:
    """Return the event in `text`, without fields that only a newer version knows; none if its kind is not known."""
    try:
        fields = json.loads(text)
        return [_KINDS[fields.pop("kind")].validate_python(fields)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _order(data: bytes) -> _Order:
    """Return the order in `data`; an empty one if it cannot be read, as one of another version of the farm."""
    try:
        fields = json.loads(data)
        cancel = {int(image): int(attempt) for image, attempt in fields["cancel"].items()}
        return _Order(cancel, rescan=bool(fields["rescan"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return _Order()


def _progress_key(job: int) -> str:
    return f"job:{job}:progress"


def _events_key(job: int) -> str:
    return f"job:{job}:events"


def _preview_key(job: int, index: int) -> str:
    return f"preview:{job}:{index}"
