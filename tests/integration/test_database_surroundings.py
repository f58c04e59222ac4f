"""The database as operators run it: other formats, rights, schemas and servers than a fresh one has."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError

from shared.db import migrate, revisions
from shared.db import sessions as database
from shared.db.sessions import transact
from shared.errors import SchemaError, SettingsError, Unavailable, explain
from tests.support.servers import administrator, fresh_database


@pytest.fixture
def name(database_url: str) -> str:
    return database_url.partition("?")[0].rpartition("/")[2]


@pytest.fixture
def as_admin(home, name):
    """Runs a statement on the test's database as its administrator."""

    def run(statement: str) -> None:
        with administrator(home) as connection:
            connection.execute(statement.format(name=name))

    return run


@pytest.fixture
def empty(home) -> Iterator[str]:
    with fresh_database(home, template="template0") as url:
        yield url


def asked(url: str, question: str) -> object:
    engine = database.connect(url)
    try:
        return transact(database.sessions(engine), lambda session: session.scalar(text(question)))
    finally:
        engine.dispose()


CUT = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"


def test_a_server_that_only_reads_is_told_and_left(as_admin, sessions, client, checkpoint_factory):
    checkpoint_factory("demo", native_size=64)
    transact(sessions, lambda session: session.execute(text("SELECT 1")))
    as_admin("ALTER DATABASE {name} SET default_transaction_read_only = on")
    as_admin(CUT)
    with pytest.raises(Unavailable, match="takes no changes now") as caught:
        transact(sessions, lambda session: session.execute(text("DELETE FROM drains")))
    assert "only reads" in explain(caught.value)
    with pytest.raises(Unavailable):
        database.probe(sessions)
    answer = client.post("/api/v1/jobs", json={"prompt": "sea"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert client.get("/readyz").status_code == 503
    as_admin("ALTER DATABASE {name} RESET default_transaction_read_only")
    transact(sessions, lambda session: session.execute(text("DELETE FROM drains")))  # nobody cut the connections


def test_rights_that_were_taken_away_are_told_apart_from_an_outage(as_admin, home, name, database_url):
    as_admin("DROP ROLE IF EXISTS guest")
    as_admin("CREATE ROLE guest LOGIN")
    url = database_url.replace("farm@", "guest@")
    try:
        with pytest.raises(Unavailable, match="refuses the farm") as caught:
            asked(url, "SELECT count(*) FROM jobs")
        assert "permission denied for table jobs" in explain(caught.value)
    finally:
        as_admin("DROP ROLE guest")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("datestyle", "'SQL, DMY'"),
        ("intervalstyle", "iso_8601"),
        ("extra_float_digits", "-10"),
        ("bytea_output", "escape"),
        ("client_encoding", "LATIN1"),
        ("standard_conforming_strings", "off"),
        ("array_nulls", "off"),
        ("timezone", "'Asia/Kathmandu'"),
    ],
)
def test_formats_that_the_database_prefers_change_nothing(as_admin, name, database_url, setting, value):
    question = (
        "SELECT ARRAY[now()::text, (interval '1 day 2 h')::text, (0.1::float8 + 0.2)::text,"
        " encode('\\x01ff', 'hex'), 'ü✓', '{a,NULL}'::text[]::text] = ARRAY[now()::text, '1 day 02:00:00',"
        " '0.30000000000000004', '01ff', 'ü✓', '{a,NULL}']"
    )
    as_admin(f"ALTER DATABASE {name} SET {setting} = {value}")
    assert asked(database_url, question) is True
    assert asked(database_url, "SELECT now()").utcoffset() is not None


def test_options_of_the_url_are_joined_to_the_farms(database_url, as_admin):
    url = f"{database_url}&options=-csearch_path%3Dfarm%20-c%20work_mem%3D8MB&connect_timeout=3"
    found = [asked(url, f"SHOW {name}") for name in ("search_path", "work_mem", "statement_timeout", "datestyle")]
    assert found == ["farm", "8MB", "10s", "ISO, MDY"]


def test_tables_are_made_and_found_in_the_schema_of_the_url(empty):
    url = f"{empty}&options=-csearch_path%3Dshed"
    with pytest.raises(SchemaError, match="no schema has been selected"):
        migrate.upgrade(url)
    with database.connect_once(empty).begin() as connection:
        connection.execute(text("CREATE SCHEMA shed"))
    migrate.upgrade(url)
    assert migrate.current(url) == revisions.head()
    assert migrate.current(empty) is None
    assert asked(url, "SELECT count(*) FROM jobs") == 0


@pytest.mark.parametrize(("option", "word"), [("colour=red", "colour"), ("connect_timeout=soon", "soon")])
def test_an_option_that_nobody_knows_is_refused_by_name(database_url, option, word):
    with pytest.raises(SettingsError, match=f"FARM_DATABASE_URL.*{word}"):
        database.connect(f"{database_url}&{option}")


def test_why_nobody_may_in_is_told_beside_what_clients_hear(database_url):
    with pytest.raises(Unavailable) as caught:
        asked(database_url.replace("farm@", "nobody:s3cret@"), "SELECT 1")
    assert 'role "nobody" does not exist' in explain(caught.value)
    assert "nobody" not in str(caught.value)
    assert "s3cret" not in explain(caught.value)


def test_a_pooler_that_drops_what_the_farm_asks_for_is_refused(database_url):
    plain = psycopg.connect(database_url.replace("+psycopg", ""))
    with pytest.raises(Unavailable) as caught:
        database._refuse_a_pooler(plain, None)
    assert "PgBouncer" in explain(caught.value)
    assert plain.closed


def test_a_pooler_that_refuses_the_farms_options_is_named():
    error = OperationalError("", {}, psycopg.OperationalError("FATAL: unsupported startup parameter: options"))
    assert "PgBouncer" in database.said(error)


def test_errors_of_statements_show_no_parameters(sessions):
    with pytest.raises(ProgrammingError) as caught:
        transact(sessions, lambda session: session.execute(text("SELECT :prompt FROM nowhere"), {"prompt": "s3cret"}))
    assert "s3cret" not in str(caught.value)


def test_a_newer_database_is_told(empty):
    migrate.upgrade(empty)
    revise(empty, "UPDATE alembic_version SET version_num = '0999'")
    with pytest.raises(SchemaError, match=r"stands at 0999.*newer"):
        migrate.upgrade(empty)


@pytest.mark.parametrize("revisions", [["d259a9bca9e7"], ["0001_first", "0002"], ["0000"]])
def test_another_programs_revisions_are_told(empty, revisions):
    revise(empty, "CREATE TABLE alembic_version (version_num text)")
    for revision in revisions:
        revise(empty, f"INSERT INTO alembic_version VALUES ('{revision}')")
    with pytest.raises(SchemaError, match=f"another program's tables.*{revisions[0]}"):
        migrate.upgrade(empty)


def test_a_table_of_another_program_is_told(empty):
    revise(empty, "CREATE TABLE jobs (name text)")
    with pytest.raises(SchemaError, match=r'another program.*"jobs" already exists'):
        migrate.upgrade(empty)


def test_an_alembic_version_of_another_form_is_told(empty):
    revise(empty, "CREATE TABLE alembic_version (colour text)")
    with pytest.raises(SchemaError, match="version_num"):
        migrate.upgrade(empty)


def test_a_role_that_may_make_nothing_is_told(empty, as_admin):
    as_admin("DROP ROLE IF EXISTS guest")
    as_admin("CREATE ROLE guest LOGIN")
    try:
        with pytest.raises(Unavailable) as caught:
            migrate.upgrade(empty.replace("farm@", "guest@"))
        assert "permission denied for schema public" in explain(caught.value)
    finally:
        as_admin("DROP ROLE guest")


def revise(url: str, statement: str) -> None:
    with database.connect_once(url).begin() as connection:
        connection.execute(text(statement))
