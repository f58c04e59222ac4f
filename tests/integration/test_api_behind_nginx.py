"""The nginx file of docs/many-machines.md, and nginx with its defaults, in front of a farm with keys."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.serving import Served, serving
from tests.support.waiting import until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
DOCS = Path(__file__).parents[2] / "docs/many-machines.md"
KEY = "anns-first-key"

pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx")

MAIN = """
{user}
daemon off;
pid {folder}/pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""
AS_IT_COMES = "server { listen 443 ssl; location / { proxy_pass http://127.0.0.1:8321; } }"


def documented() -> str:
    return re.search(r"```nginx\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        return found.getsockname()[1]


@pytest.fixture
def served(settings, environ) -> Iterator[Callable[..., Served]]:
    with ExitStack() as running:

        def start(**given: str) -> Served:
            further = {f"FARM_{name.upper()}": value for name, value in given.items()}
            one = running.enter_context(serving(settings, environ | {"FARM_API_KEYS": f"ann:{KEY}"} | further))
            httpx.get(f"{one.url}/livez", timeout=30)
            return one

        yield start


@contextmanager
def proxied(folder: Path, server: str, farm: Served) -> Iterator[httpx.Client]:
    """Run nginx, and yield a browser that reaches the farm through it as https://farm.example."""
    port, key, certificate = free_port(), folder / "key", folder / "certificate"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=farm.example"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    server = re.sub(r"\n\s*ssl_certificate\S* .*", "", server).replace("http://127.0.0.1:8321", farm.url)
    server = server.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl; ssl_certificate {certificate};")
    server = server.replace("ssl;", f"ssl; ssl_certificate_key {key};", 1)
    file = folder / "nginx.conf"
    file.write_text(MAIN.format(folder=folder, server=server, user="" if os.geteuid() else "user root;"))
    process = subprocess.Popen([NGINX, "-e", "stderr", "-p", folder, "-c", file])
    try:
        client = httpx.Client(
            base_url=f"https://127.0.0.1:{port}", headers={"Host": "farm.example"}, verify=False, timeout=30
        )
        until(lambda: is_listening(port), 10, "nginx to listen")
        with client:
            yield client
    finally:
        process.terminate()
        process.wait(10)


def is_listening(port: int) -> bool:
    with closing(socket.socket()) as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def sign_in(browser: httpx.Client) -> httpx.Response:
    page = browser.get("/sign-in")
    assert page.status_code == 200, page.text
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)[1]
    return browser.post(
        "/sign-in",
        data={"key": KEY, "csrf_token": token},
        headers={"Origin": "https://farm.example", "Sec-Fetch-Site": "same-origin", "Cookie": cookie},
    )


def test_documented_file_serves_forms_streams_and_large_bodies_over_tls(served, tmp_path, checkpoint_factory):
    checkpoint_factory()
    with proxied(tmp_path, documented(), served(allowed_hosts="farm.example")) as browser:
        answer = sign_in(browser)
        assert answer.status_code == 303, answer.text
        assert "Secure" in answer.headers["Set-Cookie"].split("; ")
        key = {"Authorization": f"Bearer {KEY}"}
        job = browser.post("/api/v1/jobs", json={"prompt": "x"}, headers=key).json()["id"]
        with browser.stream("GET", f"/api/v1/jobs/{job}/events", headers=key, timeout=4) as stream:
            assert next(stream.iter_lines()) == "event: job"
        large = browser.post("/api/v1/uploads", content=b"a" * 30 * 2**20, headers=key)
        assert large.status_code == 422  # no picture, and not refused for its size


def test_nginx_as_it_comes_is_told_what_to_pass_on(served, tmp_path):
    with proxied(tmp_path, AS_IT_COMES, served()) as browser:
        answer = sign_in(browser)
        assert answer.status_code == 403
        assert "proxy_set_header Host $http_host" in answer.text
        assert "FARM_ALLOWED_HOSTS" in answer.text


def test_nginx_as_it_comes_does_where_the_farm_knows_its_name(served, tmp_path):
    with proxied(tmp_path, AS_IT_COMES, served(allowed_hosts="farm.example")) as browser:
        assert sign_in(browser).status_code == 303
