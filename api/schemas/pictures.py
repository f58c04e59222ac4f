"""The API's JSON of pictures."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from pydantic.config import JsonDict

from api.schemas.jobs import API, EXTENSIONS, image_page
from shared.params.fields import MAX_ID, MAX_SEED, Text
from shared.params.render import RenderParams
from shared.pictures.changes import LONGEST_TAG, MOST_TAGS, Action, Changed
from shared.pictures.filters import PictureId
from shared.pictures.orders import Cursor, Order
from shared.pictures.queries import Facets, PicturePage, PictureView

MOST_IDS: Final = 1000  # in a body
_DAY_OR_MOMENT: Final[JsonDict] = {
    "anyOf": [
        {"type": "string", "format": "date"},
        {"type": "string", "format": "date-time"},
        {"const": ""},
        {"type": "null"},
    ]
}

Id = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}\.[0-9]{1,9}$")]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_TAG)]


def picture_id(text: str) -> PictureId:
    """Return the id that `12.0` means; it has been checked."""
    job, _, index = text.partition(".")
    return PictureId(int(job), int(index))


class PictureFilter(BaseModel):
    """Which pictures are wanted. Fields that are left out do not matter."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    owner: Text = Field(
        default="",
        max_length=200,
        description="For an admin: another owner's pictures, or `*`: everybody's; else yours.",
    )
    words: str = Field(default="", max_length=400, description="Words of the prompt; all of them must be there.")
    checkpoint: Text = Field(default="", max_length=300, description="Title, name or short hash of the checkpoint.")
    adapter: Text = Field(default="", max_length=300, description="Name of a LoRA or hypernetwork of the prompt.")
    sampler: Text = Field(default="", max_length=100)
    size: str = Field(default="", pattern=r"^([0-9]{1,5}x[0-9]{1,5})?$", description="WIDTHxHEIGHT in pixels.")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    since: datetime | None = Field(
        default=None,
        alias="from",
        description="Finished then or later: a day such as 2026-11-30, or a moment.",
        json_schema_extra=_DAY_OR_MOMENT,
    )
    until: datetime | None = Field(
        default=None,
        description="Finished before then; of a day alone: on that day or before.",
        json_schema_extra=_DAY_OR_MOMENT,
    )
    job: int | None = Field(default=None, ge=1, le=MAX_ID)
    favourites: bool = Field(default=False, description="Only favourites.")
    tag: list[Tag] = Field(default=[], max_length=MOST_TAGS, description="Tags that they all must have.")

    @field_validator("since", "until", mode="before")
    @classmethod
    def _moment(cls, given: object, info: Any) -> object:  # noqa: ANN401 - pydantic's
        """A day stands for its first moment, or behind its last one, in UTC."""
        if given == "":
            return None
        if isinstance(given, int | float):
            raise ValueError("is a number")  # noqa: TRY004 - what pydantic expects
        try:
            day = date.fromisoformat(given) if isinstance(given, str) else given
        except ValueError:
            if str(given).strip("+-.0123456789") == "":  # else taken for seconds since 1970
                raise
            return given
        if not isinstance(day, date) or isinstance(day, datetime):
            return day
        if info.field_name == "until" and day < date.max:
            day += timedelta(days=1)
        return datetime.combine(day, time(), UTC)

    @field_validator("since", "until")
    @classmethod
    def _aware(cls, given: datetime | None) -> datetime | None:
        return given.replace(tzinfo=UTC) if given and given.tzinfo is None else given

    @field_validator("seed", "job", mode="before")
    @classmethod
    def _number(cls, given: object) -> object:
        """An empty box of a form asks for nothing."""
        return None if given == "" else given


class PicturesQuery(PictureFilter):
    """Which pictures to list, and how."""

    order: Order = Field(default="newest", description="Which come first; what has no such value comes last.")
    cursor: Text | None = Field(
        default=None,
        pattern=r"^[0-9]{1,16}-[0-9]{1,18}(-[\s\S]{1,4000})?$",
        description="Value of `next` in the page before.",
    )
    limit: int = Field(default=60, ge=1, le=200, description="Pictures on a page.")

    @field_validator("cursor")
    @classmethod
    def _of_this_order(cls, given: str | None, info: Any) -> str | None:  # noqa: ANN401 - pydantic's
        order = info.data.get("order")
        if given and order:
            try:
                Cursor.read(given, order)
            except ValueError:
                raise ValueError(f"comes from no page in the order {order}") from None
        return given

    @property
    def place(self) -> Cursor | None:
        return Cursor.read(self.cursor, self.order) if self.cursor else None


class PictureChange(BaseModel):
    """What to change of one picture; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    favourite: bool | None = Field(default=None, strict=True)
    tags: list[Tag] | None = Field(default=None, max_length=MOST_TAGS, description="In the place of those it has.")


class PictureChoice(BaseModel):
    """Several pictures: `ids`, or all that a filter finds."""

    model_config = ConfigDict(extra="forbid")

    ids: list[Id] | None = Field(default=None, min_length=1, max_length=MOST_IDS, description="Such as 12.0.")
    filter: PictureFilter | None = Field(default=None, description="As in the list of pictures.")


class PictureAction(PictureChoice):
    """What to do to several pictures. `restore` takes `ids`, or `undo` of a deletion."""

    action: Action
    undo: datetime | None = Field(default=None, description="With restore: `undo` of a deletion.")
    tag: str = Field(default="", max_length=LONGEST_TAG, description="With tag and untag.")


class PictureLinks(BaseModel):
    """Links to a picture's files, and to its job; null where it was deleted."""

    self: str
    page: str = Field(description="Its place on the page of its job.")
    job: str
    picture: str | None
    thumbnail: str | None


class PictureBody(BaseModel):
    """A finished picture, with its own parameters."""

    id: str = Field(description="Job and index, such as 12.0.")
    job: int
    index: int
    owner: str
    ended_at: datetime
    params: RenderParams = Field(description="Of this picture alone.")
    favourite: bool
    tags: list[str]
    deleted_at: datetime | None = Field(description="When it was deleted; null while it is there.")
    is_restorable: bool = Field(description="Whether it was deleted and can be restored.")
    links: PictureLinks

    @classmethod
    def from_view(cls, view: PictureView) -> Self:
        """Return the body of `view`."""
        job, index = view.id.job, view.id.index
        here = f"{API}/jobs/{job}/images/{index}"
        is_there, extension = view.deleted_at is None, EXTENSIONS[view.params.format]
        return cls(
            id=str(view.id),
            job=job,
            index=index,
            owner=view.owner,
            ended_at=view.ended_at,
            params=view.params,
            favourite=view.favourite,
            tags=list(view.tags),
            deleted_at=view.deleted_at,
            is_restorable=view.is_restorable,
            links=PictureLinks(
                self=f"{API}/pictures/{job}/{index}",
                page=image_page(job, index),
                job=f"{API}/jobs/{job}",
                picture=f"{here}/picture.{extension}" if is_there and "format" not in view.unknown else None,
                thumbnail=f"{here}/thumbnail.webp" if is_there else None,
            ),
        )


class PicturePageBody(BaseModel):
    """A page of pictures."""

    pictures: list[PictureBody]
    next: str | None = Field(description="Value of `cursor` for the next page; null on the last one.")

    @classmethod
    def from_page(cls, page: PicturePage) -> Self:
        """Return the body of `page`."""
        return cls(
            pictures=[PictureBody.from_view(view) for view in page.pictures],
            next=str(page.next) if page.next else None,
        )


class FacetsBody(BaseModel):
    """What the pictures can be filtered by."""

    checkpoints: list[str]
    samplers: list[str]
    adapters: list[str] = Field(description="Of the latest pictures that have any.")
    tags: list[str] = Field(description="Of the latest pictures that have any.")

    @classmethod
    def from_facets(cls, found: Facets) -> Self:
        """Return the body of `found`."""
        return cls(
            checkpoints=list(found.checkpoints),
            samplers=list(found.samplers),
            adapters=list(found.adapters),
            tags=list(found.tags),
        )


class ChangedBody(BaseModel):
    """The result of an action on pictures."""

    pictures: int = Field(description="Number of pictures that it changed.")
    is_all: bool = Field(description="False: there are more, ask again.")
    undo: datetime | None = Field(description="Of a deletion: what `restore` takes to bring all of it back.")

    @classmethod
    def from_changed(cls, changed: Changed) -> Self:
        """Return the body of `changed`."""
        return cls(pictures=changed.pictures, is_all=changed.is_all, undo=changed.deleted_at)
