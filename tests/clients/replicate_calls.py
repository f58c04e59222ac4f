"""What people do with Replicate's client, run in its environment: prints what it answered, as JSON."""

from __future__ import annotations

import json
import sys
from io import BytesIO

import replicate.exceptions
from plain_picture import png
from replicate.client import Client

client = Client(api_token=sys.argv[2], base_url=f"{sys.argv[1]}/replicate")
told: dict[str, object] = {}


def shown(prediction: object) -> dict[str, object]:
    names = ("id", "status", "model", "version", "output", "error", "logs", "metrics", "urls")
    return {name: getattr(prediction, name) for name in names}


models = client.models.list()
told["models"] = [model.name for model in models]
version = client.models.get("stepfarm/demo").latest_version
source = {"prompt": "a lake at dawn", "num_inference_steps": 6, "scheduler": "K_EULER", "seed": 7}
told["run"] = client.run("someone/anything", input=source | {"num_outputs": 2})
told["run with a version"] = client.run(f"stepfarm/demo:{version.id}", input=source)
told["with a picture"] = client.run("stepfarm/demo", input=source | {"image": BytesIO(png(b"\x20\x40\x80", 2))})
created = client.predictions.create(version=version.id, input=source | {"pool": "nobody-renders-here"})
told["created"] = shown(created)
created.cancel()
told["cancelled"] = shown(created)
told["listed"] = [prediction.id for prediction in client.predictions.list()]
told["events"] = [
    (event.event.value, str(event.data)) for event in client.stream("stepfarm/demo", input=source | {"seed": 9})
]
deployed = client.deployments.predictions.create("stepfarm/demo", input=source, wait=10)
told["deployed"] = shown(deployed)
told["progress"] = deployed.progress and deployed.progress.percentage
try:
    client.predictions.create(version=version.id, input={"prompt": "x", "width": 13})
except replicate.exceptions.ReplicateError as error:
    told["refused"] = [error.status, error.detail]
json.dump(told, sys.stdout)
