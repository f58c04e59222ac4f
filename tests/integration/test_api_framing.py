"""Requests that two readers of HTTP might understand differently: refused, each with one answer and a closed line."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from shared.settings import Settings
from tests.support.servers import clean_environment
from tests.support.serving import Served, serving

BEHIND = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
"""What a smuggled request would look like."""


@pytest.fixture(scope="module")
def standing(tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("farm")
    given = {"home": folder, "models": folder, "port": 0}
    environ = clean_environment() | {f"FARM_{name.upper()}": str(value) for name, value in given.items()}
    with serving(Settings(**given), environ) as one:
        httpx.get(f"{one.url}/livez", timeout=30)
        yield one


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1", host: bytes = b"Host: 127.0.0.1") -> bytes:
    head = [b"POST /sign-in HTTP/" + version, host, b"Content-Type: application/x-www-form-urlencoded", *lines]
    return b"\r\n".join(line for line in head if line) + b"\r\n\r\n" + body


def get(*lines: bytes, target: bytes = b"/livez", method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join([method + b" " + target + b" " + version, b"Host: 127.0.0.1", *lines]) + b"\r\n\r\n"


CHUNKED = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"
REFUSED = {
    "length and chunks": (post(b"Content-Length: 5", CHUNKED, body=LAST), 400),
    "chunks and length": (post(CHUNKED, b"Content-Length: 5", body=LAST), 400),
    "two lengths": (post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello"), 400),
    "one length twice": (post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), 400),
    "list of lengths": (post(b"Content-Length: 5, 5", body=b"hello"), 400),
    "length with a sign": (post(b"Content-Length: +5", body=b"hello"), 400),
    "negative length": (post(b"Content-Length: -5", body=b"hello"), 400),
    "length in hexadecimal": (post(b"Content-Length: 0x5", body=b"hello"), 400),
    "no length": (post(b"Content-Length: ", body=b"hello"), 400),
    "length past all numbers": (post(b"Content-Length: " + b"9" * 30), 400),
    "unknown coding": (post(b"Transfer-Encoding: xchunked", body=LAST), 400),
    "coding that changes nothing": (post(b"Transfer-Encoding: identity", body=LAST), 400),
    "two codings": (post(b"Transfer-Encoding: gzip, chunked", body=LAST), 400),
    "chunks not last": (post(b"Transfer-Encoding: chunked, gzip", body=LAST), 400),
    "chunks twice": (post(CHUNKED, CHUNKED, body=LAST), 400),
    "chunks in HTTP/1.0": (post(CHUNKED, body=LAST, version=b"1.0"), 400),
    "coding behind a tab": (post(b"Transfer-Encoding: \x0bchunked", body=LAST), 400),
    "size of a chunk in hexadecimal": (post(CHUNKED, body=b"0x1\r\na\r\n" + LAST), 400),
    "chunk ended by a line feed": (post(CHUNKED, body=b"1\na\n0\n\n"), 400),
    "two hosts": (get(b"Host: other"), 400),
    "no host": (b"GET /livez HTTP/1.1\r\n\r\n", 400),
    "another host in the address": (get(target=b"http://other/livez"), 400),
    "folded line": (get(b"X: a\r\n b"), 400),
    "folded coding": (post(b"Transfer-Encoding:\r\n chunked", body=LAST), 400),
    "blank before the colon": (get(b"X : a"), 400),
    "blank before the first header": (b"GET /livez HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n", 400),
    "header without a name": (get(b": a"), 400),
    "carriage return in a value": (get(b"X: a\rY: b"), 400),
    "zero byte in a value": (get(b"X: a\0b"), 400),
    "line feeds alone": (b"GET /livez HTTP/1.1\nHost: a\n\n", 400),
    "zero byte in the address": (get(target=b"/\0"), 400),
    "blank in the address": (get(target=b"/a b"), 400),
    "preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/2": (get(version=b"HTTP/2.0"), 505),
    "HTTP/1.2": (get(version=b"HTTP/1.2"), 400),
    "proxy's own line": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + get(), 400),
    "tunnel": (get(target=b"a:1", method=b"CONNECT"), 501),
    "unknown method": (get(method=b"FOO"), 400),
    "address that is too long": (get(target=b"/" + b"a" * 9000), 414),
    "too many headers": (get(*[b"X: a"] * 200), 431),
    "header that is too long": (get(b"X: " + b"a" * 80_000), 431),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unclear_request_is_refused_and_nothing_behind_it_is_read(standing, case):
    sent, status = REFUSED[case]
    answer = standing.exchange(sent + BEHIND)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"application/problem+json" in answer
    assert b"connection: close" in answer


def test_trailer_does_not_pass_for_a_header(standing):
    body = b"0\r\nHost: other\r\nX-CSRF-Token: a\r\n\r\n"
    answer = standing.exchange(post(CHUNKED, body=body) + BEHIND)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.count(b"HTTP/1.1 ") == 2


@pytest.mark.parametrize(
    "further", [b"Connection: Upgrade\r\nUpgrade: h2c", b"Connection: Upgrade\r\nUpgrade: websocket"]
)
def test_wish_for_another_protocol_is_passed_over(standing, further):
    answer = standing.exchange(get(further) + BEHIND)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1  # what follows may be the other protocol's


def test_requests_in_one_piece_are_answered_in_their_order(standing):
    answer = standing.exchange(get(target=b"/jobs") + get() + get(b"Connection: close", target=b"/metrics"))
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"503", b"200", b"200"]  # it has no database


def test_flood_of_requests_in_one_piece_ends_the_connection(standing):
    assert standing.exchange(get(target=b"/sign-in") * 2000).count(b"HTTP/1.1 ") < 2000


def test_header_with_an_underscore_does_not_pass_for_another(standing):
    answer = standing.exchange(
        post(b"X_CSRF_Token: a", b"Content_Length: 3", b"Content-Length: 0", b"Connection: close")
    )
    assert answer.startswith(b"HTTP/1.1 403 ")
