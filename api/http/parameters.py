"""The parts of a request that are not its body: paths, queries and headers, as the routes read them."""

from __future__ import annotations

import re
from datetime import date
from functools import cache
from typing import Any, Final, Literal, get_args

from flask import request
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.routing import BaseConverter

from api.schemas.jobs import DisplayState
from shared.accounts.audit import Action
from shared.db.states import ImageState
from shared.errors import FieldError, Refused
from shared.models.architectures import ARCHITECTURES
from shared.models.inspection import Prediction
from shared.models.kinds import KINDS
from shared.params.controlnet import MOST_UNITS
from shared.params.fields import MAX_ID, Text
from shared.queue.queries import MOST_IMAGES, Span
from shared.webhooks.deliveries import State as DeliveryState
from shared.wording import choices

MAX_WAIT_SECONDS: Final = 60
MOST_FILES: Final = 1000  # on a page of model files
IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")
_WAIT: Final = re.compile(r"(?:^|,)\s*wait\s*=\s*(\d{1,9})\s*(?:,|$)", re.IGNORECASE)


class Query(BaseModel):
    """What a request asks in its address; other names are refused."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def model_json_schema(cls, *arguments: Any, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic's
        """Return the schema; without options, as each request looks it up, the one that was made before."""
        return super().model_json_schema(*arguments, **options) if arguments or options else _schema(cls)


@cache
def _schema(query: type[Query]) -> dict[str, Any]:
    return query.model_json_schema(by_alias=True)


class IdConverter(BaseConverter):
    """A path's id or index; one that passes PostgreSQL's integers becomes the largest, which no row has."""

    regex = "[0-9]{1,19}"

    def to_python(self, value: str) -> int:
        return min(int(value), MAX_ID)


class HashConverter(BaseConverter):
    """A path's SHA-256."""

    regex = "[0-9a-f]{64}"


class UploadPath(BaseModel):
    """Path of an upload."""

    upload_id: str = Field(description="The upload's id: the SHA-256 of its bytes.")


class ModelPath(BaseModel):
    """Path of a model file."""

    sha256: str = Field(description="The file's hash, as the list of models has it.")


class JobPath(BaseModel):
    """Path of a job."""

    job_id: int = Field(description="The job's id.")


class ImagePath(JobPath):
    """Path of an image of a job."""

    index: int = Field(description="The image's index in its job, from 0.")


class PicturePath(ImagePath):
    """Path of an image's picture file."""

    extension: Literal["png", "jpg", "webp"] = Field(description="Ending of the job's `format`.")


class IntermediatePath(ImagePath):
    """Path of one picture of how an image was made."""

    part: Literal["noise", "latents", "guidance"] = Field(description="Which one.")


class PresetPath(BaseModel):
    """Path of a preset."""

    name: str = Field(description="The preset's name, 1 to 60 characters.")


class SharePath(BaseModel):
    """Path of a share link."""

    share_id: int = Field(description="The link's id.")


class WebhookPath(BaseModel):
    """Path of a webhook."""

    webhook_id: int = Field(description="The webhook's id.")


class DeliveryPath(BaseModel):
    """Path of a delivery."""

    delivery_id: int = Field(description="The delivery's id.")


class DeliveriesQuery(Query):
    """Which deliveries to list."""

    state: list[DeliveryState] = Field(default=[], description="Only deliveries in these states.")
    cursor: int | None = Field(default=None, ge=1, le=MAX_ID, description="Value of `next` in the page before.")
    limit: int = Field(default=50, ge=1, le=200, description="Deliveries on a page.")


class KeyPath(BaseModel):
    """Path of a key."""

    key_id: int = Field(description="The key's number.")


class OwnerPath(BaseModel):
    """Path of what is an owner's."""

    owner: str = Field(description="The owner's name, 1 to 60 characters.")


class KeysQuery(Query):
    """Whose keys to list."""

    all: bool = Field(default=False, description="Everybody's, for an admin; else your own.")


_FIRST_DAY: Final = date(2000, 1, 1)
_LAST_DAY: Final = date(9000, 1, 1)  # no sum of days passes the last date of Python


class UsageQuery(Query):
    """Whose usage, and of which days."""

    owner: Text | None = Field(
        default=None, max_length=200, description="For an admin: another owner, or `*` for everybody; else you."
    )
    since: date | None = Field(
        default=None, alias="from", ge=_FIRST_DAY, le=_LAST_DAY, description="The first day, in UTC; else 30 days."
    )
    to: date | None = Field(default=None, ge=_FIRST_DAY, le=_LAST_DAY, description="The last day; without it today.")


class AuditQuery(Query):
    """Which lines of the audit log to list."""

    owner: Text | None = Field(
        default=None, max_length=200, description="Only deeds of this owner or with their things."
    )
    action: Action | None = Field(default=None, description="Only this kind of deed.")
    cursor: int | None = Field(default=None, ge=1, le=MAX_ID, description="Value of `next` in the page before.")
    limit: int = Field(default=50, ge=1, le=200, description="Lines on a page.")


class FacetsQuery(Query):
    """Whose pictures are to be filtered."""

    owner: Text = Field(
        default="", max_length=200, description="For an admin: another owner's, or `*`: everybody's; else yours."
    )


class JobsQuery(Query):
    """Which jobs to list."""

    owner: Text | None = Field(
        default=None, max_length=200, description="For an admin: another owner's, or `*` for everybody's; else yours."
    )
    state: list[DisplayState] = Field(default=[], description="Only jobs in these states.")
    cursor: int | None = Field(default=None, ge=1, le=MAX_ID, description="Value of `next` in the page before.")
    limit: int = Field(default=50, ge=1, le=200, description="Jobs on a page.")


class QueueQuery(Query):
    """Which part of the farm's queue to list."""

    cursor: int | None = Field(default=None, ge=1, le=MAX_ID, description="Value of `next` in the page before.")
    limit: int = Field(default=50, ge=1, le=200, description="Jobs on a page.")


class ImagesQuery(Query):
    """Which images of a job to bring."""

    state: list[DisplayState] = Field(default=[], description="Only images in these states.")
    cursor: int | None = Field(default=None, ge=0, le=MAX_ID, description="Value of `next` in the answer before.")
    limit: int = Field(default=100, ge=1, le=MOST_IMAGES, description="The most images that the answer holds.")

    @property
    def span(self) -> Span:
        """The images that are asked for."""
        after = -1 if self.cursor is None else self.cursor
        return Span(after, self.limit, tuple(ImageState(state) for state in self.state))


class CancelQuery(Query):
    """Which images of a job to cancel."""

    waiting: bool = Field(default=False, description="Only images that have not started; running ones go on.")


class CheckpointsQuery(Query):
    """Which checkpoints to list."""

    architecture: str = Field(
        default="", max_length=100, description=f"Only checkpoints of this architecture: {choices([*ARCHITECTURES])}."
    )
    prediction: str = Field(
        default="", max_length=100, description=f"Only checkpoints that predict this: {choices(get_args(Prediction))}."
    )

    cursor: int | None = Field(default=None, ge=1, le=MAX_ID, description="Value of `next` in the page before.")
    limit: int | None = Field(
        default=None, ge=1, le=MOST_FILES, description="Checkpoints on a page. Without a limit: all of them."
    )


class ModelsQuery(Query):
    """Which model files to list."""

    kind: str = Field(default="", max_length=100, description=f"Only files of this kind: {choices([*KINDS])}.")
    architecture: str = Field(
        default="", max_length=100, description=f"Only files of this architecture: {choices([*ARCHITECTURES])}."
    )
    prediction: str = Field(
        default="", max_length=100, description=f"Only checkpoints that predict this: {choices(get_args(Prediction))}."
    )
    search: str = Field(
        default="",
        max_length=200,
        description="Only files of which name, path, short hash, architecture, other name or trigger words hold each "
        "of these words.",
    )
    cursor: int | None = Field(default=None, ge=1, le=MAX_ID, description="Value of `next` in the page before.")
    limit: int = Field(default=100, ge=1, le=MOST_FILES, description="Files on a page.")


class ControlQuery(Query):
    """Which control net of a job to show the picture of."""

    unit: int = Field(default=0, ge=0, lt=MOST_UNITS, description="The net's place in `controlnet`, from 0.")


class WorkerPath(BaseModel):
    """Path of one or more workers."""

    name: str = Field(description="A worker's name, host/card, or a pattern such as `host/*`.", max_length=300)


class DrainQuery(Query):
    """Why workers are drained."""

    reason: str = Field(default="", max_length=500, description="For people; shown beside the worker.")


def idempotency_key() -> str | None:
    """Return the request's Idempotency-Key, if it has one. Raises Refused."""
    key = request.headers.get("Idempotency-Key")
    if key is None or IDEMPOTENCY_KEY.fullmatch(key):
        return key
    message = "is empty, longer than 200 characters, or has blanks or characters outside ASCII"
    error = FieldError("Idempotency-Key", message, "1 to 200 visible ASCII characters, such as a UUID")
    raise Refused("The Idempotency-Key cannot be used.", (error,))


def wait_seconds() -> int:
    """Return for how many seconds `Prefer: wait=N` delays the answer until the job's end, at most 60."""
    preference = _WAIT.search(",".join(request.headers.getlist("Prefer")))
    return min(int(preference[1]), MAX_WAIT_SECONDS) if preference else 0
