"""Numbers for Prometheus: requests as this process answered them, the farm as the database knows it.

Request counters live in one process (`api/serve.py` runs one); what is of the farm is read from SQL when it is scraped,
so every API process of a farm tells the same of it.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterator
from typing import Final

import structlog
from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.http.later import is_later
from api.services import Services
from shared.db.sessions import transact
from shared.db.states import ImageState, WorkerState
from shared.db.tables import Image, Worker
from shared.errors import Unavailable
from shared.queue import queries

log = structlog.get_logger(__name__)

EXTENSION: Final = "stepfarm-metrics"
COUNTING: Final = "stepfarm-counting"
_BEGAN: Final = "stepfarm.began"
_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class _Farm(Collector):
    """The farm's numbers, read when they are asked for; without the database there are none, and `farm_up` is 0."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: what is counted is known when it is asked for."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        try:
            gauges = transact(self._services.sessions, _gauges)
        except Unavailable:
            gauges = []
        yield GaugeMetricFamily("farm_up", "1 while the database answers.", value=float(bool(gauges)))
        taken = float(self._services.events.trouble() is None)
        yield GaugeMetricFamily(
            "farm_redis_up", "1 while Redis takes tickets; without it no new image starts.", value=taken
        )
        yield from gauges


def init_app(app: Flask, services: Services) -> None:
    """Count every request of `app`, under the route that it met."""
    registry = CollectorRegistry()
    requests = Counter("farm_requests", "Requests answered.", ["route", "method", "status"], registry=registry)
    seconds = Histogram("farm_request_seconds", "Time to answer.", ["route"], buckets=_BUCKETS, registry=registry)
    registry.register(_Farm(services))

    def begin() -> None:
        g.began = request.environ.setdefault(_BEGAN, time.perf_counter())  # a request may be asked twice

    def counted(route: str, method: str, status: int, took: float) -> None:
        requests.labels(route, method if method in _METHODS else "other", status).inc()
        seconds.labels(route).observe(took)

    def count(answer: Response) -> Response:
        if is_later(answer):
            return answer
        route = request.url_rule.rule if request.url_rule else "none"
        took = time.perf_counter() - g.began
        counted(route, request.method, answer.status_code, took)
        log.debug("answered", method=request.method, path=request.path, status=answer.status_code, seconds=took)
        return answer

    app.before_request(begin)
    app.after_request(count)
    app.extensions[EXTENSION] = registry
    app.extensions[COUNTING] = counted


def counted(app: Flask, route: str, method: str, status: int, seconds: float) -> None:
    """Count a request that the application was not asked for."""
    app.extensions[COUNTING](route, method, status, seconds)


def _gauges(session: Session) -> list[Metric]:
    images = GaugeMetricFamily("farm_images", "Images that have not ended.", labels=["state"])
    for state, number in queries.counts(session).items():
        images.add_metric([state], number)
    workers = GaugeMetricFamily("farm_workers", "Workers by state.", labels=["state"])
    alive = Tally(session.scalars(select(Worker.state)))
    for standing in dict.fromkeys([*WorkerState, *alive]):  # and those of a newer version
        workers.add_metric([standing], alive[standing])
    waits = func.extract("epoch", func.now() - func.min(Image.queued_at))
    oldest = session.scalar(select(waits).where(Image.state == ImageState.QUEUED))
    age = GaugeMetricFamily("farm_queue_oldest_seconds", "Age of the image queued longest.", value=float(oldest or 0))
    troubled = session.scalar(select(func.count()).where(Worker.trouble.is_not(None)))
    trouble = GaugeMetricFamily(
        "farm_workers_in_trouble",
        "Workers that report a fault of themselves or their cards.",
        value=float(troubled or 0),
    )
    return [images, workers, trouble, age, _broken_calls(session)]


def _broken_calls(session: Session) -> Metric:
    """Return the counts that workers report; they begin at 0 with each start of a worker."""
    broken = CounterMetricFamily(
        "farm_broken_calls",
        "Calls of networks that failed, also those that succeeded with fewer rows.",
        labels=["worker", "cause"],
    )
    totals: Tally[tuple[str, str]] = Tally()
    for name, calls in session.execute(select(Worker.name, Worker.broken_calls)):
        totals.update({(name, cause): number for cause, number in calls.items()})
    for labels, number in sorted(totals.items()):
        broken.add_metric(labels, number)
    return broken
