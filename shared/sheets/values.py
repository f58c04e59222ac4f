"""What the images of a sheet share, and how large their pictures are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shared.infotext import writer
from shared.params.geometry import hires_size
from shared.params.job_spec import JobSpec
from shared.params.render import RenderParams


def shared_values(spec: JobSpec, indexes: Iterable[int]) -> Mapping[str, str]:
    """Return the parameters that the texts in pictures have and that are the same in all of these images, by name."""
    each = (writer.values(spec.image(index)) for index in indexes)
    shared = next(each, {})
    for values in each:
        shared = {name: value for name, value in shared.items() if values.get(name) == value}
    return shared


def picture_size(params: RenderParams) -> tuple[int, int]:
    """Return the width and height of the picture that comes of these parameters."""
    if params.hires is None:
        return params.width, params.height
    return hires_size(params.width, params.height, params.hires).final
