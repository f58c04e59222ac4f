"""A Python client of the farm's API: one method a call, problems as the errors of `client.errors`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import httpx

from client.errors import (
    BY_STATUS,
    FarmError,
    FieldError,
    NotRunning,
    Refused,
    Unauthorized,
    Unavailable,
    UnusableAddress,
)

Json = dict[str, Any]

API: Final = "/api/v1"
FINAL: Final = frozenset({"succeeded", "failed", "cancelled"})
POLL_SECONDS: Final = 0.5
LIVE_SECONDS: Final = 0.2  # progress comes more often than anybody can read
MOST_FILES: Final = 1000  # on a page of model files
MOST_IMAGES: Final = 1000  # on a page of a job's images
_SHOWN: Final = 8  # running images of a job that is watched
PATIENCE_SECONDS: Final = 30.0  # an API that was killed is back by then
_OFTEN: Final = frozenset({"progress", "preview"})  # events that come several times a second
_UPLOAD_SECONDS: Final = 300.0  # a large file over a slow line
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
_NO_PROXY: Final = (
    "The proxy that ALL_PROXY, HTTP_PROXY or HTTPS_PROXY names cannot be used: the farm's client speaks to http:// and "
    "https:// proxies, not to SOCKS. Name one of those, or set NO_PROXY to the farm's host."
)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Client:
    """One farm, over HTTP. Every method raises NotRunning when nothing answers, else the error that the farm gave."""

    def __init__(self, url: str, key: str = "", transport: httpx.BaseTransport | None = None) -> None:
        """Raises UnusableAddress."""
        self.url = url.rstrip("/")
        try:
            base_url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise UnusableAddress(f"{self.url} cannot be a farm's address ({error}); check FARM_URL.") from error
        given: dict[str, Any] = {
            "base_url": base_url,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": _TIMEOUT,
            "transport": transport,
            "trust_env": urlsplit(url).hostname not in _LOOPBACK,  # a proxy does not know this machine's own addresses
        }
        try:
            self._http = httpx.Client(**given)
        except (ImportError, ValueError, httpx.InvalidURL) as error:  # of SOCKS, of a scheme that nobody knows
            raise UnusableAddress(_NO_PROXY) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(self, params: Mapping[str, Any], idempotency_key: str) -> Json:
        """Submit a job and return it. The same key again returns the same job."""
        return self._json("POST", f"{API}/jobs", json=params, headers={"Idempotency-Key": idempotency_key})

    def preview_sweep(self, params: Mapping[str, Any]) -> Json:
        """Return what a sweep would be, and what it would be refused for; nothing is recorded."""
        return self._json("POST", f"{API}/sweeps/preview", json=params)

    def upload(self, data: bytes) -> Json:
        """Upload a source picture, and return its id and size."""
        headers = {"Content-Type": "application/octet-stream"}
        return self._json("POST", f"{API}/uploads", content=data, headers=headers, timeout=_UPLOAD_SECONDS)

    def control_preview(self, params: Mapping[str, Any], unit: int = 0) -> bytes:
        """Return the PNG that a ControlNet of a job would be given; `unit` is its place in `controlnet`."""
        path = f"{API}/controlnet/preview"
        return self._send("POST", path, json=params, params={"unit": unit}, timeout=_UPLOAD_SECONDS).content

    def jobs(self, states: tuple[str, ...] = (), limit: int = 20) -> Json:
        """Return the page of the latest jobs."""
        return self._json("GET", f"{API}/jobs", params={"state": states, "limit": limit})

    def job(self, job_id: int) -> Json:
        """Return a job with all its images and how far they are."""
        job = self._json("GET", f"{API}/jobs/{job_id}", params={"limit": MOST_IMAGES})
        while job.get("next") is not None:  # an API of an older version has no pages
            page = self.images(job_id, cursor=job["next"])
            job["images"] += page["images"]
            job["next"] = page["next"]
        return job

    def images(self, job_id: int, cursor: int | None = None, limit: int = MOST_IMAGES) -> Json:
        """Return a page of a job's images, those after `cursor`, and the cursor of the next page."""
        wanted = {"limit": limit} | ({} if cursor is None else {"cursor": cursor})
        return self._json("GET", f"{API}/jobs/{job_id}/images", params=wanted)

    def change(self, job_id: int, **scheduling: Any) -> Json:  # noqa: ANN401 - JSON
        """Change pool, priority, urgent, expires_at or hold of a job of which images wait."""
        return self._json("PATCH", f"{API}/jobs/{job_id}", json=scheduling)

    def cancel(self, job_id: int, index: int | None = None, *, only_waiting: bool = False) -> Json:
        """Cancel a job, one image of it, or its images that have not started."""
        which = {"params": {"waiting": "true"}} if only_waiting else {}
        return self._json("POST", f"{_image_path(job_id, index)}/cancel", **which)

    def retry(self, job_id: int, index: int | None = None) -> Json:
        """Put a job's failed and cancelled images, or one of them, back into the queue."""
        return self._json("POST", f"{_image_path(job_id, index)}/retry")

    def hold(self, job_id: int) -> Json:
        """Keep a job's queued images from starting."""
        return self._json("POST", f"{API}/jobs/{job_id}/hold")

    def release(self, job_id: int) -> Json:
        """Queue a job's held images."""
        return self._json("POST", f"{API}/jobs/{job_id}/release")

    def approve(self, job_id: int) -> Json:
        """Submit the sweep of a draft with fewer steps, with all of them, and return its job."""
        return self._json("POST", f"{API}/jobs/{job_id}/approve")

    def catalogue(self, kind: str, /, **filters: str | None) -> Json:
        """Return what the farm knows of `kind`: checkpoints, vaes, decoders, samplers, schedules, workers or chores.

        Checkpoints can be filtered by `architecture` and `prediction`; `models` yields files of all kinds.
        """
        wanted = {name: value for name, value in filters.items() if value}
        return self._json("GET", f"{API}/{kind}", params=wanted)

    def models(self, **filters: str | None) -> Iterator[Json]:
        """Yield the model files of the farm, page by page; by `kind`, `architecture`, `prediction` and `search`."""
        cursor = None
        while True:
            page = self.catalogue("models", cursor=cursor, limit=str(MOST_FILES), **filters)
            yield from page["models"]
            if page["next"] is None:
                return
            cursor = str(page["next"])

    def drain(self, wanted: str, reason: str) -> Json:
        """Have the workers of a name or pattern take nothing new; an empty reason says nothing."""
        return self._json("POST", f"{API}/workers/{quote(wanted)}/drain", params={"reason": reason} if reason else {})

    def resume(self, wanted: str) -> Json:
        """Let the workers of a name or pattern take images again."""
        return self._json("POST", f"{API}/workers/{quote(wanted)}/resume")

    def rescan(self) -> None:
        """Have the workers look into the models folder now; the catalogue follows within seconds."""
        self._send("POST", f"{API}/checkpoints/rescan")

    def pictures(self, limit: int = 200, **filters: object) -> Iterator[Json]:
        """Yield finished pictures of all jobs, the latest first, page by page; the filters are those of the API."""
        wanted = {name: value for name, value in filters.items() if value not in (None, "", False, [])} | {
            "limit": limit
        }
        while True:
            page = self._json("GET", f"{API}/pictures", params=wanted)
            yield from page["pictures"]
            if page["next"] is None:
                return
            wanted |= {"cursor": page["next"]}

    def mark(self, picture: str, **marks: object) -> Json:
        """Set `favourite` and `tags` of a picture, such as 12.0."""
        return self._json("PATCH", f"{API}/pictures/{picture.replace('.', '/')}", json=marks)

    def act_on_pictures(self, action: str, **which: object) -> Json:
        """Delete, restore, favourite, unfavourite, tag or untag pictures: `ids`, or all of a `filter`."""
        return self._json("POST", f"{API}/pictures/actions", json={"action": action, **which})

    def zip_of_pictures(self, **which: object) -> bytes:
        """Return pictures as one zip file: `ids`, or all of a `filter`."""
        return self._send("POST", f"{API}/pictures/zip", json=which, timeout=_UPLOAD_SECONDS).content

    def presets(self) -> list[Json]:
        """Return your presets: name, `params` and when each was changed."""
        found: list[Json] = self._json("GET", f"{API}/presets")["presets"]
        return found

    def preset(self, name: str) -> Json:
        """Return one of your presets."""
        return self._json("GET", _preset_path(name))

    def keep_preset(self, name: str, params: Mapping[str, Any]) -> Json:
        """Keep parameters under a name; `left_out` of the answer names groups with pictures, which are not kept."""
        return self._json("PUT", _preset_path(name), json=params)

    def drop_preset(self, name: str) -> None:
        """Delete one of your presets."""
        self._send("DELETE", _preset_path(name))

    def webhooks(self) -> list[Json]:
        """Return your webhooks, the oldest first."""
        found: list[Json] = self._json("GET", f"{API}/webhooks")["webhooks"]
        return found

    def add_webhook(self, url: str | None, **given: object) -> Json:
        """Make a webhook of `name`, `format` and `kinds`; the answer has its `secret`, this once."""
        return self._json("POST", f"{API}/webhooks", json={"url": url, **given})

    def rotate_webhook(self, webhook_id: int) -> Json:
        """Give a webhook a new secret, which the answer has this once."""
        return self._json("POST", f"{API}/webhooks/{webhook_id}/rotate")

    def drop_webhook(self, webhook_id: int) -> None:
        """Delete a webhook with the record of its messages."""
        self._send("DELETE", f"{API}/webhooks/{webhook_id}")

    def test_webhook(self, webhook_id: int) -> Json:
        """Have a message sent that says no more than that it arrives; return the delivery."""
        return self._json("POST", f"{API}/webhooks/{webhook_id}/test")

    def deliveries(self, webhook_id: int, states: tuple[str, ...] = (), limit: int = 50) -> Json:
        """Return the page of the latest messages of a webhook, in any of `states`: waiting, delivered, dead."""
        which = {"state": states, "limit": limit}
        return self._json("GET", f"{API}/webhooks/{webhook_id}/deliveries", params=which)

    def replay_delivery(self, delivery_id: int) -> Json:
        """Have a message sent once more, under its own id."""
        return self._json("POST", f"{API}/webhooks/deliveries/{delivery_id}/replay")

    def replay_dead(self, webhook_id: int) -> int:
        """Have all messages sent again that were given up; return how many."""
        return int(self._json("POST", f"{API}/webhooks/{webhook_id}/replay")["deliveries"])

    def keys(self, *, everybodys: bool = False) -> list[Json]:
        """Return your keys, or, for an admin, everybody's."""
        found: list[Json] = self._json("GET", f"{API}/keys", params={"all": "true"} if everybodys else {})["keys"]
        return found

    def create_key(self, **wanted: object) -> Json:
        """Make a key; the answer alone holds it. See docs/accounts.md for `name`, `owner`, `role` and `days`."""
        return self._json("POST", f"{API}/keys", json={name: one for name, one in wanted.items() if one is not None})

    def revoke_key(self, key_id: int) -> Json:
        """Revoke a key, and return it as it is now."""
        return self._json("DELETE", f"{API}/keys/{key_id}")

    def fetch(self, link: str) -> bytes:
        """Return the bytes behind one of the API's links."""
        return self._send("GET", link).content

    def page(self, job: Json) -> str:
        """Return the address of the job's page."""
        return f"{self.url}{job['links']['page']}"

    def watch(self, job_id: int) -> Iterator[Json]:
        """Yield the job now and after each change, with its running images alone, until it has ended.

        The event stream says when to look; without one (too many listeners, Redis away) the clock does. An API that
        dies meanwhile is waited for.
        """
        job = self._glance(job_id)
        yield job
        while job["state"] not in FINAL:
            for _ in self._changes(job["links"]["events"]):
                job = self._patiently(job_id)
                yield job
                if job["state"] in FINAL:
                    return

    def _changes(self, link: str) -> Iterator[None]:
        """Yield when the job may have changed: at events, not more often than LIVE_SECONDS, or once after a pause."""
        accept = {"Accept": "text/event-stream"}
        with suppress(httpx.HTTPError), self._http.stream("GET", link, headers=accept) as stream:
            if stream.status_code == httpx.codes.OK:
                yield from _spaced(stream.iter_lines())
        time.sleep(POLL_SECONDS)
        yield

    def _glance(self, job_id: int) -> Json:
        """Return a job with a few of its running images: what is asked for again and again."""
        return self._json("GET", f"{API}/jobs/{job_id}", params={"state": "running", "limit": _SHOWN})

    def _patiently(self, job_id: int) -> Json:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._glance(job_id)
            except (NotRunning, Unavailable):
                if time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def _json(self, method: str, path: str, **request: Any) -> Json:  # noqa: ANN401 - httpx's own arguments
        answer = self._send(method, path, **request)
        try:
            body: Json = answer.json()
        except ValueError:
            raise FarmError(f"{self.url} answers, but not as a farm does; check FARM_URL.") from None
        return body

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:  # noqa: ANN401 - as above
        try:
            answer = self._http.request(method, path, **request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise NotRunning(
                f"Nothing answers at {self.url} ({reason}). Start a farm with `make up`, or check FARM_URL."
            ) from error
        if not answer.is_success:
            raise _problem(answer, self.url)
        return answer


def _preset_path(name: str) -> str:
    return f"{API}/presets/{quote(name, safe='')}"


def _image_path(job_id: int, index: int | None) -> str:
    return f"{API}/jobs/{job_id}" if index is None else f"{API}/jobs/{job_id}/images/{index}"


def _spaced(lines: Iterator[str]) -> Iterator[None]:
    """Yield at each whole event (or comment) of the stream; progress that follows too soon is left out."""
    kind, looked_at = "", 0.0
    for line in lines:
        if line.startswith("event:"):
            kind = line.removeprefix("event:").strip()
        if line:
            continue
        if kind not in _OFTEN or time.monotonic() - looked_at >= LIVE_SECONDS:
            yield
            looked_at = time.monotonic()
        kind = ""


def _problem(answer: httpx.Response, url: str) -> FarmError:
    """Return the error that a problem+json answer stands for."""
    try:
        body: Json = answer.json()
        detail = str(body["detail"])
    except (ValueError, KeyError, TypeError):
        return FarmError(f"{url} answered {answer.status_code} {answer.reason_phrase}; is FARM_URL a farm's address?")
    kind = BY_STATUS.get(answer.status_code)
    if kind is None:
        error = FarmError(detail)
        error.status = answer.status_code
        return error
    if issubclass(kind, Refused):
        return kind(detail, tuple(FieldError(one["field"], one["message"], one["accepted"]) for one in body["errors"]))
    if kind is Unauthorized:
        detail += " Set FARM_API_KEY to your key."
    return kind(detail)
