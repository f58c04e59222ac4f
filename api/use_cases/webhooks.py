"""The use cases of webhooks. As in `api.use_cases.jobs` each function opens its own transaction."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.orm import Session

from api.schemas.webhooks import (
    DeliveryBody,
    DeliveryPageBody,
    ReplayedBody,
    WebhookBody,
    WebhookChange,
    WebhookRequest,
    WebhooksBody,
)
from api.services import Services
from shared.accounts.principal import Principal
from shared.db.sessions import transact
from shared.webhooks import deliveries, endpoints
from shared.webhooks.deliveries import Listing


def every(services: Services, who: Principal) -> WebhooksBody:
    """Return the owner's webhooks."""
    found = transact(services.sessions, lambda session: endpoints.every(session, who.owner))
    return WebhooksBody(webhooks=[WebhookBody.of(one) for one in found])


def find(services: Services, who: Principal, webhook_id: int) -> WebhookBody:
    """Return one of the owner's webhooks. Raises NotFound."""
    return WebhookBody.of(transact(services.sessions, lambda session: endpoints.find(session, who.owner, webhook_id)))


def make(services: Services, who: Principal, wanted: WebhookRequest) -> WebhookBody:
    """Make a webhook and return it with its secret. Raises Refused."""
    allowed, given = services.settings.limits.inside_networks, wanted.model_dump(exclude_none=True)
    return WebhookBody.with_secret(
        transact(services.sessions, lambda session: endpoints.make(session, who.owner, given, allowed))
    )


def change(services: Services, who: Principal, webhook_id: int, wanted: WebhookChange) -> WebhookBody:
    """Change a webhook. Raises NotFound, Refused."""
    allowed, given = services.settings.limits.inside_networks, wanted.model_dump(exclude_none=True)
    return WebhookBody.of(
        transact(services.sessions, lambda session: endpoints.change(session, who.owner, webhook_id, given, allowed))
    )


def rotate(services: Services, who: Principal, webhook_id: int) -> WebhookBody:
    """Give a webhook a new secret, and return it with that. Raises NotFound."""
    return WebhookBody.with_secret(
        transact(services.sessions, lambda session: endpoints.rotate(session, who.owner, webhook_id))
    )


def drop(services: Services, who: Principal, webhook_id: int) -> None:
    """Delete a webhook with its deliveries. Raises NotFound."""
    transact(services.sessions, lambda session: endpoints.drop(session, who.owner, webhook_id))


def test(services: Services, who: Principal, webhook_id: int) -> DeliveryBody:
    """Have a message sent that says no more than that it arrives. Raises NotFound, Conflict."""

    def send(session: Session) -> deliveries.DeliveryView:
        endpoint = endpoints.find(session, who.owner, webhook_id, is_locked=True)
        return deliveries.test(session, who.owner, endpoint, services.settings.base_url)

    return DeliveryBody.of(transact(services.sessions, send))


def listed(services: Services, who: Principal, webhook_id: int, which: Listing) -> DeliveryPageBody:
    """Return a page of what was sent, or is to be sent, to a webhook. Raises NotFound."""

    def read(session: Session) -> list[deliveries.DeliveryView]:
        endpoints.find(session, who.owner, webhook_id)
        return deliveries.listed(session, webhook_id, replace(which, limit=which.limit + 1))

    return DeliveryPageBody.of(transact(services.sessions, read), which.limit)


def delivery(services: Services, who: Principal, delivery_id: int) -> DeliveryBody:
    """Return a delivery. Raises NotFound."""
    return DeliveryBody.of(
        transact(services.sessions, lambda session: deliveries.find(session, who.owner, delivery_id))
    )


def replay(services: Services, who: Principal, delivery_id: int) -> DeliveryBody:
    """Have a message sent again. Raises NotFound, Conflict."""
    return DeliveryBody.of(
        transact(services.sessions, lambda session: deliveries.replay(session, who.owner, delivery_id))
    )


def replay_dead(services: Services, who: Principal, webhook_id: int) -> ReplayedBody:
    """Have all that was given up for a webhook sent again. Raises NotFound, Conflict."""
    again = transact(services.sessions, lambda session: deliveries.replay_dead(session, who.owner, webhook_id))
    return ReplayedBody(deliveries=again)
