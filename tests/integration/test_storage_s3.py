"""The storage in an S3 bucket: the same promises, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from threading import Thread
from urllib.parse import urlsplit

import pytest

from shared.db.farm import farm_id
from shared.errors import NotFound, StorageAway, StorageError
from shared.media.ownership import guarded
from shared.media.storage import Storage, job_prefix, key
from tests.support.servers import object_store

PICTURE = key(17, 0, 1, "picture")
LARGE = 100_000


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with object_store(tmp_path_factory.mktemp("s3"), "farm", "farm-secret") as url:
        yield url


@pytest.fixture
def storage(endpoint: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "farm")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "farm-secret")
    prefix = request.node.name.replace("_", "-")
    return Storage(f"s3://pictures/{prefix}?endpoint_url={endpoint}&region_name=us-east-1")


def test_what_is_put_can_be_got_and_is_never_overwritten(storage):
    data = bytes(range(256)) * 400
    storage.put(PICTURE, data)
    storage.put(PICTURE, data)
    assert storage.get(PICTURE) == data
    with pytest.raises(StorageError, match="nothing is overwritten"):
        storage.put(PICTURE, b"other")
    with pytest.raises(NotFound):
        storage.get(key(18, 0, 1, "picture"))


def test_deleting_a_job_spares_the_job_whose_number_begins_alike(storage):
    storage.put(PICTURE, b"1")
    storage.put(key(171, 0, 1, "picture"), b"2")
    storage.put(key(17_000, 0, 1, "picture"), b"3")
    assert [sorted(ids) for ids in storage.jobs()] == [[17, 171], [17_000]]
    storage.delete(job_prefix(17))
    storage.delete(job_prefix(17))
    assert not storage.exists(PICTURE)
    assert storage.exists(key(171, 0, 1, "picture"))


def test_what_attempts_left_is_found_and_discarded(storage):
    kept = key(17, 0, 2, "picture")
    for name in (PICTURE, kept):
        storage.put(name, b"1")
    [[first, second]] = storage.objects()
    assert (first.name, first.attempt, second.name, second.attempt) == (PICTURE, 1, kept, 2)
    storage.discard(first)
    storage.discard(first)
    assert [[left.name for left in shelf] for shelf in storage.objects()] == [[kept]]


def test_what_killed_processes_left_is_tidied_up_when_it_is_old(storage):
    check = f"check-{'0' * 32}"
    for name in (check, PICTURE):
        storage.put(name, b"")
    assert storage.tidy(60) == 0
    assert storage.tidy(0) == 1
    assert [storage.exists(name) for name in (check, PICTURE)] == [False, True]


def test_many_threads_use_it_at_once(storage):
    keys = [key(1, index, 1, "thumbnail") for index in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: storage.put(name, name.encode()), keys))
        assert list(pool.map(storage.get, keys)) == [name.encode() for name in keys]


def test_check_passes_and_a_bucket_has_no_end(storage):
    storage.check()
    assert storage.free_bytes() is None


def test_a_server_that_does_not_answer_is_reported(storage, endpoint):
    away = Storage("s3://pictures?endpoint_url=http://127.0.0.1:9&region_name=us-east-1")
    with pytest.raises(StorageError, match="Could not connect"):
        away.check()


class _Proxy(BaseHTTPRequestHandler):
    """Passes requests on to `server.target`; of a large object's PUT it makes what `server.refuse` does."""

    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.command == "PUT" and len(body) > LARGE:
            self.server.refuse(self)
            return
        there = HTTPConnection(self.server.target, timeout=10)
        there.request(self.command, self.path, body, dict(self.headers))
        answer = there.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        there.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def behind_proxy(storage, endpoint):
    """Makes the storage behind a proxy that does `refuse` with large objects."""
    with ExitStack() as stack:

        def make(refuse):
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), _Proxy))
            server.target, server.refuse = urlsplit(endpoint).netloc, refuse
            Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            stack.callback(server.shutdown)
            return Storage(storage.url.replace(endpoint, f"http://127.0.0.1:{server.server_port}"))

        yield make


def answers(status, body):
    def refuse(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return refuse


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (413, b"<html><body><center><h1>413 Request Entity Too Large</h1><hr></body></html>"),
        (413, b"<html><body>too large</body></html>"),
        (413, b""),
        (400, b"<Error><Code>EntityTooLarge</Code><Message>It is too large</Message></Error>"),
    ],
)
def test_an_object_that_is_too_large_is_refused_and_the_storage_is_not_away(behind_proxy, status, body):
    storage = behind_proxy(answers(status, body))
    with pytest.raises(StorageError, match=r"storing .*: it is too large for the storage") as refused:
        storage.put(PICTURE, bytes(LARGE + 1))
    assert not isinstance(refused.value, StorageAway)
    storage.check()


def test_a_large_object_that_is_cut_off_each_time_may_be_to_blame_itself(behind_proxy):
    storage = behind_proxy(lambda handler: handler.connection.shutdown(SHUT_RDWR))
    with pytest.raises(StorageAway) as away:
        storage.put(PICTURE, bytes(LARGE + 1))
    assert not away.value.is_certain
    storage.check()


def test_wrong_keys_are_reported(storage, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(StorageError, match="storing"):
        storage.check()


def test_a_farm_knows_its_bucket_by_the_marker(storage, sessions):
    ours = farm_id(sessions)
    guard = guarded(storage.url, sessions, ours)
    assert not guard.exists(PICTURE)
    assert storage.marker() is None
    guard.put(PICTURE, b"picture")
    assert storage.marker() == ours.value
    assert storage.last_job() == 17
    storage.mark("another")
    with pytest.raises(StorageAway, match="another farm") as away:
        guarded(storage.url, sessions, ours).delete(job_prefix(17))
    assert away.value.is_certain
    assert storage.exists(PICTURE)
