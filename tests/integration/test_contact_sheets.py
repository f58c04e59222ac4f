"""Contact sheets of sweeps: made out of the outbox when a job ends, made again after a retry, and over HTTP."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from io import BytesIO, StringIO

import pytest
from flask import Flask
from PIL import Image
from sqlalchemy import select, text

from api.security import auth
from shared.accounts.principal import Principal, Role
from shared.accounts.scope import EVERYBODYS
from shared.db.tables import Outbox, Sheet
from shared.errors import StorageAway
from shared.maintenance import outbox, sheets
from shared.maintenance.garbage import collect_jobs, collect_sheets
from shared.media.storage import key, sheet_key
from shared.params.render import RenderParams
from shared.queue import transitions
from shared.queue.submit import submit
from shared.sheets import contact_sheet
from shared.sheets.pictures import CellPictures
from tests.support.admissions import admission, sweep
from tests.support.browsing import look
from tests.support.queueing import Farmhand

AXES = {"sampler": ["Euler", "Heun"], "cfg_scale": [7.0, 15.0]}
PARAMS = RenderParams(prompt="=the sea, 海", checkpoint="demo [cccccccccc]", width=64, height=64, seed=7, steps=4)


@pytest.fixture(autouse=True, scope="module")
def _pictures_are_decoded_by_one_process():
    """One starts for each sheet, and takes longer than to draw it."""

    class Standing(CellPictures):
        def __exit__(self, *_):
            pass

    standing = Standing(2**22)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.maintenance.sheets.CellPictures", lambda _: standing)
        yield
    standing.close()


@pytest.fixture
def app(standing_app: Flask) -> Flask:
    return standing_app


@pytest.fixture
def sessions(services):
    return services.sessions


@pytest.fixture
def storage(services):
    return services.storage


@pytest.fixture
def farm(sessions):
    """A farm whose queue and outbox are empty."""
    hand = Farmhand(sessions)
    hand.run(lambda session: session.execute(text("TRUNCATE jobs, images, workers, outbox CASCADE")))
    return hand


@pytest.fixture
def job(farm):
    """A sweep of four images."""
    return farm.run(submit, sweep("local", PARAMS, AXES)).job


def colour(index):
    return (40 * index, 106, 75)


def png(index):
    out = BytesIO()
    Image.new("RGB", (64, 64), colour(index)).save(out, "PNG")
    return out.getvalue()


def render(farm, storage, *, fails=()):
    """Render what is queued; those in `fails` fail."""
    worker = farm.worker()
    while claim := worker.claim():
        if claim.index in fails:
            farm.run(transitions.fail, claim, "no memory")
        else:
            storage.put(key(claim.job_id, claim.index, claim.attempt, "picture"), png(claim.index))
            farm.finish(claim)


def events(farm):
    rows = farm.run(lambda session: session.scalars(select(Outbox).order_by(Outbox.id)).all())
    return [outbox.OutboxEvent(row.id, row.kind, row.at, row.job_id, row.owner) for row in rows]


def make(event, sessions, storage):
    sheets.make(event, sessions=sessions, storage=storage, most_pixels=2**22)


def row(farm, job):
    return farm.run(lambda session: session.get(Sheet, job.id))


def shown(data):
    with Image.open(BytesIO(data)) as opened:
        opened.load()
        return opened


def colours(picture):
    return {pixel for _, pixel in picture.getcolors(2**24)}


def test_a_sweep_that_has_ended_gets_a_sheet_with_a_picture_for_each_cell(farm, job, sessions, storage):
    render(farm, storage, fails=[2])
    [event] = events(farm)
    make(event, sessions, storage)
    data = storage.get(sheet_key(job.id, event.id))
    picture, made = shown(data), row(farm, job)
    assert (made.end_id, made.width, made.height, made.bytes) == (event.id, *picture.size, len(data))
    assert {colour(index) for index in (0, 1, 3)} <= colours(picture)
    assert colour(2) not in colours(picture)
    said = json.loads(picture.info["stepfarm job"])
    assert said["prompt"] == "=the sea, 海"
    assert [axis["field"] for axis in said["sweep"]["axes"]] == list(AXES)
    assert "local" not in picture.info["stepfarm job"], "the file is passed on: it does not name its owner"


def test_a_sheet_is_in_the_language_that_the_sweep_was_asked_for_in(farm, sessions, storage, monkeypatch):
    drawn = []
    draw = contact_sheet.drawing.draw
    monkeypatch.setattr(contact_sheet.drawing, "draw", lambda *given: (drawn.append(given), draw(*given))[1])
    farm.run(submit, replace(sweep("local", PARAMS, AXES), language="zh"))
    render(farm, storage)
    make(events(farm)[0], sessions, storage)
    [(arrangement, words, *_)] = drawn
    assert (arrangement.rows, arrangement.columns) == ("采样方法 (Sampler)", "提示词引导系数 (CFG)")
    assert "迭代步数 (Steps): 4" in words.rest[0]
    assert "4 张图片中的 4 张" in words.rest[-1]


def test_a_sheet_has_all_cells_of_a_large_sweep(farm, sessions, storage):
    cells = 101  # more than the images that come with a job
    job = farm.run(submit, sweep("local", PARAMS, {"steps": [*range(1, cells + 1)]})).job
    farm.run(transitions.cancel, EVERYBODYS, job.id, 0)
    farm.run(transitions.cancel, EVERYBODYS, job.id, 1)
    worker = farm.worker()
    claim = worker.claim()
    storage.put(key(claim.job_id, claim.index, claim.attempt, "picture"), png(claim.index))
    farm.finish(claim)
    farm.run(transitions.cancel, EVERYBODYS, job.id)
    [event] = events(farm)
    make(event, sessions, storage)
    assert colour(claim.index) in colours(shown(storage.get(sheet_key(job.id, event.id))))


def test_an_event_that_comes_twice_makes_one_sheet(farm, job, sessions, storage, monkeypatch):
    render(farm, storage)
    [event] = events(farm)
    make(event, sessions, storage)
    monkeypatch.setattr("shared.sheets.contact_sheet.draw", None)
    make(event, sessions, storage)
    assert [sheet.end for sheet in storage.sheets_of(job.id)] == [event.id]


def test_a_process_that_was_killed_between_storing_and_recording_is_followed_by_one_that_records(
    farm, job, sessions, storage
):
    render(farm, storage)
    [event] = events(farm)
    storage.put(sheet_key(job.id, event.id), b"as another version drew it")
    make(event, sessions, storage)
    assert row(farm, job).bytes == len(b"as another version drew it")


def test_what_is_rendered_again_mends_the_sheet_and_the_older_one_goes(farm, job, sessions, storage):
    render(farm, storage, fails=[2])
    make(events(farm)[0], sessions, storage)
    farm.run(transitions.retry, EVERYBODYS, job.id, 2)
    render(farm, storage)
    first, second = events(farm)
    make(first, sessions, storage)
    assert row(farm, job).end_id == first.id, "late: the job has ended once more since"
    make(second, sessions, storage)
    make(first, sessions, storage)
    assert row(farm, job).end_id == second.id
    assert [sheet.end for sheet in storage.sheets_of(job.id)] == [second.id]
    assert colour(2) in colours(shown(storage.get(sheet_key(job.id, second.id))))


def test_what_has_no_use_for_a_sheet_gets_none(farm, sessions, storage):
    plain = farm.run(submit, admission("local", PARAMS)).job
    cancelled, deleted = (farm.run(submit, sweep("local", PARAMS, AXES)).job for _ in range(2))
    farm.run(transitions.cancel, EVERYBODYS, cancelled.id)
    render(farm, storage)
    farm.run(transitions.delete, EVERYBODYS, deleted.id)
    for event in events(farm):
        make(event, sessions, storage)
    assert len(events(farm)) == 3
    for job in (plain, cancelled, deleted):
        assert row(farm, job) is None
        assert storage.sheets_of(job.id) == []


def test_a_picture_that_is_lost_is_a_cell_that_says_so_and_an_outage_makes_no_sheet(
    farm, job, sessions, storage, monkeypatch
):
    render(farm, storage)
    [event] = events(farm)
    storage.delete(key(job.id, 1, 1, "picture"))
    with monkeypatch.context() as away:

        def get(key):
            raise StorageAway("reading", "the disk is gone")

        away.setattr(storage, "get", get)
        with pytest.raises(StorageAway):
            make(event, sessions, storage)
    assert row(farm, job) is None
    make(event, sessions, storage)
    seen = colours(shown(storage.get(sheet_key(job.id, event.id))))
    assert (colour(0) in seen, colour(1) in seen) == (True, False)


def test_sheets_that_were_replaced_or_belong_to_deleted_jobs_are_collected_and_no_others(farm, job, sessions, storage):
    render(farm, storage)
    [event] = events(farm)
    make(event, sessions, storage)
    older, newer = event.id - 1, event.id + 1
    for end in (older, newer):
        storage.put(sheet_key(job.id, end), b"sheet")
    assert collect_sheets(sessions, storage) == 1
    assert sorted(sheet.end for sheet in storage.sheets_of(job.id)) == [event.id, newer], "one may be recorded next"
    farm.run(transitions.delete, EVERYBODYS, job.id)
    assert row(farm, job) is None
    assert job.id in collect_jobs(sessions, storage)
    assert storage.sheets_of(job.id) == []


class TestOverHttp:
    def test_the_picture_is_there_when_it_is_made_and_until_then_the_answer_says_why_not(
        self, farm, job, sessions, storage, client
    ):
        address = f"/api/v1/jobs/{job.id}/sheet.png"
        assert "is made when all its images have ended" in client.get(address).get_json()["detail"]
        render(farm, storage)
        assert "is being made" in client.get(address).get_json()["detail"]
        [event] = events(farm)
        make(event, sessions, storage)
        answer = client.get(address)
        assert (answer.status_code, answer.mimetype) == (200, "image/png")
        assert answer.data == storage.get(sheet_key(job.id, event.id))
        again = client.get(address, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
        farm.run(lambda session: session.execute(text("UPDATE images SET state = 'failed' WHERE index = 1")))
        farm.run(transitions.retry, EVERYBODYS, job.id)
        assert client.get(address).status_code == 404, "it is about to be another"

    def test_a_job_without_axes_says_that_it_has_none(self, farm, client):
        plain = farm.run(submit, admission("local", PARAMS)).job
        assert "has no axes" in client.get(f"/api/v1/jobs/{plain.id}/sheet.png").get_json()["detail"]
        assert len(client.get(f"/api/v1/jobs/{plain.id}/sheet.json").get_json()["cells"]) == 1

    def test_the_tables_have_each_cell_with_all_that_it_changes(self, farm, job, storage, client):
        render(farm, storage, fails=[2])
        sheet = client.get(f"/api/v1/jobs/{job.id}/sheet.json").get_json()
        assert [axis["label"] for axis in sheet["axes"]] == ["Sampler", "CFG scale"]
        assert sheet["shared"]["Steps"] == "4"
        assert not {"Sampler", "CFG scale"} & sheet["shared"].keys()
        third = sheet["cells"][2]
        assert (third["titles"], third["state"], third["reason"]) == (["Heun", "7.0"], "failed", "no memory")
        assert third["changes"] == {"sampler": "Heun", "cfg_scale": 7.0}
        answer = client.get(f"/api/v1/jobs/{job.id}/sheet.csv")
        assert answer.data.startswith("\ufeff".encode())
        chinese = client.get(f"/api/v1/jobs/{job.id}/sheet.csv", headers={"Accept-Language": "zh"})
        headings, _, _, third, _ = csv.reader(StringIO(chinese.data.decode("utf-8-sig")))
        assert headings[1:3] + headings[-3:] == ["状态", "采样方法 (Sampler)", "秒数", "原因", "图片"]
        assert {"sampler", "cfg_scale"} < {*headings}
        assert third[1] == "失败"
        rows = list(csv.DictReader(StringIO(answer.data.decode("utf-8-sig"))))
        assert [row["Sampler"] for row in rows] == ["Euler", "Euler", "Heun", "Heun"]
        assert rows[0]["picture"] == f"/api/v1/jobs/{job.id}/images/0/picture.png"
        assert (rows[2]["cfg_scale"], rows[2]["reason"], rows[2]["picture"]) == ("7.0", "no memory", "")

    def test_a_spreadsheet_runs_nothing_of_it(self, farm, client):
        values = ["=1+1", "+cmd", "-x", "@SUM(A1)", "\tx", "-1.5", "plain, with a comma"]
        job = farm.run(submit, sweep("local", PARAMS, {"prompt": values})).job
        rows = csv.DictReader(StringIO(client.get(f"/api/v1/jobs/{job.id}/sheet.csv").data.decode("utf-8-sig")))
        shown = [row["Prompt"] for row in rows]
        assert shown == ["'=1+1", "'+cmd", "'-x", "'@SUM(A1)", "'\tx", "-1.5", "plain, with a comma"]

    def test_the_job_of_another_owner_has_no_sheet_at_all(self, farm, client, monkeypatch):
        monkeypatch.setattr(auth, "LOCAL", Principal("local", Role.USER))
        job = farm.run(submit, sweep("ann", PARAMS, AXES)).job
        for kind in ("png", "csv", "json"):
            answer = client.get(f"/api/v1/jobs/{job.id}/sheet.{kind}")
            assert (answer.status_code, answer.get_json()["detail"]) == (404, f"There is no job {job.id}.")


class TestOnTheJobsPage:
    def test_the_cells_stand_under_their_titles_and_tell_their_states(self, farm, job, storage, client):
        render(farm, storage, fails=[2])
        shown = look(client, f"/jobs/{job.id}")
        assert "CFG scale → Sampler ↓ 7.0 15.0 Euler" in shown.text
        assert len(shown.all("th", scope="col")) == len(shown.all("th", scope="row")) == 2
        cells = [cell.attributes["data-index"] for cell in shown.all("td") if "data-index" in cell.attributes]
        assert cells == ["0", "1", "2", "3"]
        assert len(shown.all("img", alt="Euler · 15.0")) == 1
        assert "Heun · 7.0: failed Render again" in shown.text
        assert "Render all failed again" in shown.text

    def test_a_cell_opens_with_all_its_parameters(self, farm, job, storage, client):
        render(farm, storage)
        opened = look(client, f"/jobs/{job.id}?image=2")
        assert opened.all("h2", id="opened-title")
        assert "Sampler Heun" in opened.text
        closed = look(client, f"/jobs/{job.id}?image=4")
        assert not closed.all("h2", id="opened-title"), "there is none"
        assert "Sampler Heun" not in closed.text

    def test_the_files_are_linked_once_they_are_there(self, farm, job, sessions, storage, client):
        address = f"/api/v1/jobs/{job.id}/sheet"
        render(farm, storage)
        before = look(client, f"/jobs/{job.id}")
        assert "is being drawn" in before.text
        assert before.all("a", href=f"{address}.csv")
        assert not before.all("a", href=f"{address}.png")
        make(events(farm)[0], sessions, storage)
        after = look(client, f"/jobs/{job.id}")
        assert "is being drawn" not in after.text
        assert after.all("a", href=f"{address}.png")
