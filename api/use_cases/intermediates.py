"""How a picture was made: what its worker kept of it."""

from __future__ import annotations

from pydantic import ValidationError

from api.schemas.intermediates import IntermediatesBody
from api.schemas.jobs import API, EXTENSIONS
from api.services import Services
from api.use_cases import images
from shared.accounts.principal import Principal
from shared.errors import NotFound


def intermediates(services: Services, who: Principal, job_id: int, index: int) -> IntermediatesBody:
    """Return how an image's picture was made. Raises NotFound, StorageError."""
    stored = images.stored(services, who, job_id, index, "intermediates")
    picture = f"{API}/jobs/{job_id}/images/{index}/picture.{EXTENSIONS[stored.form]}"
    try:
        return IntermediatesBody.of(stored.read(), job_id, index, picture)
    except ValidationError as error:
        message = f"Only another version of the farm can read how image {index} of job {job_id} was made."
        raise NotFound(message) from error
