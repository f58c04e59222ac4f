"""The pages of the gallery as a person without scripts uses them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import update

from api.services import EXTENSION
from shared.db.sessions import transact
from shared.db.tables import Picture
from shared.media.storage import key
from shared.params.render import RenderParams
from shared.queue.submit import submit
from tests.support.admissions import admission
from tests.support.browsing import look, page, send
from tests.support.galleries import finished


@pytest.fixture(scope="module")
def app(standing_app):
    return standing_app


@pytest.fixture
def make(app):
    """Submits and finishes a job of the local owner, and stores its pictures."""
    services = app.extensions[EXTENSION]

    def make_job(**params):
        given = {"prompt": "a boat", "checkpoint": "demo [0123456789]", "seed": 7, "width": 64, "height": 64}
        admitted = admission("local", RenderParams(**(given | params)))
        job = transact(services.sessions, lambda session: submit(session, admitted).job)
        for index in range(job.count):
            services.storage.put(key(job.id, index, 1, "picture"), f"picture {index}".encode())
        return job

    return partial(finished, services.sessions, make_job)


def tiles(shown):
    return [one.attributes["data-picture"] for one in shown.all("li") if "data-picture" in one.attributes]


def press(client, action, *ids, back="/pictures", **fields):
    chosen = {"id": list(ids)} if ids else {}
    return send(client, "/pictures/actions", "/", action=action, back=back, **fields, **chosen)


def test_pictures_are_found_by_the_filters_and_pages_lead_on(client, make):
    job = make(prompt="a windmill by a canal", count=61)
    first = look(client, "/pictures?words=windmills&sampler=Euler a&size=64x64")
    assert len(tiles(first)) == 60
    assert first.all("input", name="words")[0].attributes["value"] == "windmills"
    [more] = first.all("a", rel="next")
    assert tiles(look(client, more.attributes["href"])) == [f"{job.id}.0"]
    assert "No picture is like that" in look(client, "/pictures?words=nothing+like+it").text


def test_filters_that_make_no_sense_do_not_count_and_are_named(client, make):
    make(prompt="sensible")
    shown = look(client, "/pictures?words=sensible&size=large&seed=x&from=tomorrow&order=odd&cursor=%00&unknown=1")
    assert len(tiles(shown)) == 1
    assert "do not count: cursor, from, order, seed, size" in shown.text


def test_an_order_has_its_headings_its_pages_and_its_place_in_actions(client, make):
    small = make(prompt="sorted", count=2, seed=9, checkpoint="a [0123456789]")
    large = make(prompt="sorted", width=128, seed=8)

    def shown(order):
        page = look(client, f"/pictures?words=sorted&order={order}")
        return tiles(page), [
            one.attributes.get("aria-label") for one in page.all("section", **{"class": "group-of-tiles"})
        ]

    smalls = [f"{small.id}.0", f"{small.id}.1"]
    assert shown("largest") == ([f"{large.id}.0", *smalls[::-1]], ["128 × 64", "64 × 64"])
    assert shown("checkpoint") == ([*smalls, f"{large.id}.0"], ["a [0123456789]", "demo [0123456789]"])
    assert shown("seed") == ([f"{large.id}.0", *smalls], [None])
    assert "Seed 9" in look(client, "/pictures?words=sorted&order=seed").text
    press(client, "favourite", words="sorted", order="seed", all="1")
    assert len(tiles(look(client, "/pictures?words=sorted&favourites=true"))) == 3
    assert "do not count: order" in look(client, "/pictures?words=sorted&order=odd&cursor=1-1-x").text


def test_days_are_those_of_whoever_looks(client, make, app):
    job = make(prompt="a day")
    with app.extensions[EXTENSION].sessions.begin() as session:
        evening = datetime(2026, 3, 31, 20, tzinfo=UTC)
        session.execute(update(Picture).where(Picture.job_id == job.id).values(ended_at=evening))
    for zone, day in (("Asia/Shanghai", "2026-04-01"), ("../etc/passwd", "2026-03-31"), ("", "2026-03-31")):
        client.set_cookie("timezone", zone)
        assert look(client, f"/pictures?job={job.id}").all("section", **{"data-group": day})
    client.delete_cookie("timezone")


def test_one_picture_has_a_page_with_its_own_parameters(client, make):
    job = make(prompt="<b>bold</b>", count=2)
    shown = look(client, f"/pictures/{job.id}/1")
    assert "<b>bold</b>" in shown.text
    assert "seed 8" in shown.text
    assert shown.all("a", href=f"/?from={job.id}&image=1")
    look(client, f"/pictures/{job.id}/2", 404)


def test_deleting_by_a_form_is_undone_by_a_form(client, make):
    job = make(prompt="undone", count=2)
    answer = press(client, "delete", f"{job.id}.0", back="/pictures?words=undone")
    shown = look(client, answer.location)
    assert tiles(shown) == [f"{job.id}.1"]
    assert "1 picture deleted. Undo" in shown.text
    assert "It can be restored for an hour" in look(client, f"/pictures/{job.id}/0").text
    fields = {name: shown.value(name) for name in ("undo", "back")}
    restored = look(client, send(client, "/pictures/restore", "/", **fields).location)
    assert "1 picture is back." in restored.text
    assert len(tiles(restored)) == 2


def test_the_page_of_a_job_shows_which_picture_is_deleted_and_restores_it(client, make):
    job = make(prompt="a tower", count=2)
    press(client, "delete", f"{job.id}.1")
    shown = look(client, f"/jobs/{job.id}")
    assert "Deleted seed 8 Restore image 2" in shown.text
    [form] = [one.attributes["action"] for one in shown.all("form") if "restore" in one.attributes.get("action", "")]
    restored = look(client, send(client, form, "/").location)
    assert "1 picture is back." in restored.text
    assert "Deleted" not in restored.text


def test_chosen_pictures_or_all_of_a_filter_are_marked_tagged_and_sent(client, make):
    job = make(prompt="a heron", count=3)
    press(client, "favourite", f"{job.id}.0", f"{job.id}.2")
    assert tiles(look(client, "/pictures?favourites=true&words=heron")) == [f"{job.id}.2", f"{job.id}.0"]
    press(client, "tag", tag="bird", words="heron", all="1")
    assert len(tiles(look(client, "/pictures?tag=bird"))) == 3
    sent = send(client, "/pictures/zip", "/", id=[f"{job.id}.1"])
    assert (sent.mimetype, sent.data[:2]) == ("application/zip", b"PK")
    assert "Choose some pictures first." in look(client, press(client, "delete").location).text
    assert "cannot be done" in look(client, press(client, "burn", f"{job.id}.1").location).text


def test_pictures_are_rendered_again_with_new_seeds(client, make, app):
    job = make(prompt="twice", seed=5, checkpoint="demo")
    answer = press(client, "again", f"{job.id}.0")
    assert "1 picture is rendered again." in look(client, answer.location).text
    [again, _] = client.get("/api/v1/jobs?limit=2").get_json()["jobs"]
    assert (again["params"]["prompt"], again["id"] > job.id) == ("twice", True)
    assert again["params"]["seed"] != 5
    refused = press(client, "again", words="twice", all="1")
    assert "Choose at most 20 pictures" in look(client, refused.location).text


def test_of_pictures_that_are_rendered_again_one_that_is_refused_stops_no_other(client, make):
    gone, there = make(prompt="thrice", checkpoint="gone"), make(prompt="thrice", checkpoint="demo")
    long = make(prompt="thrice", checkpoint="demo", steps=151)
    shown = look(client, press(client, "again", f"{gone.id}.0", f"{long.id}.0", f"{there.id}.0").location)
    assert "1 picture is rendered again." in shown.text
    assert f"Picture {gone.id}.0: The farm is still reading its models." in shown.text
    assert f"Picture {long.id}.0: steps: 151 is too large" in shown.text
    assert client.get("/api/v1/jobs?limit=1").get_json()["jobs"][0]["params"]["prompt"] == "thrice"
    alone = press(client, "again", f"{gone.id}.0", back="/pictures?words=thrice")
    assert alone.location == "/pictures?words=thrice"


def test_an_action_on_all_of_a_filter_that_cannot_be_read_deletes_nothing(client, make):
    make(prompt="unharmed")
    answer = send(client, "/pictures/actions", action="delete", all="1", size="64")
    assert "size: cannot be read" in look(client, answer.location).text
    assert len(tiles(look(client, "/pictures?words=unharmed"))) == 1


def test_all_of_a_filter_are_those_that_the_page_has_counted(client, make):
    make(prompt="a ferry")
    [chosen] = [one for one in [look(client, "/pictures?words=ferry")] if "All 1 of this filter" in one.text]
    later = make(prompt="a ferry")
    [until] = [one.attributes["value"] for one in chosen.all("input", type="hidden", name="until")]
    press(client, "delete", all="1", words="ferry", until=until)
    assert tiles(look(client, "/pictures?words=ferry")) == [f"{later.id}.0"]


def test_compared_pictures_tell_only_what_differs(client, make):
    job, other = make(prompt="a lake", steps=10), make(prompt="a lake", steps=20, cfg_scale=9.0)
    shown = look(client, f"/compare?of={job.id}.0,{other.id}.0")
    labels = shown.text.partition("Differences")[2]
    assert "Steps 10 20" in labels
    assert "CFG scale 7 9" in labels
    assert "Sampler" not in labels
    assert "Choose two to four" in look(client, "/compare?of=x,1.0,%00").text


@pytest.mark.parametrize("path", ["/pictures", "/pictures?words=%E6%B5%B7", "/compare"])
def test_pages_speak_chinese(client, path):
    shown = page(client.get(path, headers={"Accept-Language": "zh"}))
    assert "图片" in shown.text
