"""The files of images: pictures, thumbnails, films, previews, and a job's pictures as one zip."""

from __future__ import annotations

from flask import Response

from api.http.openapi import CONFLICT, NOT_FOUND, answers, content, section
from api.http.parameters import ImagePath, IntermediatePath, JobPath, PicturePath
from api.http.responses import reply, unchanging
from api.http.zip_stream import zipped
from api.schemas.intermediates import IntermediatesBody
from api.schemas.jobs import API, EXTENSIONS
from api.security import auth
from api.services import services
from api.use_cases import images
from api.use_cases import intermediates as made
from shared.errors import NotFound
from shared.media.storage import Kind

PICTURE = content("image/png", "The picture in the job's format, with its parameters.")
WEBP = content("image/webp", "A small picture.")
FILM = content("image/webp", "Steps of the picture's rendering.")
MADE = answers(IntermediatesBody, 200)
ZIP = content("application/zip", "The pictures.")

blueprint = section("images", __name__, f"{API}/jobs")


@blueprint.get("/<id:job_id>/images/<id:index>/picture.<any(png,jpg,webp):extension>", responses=PICTURE | NOT_FOUND)
def picture(path: PicturePath) -> Response:
    """Get an image's picture."""
    stored = images.stored(services(), auth.principal(), path.job_id, path.index, "picture")
    if EXTENSIONS[stored.form] != path.extension:
        raise NotFound(f"The picture's file is picture.{EXTENSIONS[stored.form]}: the job's format is {stored.form}.")
    return unchanging(stored, f"image/{stored.form}")


@blueprint.get("/<id:job_id>/images/<id:index>/thumbnail.webp", responses=WEBP | NOT_FOUND)
def thumbnail(path: ImagePath) -> Response:
    """Get an image's thumbnail."""
    return _stored(path, "thumbnail", "image/webp")


@blueprint.get("/<id:job_id>/images/<id:index>/film.webp", responses=FILM | NOT_FOUND)
def film(path: ImagePath) -> Response:
    """Get an image's steps as an animation, if its job has `film`."""
    return _stored(path, "film", "image/webp")


@blueprint.get("/<id:job_id>/images/<id:index>/strip.webp", responses=FILM | NOT_FOUND)
def strip(path: ImagePath) -> Response:
    """Get an image's steps side by side, if its job has `film`."""
    return _stored(path, "strip", "image/webp")


@blueprint.get("/<id:job_id>/images/<id:index>/intermediates.json", responses=MADE | NOT_FOUND)
def intermediates(path: ImagePath) -> Response:
    """Tell how an image's picture was made, if its job has `intermediates`."""
    return reply(made.intermediates(services(), auth.principal(), path.job_id, path.index))


@blueprint.get("/<id:job_id>/images/<id:index>/<any(noise,latents,guidance):part>.webp", responses=FILM | NOT_FOUND)
def intermediate(path: IntermediatePath) -> Response:
    """Get a picture of how an image was made: its first noise, its steps, or what the prompt changed."""
    return _stored(path, path.part, "image/webp")


@blueprint.get("/<id:job_id>/images/<id:index>/preview.webp", responses=WEBP | NOT_FOUND)
def preview(path: ImagePath) -> Response:
    """Get the latest preview of a running image."""
    data = images.preview(services(), auth.principal(), path.job_id, path.index)
    return Response(data, mimetype="image/webp", headers={"Cache-Control": "no-store"})


@blueprint.get("/<id:job_id>/zip", responses=ZIP | NOT_FOUND | CONFLICT)
def archive(path: JobPath) -> Response:
    """Get the finished pictures of a job as one zip file."""
    files = images.archive(services(), auth.principal(), path.job_id)
    headers = {"Content-Disposition": f'attachment; filename="job-{path.job_id}.zip"', "Cache-Control": "no-store"}
    return Response(zipped(files), mimetype="application/zip", headers=headers)


def _stored(path: ImagePath, kind: Kind, mimetype: str) -> Response:
    return unchanging(images.stored(services(), auth.principal(), path.job_id, path.index, kind), mimetype)
