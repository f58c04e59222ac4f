"""The messages of webhooks: the end of a job in a summary, as JSON for programs and as a line for people in a chat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from shared.db.states import ImageState
from shared.queue.queries import ImageView, JobView

Format = Literal["standard", "discord", "slack"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
KINDS: Final = ("job.succeeded", "job.failed", "job.cancelled")
"""The messages that an endpoint may ask for."""
TEST: Final = "test"
MOST_PICTURES: Final = 10  # that one message links to
_API: Final = "/api/v1"
_ENDINGS: Final = {"png": "png", "jpeg": "jpg", "webp": "webp"}
_LONGEST_PROMPT: Final = 300  # characters
_LONGEST_REASON: Final = 300
_COLOURS: Final = {"job.succeeded": 0x2E7D32, "job.failed": 0xC62828, "job.cancelled": 0x8D6E00}
_MARKS: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})  # all that Slack asks for

Json = dict[str, Any]


def kind_of(state: str) -> str:
    """Return the kind of the message that a job has ended in this state."""
    return f"job.{state}"


def of_end(kind: str, at: datetime, job_id: int, job: JobView | None, base: str) -> Json:
    """Return the message that a job has ended; of one that was deleted meanwhile only its number is known."""
    data: Json = {"id": job_id, "state": kind.partition(".")[2], "ended_at": _instant(at)}
    if job is not None:
        data |= _summary(job, base)
    return {"type": kind, "timestamp": _instant(at), "data": data}


def of_test(at: datetime, base: str) -> Json:
    """Return the message that a person sends to see whether it arrives."""
    data = {"text": "Messages of this farm arrive here.", "links": {"page": f"{base}/webhooks"}}
    return {"type": TEST, "timestamp": _instant(at), "data": data}


def body(message: Mapping[str, Any], format: Format) -> str:  # noqa: A002 - the endpoint's own word
    """Return the bytes of a request that carries the message in this form, as text."""
    match format:
        case "discord":
            made = _discord(message)
        case "slack":
            made = _slack(message)
        case _:
            made = dict(message)
    return json.dumps(made, ensure_ascii=False, separators=(",", ":"))


def _summary(job: JobView, base: str) -> Json:
    shown = [image for image in job.images if image.state == ImageState.SUCCEEDED and not image.deleted_at]
    reason = next((image.reason for image in job.images if image.state == ImageState.FAILED and image.reason), None)
    here = f"{base}{_API}/jobs/{job.id}"
    return {
        "prompt": _short(job.params.upscale.words if job.params.upscale else job.params.prompt, _LONGEST_PROMPT),
        "created_at": _instant(job.created_at),
        "counts": {state.value: images for state, images in job.counts.items() if images},
        "reason": reason and _short(reason, _LONGEST_REASON),
        "pictures": [_picture(image, job, here) for image in shown[:MOST_PICTURES]],
        "links": {"self": here, "page": f"{base}/jobs/{job.id}", "zip": f"{here}/zip"},
    }


def _picture(image: ImageView, job: JobView, here: str) -> Json:
    links = {"thumbnail": f"{here}/images/{image.index}/thumbnail.webp"}
    if "format" not in job.unknown:
        links["picture"] = f"{here}/images/{image.index}/picture.{_ENDINGS[job.spec.image(image.index).format]}"
    return {"index": image.index, "seed": image.seed, "links": links}


def _line(message: Mapping[str, Any]) -> str:
    """Return a message as a sentence."""
    data = message["data"]
    if message["type"] == TEST:
        return str(data["text"])
    counts = data.get("counts", {})
    done, total = counts.get("succeeded", 0), sum(counts.values())
    pictures = f": {done} of {total} pictures" if total else ""
    return f"Job {data['id']} {data['state']}{pictures}"


def _discord(message: Mapping[str, Any]) -> Json:
    """Return what Discord's webhooks take. No text of others can call anybody: mentions are switched off."""
    data = message["data"]
    page = data.get("links", {}).get("page", "")
    embed: Json = {"title": _line(message), "timestamp": message["timestamp"]}
    if colour := _COLOURS.get(message["type"]):
        embed["color"] = colour
    if words := data.get("reason") or data.get("prompt"):
        embed["description"] = words
    if page.startswith("http"):
        embed["url"] = page
    return {"username": "Stepfarm", "embeds": [embed], "allowed_mentions": {"parse": []}}


def _slack(message: Mapping[str, Any]) -> Json:
    """Return what Slack's incoming webhooks take; texts of others are shown as they are."""
    data = message["data"]
    line, page = _line(message).translate(_MARKS), data.get("links", {}).get("page", "")
    head = f"<{page}|{line}>" if page.startswith("http") else line
    words = str(data.get("reason") or data.get("prompt") or "").translate(_MARKS)
    blocks: list[Json] = [{"type": "section", "text": {"type": "mrkdwn", "text": f"*{head}*", "verbatim": True}}]
    if words:
        blocks.append({"type": "section", "text": {"type": "plain_text", "text": words, "emoji": False}})
    return {"text": line, "blocks": blocks}


def _short(text: str, longest: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else f"{flat[: longest - 1]}…"


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
