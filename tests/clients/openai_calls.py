"""What people do with OpenAI's client, run in its environment: prints what it answered, as JSON."""

from __future__ import annotations

import base64
import json
import sys

import openai
from openai import OpenAI
from plain_picture import png


def shown(answer: openai.types.ImagesResponse) -> dict[str, object]:
    files = [base64.b64decode(image.b64_json or "") for image in answer.data or []]
    told = answer.model_dump(exclude={"data"})
    return told | {"files": [file[:4].hex() for file in files], "urls": [image.url for image in answer.data or []]}


client = OpenAI(base_url=f"{sys.argv[1]}/v1", api_key=sys.argv[2], max_retries=0)
told: dict[str, object] = {}
told["models"] = [model.id for model in client.models.list()]
told["model"] = client.models.retrieve(told["models"][0]).id
told["generated"] = shown(
    client.images.generate(
        prompt="a lake at dawn",
        model="gpt-image-1",
        n=2,
        size="64x64",
        quality="low",
        output_format="webp",
        response_format="url",
        extra_body={"seed": 7, "negative_prompt": "rain", "cfg_scale": 5, "sampler": "Euler"},
    )
)
told["edited"] = shown(
    client.images.edit(
        image=[("lake.png", png(b"\x20\x40\x80", 2), "image/png")],
        mask=("mask.png", png(b"\0\0\0\0", 6), "image/png"),
        prompt="a red sailboat",
        size="auto",
        extra_body={"steps": 6, "seed": 8},
    )
)
events = client.images.generate(
    prompt="a lake at dusk", size="64x64", quality="medium", stream=True, partial_images=2, extra_body={"seed": 9}
)
told["events"] = [(event.type, base64.b64decode(event.b64_json)[:4].hex()) for event in events]
try:
    client.images.generate(prompt="a lake", background="transparent")
except openai.BadRequestError as error:
    told["refused"] = [error.status_code, error.type, error.param, str(error)]
try:
    client.models.retrieve("gpt-image-1")
except openai.NotFoundError as error:
    told["missing"] = [error.status_code, error.code]
json.dump(told, sys.stdout)
