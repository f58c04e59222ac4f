"""The API's JSON of webhooks and of what is sent to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from shared.params.fields import Text
from shared.webhooks.addresses import LONGEST
from shared.webhooks.deliveries import DeliveryView, State
from shared.webhooks.endpoints import LONGEST_NAME, Endpoint, WithSecret
from shared.webhooks.messages import Format

Kind = Literal["job.succeeded", "job.failed", "job.cancelled"]


class WebhookRequest(BaseModel):
    """A new webhook."""

    model_config = ConfigDict(extra="forbid")

    url: Text | None = Field(
        default=None, max_length=LONGEST, description="Where messages go; null: to the addresses that jobs name."
    )
    name: Text = Field(default="", max_length=LONGEST_NAME, description="For people.")
    format: Format = Field(default="standard", description="Form of a message: JSON for programs, or a chat's line.")
    kinds: list[Kind] | None = Field(default=None, description="Which messages; null: all.", max_length=10)


class WebhookChange(BaseModel):
    """What to change of a webhook; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    url: Text | None = Field(default=None, max_length=LONGEST)
    name: Text | None = Field(default=None, max_length=LONGEST_NAME)
    format: Format | None = None
    kinds: list[Kind] | None = Field(default=None, max_length=10)
    paused: StrictBool | None = Field(
        default=None, description="A paused one gets nothing; what waits for it is given up."
    )


class WebhookBody(BaseModel):
    """Where messages go when jobs have ended."""

    id: int
    url: str | None = Field(description="Null: it stands for the addresses that jobs name themselves.")
    name: str
    format: Format
    kinds: list[str] = Field(description="The messages that it gets.")
    paused: bool
    created_at: datetime
    old_secret_until: datetime | None = Field(description="Until then the secret before signs as well.")
    secret: str | None = Field(
        default=None, description="It signs the messages. Shown once: in the answer that made it."
    )

    @classmethod
    def of(cls, endpoint: Endpoint, secret: str | None = None) -> Self:
        """Return the body of an endpoint."""
        return cls(
            id=endpoint.id,
            url=endpoint.url,
            name=endpoint.name,
            format=endpoint.format,
            kinds=list(endpoint.kinds),
            paused=endpoint.paused,
            created_at=endpoint.created_at,
            old_secret_until=endpoint.old_until,
            secret=secret,
        )

    @classmethod
    def with_secret(cls, made: WithSecret) -> Self:
        """Return the body of an endpoint with its new secret."""
        return cls.of(made.endpoint, made.secret)


class WebhooksBody(BaseModel):
    """An owner's webhooks, the oldest first."""

    webhooks: list[WebhookBody]


class DeliveryBody(BaseModel):
    """One message and how it fared."""

    id: int
    webhook_id: int
    message: str = Field(description="Its id in the header `webhook-id`, the same at each try.")
    kind: str
    job_id: int | None
    url: str | None = Field(description="That the job named.")
    state: State = Field(description="dead: it was given up after a day, and can be replayed for a month.")
    tries: int
    reason: str | None = Field(description="Why it did not arrive at the last try.")
    created_at: datetime
    due_at: datetime | None = Field(description="The next try.")
    delivered_at: datetime | None
    dead_at: datetime | None

    @classmethod
    def of(cls, delivery: DeliveryView) -> Self:
        """Return the body of a delivery."""
        said = asdict(delivery)
        return cls(webhook_id=said.pop("endpoint_id"), **said)


class DeliveryPageBody(BaseModel):
    """A page of deliveries, the latest first."""

    deliveries: list[DeliveryBody]
    next: int | None = Field(description="Value of `cursor` for the next page; null on the last one.")

    @classmethod
    def of(cls, found: Sequence[DeliveryView], limit: int) -> Self:
        """Return the page of the first `limit` of `found`, which is one longer if there are more."""
        page = found[:limit]
        after = page[-1].id if len(found) > limit else None
        return cls(deliveries=[DeliveryBody.of(one) for one in page], next=after)


class ReplayedBody(BaseModel):
    """How many messages are sent again."""

    deliveries: int
