"""The bytes of images: pictures, thumbnails, previews, and a job's pictures as one zip."""

from __future__ import annotations

from flask import Response, request

from api import auth, use_cases
from api.archives import zipped
from api.documents import CONFLICT, NOT_FOUND, content, section
from api.representations import API
from api.requests import ImagePath, JobPath
from api.services import services
from shared.storage import Kind

IMMUTABLE = "private, immutable, max-age=31536000"
PICTURE = content("image/png", "The picture, with its parameters in a text chunk.")
WEBP = content("image/webp", "The picture, small.")
ZIP = content("application/zip", "The pictures.")

blueprint = section("images", __name__, f"{API}/jobs")


@blueprint.get("/<id:job_id>/images/<id:index>/picture.png", responses=PICTURE | NOT_FOUND)
def picture(path: ImagePath) -> Response:
    """Get an image's picture."""
    return _stored(path, "picture", "image/png")


@blueprint.get("/<id:job_id>/images/<id:index>/thumbnail.webp", responses=WEBP | NOT_FOUND)
def thumbnail(path: ImagePath) -> Response:
    """Get an image's thumbnail."""
    return _stored(path, "thumbnail", "image/webp")


@blueprint.get("/<id:job_id>/images/<id:index>/preview.webp", responses=WEBP | NOT_FOUND)
def preview(path: ImagePath) -> Response:
    """Get what a running image looks like so far."""
    data = use_cases.preview(services(), auth.owner(), path.job_id, path.index)
    return Response(data, mimetype="image/webp", headers={"Cache-Control": "no-store"})


@blueprint.get("/<id:job_id>/zip", responses=ZIP | NOT_FOUND | CONFLICT)
def archive(path: JobPath) -> Response:
    """Get the finished pictures of a job as one zip file."""
    pictures = use_cases.pictures(services(), auth.owner(), path.job_id)
    headers = {"Content-Disposition": f'attachment; filename="job-{path.job_id}.zip"', "Cache-Control": "no-store"}
    return Response(zipped(pictures), mimetype="application/zip", headers=headers)


def _stored(path: ImagePath, kind: Kind, mimetype: str) -> Response:
    """Answer with stored bytes, which never change: a client that has them is told so before they are read."""
    stored = use_cases.stored(services(), auth.owner(), path.job_id, path.index, kind)
    unchanged = request.if_none_match.contains_weak(stored.tag)
    answer = Response(status=304) if unchanged else Response(stored.read(), mimetype=mimetype)
    answer.set_etag(stored.tag)
    answer.headers["Cache-Control"] = IMMUTABLE
    return answer
