"""Jobs that enlarge pictures: what is recorded, and what is refused."""

from __future__ import annotations

import base64
from io import BytesIO

import pytest
from PIL import Image
from sqlalchemy import select

from shared.admission.admit import admit, prepare
from shared.admission.parse import parse
from shared.db.sessions import transact
from shared.db.tables import Image as ImageRow
from shared.db.tables import Job, JobUpload
from shared.errors import Refused
from shared.infotext.writer import upscale_text
from shared.jobs import stored
from shared.media import uploads
from shared.media.decode import Picture, PictureReader
from shared.media.storage import Storage
from shared.models.catalogue import Catalogue
from shared.models.model_set import ModelSet
from shared.queue.submit import submit
from shared.settings import Limits
from tests.conftest import checkpoints_of

SMALL, LARGE = Picture(b"small", 40, 30), Picture(b"large", 2048, 1024)


@pytest.fixture
def farm(sessions, tmp_path):
    make = checkpoints_of(sessions)
    make("4x-sharp", sha256="1" * 64, kind="upscaler")
    make("2x-soft", sha256="2" * 64, kind="upscaler")
    uploads.keep(sessions, Storage(str(tmp_path)), "ann", {"a": SMALL, "b": LARGE}, Limits())
    return sessions


@pytest.fixture
def ask(farm):
    def ask(upscale, **others):
        request = prepare(parse({"upscale": upscale, **others}, "ann", Limits()), {})
        return transact(farm, lambda session: admit(session, request, Catalogue.read(session)))

    return ask


def of(*pictures):
    return [{"picture": one.sha256} for one in pictures]


def test_a_job_has_an_image_for_each_picture_in_the_lane_of_the_upscaler(farm, ask):
    pictures = [*of(SMALL), {"picture": LARGE.sha256, "parameters": "a cat"}]
    admission = ask({"pictures": pictures, "upscaler": "4X-sharp", "scale": 1.5, "second": "2x-soft"})
    job = transact(farm, lambda session: submit(session, admission).job)
    with farm() as session:
        row = session.get(Job, job.id)
        lanes = session.execute(select(ImageRow.checkpoint, ImageRow.companions, ImageRow.memory_class)).all()
        assert set(session.scalars(select(JobUpload.sha256))) == {SMALL.sha256, LARGE.sha256}
    assert (row.count, row.checkpoint) == (2, "1" * 64)
    assert lanes == [("1" * 64, "", lanes[0][2])] * 2
    assert ModelSet.from_stored(row.models) == ModelSet(upscaler="1" * 64, second_upscaler="2" * 64)
    params, unknown = stored.understood(row.params)
    assert not unknown
    assert params.upscale.upscaler == "4x-sharp [1111111111]"
    assert [params.image(index).upscale.pictures[0].parameters for index in (0, 1)] == ["", "a cat"]
    assert params.image(1).count == 1


def test_lanczos_needs_no_model_and_no_checkpoint(ask):
    admission = ask({"pictures": of(SMALL), "upscaler": "LANCZOS"}, format="webp")
    assert admission.models == ModelSet()
    assert admission.models.lane == "none"
    assert (admission.params.upscale.upscaler, admission.params.format) == ("Lanczos", "webp")


@pytest.mark.parametrize(
    ("upscale", "others", "refused"),
    [
        ({"pictures": of(SMALL)}, {"prompt": "sea", "steps": 4}, {"prompt", "steps"}),
        ({"pictures": of(SMALL), "upscaler": "4x-shrap"}, {}, {"upscale.upscaler"}),
        ({"pictures": of(SMALL), "upscaler": "Latent"}, {}, {"upscale.upscaler"}),
        ({"pictures": of(SMALL), "upscaler": ""}, {}, {"upscale.upscaler"}),
        ({"pictures": of(SMALL), "second": "nothing"}, {}, {"upscale.second"}),
        ({"pictures": of(LARGE), "scale": 3}, {}, {"upscale.scale"}),
        ({"pictures": of(SMALL, LARGE), "width": 4097}, {}, {"upscale.width"}),
        ({"pictures": []}, {}, {"upscale.pictures"}),
        ({}, {}, {"upscale.pictures"}),
        ({"pictures": [{"picture": "c" * 64}]}, {}, {"upscale.pictures.0.picture"}),
        ({"pictures": of(SMALL), "scale": 9}, {}, {"upscale.scale"}),
        ({"pictures": of(SMALL), "factor": 2}, {}, {"upscale.factor"}),
        ({"pictures": of(SMALL) * 65}, {}, {"upscale.pictures"}),
        ({"pictures": [{**of(SMALL)[0], "parameters": "é" * 65_536}] * 5}, {}, {"upscale.pictures"}),
    ],
)
def test_a_job_that_cannot_be_done_is_refused_by_its_fields(ask, upscale, others, refused):
    with pytest.raises(Refused) as raised:
        ask(upscale, **others)
    assert {one.field for one in raised.value.fields} == refused
    assert all(one.accepted for one in raised.value.fields)


def test_a_job_may_have_as_many_pictures_and_as_much_text_as_is_said(ask):
    assert ask({"pictures": of(SMALL) * 64}).params.count == 64
    assert ask({"pictures": [{**of(SMALL)[0], "parameters": "é" * 65_536}] * 4}).params.count == 4


def test_a_picture_may_come_as_a_data_url(farm):
    out = BytesIO()
    Image.new("RGBA", (20, 10), (200, 0, 0, 100)).save(out, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
    reader = PictureReader(Limits())
    request = prepare(parse({"upscale": {"pictures": [{"picture": url}]}}, "ann", Limits()), {}, reader)
    reader.close()
    assert not request.problems
    admission = transact(farm, lambda session: admit(session, request, Catalogue.read(session)))
    assert admission.params.upscale.pictures[0].picture in {one.sha256 for one in request.pictures.values()}


def test_the_text_of_a_result_is_that_of_the_ecosystem(ask):
    options = ask(
        {"pictures": of(SMALL), "upscaler": "4x-sharp", "second": "Nearest", "second_share": 0.25}
    ).params.upscale
    assert upscale_text(options, (80, 60)) == (
        "Postprocess upscale by: 2, Postprocess upscaler: 4x-sharp, Postprocess upscaler 2: Nearest, "
        "Postprocess upscaler 2 visibility: 0.25"
    )
    sized = ask({"pictures": of(SMALL), "width": 80}).params.upscale
    assert upscale_text(sized, (80, 60)).startswith("Postprocess upscale to: 80x60, ")
