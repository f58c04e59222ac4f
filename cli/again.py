"""`farm again`: render the parameters in a picture's file again, and compare the two pictures pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cli import terminal
from cli.render import file_bytes, follow, joined, submitted
from client.client import Client
from client.shapes import Job
from shared.errors import FarmError
from shared.infotext.reader import Read, read
from shared.media.decode import PictureReader
from shared.prompts.learned_words import word_of
from shared.settings import Limits, Settings
from shared.wording import LONGEST

_LIMITS: Final = Limits(max_upload_mb=1024, max_upload_megapixels=80)  # of files on one's own disk
_ONESELF: Final = "local"  # whose turn it is: there is nobody else
_SHARE: Final = 0.999  # of the values that may be off by no more than one
_LARGEST: Final = 8


class Opened(NamedTuple):
    """A picture file: its pixels [height, width, 3], and the text that it carries."""

    pixels: NDArray[np.uint8]
    text: str


@dataclass(frozen=True)
class Difference:
    """How far apart two pictures of one size are; a value is one colour of one pixel, 0 to 255."""

    values: int
    different: int
    by_more_than_one: int
    largest: int

    @classmethod
    def between(cls, one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Difference:
        """Return the difference of two pictures. Raises FarmError where their sizes differ."""
        if one.shape != other.shape:
            sizes = [f"{pixels.shape[1]}x{pixels.shape[0]}" for pixels in (one, other)]
            raise FarmError(
                f"The file has {sizes[0]} pixels, rendered again it has {sizes[1]}: it was changed after rendering."
            )
        distance = np.abs(one.astype(np.int16) - other)
        return cls(one.size, int((distance > 0).sum()), int((distance > 1).sum()), int(distance.max()))

    @property
    def is_identical(self) -> bool:
        return self.largest == 0

    @cached_property
    def keeps_promise(self) -> bool:
        """True if the farm's promise for float32 holds: 1/255 in 99.9 % of values, 8/255 anywhere."""
        return self.by_more_than_one <= (1 - _SHARE) * self.values and self.largest <= _LARGEST

    def __str__(self) -> str:
        if self.is_identical:
            return f"identical: all {self.values:,} values"
        promise = "within what the farm promises" if self.keeps_promise else "more than the farm promises"
        return (
            f"different: {self.different:,} of {self.values:,} values ({self.different / self.values:.2%}), "
            f"{self.by_more_than_one:,} by more than 1/255, at most {self.largest}/255: {promise}"
        )


def again(settings: Settings, file: Path, *, as_json: bool) -> int:
    """Render the parameters in `file`, compare, report; return the exit status: 0 if the farm keeps its promise."""
    old = opened(file_bytes(file), str(file))
    said = read(old.text)
    if "seed" not in said.params:
        unread = said.left_out[0] if said.left_out and not said.params else "there is no text with a seed"
        raise FarmError(f"{file} has no parameters to render again: {unread}.")
    with joined(settings, terminal.no_progress if as_json else terminal.progress) as client:
        _check_embeddings(client, file, said.embeddings)
        job, new = rendered(client, said.params, quiet=as_json)
        difference = Difference.between(old.pixels, new.pixels)
        _report(file, said, client.page(job), difference, as_json=as_json)
    return 0 if difference.keeps_promise else 1


def _check_embeddings(client: Client, file: Path, embeddings: Mapping[str, str]) -> None:
    """Raise FarmError for an embedding that has another name here, or is not here: its word would be plain text."""
    here = [one for one in client.models(kind="embedding") if one["usable"]] if embeddings else []
    for word, digits in embeddings.items():
        names = [word_of(one["path"]) for one in here if (one["sha256"] or "").startswith(digits)]
        if word in map(str.casefold, names):
            continue
        shown = word[:LONGEST]
        if names:
            reason = f"which is called {names[0]} here. Call its file {shown}"
        else:
            reason = f"but no usable file here has its hash {digits}. Put it into the models folder as {shown}"
        raise FarmError(f"{file} was rendered with the embedding {shown}, {reason}, then try again.")


def rendered(client: Client, params: Mapping[str, Any], *, quiet: bool) -> tuple[Job, Opened]:
    """Return the job that rendered one picture from `params`, without a film, and its file, opened."""
    job = submitted(client, {**params, "film": False, "intermediates": False}, quiet=quiet)
    job = follow(client, job["id"], quiet=quiet)
    return job, opened(_file(client, job), "the new picture")


def _file(client: Client, job: Job) -> bytes:
    """Return the file of the job's picture. Raises FarmError if it has none."""
    [image] = job["images"]
    link = image["links"]["picture"]
    if image["state"] != "succeeded" or link is None:
        raise FarmError(f"The picture {image['state']}: {image['reason'] or 'no reason given'} ({client.page(job)})")
    return client.fetch(link)


def opened(data: bytes, name: str) -> Opened:
    """Return text and pixels of a picture file. Raises Refused that names it."""
    picture_reader = PictureReader(_LIMITS)
    try:
        picture = picture_reader.read(data, name, _ONESELF)
        text = picture_reader.text(data, name, _ONESELF)
    finally:
        picture_reader.close()
    return Opened(text=text, pixels=np.asarray(Image.open(BytesIO(picture.png)).convert("RGB")))


def _report(file: Path, said: Read, page: str, difference: Difference, *, as_json: bool) -> None:
    if as_json:
        answer: dict[str, Any] = {"file": str(file.absolute()), "page": page, "left_out": said.left_out}
        answer |= asdict(difference)
        answer |= {"identical": difference.is_identical, "keeps_promise": difference.keeps_promise}
        terminal.answer_json(answer)
        return
    for note in said.left_out:
        terminal.warn(f"left out  {note}")
    terminal.answer(str(difference))
    terminal.answer(f"page  {page}")
