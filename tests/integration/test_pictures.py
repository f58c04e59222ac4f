"""The gallery in the database: what is listed, found, marked, deleted and removed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from sqlalchemy import select, text, update

from shared.accounts.scope import EVERYBODYS, Scope
from shared.db.sessions import transact
from shared.db.tables import Image, Picture
from shared.errors import NotFound, Refused
from shared.maintenance.pictures import list_pictures, remove_deleted
from shared.media.storage import Storage, job_prefix, key
from shared.params.render import RenderParams
from shared.pictures import changes, queries
from shared.pictures.changes import Marks
from shared.pictures.filters import Filter, PictureId
from shared.pictures.orders import Cursor, Order
from shared.queue.queries import job as job_view
from shared.queue.queries import picture_bytes
from shared.queue.submit import submit
from tests.support.admissions import sweep
from tests.support.galleries import finished
from tests.support.queueing import Farmhand


@pytest.fixture
def make(sessions, job_factory):
    return lambda **params: finished(sessions, job_factory, **params)


@pytest.fixture
def found(sessions):
    """The ids that a filter finds of an owner's pictures, page by page."""

    def find(owner="local", order="newest", limit=60, **wanted):
        ids, cursor = [], None
        while True:
            page = transact(
                sessions,
                lambda session, at=cursor: queries.page(
                    session, Scope(owner), Filter(**wanted), order=order, cursor=at, limit=limit
                ),
            )
            ids += [str(view.id) for view in page.pictures]
            if page.next is None:
                return ids
            cursor = Cursor.read(str(page.next), order)

    return find


def act(sessions, action, *ids, owner="local", tag="", **wanted):
    named = {"ids": tuple(PictureId(*map(int, one.split("."))) for one in ids)} if ids else {}
    return changes.change(sessions, Scope(owner), action, Filter(**named, **wanted), tag)


def test_pictures_are_found_by_what_they_were_asked_for(make, found):
    boat = make(prompt="a red boat at sea <lora:ink:0.7>", seed=5, sampler="Heun", count=2)
    tower = make(prompt="海边的日落", width=128, checkpoint="d" * 64, hires={"upscaler": "Lanczos", "denoising": 0.5})
    other = make(prompt="a red boat", owner="bob")

    boats, towers = [f"{boat.id}.1", f"{boat.id}.0"], [f"{tower.id}.0"]
    assert found() == towers + boats
    assert found(owner="bob") == [f"{other.id}.0"]
    assert found(words="boats red") == boats
    assert found(words="日落") == towers
    assert found(words="boat tower") == []
    assert found(adapter="ink") == boats
    assert found(checkpoints=("demo [dddddddddd]",)) == towers
    assert found(checkpoints=()) == []
    assert found(sampler="Heun") == boats
    assert found(seed=6) == boats[:1]
    assert found(size=(256, 128)) == towers
    assert found(job=boat.id, order="oldest") == boats[::-1]
    assert found(since=datetime.now(UTC) - timedelta(hours=1)) == towers + boats
    assert found(until=datetime.now(UTC) - timedelta(hours=1)) == []


def test_the_largest_seeds_are_found_and_are_in_nobodys_way(make, found):
    largest, other = make(prompt="a boat", seed=2**64 - 1), make(prompt="a boat", seed=2**63 - 1)
    assert found(seed=2**64 - 1) == [f"{largest.id}.0"]
    assert found(seed=2**63 - 1) == [f"{other.id}.0"]


def test_pages_bring_each_picture_once_also_of_the_same_moment(sessions, make, found):
    job = make(count=7)
    with sessions.begin() as session:
        session.execute(update(Picture).values(ended_at=datetime(2026, 1, 1, 12, 0, 0, 123, tzinfo=UTC)))
    newest = [f"{job.id}.{index}" for index in reversed(range(7))]
    assert found(limit=2) == newest
    assert found(limit=3, order="oldest") == newest[::-1]


@pytest.mark.parametrize("limit", [1, 2, 3, 60])
def test_an_order_has_each_picture_once_and_last_those_without_its_value(sessions, make, found, limit):
    first = make(seed=2**64 - 2, count=2, checkpoint="b" * 64)
    second = make(seed=5, count=2, width=128)
    third = make(seed=5, height=128, checkpoint="a" * 64)
    bare = make()
    of_first, of_second = [f"{first.id}.0", f"{first.id}.1"], [f"{second.id}.0", f"{second.id}.1"]
    of_third, last = [f"{third.id}.0"], [f"{bare.id}.0"]
    with sessions.begin() as session:
        empty = {"checkpoint": None, "seed": None, "width": None, "height": None}
        session.execute(update(Picture).where(Picture.job_id == bare.id).values(empty))
    assert found(order="seed", limit=limit) == [of_second[0], *of_third, of_second[1], *of_first, *last]
    assert found(order="largest", limit=limit) == [*of_second[::-1], *of_third, *of_first[::-1], *last]
    assert found(order="smallest", limit=limit) == [*of_first, *of_third, *of_second, *last]
    assert found(order="checkpoint", limit=limit) == [*of_third, *of_first, *of_second, *last]


def test_facets_are_those_of_the_owner(sessions, make):
    job = make(prompt="a boat <lora:ink>", sampler="Heun")
    make(prompt="a boat <lora:chalk>", owner="bob", checkpoint="d" * 64)
    act(sessions, "tag", f"{job.id}.0", tag="good")
    assert transact(sessions, lambda session: queries.facets(session, Scope("local"))) == queries.Facets(
        ("demo [cccccccccc]",), ("Heun",), ("ink",), ("good",)
    )
    for name in ("demo", "CCCCCCCCCC", "demo [cccccccccc]"):
        titles = transact(sessions, lambda session, name=name: queries.checkpoints(session, Scope("local"), name))
        assert titles == ("demo [cccccccccc]",)


@pytest.mark.parametrize("order", get_args(Order))
def test_pictures_of_everybody_stand_in_one_order(make, found, order):
    for owner, seed in (("ann", 7), ("bob", 5), ("local", 6)):
        make(owner=owner, seed=seed, count=2, checkpoint={5: "a", 6: "b", 7: "c"}[seed] * 64, width=64 * (seed - 4))
    by_owner = {owner: found(owner, order=order) for owner in ("ann", "bob", "local")}
    everybodys = found(None, order=order)
    assert found(None, order=order, limit=1) == found(None, order=order, limit=4) == everybodys
    assert {name: [one for one in everybodys if one in own] for name, own in by_owner.items()} == by_owner
    owners = [name for one in everybodys for name, own in by_owner.items() if one in own]
    expected = {
        "newest": "local local bob bob ann ann",
        "oldest": "ann ann bob bob local local",
        "seed": "bob bob local ann local ann",
        "largest": "ann ann local local bob bob",
        "smallest": "bob bob local local ann ann",
        "checkpoint": "bob bob local local ann ann",
    }
    assert owners == expected[order].split()


def test_pictures_of_everybody_are_filtered_and_counted_and_say_by_what(sessions, make, found):
    boats = [make(prompt="a boat <lora:ink>", owner=owner, sampler="Heun") for owner in ("ann", "bob")]
    make(prompt="a tower", owner="cleo", checkpoint="d" * 64)
    act(sessions, "favourite", f"{boats[1].id}.0", owner="bob")
    of_boats = {f"{one.id}.0" for one in boats}
    for wanted in ({"words": "boat"}, {"sampler": "Heun"}, {"adapter": "ink"}, {"checkpoints": ("demo [cccccccccc]",)}):
        assert {*found(None, **wanted)} == of_boats
        with sessions() as session:
            assert queries.count(session, EVERYBODYS, Filter(**wanted)) == 2
    assert found(None, favourites=True) == [f"{boats[1].id}.0"]
    with sessions() as session:
        assert queries.facets(session, EVERYBODYS) == queries.Facets(
            ("demo [cccccccccc]", "demo [dddddddddd]"), ("Euler a", "Heun"), ("ink",), ()
        )
        assert queries.checkpoints(session, EVERYBODYS, "DDDDDDDDDD") == ("demo [dddddddddd]",)


def test_images_of_before_are_listed_the_latest_first(sessions, make, found):
    """As after an upgrade: the table is empty, and says up to where images are not listed."""
    jobs = [make(count=2) for _ in range(2)]
    with sessions.begin() as session:
        session.execute(text("DELETE FROM pictures"))
        session.execute(text("UPDATE farm SET unlisted_images = (SELECT max(id) FROM images)"))
    make(prompt="a boat")
    assert len(found()) == 5
    assert found(words="painting", order="oldest") == [f"{job.id}.{index}" for job in jobs for index in range(2)]
    with sessions() as session:
        assert session.scalar(text("SELECT unlisted_images FROM farm")) is None


def test_a_job_of_a_newer_version_is_listed_and_hinders_no_other(sessions, job_factory, make, found):
    job = job_factory(prompt="a boat")
    with sessions.begin() as session:
        session.execute(text('UPDATE jobs SET params = params || \'{"mood": 3, "sampler": "New"}\''))
    hand = Farmhand(sessions)
    hand.finish(hand.worker().claim())
    assert list_pictures(sessions) == 1
    assert found(words="boat") == [f"{job.id}.0"]


def test_cells_of_a_sweep_are_found_by_their_own_parameters(sessions, found):
    base = RenderParams(prompt="a lake", checkpoint="demo [cccccccccc]", width=64, height=64, seed=5, steps=4)
    cells = sweep("local", base, {"prompt": ["a lake", "a lake in winter"], "width": [64, 128], "sampler": ["Heun"]})
    job = finished(sessions, lambda: transact(sessions, lambda session: submit(session, cells).job))
    assert found(words="winter", order="oldest") == [f"{job.id}.2", f"{job.id}.3"]
    assert found(size=(128, 64), sampler="Heun", order="oldest") == [f"{job.id}.1", f"{job.id}.3"]
    view = transact(sessions, lambda session: queries.picture(session, EVERYBODYS, PictureId(job.id, 3)))
    assert (view.params.prompt, view.params.width) == ("a lake in winter", 128)


def test_marks_are_kept_and_found(sessions, make, found):
    job = make(count=3)
    first = PictureId(job.id, 0)
    transact(
        sessions, lambda session: changes.mark(session, Scope("local"), first, Marks(favourite=True, tags=["sky"]))
    )
    transact(sessions, lambda session: changes.mark(session, Scope("local"), first, Marks()))
    act(sessions, "favourite", f"{job.id}.2")
    act(sessions, "tag", f"{job.id}.2", tag="sky")
    assert act(sessions, "tag", f"{job.id}.2", tag="sky").pictures == 0
    assert found(favourites=True) == found(tags=("sky",)) == [f"{job.id}.2", f"{job.id}.0"]
    assert act(sessions, "unfavourite", favourites=True).pictures == 2
    assert act(sessions, "untag", f"{job.id}.0", tag="sky").pictures == 1
    assert found(favourites=True) == []
    assert found(tags=("sky",)) == [f"{job.id}.2"]
    with pytest.raises(NotFound):
        transact(sessions, lambda session: changes.mark(session, Scope("bob"), first, Marks(favourite=True)))


@pytest.mark.parametrize("tag", ["", " ", "a" * 61, "a\x00b", "a\u202eb"])
def test_texts_that_are_no_tags_are_refused(tag):
    with pytest.raises(Refused):
        changes.tag(tag)


def test_deleted_pictures_are_hidden_at_once_and_restored_whole_or_one_by_one(sessions, make, found):
    job, kept = make(count=4), make(prompt="a boat")
    whole = [f"{job.id}.{index}" for index in reversed(range(4))]
    one = act(sessions, "delete", whole[0])
    rest = act(sessions, "delete", words="painting")
    assert (one.pictures, rest.pictures, rest.is_all) == (1, 3, True)
    assert found() == [f"{kept.id}.0"]
    view = transact(sessions, lambda session: job_view(session, EVERYBODYS, job.id))
    assert all(image.deleted_at for image in view.images)
    assert view.counts["succeeded"] == 4

    assert changes.restore(sessions, Scope("bob"), rest.deleted_at).pictures == 0
    assert changes.restore(sessions, Scope("local"), rest.deleted_at).pictures == 3
    assert found(job=job.id) == whole[1:]
    assert act(sessions, "restore", whole[0], owner="bob").pictures == 0
    assert act(sessions, "restore", whole[0]).pictures == 1
    assert found(job=job.id) == whole


def test_a_picture_that_comes_after_a_filter_was_asked_for_is_not_among_them(sessions, make, found):
    make()
    with sessions.begin() as session:
        session.execute(update(Picture).values(ended_at=datetime.now(UTC) + timedelta(minutes=1)))
    assert act(sessions, "delete").pictures == 0
    assert len(found()) == 1


def test_files_of_pictures_that_can_be_restored_stay_and_those_of_others_go(sessions, make, tmp_path):
    storage, job = Storage(str(tmp_path / "pictures")), make(count=2)
    files = [key(job.id, index, 1, kind) for index in range(2) for kind in ("picture", "thumbnail")]
    for name in files:
        storage.put(name, b"picture")
    act(sessions, "delete", f"{job.id}.0")
    assert remove_deleted(sessions, storage) == 0
    with sessions.begin() as session:
        past = datetime.now(UTC) - queries.KEPT - timedelta(minutes=2)
        session.execute(update(Picture).where(Picture.deleted_at.is_not(None)).values(deleted_at=past))
    assert not transact(
        sessions, lambda session: queries.picture(session, EVERYBODYS, PictureId(job.id, 0))
    ).is_restorable
    assert act(sessions, "restore", f"{job.id}.0").pictures == 0
    assert remove_deleted(sessions, storage) == 1
    assert [storage.exists(name) for name in files] == [False, False, True, True]
    assert remove_deleted(sessions, storage) == 0


def test_all_that_was_stored_of_a_deleted_picture_goes_by_one_listing_a_job(sessions, make, tmp_path, monkeypatch):
    storage, job = Storage(str(tmp_path / "pictures")), make(count=2)
    kinds = ["png", "picture.webp", "film.webp", "newer.webp"]
    names = [f"{job_prefix(job.id)}/{job.id}-{index:04}-1.{kind}" for index in range(2) for kind in kinds]
    others = [f"{job_prefix(job.id)}/{job.id}-0000-2.png", f"{job_prefix(job.id)}/sheet-1.png"]
    for name in [*names, *others]:
        storage.put(name, b"picture")
    act(sessions, "delete")
    with sessions.begin() as session:
        session.execute(update(Picture).values(deleted_at=datetime.now(UTC) - 2 * queries.KEPT))
    listed, attempts_of = [], storage.attempts_of
    monkeypatch.setattr(storage, "attempts_of", lambda job_id: listed.append(job_id) or attempts_of(job_id))
    assert (remove_deleted(sessions, storage), listed) == (2, [job.id])
    assert [name for name in [*names, *others] if storage.exists(name)] == others


def test_a_picture_whose_parameters_make_no_sense_keeps_no_other_from_being_found(sessions, make, found):
    strange, other = make(prompt="a boat"), make(prompt="a boat")
    with sessions.begin() as session:
        broken = text("""UPDATE jobs SET params = '{"hires": {"width": 1180591620717411303424}}' WHERE id = :id""")
        session.execute(broken, {"id": strange.id})
        session.execute(update(Picture).values(words=None))
    assert list_pictures(sessions) == 2
    assert found(words="boat") == [f"{other.id}.0"]
    assert list_pictures(sessions) == 0


def test_a_row_that_somebody_holds_is_not_waited_for(sessions, make, found):
    job = make(count=3)
    with sessions.begin() as holder:
        held = select(Picture).where(Picture.job_id == job.id, Picture.index == 1).with_for_update()
        holder.scalars(held).one()
        done = act(sessions, "delete", job=job.id)
    assert (done.pictures, done.is_all) == (2, False)
    assert found() == [f"{job.id}.1"]


def test_pictures_go_with_their_job(sessions, make):
    job = make()
    with sessions.begin() as session:
        session.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": job.id})
        assert session.scalars(select(Picture)).all() == []


def test_the_size_of_pictures_is_without_those_that_were_removed(sessions, make):
    make(count=2)
    with sessions.begin() as session:
        session.execute(update(Picture).where(Picture.index == 0).values(removed_at=datetime.now(UTC)))
        total = sum(session.scalars(select(Image.bytes)))
        assert picture_bytes(session) == total // 2
