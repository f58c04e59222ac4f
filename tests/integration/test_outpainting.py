"""A job that extends a picture, from admission to what is recorded: its size, and what contradicts it."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image

from shared.params.render import RenderParams
from shared.queue.submit import cost
from tests.support.browsing import look, send


@pytest.fixture(autouse=True)
def demo(checkpoint_factory):
    checkpoint_factory("demo")


def uploaded(client, size=(200, 120)):
    data = BytesIO()
    Image.new("RGB", size, "teal").save(data, "PNG")
    return client.post("/api/v1/uploads", data=data.getvalue()).get_json()["id"]


def asked(client, outpaint, *, size=(200, 120), over=(), **params):
    start = {"picture": uploaded(client, size), "outpaint": outpaint, **dict(over)}
    return client.post("/api/v1/jobs", json={"prompt": "a", "img2img": start} | params)


@pytest.mark.parametrize(
    ("outpaint", "wanted"),
    [
        ({"right": 64}, (264, 120)),
        ({"left": 8, "top": 16, "bottom": 32}, (208, 168)),
        ({"left": 0}, (664, 400)),  # not extended: the checkpoint's own area
    ],
    ids=str,
)
def test_size_is_that_of_the_picture_with_its_new_sides(client, outpaint, wanted):
    job = asked(client, outpaint).get_json()
    assert (job["params"]["width"], job["params"]["height"]) == wanted
    assert any(("with its new sides" in note) == any(outpaint.values()) for note in job["notes"])


def test_sides_end_in_whole_cells_and_cost_what_the_result_does(client):
    job = asked(client, {"right": 8}, size=(201, 121)).get_json()
    assert (job["params"]["width"], job["params"]["height"]) == (216, 128)
    small = RenderParams.model_validate(job["params"])
    assert cost(small.model_copy(update={"width": 2 * small.width})) > cost(small)
    again = client.post("/api/v1/jobs", json={**job["params"], "count": 1})
    assert again.status_code == 202, again.get_json()


@pytest.mark.parametrize(
    ("outpaint", "more", "field", "words"),
    [
        ({"right": 2048, "left": 2048}, {}, "img2img.outpaint.left", "would become 4296x120"),
        ({"right": 64}, {"width": 512}, "width", "is 512, and the extended picture has 264"),
        ({"right": 64}, {"height": 512}, "height", "is 512, and the extended picture has 120"),
        ({"top": 64, "feather": 120}, {}, "img2img.outpaint.feather", "leaves nothing of a picture of 200x120"),
        ({"top": 8, "bottom": 8, "feather": 60}, {}, "img2img.outpaint.feather", "leaves nothing"),
        ({"right": 12}, {}, "img2img.outpaint.right", "not a multiple of 8"),
        ({"right": -8}, {}, "img2img.outpaint.right", "too small"),
        ({"right": 8}, {"hires": {}}, "hires", "text to image only"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused_by_its_field(client, outpaint, more, field, words):
    answer = asked(client, outpaint, **more)
    assert answer.status_code == 422
    (problem,) = answer.get_json()["errors"]
    assert problem["field"] == field
    assert words in problem["message"]


def test_masks_and_new_sides_come_one_after_the_other(client):
    answer = asked(client, {"bottom": 8}, over={"mask": {"picture": uploaded(client)}})
    (problem,) = answer.get_json()["errors"]
    assert problem == {
        "field": "img2img.outpaint.bottom",
        "message": "extends a picture that is masked too",
        "accepted": "0, or no mask: one after the other",
    }


def test_form_extends_a_picture_and_its_page_says_so(client):
    sides = {"img2img.outpaint.left": "16", "img2img.outpaint.content": "mirror"}
    answer = send(client, "/jobs", prompt="a", **{"img2img.picture": uploaded(client)}, **sides)
    page = look(client, answer.location)
    assert "Rendered at 216 × 120: the source picture (200 × 120) with its new sides." in page.text
    assert "Outpaint left" in page.text
