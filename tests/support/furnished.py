"""A farm with something of everything, so that each route has something to answer with."""

from __future__ import annotations

import io
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

from flask import Flask
from PIL import Image
from sqlalchemy import text

from api.schemas.intermediates import Kept
from api.services import EXTENSION, Services
from shared.db.sessions import transact
from shared.maintenance.pictures import list_pictures
from shared.media.storage import Kind, key
from tests.support.instant_worker import InstantWorker, picture
from tests.support.queueing import Farmhand

WAITING: Final = "slow"
"""The pool whose jobs nobody renders; those of others are rendered as they are submitted."""
SHOWN: Final = 1  # the job with two pictures, and all that may lie beside them
_PICTURES: Final[tuple[Kind, ...]] = ("thumbnail", "film", "strip", "noise", "latents", "guidance")
_HOW: Final = Kept(start=(8, 8), steps=[], guidance=None, prompt=[], negative_prompt=[]).model_dump_json().encode()
_SMALL: Final = {"prompt": "a boat", "checkpoint": "demo", "width": 64, "height": 64, "steps": 4}


def furnish(app: Flask, headers: dict[str, str], models: Path) -> str:
    """Give the owner of the key in `headers` jobs in each state, pictures, webhooks, links, a worker and an upload;
    return the upload's id.
    """
    services: Services = app.extensions[EXTENSION]
    paint = InstantWorker(services)
    services.tickets.publish = lambda pool, count: None if pool == WAITING else paint(pool, count)
    (models / "demo.safetensors").touch()
    (models / "demo.preview.png").write_bytes(picture())
    post = partial(_post, app, headers)
    axes = [{"field": "seed", "values": "1-2"}]
    shown = post("jobs", **_SMALL, film=True, intermediates=True, sweep={"axes": axes})["id"]
    assert shown == SHOWN
    _lay_beside(services, shown)
    list_pictures(services.sessions)
    for draft in ({"steps": 2}, {"every": 2}):
        post("jobs", **_SMALL | {"prompt": "fail: on purpose"})
        post("jobs", **_SMALL, pool=WAITING, count=2)
        post("jobs", **_SMALL, pool=WAITING, hold=True)
        post("jobs", **_SMALL, pool=WAITING, sweep={"axes": axes, "draft": draft})
    for _ in range(2):
        post("shares", job=shown)
        webhook = post("webhooks", url="https://there.example/hook")["id"]
        post(f"webhooks/{webhook}/test")
    given_up = "UPDATE webhook_deliveries SET dead_at = clock_timestamp()"
    transact(services.sessions, lambda session: session.execute(text(given_up)))
    claim = Farmhand(services.sessions, numbers=count(2)).worker(pool=WAITING).claim()
    assert claim
    services.events.put_preview(claim.job_id, claim.index, _webp())
    kept = app.test_client().post("/api/v1/uploads", data=picture(), headers=headers | {"Content-Type": "image/png"})
    return str(kept.get_json()["id"])


def _post(app: Flask, headers: dict[str, str], path: str, **body: Any) -> Any:
    answer = app.test_client().post(f"/api/v1/{path}", json=body, headers=headers)
    assert answer.status_code < 300, answer.text
    return answer.get_json()


def _lay_beside(services: Services, job_id: int) -> None:
    """Store what a worker may store beside a picture."""
    for index in range(2):
        for kind in _PICTURES:
            services.storage.put(key(job_id, index, 1, kind), _webp())
        services.storage.put(key(job_id, index, 1, "intermediates"), _HOW)


def _webp() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "WEBP")
    return out.getvalue()
