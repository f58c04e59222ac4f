from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shared.confined.process import Confined, Limits
from shared.errors import NotConfined, Unreadable
from tests.support.waiting import until

LIMITS = Limits(memory_bytes=100 * 2**20, cpu_seconds=20, seconds=20)


def confined(limits: Limits = LIMITS) -> Confined:
    return Confined("tests.support.reading", limits)


@pytest.fixture
def child() -> Iterator[Confined]:
    with confined() as child:
        yield child


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_one_child_answers_many_questions_of_any_size(child: Confined) -> None:
    pid = child.ask(b"pid")
    assert child.ask(b"abc") == b"cba"
    assert child.ask(b"") == b""
    assert child.ask(b"x" * 2**20) == b"x" * 2**20
    assert child.ask(b"print") == b"printed"
    assert child.ask(b"pid") == pid
    assert child.ask(b"group") == pid != str(os.getpgid(0)).encode()


def test_a_question_may_be_larger_than_the_answer_may_be() -> None:
    with confined(replace(LIMITS, answer_bytes=10)) as child:
        with pytest.raises(Unreadable):
            child.ask(b"x" * 3_000_000)
        assert child.ask(b"abc") == b"cba"


def test_it_sees_no_secret_of_the_farm(child: Confined, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FARM_API_KEYS", "FARM_SECRET_KEY", "FARM_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD"):
        monkeypatch.setenv(name, "canary")
    names = set(child.ask(b"environment").decode().split())
    assert names <= {
        "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "HOME", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH",
        "OMP_NUM_THREADS", "PATH", "TMPDIR",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("question", "limits", "limit", "words"),
    [
        (b"allocate", LIMITS, "memory", "it takes more than 100 MB of memory"),
        (b"hoard", LIMITS, "memory", "it takes more than 100 MB of memory"),
        (b"spin", replace(LIMITS, cpu_seconds=1), "processor", "it takes more than 1 s of processor time"),
        (b"sleep", replace(LIMITS, seconds=0.2), "time", "it takes longer than 0.2 s"),
        (b"answer", LIMITS, "answer", "its result is larger than 1.0 MB"),
        (b"die", LIMITS, None, r"it ended its process \(SIGSEGV\)"),
        (b"leave", LIMITS, None, r"it ended its process \(status 3\)"),
        (b"raise", LIMITS, None, r"it cannot be read \(ValueError: just so\)"),
    ],
)
def test_what_is_too_much_is_told_and_the_next_question_meets_a_new_child(
    question: bytes, limits: Limits, limit: str | None, words: str
) -> None:
    with confined(limits) as child:
        before = child.ask(b"pid")
        with pytest.raises(Unreadable, match=words) as error:
            child.ask(question)
        assert error.value.limit == limit
        assert not is_alive(int(before))
        assert child.ask(b"pid") != before


def test_mapped_files_are_no_memory_of_its_own(child: Confined, tmp_path: Path) -> None:
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 2**30)
    assert child.ask(b"map " + bytes(tmp_path / "large")) == bytes(3)


def test_it_writes_no_file(child: Confined) -> None:
    assert child.ask(b"write") == b"OSError"


def test_what_it_started_ends_with_it() -> None:
    with confined() as child:
        grandchild = int(child.ask(b"start"))
        assert is_alive(grandchild)
    until(lambda: not is_alive(grandchild))


def test_it_ends_when_its_parent_is_killed_whatever_it_does() -> None:
    code = (
        "import sys; from tests.unit.test_confined import confined; child = confined();"
        " print(int(child.ask(b'pid')), flush=True); child.ask(b'spin')"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until(lambda: not is_alive(pid))


def test_a_module_that_cannot_be_imported_is_nobodys_input(monkeypatch: pytest.MonkeyPatch) -> None:
    with Confined("tests.unit.nothing_there", LIMITS) as child, pytest.raises(NotConfined, match="ModuleNotFoundError"):
        child.ask(b"abc")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with confined() as child, pytest.raises(NotConfined, match="No such file"):
        child.ask(b"abc")


def test_nothing_stays_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with confined() as child:
            child.ask(b"abc")
            with pytest.raises(Unreadable):
                child.ask(b"raise")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
