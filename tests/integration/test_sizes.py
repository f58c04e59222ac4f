"""The size of a picture that starts from another one and names none: in its proportions, at the checkpoint's area."""

from __future__ import annotations

import base64
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shared.admission import sizes
from shared.params.geometry import in_proportion
from shared.params.render import RenderParams
from shared.settings import Limits
from tests.conftest import CheckpointFactory
from tests.support.browsing import look, page, send


@pytest.fixture
def settings(settings, request):
    return settings.model_copy(update=getattr(request, "param", {}))


def picture(size: tuple[int, int]) -> bytes:
    data = BytesIO()
    Image.new("RGB", size, "teal").save(data, "PNG")
    return data.getvalue()


def asked(client, size: tuple[int, int], **params: object) -> dict[str, object]:
    upload = client.post("/api/v1/uploads", data=picture(size)).get_json()["id"]
    answer = client.post("/api/v1/jobs", json={"prompt": "a", "img2img": {"picture": upload}} | params)
    assert answer.status_code == 202, answer.get_json()
    return answer.get_json()


@pytest.mark.parametrize(
    ("native", "source", "wanted"),
    [
        (128, (1920, 1290), (160, 104)),
        (512, (1920, 1290), (624, 416)),
        (512, (1290, 1920), (416, 624)),
        (512, (640, 640), (512, 512)),
        (512, (1600, 100), (2048, 128)),
        (1024, (1600, 100), (4096, 256)),
        (1024, (1024, 1024), (1024, 1024)),
        (1024, (832, 1216), (848, 1240)),
        (768, (1920, 1080), (1024, 576)),
        (128, (1600, 100), (1024, 64)),
    ],
)
def test_api_keeps_the_proportions_of_the_source(client, checkpoint_factory: CheckpointFactory, native, source, wanted):
    checkpoint_factory("demo", native_size=native)
    job = asked(client, source)
    assert (job["params"]["width"], job["params"]["height"]) == wanted
    (note,) = job["notes"]
    assert note.startswith(f"Rendered at {wanted[0]} × {wanted[1]}: the")
    assert ("pictures here have sides of 64 to 4096 pixels" in note) == (source == (1600, 100) and native == 128)
    assert client.get(job["links"]["self"]).get_json()["notes"] == []


def test_data_url_has_its_proportions_too(client, checkpoint_factory: CheckpointFactory):
    checkpoint_factory("demo")
    url = f"data:image/png;base64,{base64.b64encode(picture((96, 64))).decode()}"
    job = client.post("/api/v1/jobs", json={"prompt": "a", "img2img": {"picture": url}}).get_json()
    assert (job["params"]["width"], job["params"]["height"]) == (624, 416)


def test_what_was_asked_for_stays_and_one_side_brings_the_other(client, checkpoint_factory: CheckpointFactory):
    checkpoint_factory("demo")
    both = asked(client, (96, 64), width=256, height=256)
    assert (both["params"]["width"], both["params"]["height"], both["notes"]) == (256, 256, [])
    assert asked(client, (96, 64), width=384)["params"]["height"] == 256
    assert asked(client, (96, 64), height=384)["params"]["width"] == 576
    wide = asked(client, (1600, 100), height=384)
    assert (wide["params"]["width"], wide["params"]["height"]) == (4096, 384)
    assert asked(client, (100, 100), height=2560)["params"]["width"] == 1632, "no more pixels than a picture may have"


@pytest.mark.parametrize("mode", ["resize", "crop", "fill", "latent"])
def test_resize_mode_does_not_matter_for_the_size(client, checkpoint_factory: CheckpointFactory, mode):
    checkpoint_factory("demo")
    upload = client.post("/api/v1/uploads", data=picture((1920, 1290))).get_json()["id"]
    job = client.post("/api/v1/jobs", json={"img2img": {"picture": upload, "resize_mode": mode}}).get_json()
    assert (job["params"]["width"], job["params"]["height"]) == (624, 416)


def test_form_without_scripts_keeps_the_proportions_and_says_so(client, checkpoint_factory: CheckpointFactory):
    checkpoint_factory("demo")
    file = (BytesIO(picture((1920, 1290))), "a.png")
    wrong = page(send(client, "/jobs", steps="x", **{"img2img.file": file}))
    assert "the picture’s proportions, 624 × 416" in wrong.text
    (kept,) = wrong.all("input", name="img2img.picture")
    answer = send(client, "/jobs", prompt="a", **{"img2img.picture": kept.attributes["value"]})
    job = look(client, answer.location)
    assert "Rendered at 624 × 416: the proportions of the source picture (1920 × 1290)" in job.text
    size = client.get("/size", query_string={"source": kept.attributes["value"]})
    assert size.get_json() == {"width": 624, "height": 416, "own_width": 1920, "own_height": 1288}
    assert client.get("/size", query_string={"source": "0" * 64}).status_code == 404
    assert client.get("/size").status_code == 404


@pytest.mark.parametrize(
    ("settings", "architecture", "native", "wanted"),
    [
        ({}, "sdxl", 1024, 1024),
        ({}, "sd2", 768, 768),
        ({"max_size": 760}, "sdxl", 1024, 760),
        ({"max_pixels": 512 * 512}, "sdxl", 1024, 512),
        ({"min_size": 128}, "sd1", 64, 128),
    ],
    indirect=["settings"],
)
def test_size_that_is_left_out_is_the_checkpoints_own_within_the_limits(
    client, checkpoint_factory, architecture, native, wanted
):
    checkpoint_factory("demo", native_size=native, architecture=architecture)
    job = client.post("/api/v1/jobs", json={"prompt": "a"}).get_json()
    assert (job["params"]["width"], job["params"]["height"]) == (wanted, wanted)
    shown = f"Rendered at {wanted} × {wanted}: the checkpoint’s own size would come to {native} × {native}"
    assert [note.partition(", and")[0] for note in job["notes"]] == ([] if wanted == native else [shown])
    form = look(client, "/")
    assert f"the checkpoint’s own, {wanted} × {wanted}" in form.text
    assert form.all("input", name="width")[0].attributes["placeholder"] == str(wanted)
    assert form.all("option", value=job["params"]["checkpoint"])[0].attributes["data-native"] == str(wanted)


def test_a_second_pass_doubles_the_checkpoints_own_size(client, checkpoint_factory):
    checkpoint_factory("demo", native_size=1024, architecture="sdxl")
    job = client.post("/api/v1/jobs", json={"prompt": "a", "hires": {}}).get_json()
    assert (job["params"]["width"], job["params"]["hires"]["scale"]) == (1024, 2.0)
    assert "1024 × 1024 → 2048 × 2048" in look(client, f"/jobs/{job['id']}").text


@given(
    st.tuples(st.integers(1, 10_000), st.integers(1, 10_000)),
    st.sampled_from([64, 768, 1024]),
    st.integers(0, 512).map(lambda cells: 8 * cells),
    st.sampled_from([(64, 4096, 2048 * 2048), (64, 2048, 1_000_000), (256, 4096, 256 * 256), (8, 1024, 70_001)]),
)
def test_size_never_has_more_pixels_than_a_picture_may_have(source, native, width, bounds):
    limits = Limits(min_size=bounds[0], max_size=bounds[1], max_pixels=bounds[2])
    chosen = [sizes.own(source, native, limits), sizes.own(None, native, limits), sizes.nearest(source, limits)]
    if limits.min_size <= width <= min(limits.max_size, limits.max_pixels // limits.min_size):
        chosen += [sizes.resolved(RenderParams(width=width), one, native, limits) for one in (source, None)]
    for size in chosen:
        assert all(side % 8 == 0 and limits.min_size <= side <= limits.max_size for side in size)
        assert size[0] * size[1] <= limits.max_pixels


@given(
    st.tuples(st.integers(1, 10_000), st.integers(1, 10_000)),
    st.sampled_from([64, 128, 512, 768, 1024]),
    st.sampled_from([(64, 2048), (8, 512), (256, 512), (512, 512)]),
)
def test_size_is_in_cells_and_bounds_and_as_near_as_these_allow(source, native, bounds):
    least, most = bounds
    width, height = in_proportion(source, native * native, least, most)
    assert width % 8 == height % 8 == 0
    assert least <= min(width, height) <= max(width, height) <= most
    if least < min(width, height) and max(width, height) < most:
        assert abs(width * source[1] - height * source[0]) <= 4 * sum(source)  # half a cell of either side


def test_bounds_that_are_no_multiples_of_a_cell_are_kept():
    limits = Limits(min_size=65, max_size=511)
    assert sizes.resolved(RenderParams(), (16, 1), 512, limits) == (504, 72)
