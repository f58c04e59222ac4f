"""What the OpenAPI document says about this door beyond the types of its routes."""

from __future__ import annotations

from typing import Final

from flask_openapi3.types import ResponseDict

from api.compat.openai.answer import Completed, ImagesBody, PartialImage
from api.compat.openai.request import ImageRequest
from api.http.openapi import PICTURE_BYTES, Document, reference

BODIES: Final = (ImageRequest, ImagesBody, PartialImage, Completed)

_FILE: Final = {"type": "string", "format": "binary"}
_FILES: Final = {
    "properties": {
        "image": _FILE | {"description": "The picture; also as `image[]`."},
        "mask": _FILE | {"description": "A PNG that is transparent where the picture is repainted."},
    },
    "required": ["image"],
}

GENERATION: Final[Document] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": reference(ImageRequest.__name__)}}}
}
EDIT: Final[Document] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"allOf": [reference(ImageRequest.__name__), _FILES]},
                "encoding": {"image": PICTURE_BYTES, "mask": PICTURE_BYTES},
            }
        },
    }
}
PICTURES: Final[ResponseDict] = {
    "200": {
        "description": "The pictures; as events where `stream` is true.",
        "content": {
            "application/json": {"schema": reference(ImagesBody.__name__)},
            "text/event-stream": {
                "schema": {"anyOf": [reference(PartialImage.__name__), reference(Completed.__name__)]}
            },
        },
    }
}
