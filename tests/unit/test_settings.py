"""Settings: read from the environment, each error naming its variable and none of them a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared import redis_url
from shared.db.farm import FarmId
from shared.errors import SettingsError
from shared.messaging.tickets import celery_app
from shared.settings import Settings, load, replaced, unknown


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    return str(caught.value)


def test_without_variables_a_farm_is_embedded_and_local():
    settings = load({"PATH": "/bin", "FARM_PORT": ""})
    assert (settings.is_loopback, settings.port, settings.home) == (True, 8321, Path("var").absolute())
    assert settings.database.startswith("postgresql+psycopg://farm@/farm?host=/")
    assert settings.redis.startswith("unix:///")
    assert settings.storage == f"file://{settings.home}/pictures"


def test_variables_are_read_in_their_types():
    settings = load(
        {
            "FARM_HOME": "~/farm",
            "FARM_PORT": "0",
            "FARM_LEASE_SECONDS": "2.5",
            "FARM_BEAT_SECONDS": "1",
            "FARM_API_KEYS": "ann:key-of-ann, bob : key-of-bob,ann:another-of-ann ",
            "FARM_DATABASE_URL": "postgresql://farm:pw@db/farm",
            "FARM_REDIS_URL": "redis+socket:///run/redis.sock",
        }
    )
    assert settings.home == Path.home() / "farm"
    assert (settings.port, settings.lease_seconds) == (0, 2.5)
    assert settings.api_keys == {"key-of-ann": "ann", "key-of-bob": "bob", "another-of-ann": "ann"}
    assert settings.database == "postgresql+psycopg://farm:pw@db/farm"
    assert settings.redis == "unix:///run/redis.sock"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PORT", "eighty", "FARM_PORT='eighty'"),
        ("PORT", "70000", "a whole number from 0 to 65535"),
        ("DATABASE_URL", "mysql://db/farm", "starts with postgresql://"),
        ("DATABASE_URL", "postgresql://db:port/farm", "one from 1 to 65535"),
        ("REDIS_URL", "redis://redis:99999", "one from 1 to 65535"),
        ("REDIS_URL", "localhost:6379", "starts with redis://"),
        ("URL", "http://farm:port", "FARM_URL='http://farm:port': must have a host, and behind it no port or one from"),
        ("URL", "http://[::1", "FARM_URL"),
        ("URL", "https://:8321", "FARM_URL"),
        ("URL", "localhost:8321", "FARM_URL"),
        ("API_KEYS", "ann", "owner:key pairs"),
        ("API_KEYS", "ann:short", "at least 8 characters"),
        ("API_KEYS", "ann:key of ann", "without blanks"),
        ("API_KEYS", "ann:schlüssel-1", "ASCII"),
        ("API_KEYS", "ann:same-key-1,bob:same-key-1", "same key twice"),
        ("LOG_FORMAT", "xml", "must be console or json"),
        ("MIN_SIZE", "100", "multiple of 8"),
        ("HOST_CACHE_BYTES", "-1", "FARM_HOST_CACHE_BYTES='-1': must be a quantity of memory such as 12GB or 800MB"),
        ("HOST_CACHE_BYTES", "half", "a number of bytes, or auto"),
        ("RESIDENT_BYTES", "12 apples", "FARM_RESIDENT_BYTES='12 apples': must be a quantity of memory such as 12GB"),
        ("RESIDENT_BYTES", "1e9", "must be a quantity of memory"),
        ("RESIDENT_BYTES", "-4GB", "must be a quantity of memory"),
        ("RESIDENT_CHECKPOINTS", "0", "must be a whole number of at least 1"),
        ("BEAT_SECONDS", "nan", "FARM_BEAT_SECONDS"),
        ("BEAT_SECONDS", "15", "at least twice FARM_BEAT_SECONDS"),
        ("MIN_SIZE", "8192", "must not be above FARM_MAX_SIZE"),
        ("MIN_SIZE", "2056", "FARM_MAX_PIXELS must have room for a square of FARM_MIN_SIZE"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_variable(name, value, message):
    assert message in refusal(**{f"FARM_{name}": value})


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("123456", 123_456),
        ("12GB", 12 * 2**30),
        (" 12 gib ", 12 * 2**30),
        ("1.5G", 3 * 2**29),
        ("800MB", 800 * 2**20),
        ("2TB", 2**41),
        ("64 KiB", 65_536),
        ("7b", 7),
        ("auto", None),
        ("AUTO", None),
    ],
)
def test_a_quantity_of_memory_has_a_unit_in_powers_of_1024(text, size):
    assert load({"FARM_RESIDENT_BYTES": text, "FARM_HOST_CACHE_BYTES": text}).resident_bytes == size
    assert load({"FARM_HOST_CACHE_BYTES": text}).host_cache_bytes == size


def test_a_replaced_variable_counts_and_says_what_to_set_instead():
    assert load({"FARM_RESIDENT_CHECKPOINTS": "3"}).resident_checkpoints == 3
    (advice,) = replaced({"FARM_RESIDENT_CHECKPOINTS": "3"})
    assert advice.startswith("FARM_RESIDENT_CHECKPOINTS still counts, and FARM_RESIDENT_BYTES takes its place: set it")
    assert replaced({"FARM_RESIDENT_BYTES": "12GB"}) == []


def test_all_of_them_are_named_at_once():
    told = refusal(FARM_PORT="x", FARM_SLOTS="-1", FARM_LOG_LEVEL="loud")
    assert [line.partition("=")[0] for line in told.splitlines()] == ["FARM_PORT", "FARM_SLOTS", "FARM_LOG_LEVEL"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEYS", "ann:s3cret"),
        ("API_KEYS", "ann:s3cret but blank"),
        ("DATABASE_URL", "mysql://ann:s3cret@db/farm"),
        ("DATABASE_URL", "postgresql://ann:s3cret@db:port/farm"),
        ("REDIS_URL", "http://:s3cret@redis"),
        ("DATABASE_URL", "postgresql://farm:s3cret/word@127.0.0.1/x"),
        ("DATABASE_URL", "postgresql://farm:word/s3cret@127.0.0.1/x"),
        ("DATABASE_URL", "postgresql://farm:s3cret@word@127.0.0.1/x"),
        ("DATABASE_URL", "postgresql://farm:word@s3cret@127.0.0.1/x"),
        ("DATABASE_URL", "postgresql://farm:s3cret?word@127.0.0.1/x"),
        ("DATABASE_URL", "postgresql://farm:word#s3cret@127.0.0.1/x"),
        ("DATABASE_URL", "postgres://farm:s3cret/farm"),
        ("DATABASE_URL", "farm:s3cret@127.0.0.1/x"),
        ("DATABASE_URL", "mysql://db/x?password=s3cret"),
        ("REDIS_URL", "redis://:s3cret/word@redis"),
        ("REDIS_URL", "redis://redis/0?password=s3cret&colour=red"),
        ("REDIS_URL", "redis://ann:s3cret@redis/zero"),
        ("REDIS_URL", "ann:s3cret@redis"),
    ],
)
def test_no_message_holds_a_secret(name, value):
    told = refusal(**{f"FARM_{name}": value})
    assert f"FARM_{name}=" in told
    assert "s3cret" not in told


@pytest.mark.parametrize(
    "url", ["farm:s3/cret@h/x", "farm:s3#cret@h/x", "farm:s3?cret@h/x", "farm:s3@cret@h/x", "farm:12/cret@h/x"]
)
def test_a_password_that_is_not_encoded_is_told_as_such(url):
    assert "%2F for /" in refusal(FARM_DATABASE_URL=f"postgresql://{url}")
    assert "%2F for /" in refusal(FARM_REDIS_URL=f"redis://{url}")


@pytest.mark.parametrize(
    "url", ["farm:s3%2F%40%23%3Fcret@h/x", "/farm?host=/tmp/a@b", "h/farm?user=a@b", "[::1]:5432/farm", "farm@h/x?a=b"]
)
def test_a_whole_url_is_taken_as_it_is(url):
    assert load({"FARM_DATABASE_URL": f"postgresql://{url}"}).database_url == f"postgresql://{url}"


@pytest.mark.parametrize(
    ("given", "url", "broker"),
    [
        ("redis://host:6379/2", "redis://host:6379/2", "redis://host:6379/2"),
        ("redis://host:6379/?db=4", "redis://host:6379/4", "redis://host:6379/4"),
        ("redis://host?db=4", "redis://host/4", "redis://host/4"),
        ("redis://[::1]:6380/0", "redis://[::1]:6380", "redis://[::1]:6380"),
        ("redis://host/1?password=p%2F%40", "redis://:p%2F%40@host/1", "redis://:p%2F%40@host/1"),
        ("redis://ann:p%2F%40@host", "redis://ann:p%2F%40@host", "redis://ann:p%2F%40@host"),
        (
            "rediss://host/3?ssl_ca_certs=%2Fetc%2Fca.pem",
            "rediss://host/3?ssl_ca_certs=%2Fetc%2Fca.pem",
            "redis://host/3",
        ),
        ("unix:///a%20b/redis.sock", "unix:///a%20b/redis.sock", "redis+socket:///a%20b/redis.sock"),
        (
            "unix://ann:a%2Fb@/run/redis.sock?db=3",
            "unix://ann:a%2Fb@/run/redis.sock?db=3",
            "redis+socket://ann:a%2Fb@/run/redis.sock?virtual_host=3",
        ),
        (
            "redis+socket:///run/redis.sock?virtual_host=3",
            "unix:///run/redis.sock?db=3",
            "redis+socket:///run/redis.sock?virtual_host=3",
        ),
        (
            "unix:///run/redis.sock?password=a%2Fb",
            "unix://:a%2Fb@/run/redis.sock",
            "redis+socket://:a%2Fb@/run/redis.sock",
        ),
    ],
)
def test_redis_is_told_to_each_in_its_own_form(given, url, broker):
    assert load({"FARM_REDIS_URL": given}).redis == url
    assert redis_url.read(url).broker == broker
    assert redis_url.read(given) == redis_url.read(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://host/?colour=red", "'colour'"),
        ("redis://host/?socket_timeout=3", "'socket_timeout'"),
        ("redis://host/zero", "'zero' for the database"),
        ("redis://host/0/1", "'0/1' for the database"),
        ("redis://host/?db=-1", "'-1' for the database"),
        ("redis://host/1?db=2", "more than one database"),
        ("redis://host/?ssl_ca_certs=ca.pem", "rediss://"),
        ("rediss://host/?ssl_cert_reqs=maybe", "required, optional, none"),
        ("rediss://host/?ssl_check_hostname=1", "neither true nor false"),
        ("unix://run/redis.sock", "whole path"),
        ("unix://", "whole path"),
    ],
)
def test_a_redis_that_not_all_would_find_is_refused(url, message):
    assert message in refusal(FARM_REDIS_URL=url)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("", {"ssl_cert_reqs": "required"}),
        ("?ssl_ca_certs=/etc/ca.pem", {"ssl_cert_reqs": "required", "ssl_ca_certs": "/etc/ca.pem"}),
        (
            "?ssl_cert_reqs=none&ssl_check_hostname=false",
            {"ssl_cert_reqs": "none", "ssl_check_hostname": False},
        ),
    ],
)
def test_celery_verifies_certificates_as_redis_py_does(options, told):
    app = celery_app(f"rediss://host:6380/2{options}", FarmId(lambda: "ours"))
    with app.connection_for_write() as connection:
        assert connection.ssl == told
    assert redis_url.read("redis://host").broker_tls is None


def test_settings_that_are_shown_hold_no_secret():
    shown = repr(
        Settings(
            api_keys={"s3cret-1": "ann"},
            secret_key="s3cret-2",
            api_key="s3cret-3",
            database_url="postgresql://ann:s3cret-4@db/farm",
            redis_url="redis://:s3cret-5@redis",
        )
    )
    assert "s3cret" not in shown


def test_a_variable_that_nobody_reads_is_told_with_what_may_be_meant():
    environ = {"FARM_PROT": "1", "FARM_ZZZZZZZZZ": "1", "FARM_PORT": "1", "FARM_TEST_BROWSER": "1", "OTHER": "1"}
    assert unknown(environ) == {"FARM_PROT": ["FARM_PORT"], "FARM_ZZZZZZZZZ": []}
