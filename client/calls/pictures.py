"""Pictures: sending them, fetching them, finding them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from client.declared import call, listing
from client.effects import API, Item, Items, Json, Steps, answered, loaded
from client.errors import NotFound
from client.shapes import FileParameters, Upload

_FILE_SECONDS: Final = 300.0  # a large file over a slow line
_RAW: Final = {"Content-Type": "application/octet-stream"}


class Pictures:
    """Calls about pictures."""

    @call
    def upload(self, data: bytes) -> Steps[Upload]:
        """Upload a source picture, and return its id and size; the same picture is one upload."""
        return _sent_file(f"{API}/uploads", data)

    @call
    def file_parameters(self, data: bytes) -> Steps[FileParameters]:
        """Return how a picture's file says that it was made, by this farm or by another program."""
        return _sent_file(f"{API}/png-info", data)

    @call
    def picture(self, job_id: int, index: int = 0) -> Steps[bytes]:
        """Return the file of an image that has succeeded. Raises NotFound: there is none (yet)."""
        which = {"limit": 1} | ({"cursor": index - 1} if index else {})
        page = yield from answered("GET", f"{API}/jobs/{job_id}/images", params=which)
        image = next(iter(page["images"]), None)
        if image is None or image["index"] != index:
            raise NotFound(f"Job {job_id} has no image {index}.")
        if image["links"]["picture"] is None:
            raise NotFound(f"Image {index} of job {job_id} has no picture: it is {image['state']}.")
        return (yield from loaded("GET", image["links"]["picture"], timeout=_FILE_SECONDS))

    @call
    def fetch(self, link: str) -> Steps[bytes]:
        """Return the bytes behind one of the API's links. Raises UnusableAddress for one that leads elsewhere."""
        return loaded("GET", link, timeout=_FILE_SECONDS)

    @call
    def control_preview(self, params: Mapping[str, Any], unit: int = 0) -> Steps[bytes]:
        """Return the PNG that a ControlNet of a job would be given; `unit` is its place in `controlnet`."""
        path = f"{API}/controlnet/preview"
        return loaded("POST", path, repeats=True, json=params, params={"unit": unit}, timeout=_FILE_SECONDS)

    @listing
    def pictures(self, /, limit: int = 200, **filters: object) -> Items[Json]:
        """Yield finished pictures of all jobs, the latest first, page by page; the filters are those of the API."""
        wanted = {
            name: value
            for name, value in filters.items()
            if value is not False and value not in (None, "", [])  # 0 is a seed
        }
        wanted["limit"] = limit
        while True:
            page = yield from answered("GET", f"{API}/pictures", params=wanted)
            for picture in page["pictures"]:
                yield Item(picture)
            if page["next"] is None:
                return
            wanted |= {"cursor": page["next"]}

    @call
    def mark(self, /, picture: str, **marks: object) -> Steps[Json]:
        """Set `favourite` and `tags` of a picture, such as 12.0."""
        return answered("PATCH", f"{API}/pictures/{picture.replace('.', '/')}", json=marks)

    @call
    def act_on_pictures(self, /, action: str, **which: object) -> Steps[Json]:
        """Delete, restore, favourite, unfavourite, tag or untag pictures: `ids`, or all of a `filter`."""
        return answered("POST", f"{API}/pictures/actions", json={"action": action, **which})

    @call
    def zip_of_pictures(self, /, **which: object) -> Steps[bytes]:
        """Return pictures as one zip file: `ids`, or all of a `filter`."""
        return loaded("POST", f"{API}/pictures/zip", repeats=True, json=which, timeout=_FILE_SECONDS)


def _sent_file(path: str, data: bytes) -> Steps[Any]:
    return answered("POST", path, repeats=True, content=data, headers=_RAW, timeout=_FILE_SECONDS)
