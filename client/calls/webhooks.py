"""Webhooks: addresses that get a message when jobs have ended."""

from __future__ import annotations

from client.declared import call
from client.effects import API, Json, Steps, answered, done


class Webhooks:
    """Calls about your webhooks."""

    @call
    def webhooks(self) -> Steps[list[Json]]:
        """Return your webhooks, the oldest first."""
        found: list[Json] = (yield from answered("GET", f"{API}/webhooks"))["webhooks"]
        return found

    @call
    def add_webhook(self, /, url: str | None, **given: object) -> Steps[Json]:
        """Make a webhook of `name`, `format` and `kinds`; the answer has its `secret`, this once."""
        return answered("POST", f"{API}/webhooks", json={"url": url, **given})

    @call
    def rotate_webhook(self, webhook_id: int) -> Steps[Json]:
        """Give a webhook a new secret, which the answer has this once."""
        return answered("POST", f"{API}/webhooks/{webhook_id}/rotate")

    @call
    def drop_webhook(self, webhook_id: int) -> Steps[None]:
        """Delete a webhook with the record of its messages."""
        return done("DELETE", f"{API}/webhooks/{webhook_id}")

    @call
    def test_webhook(self, webhook_id: int) -> Steps[Json]:
        """Have a message sent that says no more than that it arrives; return the delivery."""
        return answered("POST", f"{API}/webhooks/{webhook_id}/test")

    @call
    def deliveries(self, webhook_id: int, states: tuple[str, ...] = (), limit: int = 50) -> Steps[Json]:
        """Return the page of the latest messages of a webhook, in any of `states`: waiting, delivered, dead."""
        which = {"state": states, "limit": limit}
        return answered("GET", f"{API}/webhooks/{webhook_id}/deliveries", params=which)

    @call
    def replay_delivery(self, delivery_id: int) -> Steps[Json]:
        """Have a message sent once more, under its own id."""
        return answered("POST", f"{API}/webhooks/deliveries/{delivery_id}/replay")

    @call
    def replay_dead(self, webhook_id: int) -> Steps[int]:
        """Have all messages sent again that were given up; return how many."""
        return int((yield from answered("POST", f"{API}/webhooks/{webhook_id}/replay"))["deliveries"])
