"""Use case: a finished picture is enlarged, in a job of its own."""

from __future__ import annotations

from collections.abc import Mapping

from api.services import Services
from api.use_cases import images, jobs
from api.use_cases.jobs import Submitted
from shared.accounts.principal import Principal
from shared.db.sessions import transact
from shared.models.catalogue import Catalogue
from shared.params.upscalers import WITHOUT_FILE


def names(services: Services) -> list[str]:
    """Return what can enlarge a picture: titles of files first, and then the ways that need none."""
    known = transact(services.sessions, lambda session: Catalogue.read(session, "upscaler"))
    return [*(file.title for file in known.usable("upscaler")), *WITHOUT_FILE]


def face_restorers(services: Services) -> list[str]:
    """Return the titles of the face restorers that can be used."""
    known = transact(services.sessions, lambda session: Catalogue.read(session, "face-restorer"))
    return [file.title for file in known.usable("face-restorer")]


def picture(services: Services, who: Principal, job_id: int, index: int, how: Mapping[str, object]) -> Submitted:
    """Submit a job that enlarges an image of another one; `how` are its other parameters. Raises NotFound, Refused."""
    data = images.stored(services, who, job_id, index, "picture").read()
    kept = images.upload(services, who, data)
    text = services.picture_reader.text(data, "file", who.owner)
    source = {"picture": kept.id, "parameters": text}
    return jobs.submit(services, who, {"upscale": {**how, "pictures": [source]}})
