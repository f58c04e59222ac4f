"""Redis over TLS: Celery's tickets trust and refuse the very servers that the farm's own connections do."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from urllib.parse import urlsplit

import pytest
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from shared.db.farm import FarmId
from shared.messaging.tickets import celery_app
from shared.settings import load

OURS = FarmId(lambda: "ours")
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of `localhost` with its key, signed by itself."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", path, "-out", f"{path}.crt"]
    making = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, *subject]
    subprocess.run(making, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


class Proxy(ThreadingTCPServer):
    """Speaks TLS before the Redis of a socket, which knows none."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, certificate: Path, path: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.path = path
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)


class Handler(BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        wrap = self.server.context.wrap_socket
        with (
            suppress(OSError),
            wrap(self.request, server_side=True) as outside,
            socket.socket(socket.AF_UNIX) as inside,
        ):
            inside.connect(self.server.path)
            threading.Thread(target=copy, args=(inside, outside), daemon=True).start()
            copy(outside, inside)


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


@pytest.fixture
def port(certificate: Path, redis_url: str) -> Iterator[int]:
    with Proxy(certificate, urlsplit(redis_url).path) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def redis_py(url: str) -> bool:
    with Redis.from_url(url, socket_timeout=5) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False


def celery(url: str) -> bool:
    with celery_app(url, OURS).connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=5)
            connection.default_channel.client.ping()
        except OperationalError:
            return False
        return True


@pytest.mark.parametrize("connects", [redis_py, celery])
@pytest.mark.parametrize(
    ("host", "options", "trusted"),
    [
        ("localhost", "", False),
        ("localhost", "?ssl_ca_certs={certificate}.crt", True),
        ("127.0.0.1", "?ssl_ca_certs={certificate}.crt", False),
        ("127.0.0.1", "?ssl_ca_certs={certificate}.crt&ssl_check_hostname=false", True),
        ("127.0.0.1", "?ssl_cert_reqs=none&ssl_check_hostname=false", True),
        ("127.0.0.1", "?ssl_cert_reqs=none", True),
    ],
)
def test_both_trust_the_same_servers(
    connects: Callable[[str], bool], host: str, options: str, *, trusted: bool, port: int, certificate: Path
):
    url = f"rediss://{host}:{port}/2{options.format(certificate=certificate)}"
    assert connects(load({"FARM_REDIS_URL": url}).redis) is trusted
