"""The contact sheet of a sweep: every cell with its titles, and what all of them share.

Its words are in the language that the sweep was asked for in; what people named, and the values, are as they are.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from shared.db.states import ImageState
from shared.errors import NotFound
from shared.jobs import stored
from shared.languages.catalogue import ENGLISH
from shared.languages.sentences import said
from shared.media.storage import Storage, key
from shared.queue.queries import ImageView, JobView
from shared.sheets import drawing
from shared.sheets.arrangement import Arrangement, arranged
from shared.sheets.drawing import Cell, Empty, Sheet, Words
from shared.sheets.pictures import CellPictures
from shared.sheets.values import picture_size, shared_values

SPEC: Final = "stepfarm job"
"""The keyword of the text in a sheet's file that holds its job's parameters and axes as JSON."""
_THUMBNAIL: Final = 256  # pixels of the longer side of an image's thumbnail, which every worker stores with it


def draw(job: JobView, storage: Storage, pictures: CellPictures) -> Sheet:
    """Return the sheet of a job with axes that has ended. Raises StorageAway."""
    images = {image.index: image for image in job.images}
    code = job.spec.sweep.language if job.spec.sweep else ENGLISH
    sizes = {index: picture_size(job.spec.image(index)) for index in images}

    def draw_cell(index: int, width: int, height: int) -> Cell:
        image = images[index]
        if image.state != ImageState.SUCCEEDED:
            return Empty(said(code, image.state), said(code, image.reason or ""))
        if image.deleted_at:
            return Empty(said(code, "deleted"))
        try:
            return pictures.fitted(storage.get(_smallest(job, image, sizes[index], (width, height))), width, height)
        except NotFound:
            return Empty(said(code, "gone"), said(code, "its picture is no longer in the storage"))

    largest = max(width for width, _ in sizes.values()), max(height for _, height in sizes.values())
    text = {SPEC: json.dumps(stored.written(job.params, job.spec.sweep), ensure_ascii=False)}
    return drawing.draw(_arranged(job, code), _words(job, code), largest, draw_cell, text)


def _arranged(job: JobView, code: str) -> Arrangement:
    """Return how the cells stand, with the labels of the axes in a language."""
    found = arranged(job.spec.axes)
    return replace(found, columns=said(code, found.columns), rows=said(code, found.rows), block=said(code, found.block))


def _words(job: JobView, code: str) -> Words:
    indexes = [image.index for image in job.images]
    values = shared_values(job.spec, indexes)
    rest = [" · ".join(f"{said(code, name)}: {value}" for name, value in values.items())]
    if job.params.negative_prompt:
        rest.insert(0, f"{said(code, 'Negative prompt')}: {job.params.negative_prompt}")
    done = job.counts.get(ImageState.SUCCEEDED, 0)
    ended = f"{job.ended_at:%Y-%m-%d %H:%M} UTC" if job.ended_at else ""
    rest.append(said(code, f"Stepfarm · Job {job.id} · {done} of {len(indexes)} pictures · {ended}"))
    return Words(job.params.prompt or said(code, "(no prompt)"), rest)


def _smallest(job: JobView, image: ImageView, size: tuple[int, int], box: tuple[int, int]) -> str:
    """Return the key of the smallest file of an image from which its cell can be drawn."""
    scaled = max(size) * min(1.0, box[0] / size[0], box[1] / size[1])
    form = job.spec.image(image.index).format
    return key(job.id, image.index, image.attempt, "thumbnail" if scaled <= _THUMBNAIL < max(size) else "picture", form)
