"""A job that has ended, as clients of AUTOMATIC1111's web UI read it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final, Self

from werkzeug.exceptions import Conflict, GatewayTimeout, InternalServerError

from api.compat.sdapi.bodies import MOST_IMAGES, Generation
from api.compat.sdapi.pictures import encoded
from api.compat.sdapi.scripts import wants_each
from api.http.watch import Watch
from api.schemas.jobs import ImageBody, JobBody
from api.services import Services
from api.use_cases import images, jobs, sheets
from shared.accounts.principal import Principal
from shared.db.states import ImageState
from shared.errors import NotFound, Unavailable
from shared.infotext import writer
from shared.params.codecs import split_title
from shared.queue.queries import Span
from shared.version import version

_PICTURES: Final[Mapping[str, Any]] = {
    "init_images": None,
    "mask": None,
    "latent_mask": None,
    "firstpass_image": None,
    "alwayson_scripts": {},
}
"""Fields that hold pictures, and what stands there in their place."""
_SHEET_TRIES: Final = 80
_SHEET_SECONDS: Final = 0.25  # between two of them


@dataclass(frozen=True)
class Wanted:
    """What of a request its answer depends on: nothing large, because it is kept while the job is waited for."""

    echo: Mapping[str, Any]  # what was sent, without pictures
    sends_images: bool
    sends_each: bool  # beside the sheet of a sweep

    @classmethod
    def by(cls, sent: Generation, given: Mapping[str, Any]) -> Self:
        """Return what a request wants; `given` is its body."""
        echo = {name: given[name] for name in type(sent).model_fields if name in given}
        echo |= {name: nothing for name, nothing in _PICTURES.items() if name in echo}
        return cls(echo, sent.send_images, wants_each(sent.script_name, sent.script_args))


def ended(services: Services, who: Principal, watch: Watch) -> JobBody:
    """Return the job of a request that has waited for it, with some of its images.

    Raises NotFound, Unavailable; Conflict, GatewayTimeout and InternalServerError if none is finished.
    """
    job = jobs.job(services, who, watch.job_id, Span(limit=MOST_IMAGES))
    if watch.is_stopped:
        raise Unavailable("The farm is stopping: try again.")
    if finished(job):
        return job
    if not watch.has_ended:
        why = job.waiting.text if job.waiting else "It is cancelled."
        raise GatewayTimeout(f"Job {job.id} has no picture after {watch.seconds:g} s. {why}")
    reason = next((image.reason for image in job.images if image.reason), "its pictures were deleted")
    if job.state == ImageState.CANCELLED.value:
        raise Conflict(f"Job {job.id} was cancelled before a picture was finished: {reason}")
    raise InternalServerError(f"Job {job.id} failed: {reason}")


def finished(job: JobBody) -> list[ImageBody]:
    """Return the images of a job that have pictures."""
    return [image for image in job.images if image.state == ImageState.SUCCEEDED.value and not image.deleted_at]


def generated(services: Services, who: Principal, job: JobBody, wanted: Wanted) -> Iterator[str]:
    """Return the answer of txt2img and img2img as JSON in parts: pictures, request, and the parameters that it became.

    Raises NotFound, StorageError.
    """
    sheet = _sheet(services, who, job) if job.axes else None
    shown = finished(job) if sheet is None or wanted.sends_each else []
    info = _info(job, shown or finished(job)[:1], has_sheet=sheet is not None, has_images=bool(shown))
    rest = {"parameters": dict(wanted.echo), "info": json.dumps(info)}
    files = chain([sheet] if sheet else [], read(services, who, job, shown))
    return written(files if wanted.sends_images else iter(()), rest)


def read(services: Services, who: Principal, job: JobBody, shown: Sequence[ImageBody]) -> Iterator[bytes]:
    """Return the files of some of a job's pictures, each read when it is needed. Raises NotFound."""
    files = [images.stored(services, who, job.id, image.index, "picture") for image in shown]
    return (file.read() for file in files)


def written(files: Iterator[bytes], rest: Mapping[str, Any]) -> Iterator[str]:
    """Return pictures and the rest of an answer as JSON in parts; the first picture is read before the first part.

    Raises NotFound, StorageError.
    """
    texts = (json.dumps(encoded(data)) for data in files)
    first = [*islice(texts, 1)]
    return chain(['{"images": ['], first, (f", {text}" for text in texts), [f"], {json.dumps(rest)[1:]}"])


def _sheet(services: Services, who: Principal, job: JobBody) -> bytes | None:
    """Return the contact sheet of a sweep, which is drawn when it has ended; None if it does not come."""
    for _ in range(_SHEET_TRIES):
        if sheets.latest(services, job) is not None:
            break
        if services.stopping.wait(_SHEET_SECONDS):
            return None
    try:
        return sheets.picture(services, who, job.id).read()
    except NotFound:
        return None


def _info(job: JobBody, shown: Sequence[ImageBody], *, has_sheet: bool, has_images: bool) -> dict[str, Any]:
    """Return what is said about the pictures, by the names of the program's own answer."""
    made = [job.spec.image(image.index) for image in shown]
    first = made[0]
    model, model_hash = split_title(first.checkpoint)
    vae, vae_hash = split_title(first.vae)
    texts = [
        writer.text(params, version=version(), hashes=image.hashes) for params, image in zip(made, shown, strict=True)
    ]
    repainted = first.img2img or first.hires
    subseeds = [params.noise.variation_seed for params in made]
    return {
        "prompt": first.prompt,
        "all_prompts": [params.prompt for params in made],
        "negative_prompt": first.negative_prompt,
        "all_negative_prompts": [params.negative_prompt for params in made],
        "seed": first.seed,
        "all_seeds": [params.seed for params in made],
        "subseed": subseeds[0],
        "all_subseeds": subseeds,
        "subseed_strength": first.noise.variation_strength,
        "width": first.width,
        "height": first.height,
        "sampler_name": first.sampler,
        "cfg_scale": first.cfg_scale,
        "steps": first.steps,
        "batch_size": len(made),
        "restore_faces": first.faces is not None,
        "face_restoration_model": split_title(first.faces.restorer)[0] if first.faces else None,
        "sd_model_name": model,
        "sd_model_hash": model_hash,
        "sd_vae_name": vae if vae_hash else None,
        "sd_vae_hash": vae_hash or None,
        "seed_resize_from_w": first.noise.resize_width or -1,
        "seed_resize_from_h": first.noise.resize_height or -1,
        "denoising_strength": repainted.denoising if repainted else None,
        "extra_generation_params": writer.values(first),
        "index_of_first_image": int(has_sheet),
        "infotexts": texts[:1] * has_sheet + texts * has_images,
        "styles": list(first.styles),
        "job_timestamp": f"{job.created_at:%Y%m%d%H%M%S}",
        "clip_skip": first.clip_skip,
        "is_using_inpainting_conditioning": False,
        "version": f"stepfarm {version()}",
        "stepfarm": _ours(job),
    }


def _ours(job: JobBody) -> dict[str, Any]:
    """Return what only this farm says: where the job is found, and why it has fewer pictures than were asked for."""
    others = [image for image in job.images if image.state != ImageState.SUCCEEDED.value]
    reasons = list(dict.fromkeys(image.reason or image.state for image in others))
    return {"job": job.id, "page": job.links.page, "notes": job.notes, "missing": len(others), "reasons": reasons}
