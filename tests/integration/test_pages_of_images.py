"""A job of many images: the API and the page bring them a page at a time, and programs follow the pages."""

from __future__ import annotations

from functools import partial

import httpx
import pytest

from api.services import EXTENSION
from client.client import Client
from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.params.render import RenderParams
from shared.queue import queries, transitions
from shared.queue.queries import Span
from shared.queue.submit import submit
from tests.support.admissions import admission, sweep
from tests.support.browsing import look
from tests.support.queueing import Farmhand

COUNT = 250


@pytest.fixture(scope="module")
def services(standing_app):
    return standing_app.extensions[EXTENSION]


@pytest.fixture(scope="module")
def client(standing_app):
    return standing_app.test_client()


@pytest.fixture(scope="module")
def job(services) -> int:
    """The id of a job of which the images 0, 3 and 4 run, 1 has succeeded and 2 was cancelled."""
    hand = Farmhand(services.sessions)
    params = RenderParams(prompt="the sea", checkpoint="demo [cccccccccc]", width=64, height=64, seed=7, count=COUNT)
    job_id = hand.run(submit, admission("local", params)).job.id
    worker = hand.worker()
    claims = [worker.claim() for _ in range(5)]
    hand.finish(claims[1])
    hand.run(transitions.cancel, EVERYBODYS, job_id, 2)
    return job_id


def test_a_job_comes_with_its_first_hundred_images_and_the_counts_of_all(client, job):
    body = client.get(f"/api/v1/jobs/{job}").get_json()
    assert [image["index"] for image in body["images"]] == [*range(100)]
    assert body["next"] == 99
    assert sum(body["counts"].values()) == COUNT
    assert (body["counts"]["running"], body["counts"]["cancelled"]) == (3, 1)
    assert body["timings"]["waited_seconds"] is not None


@pytest.mark.parametrize(
    ("query", "indexes", "following"),
    [
        ("", range(100), 99),
        ("?cursor=99", range(100, 200), 199),
        ("?cursor=199", range(200, 250), None),
        ("?cursor=149&limit=100", range(150, 250), None),
        ("?cursor=249", (), None),
        ("?cursor=9223372036854775807", (), None),
        ("?limit=1000", range(250), None),
        ("?state=running&limit=2", (0, 3), 3),
        ("?state=running&state=succeeded&cursor=0", (1, 3, 4), None),
        ("?state=failed", (), None),
    ],
)
def test_images_come_a_page_at_a_time(client, job, query, indexes, following):
    body = client.get(f"/api/v1/jobs/{job}/images{query}").get_json()
    assert [image["index"] for image in body["images"]] == [*indexes]
    assert [image["seed"] for image in body["images"]] == [7 + index for index in indexes]
    assert body["next"] == following


@pytest.mark.parametrize(
    ("query", "field"), [("limit=0", "limit"), ("limit=1001", "limit"), ("cursor=-1", "cursor"), ("page=2", "page")]
)
def test_what_is_no_page_is_refused_by_name(client, job, query, field):
    answer = client.get(f"/api/v1/jobs/{job}/images?{query}")
    assert (answer.status_code, [one["field"] for one in answer.get_json()["errors"]]) == (422, [field])
    assert client.get("/api/v1/jobs/999999/images").status_code == 404


def test_the_page_links_to_the_next_images(client, job):
    first, last = look(client, f"/jobs/{job}"), look(client, f"/jobs/{job}?page=5")
    assert [len(page.all("article")) for page in (first, last)] == [60, 10]
    assert "Next 60" in first.text
    assert ("Previous 60" in last.text, "Next" in last.text) == (True, False)
    assert "Next 10" in look(client, f"/jobs/{job}?page=4").text
    assert "of picture 241" in last.text
    assert look(client, f"/jobs/{job}?image=245").all("article", id="image-245")
    for beyond in (99, 2**63 - 1):
        assert look(client, f"/jobs/{job}?page={beyond}").all("article", id="image-249")


def test_a_page_that_shows_the_others_asks_for_what_has_changed(client, job):
    whole = client.get(f"/jobs/{job}").get_data()
    some = client.get(f"/jobs/{job}?images=3,7,200,x").get_data()
    none = look(client, f"/jobs/{job}?images=")
    assert [f'id="image-{index}"'.encode() in some for index in (3, 7, 200, 4)] == [True, True, False, False]
    assert len(some) < len(whole) / 5
    assert (len(none.all("article")), "249 queued" in none.text or "1 of 250 done" in none.text) == (0, True)


def test_a_sheet_asks_for_the_cells_that_have_changed(services, client):
    params = RenderParams(prompt="the sea", checkpoint="demo [cccccccccc]", width=64, height=64, seed=7)
    axes = {"steps": [*range(1, 21)], "cfg_scale": [*range(1, 13)]}
    job = transact(services.sessions, lambda session: submit(session, sweep("local", params, axes)).job.id)
    assert len(look(client, f"/jobs/{job}").all("td", **{"class": "cell is-queued"})) == 240
    changed = look(client, f"/jobs/{job}?images=3,239")
    parts = [one.attributes.get("data-part") for one in changed.all("td")]
    assert parts == ["cell-3", "cell-239"]
    assert changed.all("header", **{"data-part": "head"})


def test_the_form_takes_over_an_image_far_down(client, job):
    page = look(client, f"/?from={job}&image=222")
    assert page.value("seed") == "229"
    for beyond in (250, 2**63 - 1):
        assert look(client, f"/?from={job}&image={beyond}").value("seed") == "7"


def test_a_program_gets_all_images_and_watches_a_few(standing_app, services, job):
    asked: list[str] = []
    over = httpx.WSGITransport(app=standing_app)

    def ask(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.query.decode())
        answer = over.handle_request(request)
        answer.read()
        return answer

    farm = Client("http://localhost", transport=httpx.MockTransport(ask))
    page = farm.images(job, limit=100)
    assert (len(page["images"]), page["next"]) == (100, 99)
    assert [image["index"] for image in farm.job(job)["images"]] == [*range(COUNT)]
    seen = next(farm.watch(job))
    assert ([image["index"] for image in seen["images"]], seen["counts"]["queued"]) == ([0, 3, 4], 245)
    assert asked[-1] == "state=running&limit=8"


def test_a_span_reads_no_other_rows(services, job):
    views = [
        transact(services.sessions, partial(queries.job, whose=EVERYBODYS, job_id=job, span=span))
        for span in (Span(limit=0), Span(10, 3), Span(247, 3))
    ]
    assert [([image.index for image in view.images], view.next) for view in views] == [
        ([], None), ([11, 12, 13], 13), ([248, 249], None),
    ]  # fmt: skip
    assert {view.count for view in views} == {COUNT}
