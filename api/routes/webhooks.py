"""Webhooks over HTTP: where messages go when jobs have ended, and how each of them fared."""

from __future__ import annotations

from typing import Final

from flask import Response
from flask_openapi3.types import ResponseDict

from api.http.body import read_as
from api.http.openapi import BODY, CONFLICT, NOT_FOUND, WEBHOOK_CHANGE, WEBHOOK_NEW, answers, section
from api.http.parameters import DeliveriesQuery, DeliveryPath, WebhookPath
from api.http.responses import reply
from api.schemas.jobs import API
from api.schemas.webhooks import (
    DeliveryBody,
    DeliveryPageBody,
    ReplayedBody,
    WebhookBody,
    WebhookChange,
    WebhookRequest,
    WebhooksBody,
)
from api.security import auth
from api.services import services
from api.use_cases import webhooks as use_cases
from shared.webhooks.deliveries import Listing

GONE: Final[ResponseDict] = {"204": None}

blueprint = section("webhooks", __name__, f"{API}/webhooks")


@blueprint.get("", responses=answers(WebhooksBody, 200))
def webhooks() -> Response:
    """List your webhooks, the oldest first."""
    return reply(use_cases.every(services(), auth.principal()))


@blueprint.post("", responses=answers(WebhookBody, 201) | BODY, openapi_extensions=WEBHOOK_NEW)
def make() -> Response:
    """Make a webhook: each of your jobs that ends is a message to its URL.

    The answer has the secret that signs the messages, this once.
    """
    return reply(use_cases.make(services(), auth.principal(), read_as(WebhookRequest)), 201)


@blueprint.get("/<id:webhook_id>", responses=answers(WebhookBody, 200) | NOT_FOUND)
def webhook(path: WebhookPath) -> Response:
    """Get one of your webhooks."""
    return reply(use_cases.find(services(), auth.principal(), path.webhook_id))


@blueprint.patch(
    "/<id:webhook_id>", responses=answers(WebhookBody, 200) | NOT_FOUND | BODY, openapi_extensions=WEBHOOK_CHANGE
)
def change(path: WebhookPath) -> Response:
    """Change or pause a webhook."""
    return reply(use_cases.change(services(), auth.principal(), path.webhook_id, read_as(WebhookChange)))


@blueprint.delete("/<id:webhook_id>", responses=GONE | NOT_FOUND)
def drop(path: WebhookPath) -> Response:
    """Delete a webhook with its deliveries; what waits is not sent."""
    use_cases.drop(services(), auth.principal(), path.webhook_id)
    return Response(status=204)


@blueprint.post("/<id:webhook_id>/rotate", responses=answers(WebhookBody, 200) | NOT_FOUND)
def rotate(path: WebhookPath) -> Response:
    """Give a webhook a new secret, which the answer has this once. The old one signs as well for a day."""
    return reply(use_cases.rotate(services(), auth.principal(), path.webhook_id))


@blueprint.post("/<id:webhook_id>/test", responses=answers(DeliveryBody, 202) | NOT_FOUND | CONFLICT)
def test(path: WebhookPath) -> Response:
    """Have a message sent that says no more than that it arrives."""
    return reply(use_cases.test(services(), auth.principal(), path.webhook_id), 202)


@blueprint.get("/<id:webhook_id>/deliveries", responses=answers(DeliveryPageBody, 200) | NOT_FOUND)
def deliveries(path: WebhookPath, query: DeliveriesQuery) -> Response:
    """List what was sent, or is to be sent, to a webhook, the latest first."""
    return reply(
        use_cases.listed(services(), auth.principal(), path.webhook_id, Listing(query.state, query.cursor, query.limit))
    )


@blueprint.post("/<id:webhook_id>/replay", responses=answers(ReplayedBody, 202) | NOT_FOUND | CONFLICT)
def replay_dead(path: WebhookPath) -> Response:
    """Have all messages sent again that were given up."""
    return reply(use_cases.replay_dead(services(), auth.principal(), path.webhook_id), 202)


@blueprint.get("/deliveries/<id:delivery_id>", responses=answers(DeliveryBody, 200) | NOT_FOUND)
def delivery(path: DeliveryPath) -> Response:
    """Get one delivery."""
    return reply(use_cases.delivery(services(), auth.principal(), path.delivery_id))


@blueprint.post("/deliveries/<id:delivery_id>/replay", responses=answers(DeliveryBody, 202) | NOT_FOUND | CONFLICT)
def replay(path: DeliveryPath) -> Response:
    """Have a message sent once more, under its own id."""
    return reply(use_cases.replay(services(), auth.principal(), path.delivery_id), 202)
