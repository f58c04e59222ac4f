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
from shared.accounts import audit
from shared.accounts.audit import Action
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

    def make_it(session: Session) -> endpoints.WithSecret:
        made = endpoints.make(session, who.owner, given, allowed)
        _note(session, who, Action.WEBHOOK_MADE, made.endpoint.id, made.endpoint.name)
        return made

    return WebhookBody.with_secret(transact(services.sessions, make_it))


def change(services: Services, who: Principal, webhook_id: int, wanted: WebhookChange) -> WebhookBody:
    """Change a webhook. Raises NotFound, Refused."""
    allowed, given = services.settings.limits.inside_networks, wanted.model_dump(exclude_none=True)

    def change_it(session: Session) -> endpoints.Endpoint:
        changed = endpoints.change(session, who.owner, webhook_id, given, allowed)
        _note(session, who, Action.WEBHOOK_CHANGED, webhook_id, ", ".join(given))
        return changed

    return WebhookBody.of(transact(services.sessions, change_it))


def rotate(services: Services, who: Principal, webhook_id: int) -> WebhookBody:
    """Give a webhook a new secret, and return it with that. Raises NotFound."""

    def rotate_it(session: Session) -> endpoints.WithSecret:
        _note(session, who, Action.WEBHOOK_ROTATED, webhook_id)
        return endpoints.rotate(session, who.owner, webhook_id)

    return WebhookBody.with_secret(transact(services.sessions, rotate_it))


def drop(services: Services, who: Principal, webhook_id: int) -> None:
    """Delete a webhook with its deliveries. Raises NotFound."""

    def drop_it(session: Session) -> None:
        endpoints.drop(session, who.owner, webhook_id)
        _note(session, who, Action.WEBHOOK_DELETED, webhook_id)

    transact(services.sessions, drop_it)


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


def _note(session: Session, who: Principal, action: Action, webhook_id: int, detail: str = "") -> None:
    """Write a deed down; no address, which may hold a secret of its receiver."""
    audit.note(session, who, action, f"webhook {webhook_id}", whose=who.owner, detail=detail)
