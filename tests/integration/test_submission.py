"""A submission as the database sees it: how often it asks, and that all of it is recorded or nothing."""

from __future__ import annotations

import hashlib
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from threading import get_ident

import psycopg
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sqlalchemy import delete, event, func, insert, select, text

from api.services import Services
from shared.accounts import keyring
from shared.db.sessions import transact
from shared.db.tables import Base, Job, ModelFile, Upload
from shared.media import uploads
from shared.media.decode import Picture
from shared.media.storage import upload_key
from shared.models.catalogue import Catalogue
from shared.queue.submit import submit
from tests.support.admissions import admitted
from tests.support.statements import statements
from tests.support.waiting import until

JOBS = "/api/v1/jobs"
FILES = 5_000
EVERY_NAME = {
    "checkpoint": "model-2500",
    "vae": "model-3100",
    "refiner": {"checkpoint": "model-0001"},
    "hires": {"checkpoint": "model-0002", "scale": 1.5},
}
MISSPELT = {
    "checkpoint": "modle-25000",
    "vae": "modle-31000",
    "refiner": {"checkpoint": "modle-00010"},
    "hires": {"checkpoint": "modle-00020"},
}


@pytest.fixture
def many_files(sessions) -> None:
    """A models folder as large as collections become: 3,000 checkpoints, 500 VAEs, 1,500 files of other kinds."""
    kinds = ["checkpoint"] * 3000 + ["vae"] * 500 + ["other"] * 1500
    rows = [
        {
            "path": f"folder-{number % 50}/model-{number:04}.safetensors",
            "name": f"model-{number:04}",
            "kind": kind,
            "architecture": "sd1",
            "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
            "size": 2**31,
            "mtime_ns": 1,
            "native_size": 64,
            "usable": kind != "other",
            "reason": "is a LoRA" if kind == "other" else None,
        }
        for number, kind in enumerate(kinds)
    ]
    assert len(rows) == FILES
    transact(sessions, lambda session: session.execute(insert(ModelFile), rows))


@pytest.fixture
def asks(services):
    """The statements of one request that read the model files."""

    def ask(request: Callable[[], object]) -> list[str]:
        with statements(services.sessions) as sent:
            request()
        return [one for one in sent if "model_files" in one]

    return ask


def seconds(work: Callable[[], object]) -> float:
    """The least time on the processor of several tries."""

    def once() -> float:
        began = time.thread_time()
        work()
        return time.thread_time() - began

    return min(once() for _ in range(4))


@pytest.mark.parametrize(("asked", "status"), [({}, 202), (EVERY_NAME, 202), (MISSPELT, 422)])
def test_a_submission_reads_the_model_files_once_and_the_next_one_asks_whether_they_are_the_same(
    client, asks, many_files, asked, status
):
    answers = []
    first, again = (asks(lambda: answers.append(client.post(JOBS, json={"steps": 2, **asked}))) for _ in range(2))
    assert [len(first), len(again)] == [2, 1]
    assert "model_files.name" not in again[0]
    assert {answer.status_code for answer in answers} == {status}


@pytest.mark.parametrize(
    ("path", "readings"),
    [
        ("/", 4),  # usable files, those that are not, and a page of adapters with their number
        ("/size?source=" + "0" * 64, 2),  # the named checkpoint, and the default one
        ("/api/v1/checkpoints", 2),  # one counts them by facet, the other reads a page
        ("/api/v1/workers", 0),  # none is alive that has models in memory
    ],
)
def test_what_shows_the_model_files_reads_them_in_few_statements(client, asks, many_files, path, readings):
    assert len(asks(lambda: client.get(path))) == readings


def test_a_picture_of_another_program_has_its_names_looked_up_in_one_reading(client, asks, many_files):
    text = "a cat\nSteps: 12, Seed: 17, Size: 64x64, Model: modle-25, VAE: modle-31, Sampler: none such"
    picture, info, answers = BytesIO(), PngInfo(), []
    info.add_itxt("parameters", text)
    Image.new("RGB", (8, 8)).save(picture, "PNG", pnginfo=info)
    assert len(asks(lambda: answers.append(client.post("/api/v1/png-info", data=picture.getvalue())))) == 1
    assert len(answers[0].get_json()["left_out"]) >= 2


def test_a_submission_takes_little_longer_than_reading_so_many_files(client, sessions, many_files):
    read = seconds(lambda: transact(sessions, Catalogue.read))
    assert seconds(lambda: client.post(JOBS, json={"steps": 2, **EVERY_NAME})) < 3 * read + 0.1
    assert seconds(lambda: client.post(JOBS, json={"steps": 2, **MISSPELT})) < 10 * read + 0.1


def test_connection_that_has_submitted_before_submits_after_a_migration_adds_a_column(sessions, checkpoint_factory):
    checkpoint_factory("demo")
    with sessions() as session:  # which is rolled back
        admission = admitted(session, {"prompt": "sea", "steps": 2})
        for _ in range(7):  # the driver has the server prepare what comes again and again
            submit(session, admission)
        # In a block: of a bare ALTER the driver would take notice.
        session.execute(text("DO $$ BEGIN ALTER TABLE images ADD COLUMN of_a_later_version text; END $$"))
        assert len(submit(session, admission).images or ()) == 1


# All of a submission, or nothing.


PICTURE = Picture(b"a PNG", 64, 64)
BODIES = {
    "plain": {"count": 3},
    "held, on a pool": {"count": 2, "pool": "large", "priority": 5, "hold_until": "2999-01-01T00:00:00Z"},
    "behind another job": {"hold_behind": "first", "expires_at": "2999-01-01T00:00:00Z"},
    "from an upload": {"img2img": {"picture": PICTURE.sha256, "mask": {"picture": PICTURE.sha256}}},
    "from a picture that comes along": {"img2img": {"picture": "a data URL"}},
}


class Trouble(Exception):
    """Ends a process, or a request, in the middle."""


@dataclass
class Database:
    """The database of the application, which fails where a test wants it to."""

    services: Services
    at: int | None = None  # number of the statement that fails; a commit counts as one
    lasts: bool = True  # those after it fail too
    ends_connections: bool = False
    sent: list[str] = field(default_factory=list)
    begun: int = 0
    thread: int = field(default_factory=get_ident)  # whose requests are meant

    def __post_init__(self) -> None:
        engine = self.services.engine
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "before_cursor_execute", lambda connection, _, sql, *rest: self._next(connection, sql))
        event.listen(engine, "commit", lambda connection: self._next(connection, "COMMIT"))

    def _begin(self, _: object) -> None:
        self.begun += get_ident() == self.thread

    def _next(self, connection, sql: str) -> None:
        if get_ident() != self.thread:  # what the application asks by itself now and then
            return
        number = len(self.sent)
        self.sent.append(sql)
        if self.at is None or number < self.at or (number > self.at and not self.lasts):
            return
        if not self.ends_connections:
            raise Trouble
        end(self.services, connection.connection.dbapi_connection.info.backend_pid)

    def fail(self, at: int | None, *, lasts: bool = True, ends_connections: bool = False) -> None:
        self.at, self.lasts, self.ends_connections = at, lasts, ends_connections
        self.sent.clear()
        self.begun = 0


def end(services: Services, pid: int) -> None:
    """End the server's process of one connection, and wait until it has."""
    with psycopg.connect(services.settings.database_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [pid])
        until(lambda: not other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone())


@pytest.fixture
def trouble(services, client, checkpoint_factory, monkeypatch) -> Database:
    checkpoint_factory("demo", native_size=64)
    services.readiness.storage()
    client.get(JOBS)  # reads the keys, as each second does
    monkeypatch.setattr(keyring, "FRESH_SECONDS", 3600.0)
    return Database(services)


@pytest.fixture
def body(client, services, trouble, request) -> dict[str, object]:
    """A request, and what has to be there for it."""
    uploads.keep(services.sessions, services.storage, "local", {"file": PICTURE}, services.settings.limits)
    given = {"prompt": "a lake", "seed": 5, "steps": 2} | BODIES[request.param]
    if "hold_behind" in given:
        given["hold_behind"] = client.post(JOBS, json={"prompt": "first"}).get_json()["id"]
    if given.get("img2img") == {"picture": "a data URL"}:
        picture = BytesIO()
        Image.new("RGB", (64, 64)).save(picture, "PNG")
        given["img2img"] = {"picture": "data:image/png;base64," + b64encode(picture.getvalue()).decode()}
    return given


@pytest.fixture
def tickets(services, monkeypatch) -> list[int]:
    """How many tickets each submission has published."""
    published: list[int] = []
    monkeypatch.setattr(services.tickets, "publish", lambda pool, images: published.append(images))
    return published


def recorded(services: Services) -> dict[str, list[str]]:
    """Every row of every table, and the pictures that are kept.

    Of an upload it does not count when it was used last: to send the same picture again changes that alone.
    """
    with services.sessions() as session:
        rows = {
            name: sorted(session.scalars(text(f"SELECT t::text FROM {name} AS t"))) for name in Base.metadata.tables
        }
        rows["uploads"] = sorted(session.scalars(select(Upload.sha256)))
    assert all(services.storage.exists(upload_key(sha256)) for sha256 in rows["uploads"])
    return rows


def ask(client, body, key: str | None = None) -> int:
    headers = {} if key is None else {"Idempotency-Key": key}
    try:
        return client.post(JOBS, json=body, headers=headers).status_code
    except Trouble:
        return 500


def jobs(services: Services) -> int:
    with services.sessions() as session:
        return session.scalar(select(func.count()).select_from(Job))


def parts(client, body, trouble, key: str | None = None) -> int:
    """How many statements and commits a submission takes, after one like it: which spares it a question or two."""
    assert ask(client, body, key and "before") == 202
    trouble.fail(None)
    assert ask(client, body, key) == 202
    return len(trouble.sent)


@pytest.mark.parametrize("body", [*BODIES][:4], indirect=True)
def test_a_submission_is_one_transaction(client, body, trouble):
    trouble.fail(None)
    assert ask(client, body) == 202
    assert trouble.begun == 1
    assert trouble.sent[-1] == "COMMIT"


@pytest.mark.parametrize("body", [*BODIES][4:], indirect=True)
def test_after_its_uploads_a_submission_is_one_transaction(client, body, trouble):
    trouble.fail(None)
    assert ask(client, body) == 202
    ends = [place for place, sql in enumerate(trouble.sent) if sql == "COMMIT"]
    [kept] = [place for place, sql in enumerate(trouble.sent) if sql.startswith("INSERT INTO uploads")]
    assert [place > kept for place in ends] == [False, False, True, True], "admitted, room found, kept, recorded"
    assert sum("model_files.name" in sql for sql in trouble.sent) == 1


@pytest.mark.parametrize("key", ["once", None], ids=["it raises", "its connection is cut"])
@pytest.mark.parametrize("body", [*BODIES], indirect=True)
def test_a_submission_that_ends_anywhere_leaves_nothing(client, body, trouble, tickets, key):
    count, before, published = parts(client, body, trouble, key and "first"), recorded(trouble.services), len(tickets)
    for place in range(count):
        trouble.fail(place, ends_connections=key is None)
        assert ask(client, body, key) in {500, 503}, trouble.sent[place]
        trouble.fail(None)
        assert recorded(trouble.services) == before, f"left by a submission that ended at {trouble.sent[place:]}"
    assert len(tickets) == published
    assert ask(client, body, key) == 202


@pytest.mark.parametrize("body", ["from an upload", "from a picture that comes along"], indirect=True)
def test_a_connection_that_is_cut_once_costs_a_submission_nothing(client, body, trouble, tickets):
    count, before = parts(client, body, trouble, "first"), jobs(trouble.services)
    for place in range(count):
        key = f"cut-at-{place}"
        trouble.fail(place, lasts=False, ends_connections=True)
        assert ask(client, body, key) in {202, 503}  # unknown, where it was cut while it was committed
        trouble.fail(None)
        assert ask(client, body, key) == 202
        assert jobs(trouble.services) == before + place + 1, f"cut at {place}"
    assert len(tickets) == 2 + count


@pytest.mark.parametrize("body", ["from a picture that comes along"], indirect=True)
def test_the_picture_of_a_submission_that_ended_is_an_upload_that_no_job_needs(client, body, trouble, services):
    count = parts(client, {"prompt": "a lake"} | body, trouble)
    with services.sessions.begin() as session:
        session.execute(delete(Job))
        session.execute(delete(Upload))
    trouble.fail(count - 1)
    assert ask(client, body) == 500
    trouble.fail(None)
    assert recorded(services)["uploads"]
    assert recorded(services)["job_uploads"] == recorded(services)["jobs"] == []
    uploads.delete_unused(services.sessions, services.storage, days=0)
    assert not any(services.storage.uploads())
