"""Headers of proxies about the client are believed if the proxy is trusted."""

from __future__ import annotations

import pytest

from api.security import proxies
from shared.errors import SettingsError
from shared.settings import Settings, load

TRUSTED = Settings(trusted_proxies="127.0.0.0/8, ::1,10.0.0.0/8").proxies


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("::1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:127.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("192.0.2.9", "192.0.2.7", "192.0.2.9"),
        ("127.0.0.1", "made-up, 192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "1.1.1.1, 192.0.2.7, 10.0.0.3", "192.0.2.7"),
        ("10.0.0.1", "10.0.0.2", "10.0.0.2"),
        ("127.0.0.1", " , ,", "127.0.0.1"),
        ("", "192.0.2.7", ""),
        ("127.0.0.1", "192.0.2.7:50123", "192.0.2.7"),
        ("127.0.0.1", "[2001:db8::1]:50123", "2001:db8::1"),
        ("127.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        ("127.0.0.1", "192.0.2.7, 10.0.0.3:80", "192.0.2.7"),
        ("127.0.0.1", "192.0.2.7, unknown, 10.0.0.3", "10.0.0.3"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "_hidden:7", "127.0.0.1"),
        ("127.0.0.1", "192.0.2.7:abc", "127.0.0.1"),
    ],
)
def test_client_is_the_nearest_that_is_no_trusted_proxy(peer, forwarded_for, client):
    assert proxies.client(peer, forwarded_for, TRUSTED) == client


@pytest.mark.parametrize(
    ("header", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("https,http", "https"),
        ("https, http", "https"),
        ("http, https", "http"),
        ("http", "http"),
        ("", "http"),
        (",", "http"),
        ("ftp", "http"),
        ("javascript:", "http"),
    ],
)
def test_scheme_is_the_one_that_the_browser_used(header, scheme):
    assert proxies.scheme(header, "http") == scheme


@pytest.mark.parametrize(("peer", "scheme"), [("10.1.2.3", "https"), ("192.0.2.9", "http"), ("127.0.0.1", "https")])
def test_proxy_that_is_not_trusted_is_not_believed(peer, scheme):
    told = []
    application = proxies.Proxied(lambda environ, _: told.append(environ) or [], TRUSTED)
    application(
        {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "HTTP_X_FORWARDED_PROTO": "https"},
        lambda *_: None,
    )
    assert told[0]["wsgi.url_scheme"] == scheme


@pytest.mark.parametrize("given", ["proxy", "10.0.0.1/33", "10.0.0.5/8", "10.0.0.1 10.0.0.2"])
def test_list_that_cannot_be_read_is_told(given):
    with pytest.raises(SettingsError, match="FARM_TRUSTED_PROXIES"):
        load({"FARM_TRUSTED_PROXIES": given})
