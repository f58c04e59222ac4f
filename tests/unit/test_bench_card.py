"""The acceptance run of a card: its table, its verdicts, its limits, and what it takes to a bare machine."""

from __future__ import annotations

import json
import lzma
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.card import __main__ as card
from bench.card import children, correctness, machine, packages
from bench.card import tests as card_tests
from bench.card.bench import Bench, Message, Setting
from bench.card.measures import ENDING, Measure, failures, found
from bench.card.parts import PARTS, chosen
from bench.card.results import Results
from bench.card.table import table

# Children are forked here, from a process that has computed nothing.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

Told = list[Message]
SECONDS = 60.0


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting("cuda:0", tmp_path, tmp_path / "demo.safetensors", tmp_path / "log", pretends=True)


@pytest.fixture
def run_part(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    """Run a function in the place of part 0, in a child and with a limit; return all that is heard of it."""
    monkeypatch.setattr(children, "enter", lambda _: None)  # what is tried here needs no card

    def run(part: Callable[[Bench], object], limit_seconds: float = SECONDS, number: int = 0) -> Told:
        monkeypatch.setattr(machine, "run", part)
        monkeypatch.setattr(children, "PARTS", [PARTS[0]] * len(PARTS))
        heard: Told = []
        children.run(number, setting, {}, heard.append, limit_seconds=limit_seconds)
        return heard

    return run


def test_the_limits_of_all_parts_fit_one_command_of_ten_minutes() -> None:
    assert [part.limit_seconds for part in PARTS] == [15, 25, 40, 70, 45, 50, 150, 25, 45]
    assert sum(part.limit_seconds for part in PARTS) == 465


def test_a_part_tells_what_it_finds_as_it_finds_it(run_part: Callable[..., Told]) -> None:
    def part(bench: Bench) -> None:
        bench.now("products")
        bench.note("product", 3.5, "TFLOP/s", of_roofline=0.5)

    assert run_part(part) == ["products", Measure(0, "product", 3.5, "TFLOP/s", of_roofline=0.5)]


def test_a_part_that_hangs_is_killed_with_all_that_it_started_and_told(run_part: Callable[..., Told]) -> None:
    def part(bench: Bench) -> None:
        beside = subprocess.Popen(["sleep", "600"])
        bench.note("child", beside.pid)
        time.sleep(600)

    begun = time.monotonic()
    found_child, ending = run_part(part, limit_seconds=0.5)
    assert time.monotonic() - begun < SECONDS
    assert isinstance(ending, Measure)
    assert (ending.name, ending.value, ending.is_ok) == (ENDING, "stopped at its limit of 0.5 s", False)
    assert isinstance(found_child, Measure)
    assert not is_alive(int(found_child.value))


def is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("end", [lambda _: os._exit(71), lambda _: os.kill(os.getpid(), signal.SIGKILL)])
def test_a_part_whose_process_dies_is_told_and_keeps_what_it_found(
    run_part: Callable[..., Told], end: Callable[[Bench], object]
) -> None:
    def part(bench: Bench) -> None:
        bench.note("before", 1.0)
        end(bench)

    before, ending = run_part(part)
    assert before == Measure(0, "before", 1.0)
    assert isinstance(ending, Measure)
    assert str(ending.value).startswith("its process ended with")
    assert ending.is_failure


@pytest.mark.parametrize("number", [0, 6])
def test_an_error_that_ends_a_part_fails_the_run_whatever_the_part(run_part: Callable[..., Told], number: int) -> None:
    def part(_: Bench) -> None:
        raise ValueError("planted")

    (ending,) = run_part(part, number=number)
    assert isinstance(ending, Measure)
    assert ending.value == "ValueError: planted"
    assert "Traceback" in ending.traceback
    assert ending.is_failure


def test_only_gates_fail_a_run_for_a_target_that_was_missed() -> None:
    missed = [Measure(part, "x", 1.0, is_ok=False) for part in range(len(PARTS))]
    assert [one.part for one in failures(missed)] == [2, 3, 4, 8]
    assert failures([Measure(3, "x", 1.0, is_ok=True), Measure(3, "y", 1.0)]) == []


def test_a_part_that_is_stopped_fails_a_run_unless_it_is_the_one_of_speed() -> None:
    stopped = [Measure(part, ENDING, "stopped at its limit", is_ok=False) for part in range(len(PARTS))]
    assert [one.part for one in failures(stopped)] == [0, 1, 2, 3, 4, 5, 7, 8]


def bench_of(part: int, *, pretends: bool = False) -> tuple[Bench, Told]:
    told: Told = []
    setting = Setting("cuda:0", Path(), Path(), Path(), pretends)
    return Bench(setting, part, {"product": 200.0}, time.monotonic() + 5, told.append), told


def test_a_bound_is_told_and_kept_to_on_both_sides() -> None:
    bench, told = bench_of(3)
    bench.at_least(30.0, "PSNR", 29.9, "dB")
    bench.at_least(30.0, "PSNR", 30.0, "dB")
    bench.at_most(0.1, "refused", 0.2)
    bench.check("digest", is_ok=False, value="ab", target="cd")
    assert [(one.target, one.is_ok) for one in told if isinstance(one, Measure)] == [
        ("≥ 30 dB", False), ("≥ 30 dB", True), ("≤ 0.1", False), ("cd", False),
    ]  # fmt: skip


def test_a_number_that_is_none_meets_no_bound() -> None:
    bench, told = bench_of(3)
    bench.at_least(30.0, "PSNR", float("nan"), "dB")
    bench.at_most(0.1, "error", float("nan"))
    assert [one.is_ok for one in told if isinstance(one, Measure)] == [False, False]


def test_a_pretended_card_is_not_judged_by_its_speed() -> None:
    for part, verdict in ((3, False), (5, None)):
        bench, told = bench_of(part, pretends=True)
        bench.at_most(1.0, "seconds", 2.0)
        assert [one.is_ok for one in told if isinstance(one, Measure)] == [verdict]


def test_shares_of_the_roofline_want_one_that_was_measured() -> None:
    bench, _ = bench_of(6)
    assert bench.share("product", 50.0) == 0.25
    assert bench.share("copy", 50.0) is None


def test_the_table_says_measure_value_target_roofline_peer_and_verdict() -> None:
    lines = table([
        Measure(6, "16 in flight", 5.5, "pictures/s", "≥ 1 times", True, of_roofline=0.241, of_peer=1.234),
        Measure(3, "a | b", "none", target="all", is_ok=False),
        Measure(0, "copy", 3_350.4, "GB/s"),
    ]).splitlines()  # fmt: skip
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["part", "measure", "value", "target", "roofline", "peer", ""]
    assert cells[2:] == [
        ["6 speed", "16 in flight", "5.5 pictures/s", "≥ 1 times", "24%", "1.23x", "ok"],
        ["3 correctness", "a / b", "none", "all", "", "", "FAIL"],
        ["0 machine", "copy", "3,350 GB/s", "", "", "", ""],
    ]
    assert len({len(line) for line in lines}) == 1


def test_figures_are_whole_in_the_file_after_each_measure(tmp_path: Path) -> None:
    results = Results(tmp_path / "out")
    for number, is_ok in enumerate((True, False)):
        results.add(Measure(4, f"peak {number}", 1.5, "GiB", "≤ 1 GiB", is_ok))
        figures = json.loads((tmp_path / "out" / "card.json").read_text())
        assert len(figures["measures"]) == number + 1
    assert figures["failed"] == ["4 peak 1"]
    assert figures["measures"][1] | {"traceback": ""} == {
        "part": 4, "name": "peak 1", "value": 1.5, "unit": "GiB", "target": "≤ 1 GiB", "is_ok": False,
        "of_roofline": None, "of_peer": None, "traceback": "",
    }  # fmt: skip
    assert found(results.measures) == {"peak 0": 1.5, "peak 1": 1.5}


@pytest.mark.parametrize(("text", "parts"), [("3,4", (3, 4)), ("4,3,3", (3, 4)), ("0", (0,))])
def test_parts_are_chosen_by_number(text: str, parts: tuple[int, ...]) -> None:
    assert chosen(text) == parts


@pytest.mark.parametrize(
    ("text", "words"), [("9", "there is no part 9"), ("-1", "no part -1"), ("x", "such as 3,4"), ("", "3,4")]
)
def test_parts_that_are_none_are_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        chosen(text)


@pytest.mark.parametrize(("is_ok", "status"), [(True, 0), (False, 1)])
def test_the_exit_status_is_1_where_a_gate_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, is_ok: bool, status: int
) -> None:
    def run(part: int, *arguments: object, limit_seconds: float) -> None:
        heard = arguments[2]
        assert callable(heard)
        heard(Measure(part, "company", "1 of 64", target="none", is_ok=is_ok))

    monkeypatch.setattr(children, "run", run)
    monkeypatch.setattr(card, "_no_card", lambda _: "")
    assert card.main(["--parts", "3", "--out", str(tmp_path)]) == status
    printed = capsys.readouterr().out
    assert ("FAIL: part 3, company: 1 of 64 (none)" in printed) is not is_ok
    assert "| 3 correctness | company | 1 of 64 |" in printed


def test_ctrl_c_prints_the_table_of_what_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(part: int, *arguments: object, limit_seconds: float) -> None:
        heard = arguments[2]
        assert callable(heard)
        heard(Measure(part, "card", "pretended"))
        raise KeyboardInterrupt

    monkeypatch.setattr(children, "run", run)
    monkeypatch.setattr(card, "_no_card", lambda _: "")
    assert card.main(["--out", str(tmp_path)]) == card.INTERRUPTED
    assert "| 0 machine | card    | pretended |" in capsys.readouterr().out
    assert json.loads((tmp_path / "card.json").read_text())["seconds"].keys() == {"0"}


def test_where_there_is_no_card_it_says_so_and_what_can_be_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert card.main(["--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "there is no card here" in said
    assert "--pretend" in said


def test_signals_are_handled_as_before_when_a_run_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert card.main(["--wheels", "no-such-folder"]) == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_before_anything_is_measured_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(card, "_no_card", interrupted)
    assert card.main(["--out", str(tmp_path)]) == card.INTERRUPTED
    assert "stopped before anything was measured" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/no-such-folder"])
def test_a_folder_for_the_figures_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(card, "_no_card", lambda _: "")
    assert card.main(["--out", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert f"--out {tmp_path / name}: " in said
    assert "name a folder that can be written" in said


def test_wheels_in_a_folder_that_is_not_there_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert card.main(["--wheels", str(tmp_path / "wheels")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_python_without_torch_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert card.main([]) == 2
    said = capsys.readouterr().err
    assert "torch cannot be imported: " in said
    assert "pytorch.org" in said


def test_a_folder_that_cannot_be_prepared_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert card.main(["prepare", str(tmp_path / "file")]) == 2
    assert "name a folder that can be written" in capsys.readouterr().err


def test_what_a_bare_machine_lacks_is_told_with_the_command_that_fetches_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packages, "missing", lambda: ["diffusers", "importlib_metadata"])
    assert card.main([]) == 2
    said = capsys.readouterr().err
    assert "lacks diffusers, importlib_metadata" in said
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"pip download --no-deps --only-binary=:all: --python-version {version}" in said
    assert "diffusers==" in said
    assert "importlib-metadata==" in said


def test_libraries_that_do_not_work_together_are_told_before_anything_runs(tmp_path: Path) -> None:
    assert children.warm(["json"]) == ""
    assert "do not work together: No module named 'no_such_module'" in children.warm(["json", "no_such_module"])


def test_wheels_of_what_is_missing_are_brought_in_and_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, module in (("brought_in-1.0-py3-none-any.whl", "brought_in"), ("numpy-1.0-py3-none-any.whl", "numpy")):
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            wheel.writestr(f"{module}/__init__.py", "")
    monkeypatch.setitem(packages.NEEDED, "brought_in", "brought-in")
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert packages.missing() == ["brought_in"]
    packages.bring_in(tmp_path, tmp_path / "site")
    assert packages.missing() == []
    assert not (tmp_path / "site" / "numpy").exists()


@pytest.mark.nightly
def test_what_must_travel_fits_and_runs_without_a_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    demo = tmp_path / "demo.safetensors"
    demo.write_bytes(b"weights" * 1000)
    demo.with_suffix(".yaml").write_text("model: {}")
    monkeypatch.setattr(packages, "DEMO", demo)
    said = packages.prepare(tmp_path / "out")
    assert lzma.decompress((tmp_path / "out" / "demo.safetensors.xz").read_bytes()) == demo.read_bytes()
    assert (tmp_path / "out" / "demo.yaml").exists()
    size = sum(file.stat().st_size for file in (tmp_path / "out").rglob("*"))
    assert size < 6 * 2**20  # of 64 MiB, with 48 for the checkpoint and 9 for wheels
    assert "--python-version 3.12" in said
    assert "python3 -m bench.card --wheels" in said
    absent = (
        "sqlalchemy",
        "psycopg",
        "redis",
        "celery",
        "kombu",
        "flask",
        "uvicorn",
        "alembic",
        "fsspec.implementations",
    )
    modules = [f"bench.card.{part.name}" for part in PARTS] + ["bench.card.__main__"]
    tests = {test.name for test in card_tests.TESTS.glob("test_*.py")}
    modules += [f"tests.gpu.{Path(name).stem}" for name in tests - set(card_tests.LEFT_OUT)]
    program = (
        f"import sys\nfor name in {absent!r}: sys.modules[name] = None\n"
        f"from importlib import import_module\nfor name in {modules!r}: import_module(name)\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'out')!r})\n{program}"],
        cwd=tmp_path / "out", env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


def test_every_package_that_may_be_brought_is_pinned() -> None:
    command = packages.pip_command(packages.NEEDED, "wheels")
    assert command.count("==") == len(packages.NEEDED)
    assert set(packages.USUALLY_MISSING) <= packages.NEEDED.keys()


def _asleep(*_: object) -> None:
    time.sleep(600)


def _silent(_: Setting, pipe: Connection) -> None:
    pipe.close()


def test_a_process_that_ends_without_an_answer_is_an_error(setting: Setting) -> None:
    bench = Bench(setting, 3, {}, time.monotonic() + SECONDS, lambda _: None)
    with children.helper(bench, _silent) as helper, pytest.raises(RuntimeError, match="ended with 0"):
        helper.answer(bench)


def test_a_process_that_does_not_answer_in_time_is_an_error(setting: Setting) -> None:
    bench = Bench(setting, 3, {}, time.monotonic() + 0.1, lambda _: None)
    with children.helper(bench, _asleep) as helper, pytest.raises(RuntimeError, match="took too long"):
        helper.answer(bench)
    assert not is_alive(helper.process.pid or 0)


def test_a_digest_tells_pictures_apart_by_one_bit() -> None:
    one, other = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)
    other[4, 4, 1] = 1
    assert correctness.digest([one]) != correctness.digest([other])
    assert correctness.digest([one]) == correctness.digest([one.copy()])
