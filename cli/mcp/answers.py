"""The content of tools' answers: words, pictures that models can look at, and links to the files."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import Any, Final

from anyio import to_thread
from mcp_types import ContentBlock, ImageContent, ResourceLink, TextContent
from PIL import Image

from client.async_client import AsyncClient
from client.shapes import Job

Told = list[ContentBlock]

PICTURE_URI: Final = "stepfarm://pictures/{job}/{index}"
"""Where the server itself gives out the file of a picture."""
_SHOWN: Final = 4  # pictures of one answer; the others are links
_SIDE: Final = 768  # pixels: what models look at, and few programs take more than a megabyte
_KEPT_PARAMETERS: Final = (
    "prompt",
    "negative_prompt",
    "checkpoint",
    "width",
    "height",
    "steps",
    "cfg_scale",
    "sampler",
)


def said(*parts: object) -> Told:
    """Return texts and JSON values, one under the other."""
    texts = [part if isinstance(part, str) else json.dumps(part, ensure_ascii=False, indent=1) for part in parts]
    return [TextContent(type="text", text="\n".join(texts))]


def job_said(url: str, job: Job) -> dict[str, Any]:
    """Return what a model needs to know of a job: how far it is, why it waits, what failed, where people see it."""
    params = {name: job["params"][name] for name in _KEPT_PARAMETERS if job["params"].get(name) not in (None, "")}
    waiting = job["waiting"]
    images = [
        {"picture": f"{job['id']}.{image['index']}", "state": image["state"], "seed": image["seed"]}
        | ({"reason": image["reason"]} if image["reason"] else {})
        | ({"titles": image["titles"]} if image["titles"] else {})
        for image in job["images"]
    ]
    return {
        "job": job["id"],
        "state": job["state"],
        "progress": round(job["progress"], 3),
        **({"waits": waiting["text"]} if waiting else {}),
        **({"notes": job["notes"]} if job["notes"] else {}),
        "page": f"{url}{job['links']['page']}",
        "params": params,
        "images": images,
    }


async def pictures_said(client: AsyncClient, job: Job, *, only: int | None = None) -> Told:
    """Return a job, its first pictures to look at, and a link to the file of each."""
    ready = [
        image for image in job["images"] if image["links"]["picture"] is not None and only in (None, image["index"])
    ]
    if only is not None and not ready:
        return said(f"Image {only} of job {job['id']} has no picture.", job_said(client.url, job))
    answer = said(job_said(client.url, job))
    for image in ready[:_SHOWN]:
        data = await client.fetch(str(image["links"]["picture"]))
        small = await to_thread.run_sync(_small, data)
        answer.append(ImageContent(type="image", data=base64.b64encode(small).decode(), mime_type="image/webp"))
    for image in ready:
        uri = PICTURE_URI.format(job=job["id"], index=image["index"])
        answer.append(ResourceLink(type="resource_link", name=f"picture {job['id']}.{image['index']}", uri=uri))
    return answer


def _small(data: bytes) -> bytes:
    with Image.open(BytesIO(data)) as picture:
        picture.thumbnail((_SIDE, _SIDE))
        out = BytesIO()
        picture.convert("RGBA" if picture.has_transparency_data else "RGB").save(out, "WEBP", quality=85)
    return out.getvalue()
