"""What a control net would be given, over HTTP: the picture, its size, and what is refused for which field."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from api.services import EXTENSION
from shared.db.tables import Upload
from shared.media.arrays import resized
from shared.media.preprocessors import canny
from shared.media.storage import upload_key
from tests.integration.test_api_uploads import ANN, BOB, counted, data_url, errors, upload
from tests.support.applications import application
from tests.unit.test_control_preview import patch, scene

PREVIEW = "/api/v1/controlnet/preview"
SCENE = np.asarray(Image.open(BytesIO(scene())))


@pytest.fixture(scope="module")
def app(home: Path, tmp_path_factory: pytest.TempPathFactory):
    """A farm of two owners whose one checkpoint was trained for 128 pixels."""
    keys = {"anns-long-key": "ann", "bobs-long-key": "bob"}
    with application(home, tmp_path_factory.mktemp("farm"), native_size=128, api_keys=keys, max_size=512) as made:
        yield made


@pytest.fixture
def kept(client) -> str:
    """The id of an upload of ann's."""
    return str(upload(client, scene()).get_json()["id"])


def asked(client, body: object, unit: int | None = None, owner=ANN):
    return client.post(PREVIEW, json=body, headers=owner, query_string={} if unit is None else {"unit": unit})


def of_unit(unit: dict[str, Any], **params: Any) -> dict[str, Any]:
    return {"controlnet": [{"model": "any", **unit}], **params}


def shown(answer) -> NDArray[np.uint8]:
    assert answer.mimetype == "image/png", answer.data
    return np.asarray(Image.open(BytesIO(answer.data)))


def test_a_picture_is_shown_at_the_size_of_the_job_as_its_preprocessor_makes_it(client, kept):
    body = of_unit({"picture": kept, "preprocessor": "canny", "threshold_a": 40}, width=192, height=64)
    answer = asked(client, body)
    assert answer.headers["Cache-Control"] == "no-store"
    assert np.array_equal(shown(answer), canny(resized(SCENE, 192, 64, "crop"), 40, 200))


def test_without_a_size_it_is_that_of_the_checkpoint_in_the_proportions_of_the_source(client, kept):
    assert shown(asked(client, of_unit({"picture": kept}))).shape == (128, 128, 3)
    over = of_unit({"preprocessor": "grey"}, img2img={"picture": kept})
    assert shown(asked(client, over)).shape == (96, 168, 3)
    assert shown(asked(client, over | {"width": 128})).shape == (80, 128, 3)


def test_pictures_that_come_along_are_shown_and_not_stored(client, app):
    before = counted(app, Upload)
    url, mask = data_url(scene(size=(140, 110))), data_url(patch((140, 110)))
    assert shown(asked(client, of_unit({"picture": url, "preprocessor": "invert"}))).shape == (128, 128, 3)
    over = {"picture": url, "mask": {"picture": mask}}
    hidden = shown(asked(client, of_unit({"preprocessor": "inpaint"}, img2img=over, width=64, height=64)))
    assert set(np.unique(hidden[..., 3])) == {0, 255}
    assert counted(app, Upload) == before


def test_another_net_of_the_job_is_chosen_by_its_number(client, kept):
    body = {
        "controlnet": [{"model": "a", "picture": kept}, {"model": "b", "picture": kept, "preprocessor": "threshold"}]
    }
    assert set(np.unique(shown(asked(client, body, unit=1)))) == {0, 255}
    assert errors(asked(client, body, unit=2)).keys() == {"controlnet.2"}
    assert errors(asked(client, body, unit=4)).keys() == {"unit"}


@pytest.mark.parametrize(
    ("unit", "params", "refused"),
    [
        ({"preprocessor": "cany"}, {}, ("controlnet.0.preprocessor", "'cany' is none of the choices", "canny")),
        (
            {"preprocessor": "blur", "threshold_a": 100},
            {},
            (
                "controlnet.0.threshold_a",
                "is 100, as the sigma in pixels of blur",
                "a number from 0.01 to 64, or null (9)",
            ),
        ),
        ({"threshold_b": "200"}, {}, ("controlnet.0.threshold_b", "must be a number", "or null")),
        ({"picture": "0" * 64}, {}, ("controlnet.0.picture", "You have no upload 0000000000", "POST /api/v1/uploads")),
        ({"picture": "boat.png"}, {}, ("controlnet.0.picture", "neither an upload nor a data URL", "data URL")),
        ({"picture": None}, {}, ("controlnet.0.picture", "is missing: img2img has no picture", "upload")),
        ({"preprocessor": "inpaint"}, {}, ("controlnet.0.preprocessor", "there is no mask", "a mask, or none, canny")),
        ({"resize": "squeeze"}, {}, ("controlnet.0.resize", "none of the choices", "resize, crop or fill")),
        ({}, {"width": 1024, "height": 64}, ("width", "1024 is too large", "64 to 512")),
        ({}, {"checkpoint": "demi"}, ("checkpoint", "demi", "demo")),
        ({}, {"size": 1}, ("size", "is not a parameter", "")),
    ],
    ids=str,
)
def test_what_cannot_be_shown_is_refused_with_the_field(client, kept, unit, params, refused):
    field, message, accepted = refused
    answer = asked(client, of_unit({"picture": kept, **unit}, **params))
    assert answer.status_code == 422
    found = errors(answer)
    assert found.keys() == {field}
    assert message in found[field]["message"]
    assert accepted in found[field]["accepted"]


def test_uploads_of_others_and_those_that_are_gone_are_refused(client, app, kept):
    assert errors(asked(client, of_unit({"picture": kept}), owner=BOB)).keys() == {"controlnet.0.picture"}
    assert asked(client, of_unit({"picture": kept}), owner={}).status_code == 401
    gone = upload(client, scene(size=(9, 9))).get_json()["id"]
    app.extensions[EXTENSION].storage.delete(upload_key(gone))
    assert (
        errors(asked(client, of_unit({"picture": gone})))["controlnet.0.picture"]["accepted"]
        == "the picture, uploaded again"
    )


@pytest.mark.parametrize("body", [[], "x", {"controlnet": {}}, {"controlnet": [5]}, {"controlnet": [{}]}, {}])
def test_a_body_of_another_form_is_refused(client, body):
    answer = asked(client, body)
    assert answer.status_code == 422
    errors(answer)
    assert json.loads(answer.data)["errors"]
