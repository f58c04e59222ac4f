"""The web API of AUTOMATIC1111's web UI, as its clients use it: pictures, their progress, options and lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from flask import Response
from pydantic import BaseModel, Field

from api.compat.sdapi import answers, bodies, errors, extras, generation, lists, live, options
from api.compat.sdapi.answers import Wanted
from api.compat.sdapi.asked import Asked
from api.compat.sdapi.bodies import ExtraBatch, ExtraSingle, Generation, Img2ImgRequest, OnePicture, Options, Txt2Img
from api.compat.sdapi.pictures import decoded, encoded
from api.compat.sdapi.views import JSON, answered, answering, as_json
from api.http.body import read_json
from api.http.later import answer_later
from api.http.openapi import door, takes
from api.http.watch import Watch
from api.programs import SDAPI
from api.schemas.jobs import JobBody
from api.security import auth
from api.services import services
from api.use_cases import catalogue, doors
from shared.errors import NotFound
from shared.infotext.grammar import taken_apart
from shared.params.codecs import SIZE

_BODIES: Final = (Txt2Img, Img2ImgRequest, ExtraSingle, ExtraBatch, OnePicture, Options)

blueprint = door("Stable Diffusion web UI", __name__, f"{SDAPI}v1", errors.ERRORS, _BODIES)


class ProgressQuery(BaseModel):
    """What of the progress is wanted."""

    skip_current_image: bool = Field(default=False, description="Leave the preview out.")


@blueprint.post("/txt2img", responses=JSON, openapi_extensions=takes(Txt2Img))
def txt2img() -> Response:
    """Render pictures from a prompt, and answer when they are complete.

    If the client goes away before, the job is cancelled.
    """
    return _generated(Txt2Img, generation.txt2img)


@blueprint.post("/img2img", responses=JSON, openapi_extensions=takes(Img2ImgRequest))
def img2img() -> Response:
    """Render pictures from a picture, or repaint a part of it, and answer when they are complete."""
    return _generated(Img2ImgRequest, generation.img2img)


@blueprint.post("/extra-single-image", responses=JSON, openapi_extensions=takes(ExtraSingle))
def extra_single_image() -> Response:
    """Enlarge a picture, and restore its faces."""

    def answer(job: JobBody) -> Response:
        [picture] = answers.read(services(), auth.principal(), job, answers.finished(job))
        return as_json({"image": encoded(picture), "html_info": ""})

    return _rendered(extras.single(services(), auth.principal(), bodies.read(ExtraSingle, read_json())), answer)


@blueprint.post("/extra-batch-images", responses=JSON, openapi_extensions=takes(ExtraBatch))
def extra_batch_images() -> Response:
    """Enlarge pictures, and restore their faces."""

    def answer(job: JobBody) -> Response:
        files = answers.read(services(), auth.principal(), job, answers.finished(job))
        return answered(answers.written(files, {"html_info": ""}))

    return _rendered(extras.batch(services(), auth.principal(), bodies.read(ExtraBatch, read_json())), answer)


@blueprint.post("/png-info", responses=JSON, openapi_extensions=takes(OnePicture))
def png_info() -> Response:
    """Read the parameters in a picture's file."""
    data = decoded(bodies.read(OnePicture, read_json()).image, "image")
    text = services().picture_reader.text(data, "image", auth.principal().owner)
    found = taken_apart(text)
    said = {"Prompt": found.prompt, "Negative prompt": found.negative_prompt} | found.values
    with suppress(ValueError):  # it says no size
        said |= dict(zip(("Size-1", "Size-2"), map(str, SIZE.read(said.get("Size", ""))), strict=True))
    return as_json({"info": text, "items": {"parameters": text} if text else {}, "parameters": said if text else {}})


@blueprint.post("/interrogate", responses=JSON, openapi_extensions=takes(OnePicture))
def interrogate() -> Response:
    """Say in words what a picture shows: no model of this farm can."""
    bodies.read(OnePicture, read_json())
    raise NotFound("This farm has no model that says in words what a picture shows.")


@blueprint.get("/progress", responses=JSON)
def progress(query: ProgressQuery) -> Response:
    """Say how far one's own requests are."""
    return as_json(live.progress(services(), auth.principal(), with_image=not query.skip_current_image))


@blueprint.post("/interrupt", responses=JSON)
def interrupt() -> Response:
    """End one's own requests; what is finished of them is answered."""
    doors.cancel(services(), auth.principal(), options.DOOR)
    return as_json({})


@blueprint.post("/skip", responses=JSON)
def skip() -> Response:
    """End the image that is rendered now."""
    live.skip(services(), auth.principal())
    return as_json(None)


@blueprint.get("/options", responses=JSON)
def get_options() -> Response:
    """List one's own options."""
    return as_json(options.shown(services(), auth.principal()))


@blueprint.post("/options", responses=JSON, openapi_extensions=takes(Options))
def set_options() -> Response:
    """Set one's own options, those that differ from what they are; other names are passed over."""
    options.change(services(), auth.principal(), bodies.read(Options, read_json()).model_extra or {})
    return as_json(None)


blueprint.get("/sd-models", responses=JSON)(
    answering("sd-models", lambda farm: lists.models(farm, auth.principal()), "List the checkpoints.")
)
for _name, (_summary, _make) in lists.LISTS.items():
    blueprint.get(f"/{_name}", responses=JSON)(answering(_name, _make, _summary))
for _name in lists.WITHOUT_EFFECT:
    _nothing = answering(_name, lambda _: {}, "Do nothing: workers load what their next images need.")
    blueprint.post(f"/{_name}", responses=JSON)(_nothing)
for _name in lists.REFRESHES:
    _rescan = answering(_name, catalogue.rescan, "Have the workers scan the models folder now.")
    blueprint.post(f"/{_name}", responses=JSON)(_rescan)


def _generated(model: type[Any], translate: Callable[..., Asked]) -> Response:
    given = read_json()
    sent: Generation = bodies.read(model, given)
    wanted = Wanted.by(sent, given if isinstance(given, Mapping) else {})
    asked = translate(services(), auth.principal(), sent)
    return _rendered(asked, lambda job: answered(answers.generated(services(), auth.principal(), job, wanted)))


def _rendered(asked: Asked, answer: Callable[[JobBody], Response]) -> Response:
    """Submit a job, and answer when it has ended."""
    with asked.in_words_of_the_client():
        watch = Watch.submit(services(), auth.principal(), asked.job, door=options.DOOR)
    return answer_later(watch, lambda: answer(answers.ended(services(), auth.principal(), watch)))
