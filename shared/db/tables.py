"""The tables. Only `shared/queue/` writes a state. `migrations/` creates the tables, and a test compares the two."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.db.states import ImageState, JobState, WorkerState


class Base(DeclarativeBase):
    """Base of all tables, with fixed names of constraints for migrations."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: JSONB,
        list[dict[str, Any]]: JSONB,
        int: BigInteger,
        str: String,
    }


NOW = text("now()")


class Job(Base):
    """A job: one frozen set of parameters, with one or many images."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("owner", "idempotency_key"),
        CheckConstraint("unfinished BETWEEN 0 AND count", name="unfinished"),
        CheckConstraint("failed >= 0 AND cancelled >= 0 AND unfinished + failed + cancelled <= count", name="ended"),
        Index(None, "owner", "id"),
        Index(None, "owner", "state", "id"),
        # Jobs that wait for a job.
        Index(
            "ix_jobs_after",
            "after",
            postgresql_using="gin",
            postgresql_where=text("waits"),
            postgresql_with={"fastupdate": "off"},
        ),
        Index("ix_jobs_waits", "id", postgresql_where=text("waits AND state = 'open'")),
        # An owner's latest job of each experiment.
        Index("ix_jobs_lesson", "owner", "lesson", "id", postgresql_where=text("lesson IS NOT NULL")),
        # What an owner's programs wait for at a door.
        Index("ix_jobs_door", "owner", "door", "id", postgresql_where=text("door IS NOT NULL AND state = 'open'")),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    owner: Mapped[str]
    state: Mapped[str] = mapped_column(default=JobState.OPEN)
    params: Mapped[dict[str, Any]]  # RenderParams, resolved, and the axes of a sweep (`shared.jobs.stored`)
    checkpoint: Mapped[str]  # SHA-256
    # ModelSet; None for a job that an older version admitted.
    models: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    # Scheduling. Images have copies of the columns that lanes, claims and releases read.
    pool: Mapped[str] = mapped_column(server_default=text("'default'"))
    priority: Mapped[int] = mapped_column(server_default=text("0"))
    urgent: Mapped[bool] = mapped_column(server_default=text("false"))
    expires_at: Mapped[datetime | None]  # images that have not started by then are cancelled
    # Submitted to be released by hand, or so held when migration 0015 took it from the images of an older job.
    hold: Mapped[bool] = mapped_column(server_default=text("false"))
    hold_until: Mapped[datetime | None]  # submitted to be queued then
    hold_behind: Mapped[int | None]  # submitted to be queued when the job of this id has ended
    after: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), server_default=text("'{}'"))  # jobs that it waits for
    after_on: Mapped[str] = mapped_column(server_default=text("'success'"))  # shared.params.scheduling.DependsOn
    waits: Mapped[bool] = mapped_column(server_default=text("false"))  # its held images are held for those jobs
    webhook: Mapped[str | None]  # address that gets a message when it has ended
    count: Mapped[int]
    unfinished: Mapped[int]  # images that have not ended; lowered last, by the transition that ends them
    failed: Mapped[int] = mapped_column(server_default=text("0"))  # images that ended so, counted with it
    cancelled: Mapped[int] = mapped_column(server_default=text("0"))
    idempotency_key: Mapped[str | None]
    lesson: Mapped[str | None]  # which experiment of `shared.jobs.lessons` it is
    door: Mapped[str | None]  # through which other system's API it came (`api.compat`); None: through none
    idempotency_digest: Mapped[str | None]  # SHA-256 of the body with the key: another body under it is refused
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    ended_at: Mapped[datetime | None]


class Image(Base):
    """One picture of a job: the unit that is claimed, rendered, retried and stored.

    The job holds its parameters; an image of a sweep holds what it changes of them, and its own model files.
    """

    __tablename__ = "images"
    __table_args__ = (
        UniqueConstraint("job_id", "index"),
        # The lanes of the version before, which knows no companions: its workers may still claim.
        Index(
            "ix_images_lane",
            "owner", "checkpoint", "pool", "memory_class", text("urgent DESC"), text("priority DESC"), "id",
            postgresql_where=text("state = 'queued'"),
        ),
        # The claim's one probe: the head of a lane.
        Index(
            "ix_images_lane_companions",
            "owner", "checkpoint", "pool", "memory_class", "companions",
            text("urgent DESC"), text("priority DESC"), "id",
            postgresql_where=text("state = 'queued'"),
        ),
        # The images of a worker (heartbeat, mark_dead), and the running work of each owner (policy).
        Index("ix_images_running", "worker_id", "owner", postgresql_where=text("worker_id IS NOT NULL")),
        # A worker runs at most one image with crashes at a time, so that the next crash names the culprit.
        Index(
            "ix_images_struck",
            "worker_id",
            unique=True,
            postgresql_where=text("worker_id IS NOT NULL AND strikes > 0"),
        ),
        # When an owner was served last (policy).
        Index("ix_images_served", "owner", text("started_at DESC"), postgresql_where=text("started_at IS NOT NULL")),
        # Images that are due to be cancelled or released.
        Index(
            "ix_images_expires_at",
            "expires_at",
            postgresql_where=text("expires_at IS NOT NULL AND state IN ('held', 'queued')"),
        ),
        Index("ix_images_held", "held_until", "held_behind", postgresql_where=text("state = 'held'")),
        CheckConstraint("(state = 'running') = (worker_id IS NOT NULL)", name="running_on_a_worker"),
    )  # fmt: skip

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    index: Mapped[int]
    state: Mapped[str] = mapped_column(default=ImageState.QUEUED)
    # A lane: everything that decides which workers may render it, and for which owner.
    owner: Mapped[str]
    checkpoint: Mapped[str]
    pool: Mapped[str]
    memory_class: Mapped[int]  # the latent has at most 2 ** memory_class cells
    companions: Mapped[str] = mapped_column(server_default=text("''"))  # ModelSet.companions
    urgent: Mapped[bool]
    priority: Mapped[int]
    cost: Mapped[int]  # rows x steps x area in latent cells
    attempt: Mapped[int] = mapped_column(default=0)  # only rises: the fence, and part of the storage key
    strikes: Mapped[int] = mapped_column(default=0)  # crashes of a worker's process while this image ran
    worker_id: Mapped[int | None] = mapped_column(ForeignKey("workers.id"))  # while it runs
    worker: Mapped[str | None]  # name of the worker that runs or ended it; its row may be gone
    reason: Mapped[str | None]  # why it failed, is held or was not started in time
    queued_at: Mapped[datetime] = mapped_column(server_default=NOW)
    started_at: Mapped[datetime | None]  # of the latest attempt
    ended_at: Mapped[datetime | None]
    bytes: Mapped[int | None]  # size of the committed picture
    expires_at: Mapped[datetime | None]  # cancelled if it has not started by then
    held_until: Mapped[datetime | None]  # while held: queued by itself then
    held_behind: Mapped[int | None]  # while held: id of the job whose end queues it
    # Of a sweep: dotted name of a parameter -> its value; None: its job's parameters, with a seed counted up.
    changes: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    models: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))  # its ModelSet; None: its job's


_SHOWN: Final = text("deleted_at IS NULL")


def _filtered(name: str, *columns: str, where: str = "") -> Index:
    """An index that a page of pictures with this filter, or in this order, is one walk of."""
    shown = text(f"{where} AND deleted_at IS NULL") if where else _SHOWN
    of = (text(one) if one.startswith("(") else one for one in columns)
    return Index(f"ix_pictures_{name}", "owner", *of, "ended_at", "image_id", postgresql_where=shown)


def _holding(column: str) -> Index:
    """An index by what a list holds. New rows are found at once: no list of pending entries has to be read through."""
    written = {"fastupdate": "off"}
    return Index(
        f"ix_pictures_{column}", column, postgresql_using="gin", postgresql_where=_SHOWN, postgresql_with=written
    )


class Picture(Base):
    """A finished image as people look for it. A trigger on `images` writes the row, so that workers of an older
    version have theirs as well; what stands in the job's parameters a chore fills in (`shared.pictures.reading`).
    """

    __tablename__ = "pictures"
    __table_args__ = (
        _filtered("shown"),
        _filtered("checkpoint", "checkpoint"),
        _filtered("sampler", "sampler"),
        _filtered("size", "width", "height"),
        _filtered("area", "(width * height)", "width"),  # for an order; a size is found by its own
        _filtered("seed", "seed"),
        _filtered("job", "job_id"),
        _filtered("favourite", where="favourite"),
        _filtered("tagged", where="tags <> '{}'"),
        _filtered("adapted", where="adapters <> '{}'"),
        _holding("words"),
        _holding("adapters"),
        _holding("tags"),
        Index("ix_pictures_unread", "image_id", postgresql_where=text("words IS NULL")),
        # What can be restored, and what is to be removed.
        Index("ix_pictures_deleted", "owner", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
        Index(
            "ix_pictures_to_remove",
            "deleted_at",
            postgresql_where=text("deleted_at IS NOT NULL AND removed_at IS NULL"),
        ),
    )

    image_id: Mapped[int] = mapped_column(
        ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    job_id: Mapped[int]
    index: Mapped[int]
    attempt: Mapped[int]  # that was committed
    owner: Mapped[str]
    ended_at: Mapped[datetime]
    # Of its parameters; None until they are read.
    checkpoint: Mapped[str | None]  # its title: name and short hash
    sampler: Mapped[str | None]
    seed: Mapped[int | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    format: Mapped[str | None]
    words: Mapped[list[str] | None] = mapped_column(ARRAY(String))  # `shared.pictures.words`
    adapters: Mapped[list[str]] = mapped_column(ARRAY(String), server_default=text("'{}'"))  # names in its prompts
    # Set by its owner.
    favourite: Mapped[bool] = mapped_column(server_default=text("false"))
    tags: Mapped[list[str]] = mapped_column(ARRAY(String), server_default=text("'{}'"))
    deleted_at: Mapped[datetime | None]  # hidden since then, and can be restored for a while
    removed_at: Mapped[datetime | None]  # its files are gone


class Worker(Base):
    """One start of one worker process, pinned to one card. The row goes when the worker leaves or is declared dead."""

    __tablename__ = "workers"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[str]  # host/card, as people know it
    host: Mapped[str]
    pid: Mapped[int]
    card: Mapped[str]  # cuda:0, cpu:0
    card_name: Mapped[str]  # NVIDIA H200, CPU
    pool: Mapped[str]
    slots: Mapped[int]
    state: Mapped[str] = mapped_column(default=WorkerState.STARTING)
    phase: Mapped[str] = mapped_column(default="")  # what it does now: "loading checkpoint, about 8 s"
    resident: Mapped[list[str]] = mapped_column(default=list)  # SHA-256 of the checkpoints in its memory
    # The models in its memory (`shared.queue.workers.ResidentModel`).
    models: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'"))
    load_seconds: Mapped[float | None]  # measured, of the latest checkpoint that it read from a file
    memory_bytes: Mapped[int | None]  # of its card; None: not known
    precision: Mapped[str | None]  # shared.models.memory.Precision; None: not known
    trouble: Mapped[str | None]  # what is wrong with the worker or its card
    unread: Mapped[dict[str, Any]] = mapped_column(  # job -> the parameters that this worker's version does not know
        server_default=text("'{}'")
    )
    broken_calls: Mapped[dict[str, Any]] = mapped_column(  # cause -> calls of networks that failed since its start
        server_default=text("'{}'")
    )
    started_at: Mapped[datetime] = mapped_column(server_default=NOW)
    beat_at: Mapped[datetime] = mapped_column(server_default=NOW)
    lease_until: Mapped[datetime]


class Drain(Base):
    """A worker that takes no images until it is resumed: drained by hand, or by itself. Outlives restarts."""

    __tablename__ = "drains"

    worker: Mapped[str] = mapped_column(primary_key=True)  # host/card
    reason: Mapped[str]
    at: Mapped[datetime] = mapped_column(server_default=NOW)


class MemoryNeed(Base):
    """Measured memory of images of a memory class, by what was resident, with weights."""

    __tablename__ = "memory_needs"

    # The digest of what was resident. Rows of older versions have the SHA-256 of a checkpoint here and are not read.
    digest: Mapped[str] = mapped_column("checkpoint", primary_key=True)
    memory_class: Mapped[int] = mapped_column(primary_key=True)
    bytes: Mapped[int]


class ModelFile(Base):
    """One file of the models folders, as the last scan saw it."""

    __tablename__ = "model_files"
    __table_args__ = (Index(None, "sha256"),)

    path: Mapped[str] = mapped_column(primary_key=True)  # shared.models.folders.ModelPath.name
    name: Mapped[str]  # the stem, as people type it
    kind: Mapped[str]  # shared.models.kinds.Kind
    architecture: Mapped[str | None]  # shared.models.architectures
    sha256: Mapped[str | None]  # its identity: of its weights, or of its weights and its description
    weights_sha256: Mapped[str | None]  # of the weights alone, as in other programs; None in rows of an earlier version
    # Its networks, each with the digest of its content and its bytes by number format (`shared.models.components`).
    components: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    # The details in its content (`shared.models.details`); None in rows of an earlier version, and if it is unusable.
    details: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    size: Mapped[int]
    mtime_ns: Mapped[int]
    parts: Mapped[str | None]  # digest of the name, size and time of each file that belongs to it
    note: Mapped[str | None]  # what is odd about it although it can be used
    has_vae: Mapped[bool] = mapped_column(server_default=text("true"))
    strikes: Mapped[int] = mapped_column(server_default=text("0"))  # crashes of processes while they loaded it
    native_size: Mapped[int | None]  # pixels of a side
    prediction: Mapped[str | None]  # noise, velocity; None in rows of an earlier version until a scan looks again
    usable: Mapped[bool]
    reason: Mapped[str | None]  # why it is not usable
    scanned_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Upload(Base):
    """A source picture of an owner; the storage holds its bytes under their SHA-256."""

    __tablename__ = "uploads"
    __table_args__ = (Index(None, "sha256"),)

    owner: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(primary_key=True)
    width: Mapped[int]
    height: Mapped[int]
    bytes: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    used_at: Mapped[datetime] = mapped_column(server_default=NOW)  # the latest upload or submission


class JobUpload(Base):
    """A source picture of a job, kept as long as the job."""

    __tablename__ = "job_uploads"
    __table_args__ = (Index(None, "sha256"),)

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(primary_key=True)


class History(Base):
    """The events of images and workers, one line each."""

    __tablename__ = "history"
    __table_args__ = (Index(None, "job_id", "id"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=NOW)
    event: Mapped[str]  # shared.queue.history.Event
    job_id: Mapped[int | None]
    image_id: Mapped[int | None]
    attempt: Mapped[int | None]
    worker: Mapped[str | None]
    detail: Mapped[str | None]


class Outbox(Base):
    """Events that are to be delivered (`shared.maintenance.outbox`). A trigger on jobs writes the rows."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_due", "due_at", "id", postgresql_where=text("delivered_at IS NULL")),
        Index("ix_outbox_delivered_at", "delivered_at", postgresql_where=text("delivered_at IS NOT NULL")),
        Index("ix_outbox_dead", "dead_at", postgresql_where=text("dead_at IS NOT NULL")),
        Index(None, "transaction"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime]
    kind: Mapped[str]  # shared.maintenance.outbox.EventKind
    job_id: Mapped[int]  # of a job that may be gone
    owner: Mapped[str]
    tries: Mapped[int] = mapped_column(server_default=text("0"))  # how often it was taken
    due_at: Mapped[datetime] = mapped_column(server_default=NOW)  # not taken before
    delivered_at: Mapped[datetime | None]
    reason: Mapped[str | None]  # why it could not be delivered the last time
    dead_at: Mapped[datetime | None]  # set aside: nobody tries it again until a person says so
    state: Mapped[str | None]  # that the job ended in; None: written before revision 0031
    # That made the event, and the oldest one that had not ended by then; None: written before revision 0042.
    transaction: Mapped[int | None] = mapped_column(server_default=text("pg_current_xact_id()::text::bigint"))
    horizon: Mapped[int | None] = mapped_column(
        server_default=text("pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
    )


_UNSENT: Final = text("delivered_at IS NULL AND dead_at IS NULL")


class WebhookEndpoint(Base):
    """An address that its owner wants messages sent to (`shared.webhooks.endpoints`)."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        Index("ix_webhook_endpoints_owner", "owner", "id"),
        Index("ix_webhook_endpoints_of_jobs", "owner", unique=True, postgresql_where=text("url IS NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    owner: Mapped[str]
    url: Mapped[str | None]  # None: it stands for the addresses that jobs name themselves
    name: Mapped[str] = mapped_column(server_default=text("''"))
    format: Mapped[str] = mapped_column(server_default=text("'standard'"))  # shared.webhooks.messages.Format
    kinds: Mapped[list[str]] = mapped_column(ARRAY(String))  # shared.webhooks.messages.MessageKind
    secret: Mapped[str]  # that messages are signed with
    old_secret: Mapped[str | None]  # the one before, which signs too until `old_until`
    old_until: Mapped[datetime | None]
    paused: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class WebhookDelivery(Base):
    """One message to one address (`shared.webhooks.deliveries`)."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("endpoint_id", "event_id"),
        Index("ix_webhook_deliveries_due", "due_at", "id", postgresql_where=_UNSENT),
        Index("ix_webhook_deliveries_target", "target", postgresql_where=_UNSENT),
        Index("ix_webhook_deliveries_endpoint", "endpoint_id", "id"),
        Index("ix_webhook_deliveries_delivered_at", "delivered_at", postgresql_where=text("delivered_at IS NOT NULL")),
        Index("ix_webhook_deliveries_dead_at", "dead_at", postgresql_where=text("dead_at IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    endpoint_id: Mapped[int] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    event_id: Mapped[int | None]  # of the outbox; None: a test
    message: Mapped[str] = mapped_column(server_default=text("gen_random_uuid()"))  # by which it is known
    target: Mapped[str]  # what all messages to one receiver have in common
    url: Mapped[str | None]  # that the job named; None: the endpoint's
    kind: Mapped[str]  # shared.webhooks.messages.MessageKind
    job_id: Mapped[int | None]
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    tries: Mapped[int] = mapped_column(server_default=text("0"))
    due_at: Mapped[datetime] = mapped_column(server_default=NOW)  # not sent before
    is_postponed: Mapped[bool] = mapped_column(server_default=text("false"))  # since its receiver does not answer
    give_up_at: Mapped[datetime | None]  # a day after it could not be sent for the first time
    reason: Mapped[str | None]  # why it could not be sent the last time
    delivered_at: Mapped[datetime | None]
    dead_at: Mapped[datetime | None]  # given up


class Sheet(Base):
    """The contact sheet of a sweep, made for one of its ends; the storage holds the file (`sheet_key`)."""

    __tablename__ = "sheets"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    end_id: Mapped[int]  # of the event in the outbox; only rises: the sheets of earlier ends are garbage
    ended_at: Mapped[datetime]  # of the job, at that end
    width: Mapped[int]  # pixels
    height: Mapped[int]
    bytes: Mapped[int]


class BrowserSession(Base):
    """A signed-in browser. It holds a random id, and the row its digest."""

    __tablename__ = "browser_sessions"
    __table_args__ = (Index(None, "owner", "used_at"), Index(None, "used_at"))

    digest: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    key_mark: Mapped[str]  # of the key that opened it: the session ends with the key
    role: Mapped[str | None]  # that a provider gave, perhaps empty; None: the key's
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    used_at: Mapped[datetime] = mapped_column(server_default=NOW)


class ApiKey(Base):
    """A key that opens the farm, or did (`shared.accounts.keys`). Rows stay: a farm with any asks for keys."""

    __tablename__ = "api_keys"
    __table_args__ = (
        UniqueConstraint("digest"),
        Index(None, "owner"),
        Index("ix_api_keys_not_revoked", "id", postgresql_where=text("revoked_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    owner: Mapped[str]
    role: Mapped[str]
    name: Mapped[str]
    digest: Mapped[str]  # SHA-256 of the key
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    created_by: Mapped[str]
    used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class OwnerLimit(Base):
    """The limits that are set for an owner, and what else is known of them (`shared.accounts.limit_rows`)."""

    __tablename__ = "owner_limits"

    owner: Mapped[str] = mapped_column(primary_key=True)
    given: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    role_running: Mapped[int | None]
    work_day: Mapped[date | None]  # in UTC
    work: Mapped[int] = mapped_column(server_default=text("0"))  # submitted on that day, as images.cost
    set_at: Mapped[datetime | None]
    set_by: Mapped[str | None]


class UsageAttempt(Base):
    """What an attempt took that has ended and is not counted in `usage_days` yet (`shared.accounts.usage`)."""

    __tablename__ = "usage_attempts"
    __table_args__ = (Index(None, "owner"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime]
    owner: Mapped[str]
    checkpoint: Mapped[str]  # of the image, as its lane has it
    images: Mapped[int]  # finished
    gpu_seconds: Mapped[float]
    bytes: Mapped[int]


class UsageDay(Base):
    """What an owner's images took of the farm on a day, by checkpoint (`shared.accounts.usage`)."""

    __tablename__ = "usage_days"
    __table_args__ = (Index(None, "day"),)

    owner: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)  # in UTC
    checkpoint: Mapped[str] = mapped_column(primary_key=True)
    images: Mapped[int]
    gpu_seconds: Mapped[float]
    bytes: Mapped[int]


class AuditLine(Base):
    """What somebody did with the farm (`shared.accounts.audit`). A trigger keeps lines as they are for a year."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_owner", "owner", "id"),
        Index("ix_audit_log_whose", "whose", "id"),
        Index("ix_audit_log_action", "action", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    owner: Mapped[str]  # who did it
    role: Mapped[str]
    action: Mapped[str]  # shared.accounts.audit.Action
    object: Mapped[str]
    whose: Mapped[str | None]  # the owner of the object
    detail: Mapped[str]


class Preset(Base):
    """Parameters that an owner keeps under a name (`shared.jobs.presets`)."""

    __tablename__ = "presets"

    owner: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    params: Mapped[dict[str, Any]]
    changed_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Share(Base):
    """A link by which anybody sees a picture, or a job's (`shared.jobs.shares`); the row holds its token's digest."""

    __tablename__ = "shares"
    __table_args__ = (UniqueConstraint("digest"), Index("ix_shares_owner", "owner", "id"), Index(None, "job_id"))

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    owner: Mapped[str]
    digest: Mapped[str]
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    index: Mapped[int | None]  # of the picture; None: all of the job
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime]


class DoorOptions(Base):
    """What an owner has set at another system's API for all of their requests there (`shared.jobs.door_options`)."""

    __tablename__ = "door_options"

    owner: Mapped[str] = mapped_column(primary_key=True)
    door: Mapped[str] = mapped_column(primary_key=True)
    options: Mapped[dict[str, Any]]
    changed_at: Mapped[datetime]


class ChoreDone(Base):
    """When a seldom chore was done last, by any process."""

    __tablename__ = "chores"

    name: Mapped[str] = mapped_column(primary_key=True)
    done_at: Mapped[datetime]


class Farm(Base):
    """The farm itself, in one row, with the id that its names on shared servers carry (`shared.db.farm`)."""

    __tablename__ = "farm"
    __table_args__ = (CheckConstraint("is_only", name="only"),)

    is_only: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    id: Mapped[str] = mapped_column(server_default=text("gen_random_uuid()"))
    storage_marked_at: Mapped[datetime | None]  # when its storage first had its marker (`shared.media.ownership`)
    # Finished images up to this id may lack their row in `pictures`, from before there was that table; None: none does.
    unlisted_images: Mapped[int | None]
