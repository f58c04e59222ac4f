"""The embedded servers: started in a moment, closed to others, restarted after any death, gone with the farm."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from redis import Redis
from sqlalchemy import text

from cli.embedded import namespace
from cli.embedded.home import Record, claim_home, read_record, running, write_record
from cli.embedded.servers import Servers
from shared import embedded_addresses
from shared.db import sessions
from shared.errors import LauncherError
from shared.settings import Settings
from tests.support.servers import folder_in_memory
from tests.support.waiting import until

IS_ROOT = os.geteuid() == 0
AS_NOBODY = ["unshare", "--user", "--map-user=65534", "--map-group=65534"]

HOLD = """
    import sys, time
    from pathlib import Path
    from cli.embedded.servers import Servers
    with Servers(Path(sys.argv[1])) as servers:
        print(*servers.pids().values(), flush=True)
        time.sleep(600)
"""


def connect(home: Path) -> psycopg.Connection:
    folder = embedded_addresses.socket_folder(home)
    return psycopg.connect(host=str(folder), port=embedded_addresses.PORT, user="farm", dbname="farm", autocommit=True)


def start_holder(home: Path, *prefix: str) -> tuple[subprocess.Popen[str], list[int]]:
    """Start another process that runs the servers of `home`; return it and their process numbers."""
    holder = subprocess.Popen(
        [*prefix, sys.executable, "-c", textwrap.dedent(HOLD), str(home)], stdout=subprocess.PIPE, text=True
    )
    return holder, [int(pid) for pid in holder.stdout.readline().split()]


def kill(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    holder.stdout.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def await_end(pids: list[int], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while alive := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still alive: {alive}"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the homes lie: on a disk one waits longer for the files of a server than for all else here."""
    with folder_in_memory(tmp_path_factory.mktemp("homes")) as folder:
        yield folder


@pytest.fixture(scope="module")
def made_home(homes: Path) -> Path:
    """A home whose data folder is made, to copy: initdb takes longer than a copy."""
    home = homes / "made"
    with Servers(home, redis=False), connect(home) as connection:
        connection.execute("CREATE TABLE kept (number int)")
        connection.execute("INSERT INTO kept VALUES (17)")
    return home


@pytest.fixture
def own_home(made_home: Path, homes: Path) -> Iterator[Path]:
    with TemporaryDirectory(dir=homes) as folder:
        yield shutil.copytree(made_home, Path(folder) / "farm")


def test_servers_answer_and_are_gone_after_the_context(own_home):
    with Servers(own_home) as servers:
        pids = list(servers.pids().values())
        with connect(own_home) as connection, Redis.from_url(embedded_addresses.redis_url(own_home)) as redis:
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
            assert redis.ping()
            assert redis.config_get("save")["save"] == ""
    assert not [pid for pid in pids if is_alive(pid)]
    assert not running(own_home)


def test_data_is_still_there_after_a_restart(own_home):
    for _ in range(2):
        with Servers(own_home, redis=False), connect(own_home) as connection:
            assert connection.execute("SELECT number FROM kept").fetchall() == [(17,)]


def test_nothing_listens_on_tcp_and_all_is_the_owners_alone(own_home):
    with Servers(own_home) as servers:
        with connect(own_home) as connection, Redis.from_url(embedded_addresses.redis_url(own_home)) as redis:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
            assert redis.config_get("port") == {"port": "0"}
        run = embedded_addresses.socket_folder(own_home)
        private = [run, own_home / "postgres", own_home / "redis", own_home / "logs", *run.glob(".s.*[0-9]")]
        assert {
            path: path.stat().st_mode & 0o077 for path in [*private, run / "redis.sock"] if path.stat().st_mode & 0o077
        } == {}
        assert all(os.getsid(pid) == pid for pid in servers.pids().values())


def test_a_home_closed_to_all_others_stays_closed(tmp_path, made_home):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shutil.copytree(made_home, closed / "farm")
    before = {path: path.stat().st_mode for path in [tmp_path, *tmp_path.parents, closed]}
    with Servers(closed / "farm", redis=False), connect(closed / "farm") as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (17,)
    assert {path: path.stat().st_mode for path in before} == before


@pytest.mark.parametrize(
    "prefix", [[], AS_NOBODY] if IS_ROOT else [[]], ids=["as I am", "as a normal user"][: 1 + IS_ROOT]
)
def test_a_new_home_is_made_by_any_user(tmp_path, prefix):
    home = tmp_path / "new" / "farm"
    holder, pids = start_holder(home, *prefix)
    assert len(pids) == 2
    with connect(home) as connection:
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
    kill(holder)
    await_end(pids)


def test_a_killed_farm_leaves_no_server_behind(own_home):
    holder, pids = start_holder(own_home)
    assert running(own_home)
    kill(holder)
    await_end(pids)
    assert not running(own_home)


def test_a_killed_farm_starts_again_at_once(own_home):
    for _ in range(3):
        holder, pids = start_holder(own_home)
        assert len(pids) == 2
        kill(holder)  # its servers are still ending while the next one starts
    with Servers(own_home), connect(own_home) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (17,)


def test_killed_servers_are_started_again_with_their_data(own_home):
    with Servers(own_home) as servers:
        assert servers.tend() == []
        with connect(own_home) as connection:
            connection.execute("UPDATE kept SET number = 18")
            for pid in servers.pids().values():
                os.kill(pid, signal.SIGKILL)
            await_zombies(list(servers.pids().values()))
        assert servers.tend() == ["PostgreSQL", "Redis"]
        with connect(own_home) as connection, Redis.from_url(embedded_addresses.redis_url(own_home)) as redis:
            assert connection.execute("SELECT number FROM kept").fetchone() == (18,)
            assert redis.ping()


def await_zombies(pids: list[int]) -> None:
    for pid in pids:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@pytest.mark.parametrize("pid", [os.getpid(), 1, 4_000_000], ids=["of another program", "of init", "of nobody"])
def test_a_stale_process_number_does_not_stop_the_start(own_home, pid):
    (own_home / "postgres" / "postmaster.pid").write_text(f"{pid}\n{own_home}/postgres\n1\n5432\n\n\n 1 1\n")
    (own_home / "redis").mkdir()
    (own_home / "redis" / "redis.pid").write_text(f"{pid}\n")
    with Servers(own_home), connect(own_home) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_two_farms_live_side_by_side(own_home, tmp_path, made_home):
    other = tmp_path / "other"
    shutil.copytree(made_home, other)
    with Servers(own_home), Servers(other):
        with connect(own_home) as connection:
            connection.execute("UPDATE kept SET number = 1")
        with connect(other) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (17,)


def test_a_second_farm_on_one_home_is_refused(own_home):
    with (
        Servers(own_home, redis=False),
        pytest.raises(LauncherError, match=rf"runs in {own_home} already.*{os.getpid()}"),
    ):
        Servers(own_home).__enter__()


def test_a_path_too_long_for_a_socket_gets_one_in_the_temp_folder(tmp_path, made_home):
    home = tmp_path / ("long" * 30)
    shutil.copytree(made_home, home)
    folder = embedded_addresses.socket_folder(home)
    assert folder.parent == Path("/tmp")
    try:
        with Servers(home), connect(home) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (17,)
            assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(folder)


def test_a_socket_folder_that_others_may_open_is_refused(tmp_path):
    home = tmp_path / ("long" * 30)
    folder = embedded_addresses.socket_folder(home)
    folder.mkdir(mode=0o755)
    try:
        with pytest.raises(LauncherError, match="not this user's alone"):
            Servers(home).__enter__()
    finally:
        folder.rmdir()


def test_awkward_characters_in_the_path_do_no_harm(tmp_path, made_home):
    home = tmp_path / "a b%20ü?#"
    shutil.copytree(made_home, home)
    with Servers(home), Redis.from_url(embedded_addresses.redis_url(home)) as redis:
        assert redis.ping()
        engine = sessions.connect(Settings(home=home).database)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT number FROM kept")) == 17
        engine.dispose()


def test_variables_of_another_postgresql_change_nothing(own_home, tmp_path, monkeypatch):
    for name, value in {
        "PGPORT": "5999",
        "PGDATA": "/nowhere",
        "PGHOST": "/nowhere",
        "FARM_API_KEYS": "a:s3cret",
    }.items():
        monkeypatch.setenv(name, value)
    with Servers(own_home) as servers:
        engine = sessions.connect(Settings(home=own_home).database)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT number FROM kept")) == 17
        engine.dispose()
        assert all(b"s3cret" not in Path(f"/proc/{pid}/environ").read_bytes() for pid in servers.pids().values())


def test_an_interrupted_start_leaves_nothing_behind(own_home, monkeypatch):
    def interrupted(self, seconds=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Servers(own_home).__enter__()
    assert not running(own_home)
    until(lambda: not [folder for folder in Path("/proc").glob("[0-9]*/cwd") if works_in(folder, own_home)])


def works_in(working_folder: Path, home: Path) -> bool:
    try:
        return home in working_folder.readlink().parents
    except OSError:
        return False


def test_a_broken_data_folder_is_reported_with_the_servers_last_words(own_home):
    (own_home / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(LauncherError, match=r"(?s)PostgreSQL did not start.*incompatible.*FARM_DATABASE_URL"):
        Servers(own_home).__enter__()
    assert not running(own_home)


def test_what_the_machine_refuses_is_told_of_its_server(tmp_path):
    socket = embedded_addresses.redis_socket(embedded_addresses.socket_folder(tmp_path))
    socket.parent.mkdir(mode=0o700)
    socket.mkdir()
    with (
        pytest.raises(LauncherError, match=f"Redis could not be started: .*{socket}"),
        Servers(tmp_path, postgres=False),
    ):
        pass


def test_where_namespaces_are_forbidden_the_message_names_the_setting(tmp_path, monkeypatch):
    forbidding = tmp_path / "unshare"
    forbidding.write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
    forbidding.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(LauncherError, match=r"as root.*Operation not permitted.*FARM_DATABASE_URL"):
        namespace.prefix()


def test_without_the_tools_the_message_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(LauncherError, match=r"'unshare'.*util-linux.*FARM_DATABASE_URL"):
        namespace.prefix()


def test_the_record_is_read_only_while_a_farm_holds_the_home(tmp_path):
    record = Record(url="http://127.0.0.1:8321", pid=os.getpid(), started_at="2026-01-01T00:00:00+00:00")
    with claim_home(tmp_path / "farm"):
        assert read_record(tmp_path / "farm") is None
        write_record(tmp_path / "farm", record)
        assert read_record(tmp_path / "farm") == record
    assert read_record(tmp_path / "farm") is None
