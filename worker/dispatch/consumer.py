"""The Celery side: one task, `render`; it brings a slot one ticket, and one ticket is one image."""

from __future__ import annotations

import warnings

from celery import Task
from celery.app import trace
from celery.apps.worker import Worker as CeleryWorker
from celery.exceptions import CPendingDeprecationWarning
from celery.worker import state as celery_state

from shared.messaging.tickets import TASK, WORKER_OPTIONS, celery_app, queues, worker_queue
from worker.context import Worker
from worker.dispatch.slots import Slots


class Consumer(CeleryWorker):  # type: ignore[misc]  # Celery has no types
    """Celery's worker without its own signals and logging, because the farm has its own."""

    def on_before_init(self, quiet: bool = False, **options: object) -> None:  # noqa: ARG002, FBT001, FBT002 - Celery's
        """Prepare as Celery does, without its warning about messages that carry code: the farm's are JSON."""
        self.quiet = quiet
        trace.setup_worker_optimizations(self.app, self.hostname)

    def install_platform_tweaks(self, worker: object) -> None: ...

    def setup_logging(self, colorize: bool | None = None) -> bool:  # noqa: ARG002, FBT001 - Celery's signature
        return True


def consume(worker: Worker, slots: Slots) -> None:
    """Take tickets until `stop_consuming`, or until Celery gives up by itself; on the main thread.

    Returns when the slots have ended their images. Celery 5.7 gives up when a ticket whose connection was lost is
    acknowledged, or put back, at the wrong moment of a reconnect; call this again then.
    """
    app, mine = celery_app(worker.settings.redis, worker.farm_id), worker_queue(worker.id)

    @app.task(name=TASK, bind=True, shared=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def render(task: Task) -> None:
        slots.consume(was_passed=task.request.delivery_info["routing_key"] == mine)

    # When Redis goes away Celery warns that a default will change, but the option is set here.
    warnings.simplefilter("ignore", CPendingDeprecationWarning)
    Consumer(
        app=app,
        hostname=f"{worker.id}@{worker.name}",
        concurrency=worker.slots,
        queues=queues(worker.id, worker.pools),
        quiet=True,
        **WORKER_OPTIONS,
    ).start()


def stop_consuming() -> None:
    """Have `consume` begin Celery's warm shutdown within a second; from any thread."""
    celery_state.should_stop = 0
