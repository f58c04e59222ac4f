"""`farm webhooks`: where messages go when your jobs have ended, and how each of them fared."""

from __future__ import annotations

from typing import Final

from rich.markup import escape

from cli import terminal
from cli.terminal import age, shorten, table
from client.client import Client, Json

_WEBHOOK: Final = ("id", "name", "address", "form", "tells", "")
_DELIVERY: Final = ("id", "message", "job", "state", "tries", "age", "reason")


def show(client: Client, *, as_json: bool) -> None:
    """Print your webhooks."""
    found = client.webhooks()
    if as_json:
        return terminal.answer_json({"webhooks": found})
    return table(_WEBHOOK, map(_row, found), "No webhook. `farm webhooks add URL` makes one.")


def add(client: Client, given: Json, *, as_json: bool) -> None:
    """Make a webhook, and print its secret this once."""
    _with_secret(client.add_webhook(**given), as_json=as_json)


def rotate(client: Client, webhook_id: int, *, as_json: bool) -> None:
    """Give a webhook a new secret, and print that this once."""
    _with_secret(client.rotate_webhook(webhook_id), as_json=as_json)


def remove(client: Client, webhook_id: int, *, as_json: bool) -> None:
    """Delete a webhook."""
    client.drop_webhook(webhook_id)
    _say({"deleted": webhook_id}, f"webhook {webhook_id}: deleted.", as_json=as_json)


def test(client: Client, webhook_id: int, *, as_json: bool) -> None:
    """Have a message sent that says no more than that it arrives."""
    sent = client.test_webhook(webhook_id)
    said = f"webhook {webhook_id}: a test is on its way; `farm webhooks messages {webhook_id}` shows how it fares."
    _say(sent, said, as_json=as_json)


def messages(client: Client, webhook_id: int, *, dead: bool, as_json: bool) -> None:
    """Print the latest messages of a webhook, or those that were given up."""
    page = client.deliveries(webhook_id, ("dead",) if dead else ())
    if as_json:
        return terminal.answer_json(page)
    return table(_DELIVERY, map(_delivery_row, page["deliveries"]), "No message.")


def replay(client: Client, webhook_id: int, delivery_id: int | None, *, as_json: bool) -> None:
    """Have one message sent again, or all that were given up."""
    if delivery_id is not None:
        again = client.replay_delivery(delivery_id)
        return _say(again, f"message {delivery_id}: is sent again.", as_json=as_json)
    count = client.replay_dead(webhook_id)
    return _say({"deliveries": count}, f"webhook {webhook_id}: messages sent again: {count}.", as_json=as_json)


def _with_secret(made: Json, *, as_json: bool) -> None:
    said = f"webhook {made['id']}: its messages are signed with {made['secret']}\nThe secret is shown this once."
    _say(made, said, as_json=as_json)


def _say(answer: Json, words: str, *, as_json: bool) -> None:
    if as_json:
        terminal.answer_json(answer)
    else:
        terminal.answer(words)


def _row(webhook: Json) -> tuple[object, ...]:
    tells = ", ".join(kind.removeprefix("job.") for kind in webhook["kinds"])
    address = shorten(webhook["url"] or "as each job names it", 60)
    paused = "paused" if webhook["paused"] else ""
    return webhook["id"], escape(webhook["name"]), address, webhook["format"], tells, paused


def _delivery_row(delivery: Json) -> tuple[object, ...]:
    return (
        delivery["id"],
        delivery["kind"],
        delivery["job_id"],
        delivery["state"],
        delivery["tries"],
        age(delivery["created_at"]),
        escape(delivery["reason"] or ""),
    )
