"""The build of PyTorch that is installed, its index, and the message before the download."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server
from threading import Thread

import pytest

ROOT = Path(__file__).parents[2]
PIN = "torch==2.13.0"


@pytest.fixture
def pytorch(monkeypatch, tmp_path):
    """The program, in a folder with a pin, on a machine without card, PyTorch and TORCH_INDEX."""
    spec = importlib.util.spec_from_file_location("pytorch", ROOT / "deploy/pytorch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "constraints.txt").write_text(f"tomlkit==1\n{PIN}\ntorchsde==2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    monkeypatch.setattr(module, "_DRIVER", tmp_path / "no driver")
    monkeypatch.setattr(module, "is_there", lambda pin: False)
    return module


@pytest.fixture
def installed(pytorch, monkeypatch):
    """What pip was asked to install; every index has everything."""
    asked = []
    monkeypatch.setattr(pytorch, "install", lambda *arguments: asked.append(arguments) or True)
    return asked


DEFAULT = ("--constraint", "constraints.txt", PIN)


def from_index(index):
    return ("--no-deps", "--index-url", index, PIN)


def test_without_a_card_the_cpu_build_is_taken(pytorch, installed, monkeypatch):
    monkeypatch.setattr(pytorch, "answers", lambda url: True)
    pytorch.main()
    assert installed == [from_index(pytorch.CPU_INDEX), DEFAULT]


def test_an_index_that_does_not_answer_is_passed_by(pytorch, installed, monkeypatch, capsys):
    monkeypatch.setattr(pytorch, "answers", lambda url: False)
    pytorch.main()
    assert installed == [DEFAULT]
    assert f"{pytorch.CPU_INDEX} does not answer" in capsys.readouterr().out


def test_an_index_without_a_wheel_for_this_machine_is_passed_by(pytorch, monkeypatch, capsys):
    monkeypatch.setattr(pytorch, "answers", lambda url: True)
    monkeypatch.setattr(pytorch, "install", lambda *arguments: "--index-url" not in arguments)
    pytorch.main()
    assert f"{pytorch.CPU_INDEX} has no {PIN} for this machine" in capsys.readouterr().out


def test_with_a_card_pips_own_index_decides(pytorch, installed, monkeypatch):
    monkeypatch.setattr(pytorch, "_DRIVER", ROOT)
    monkeypatch.setattr(pytorch, "answers", lambda url: pytest.fail("nothing is asked"))
    pytorch.main()
    assert installed == [DEFAULT]


@pytest.mark.parametrize("driver", ["no driver", "constraints.txt"])
def test_an_index_that_is_named_decides(pytorch, installed, monkeypatch, driver):
    monkeypatch.setattr(pytorch, "_DRIVER", Path(driver))
    monkeypatch.setattr(pytorch, "answers", lambda url: pytest.fail("nothing is asked"))
    monkeypatch.setenv("TORCH_INDEX", "https://example.org/cu130")
    pytorch.main()
    assert installed == [from_index("https://example.org/cu130"), DEFAULT]


def test_an_index_that_is_named_and_has_nothing_is_an_error(pytorch, monkeypatch):
    monkeypatch.setenv("TORCH_INDEX", "https://example.org/cu130")
    monkeypatch.setattr(pytorch, "install", lambda *arguments: False)
    with pytest.raises(SystemExit, match="cu130 has no torch==2"):
        pytorch.main()


def test_what_is_there_stays(pytorch, installed, monkeypatch):
    monkeypatch.setattr(pytorch, "is_there", lambda pin: pin == PIN)
    pytorch.main()
    assert installed == []


@pytest.mark.parametrize(
    ("found", "needs", "is_there"),
    [
        ("2.13.0+cpu", ["pytest>=1"], True),
        ("2.13.0", ["pytest>=1", 'nobody-has-this>=1; extra == "optree"'], True),
        ("2.13.0", ["nobody-has-this==1; platform_system == 'Linux'"], False),  # CUDA's libraries are still to come
        ("2.12.0", [], False),
    ],
)
def test_a_build_is_whole_or_installed_again(pytorch, monkeypatch, found, needs, is_there):
    spec = importlib.util.spec_from_file_location("again", ROOT / "deploy/pytorch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known = module.version
    monkeypatch.setattr(module, "version", lambda name: found if name == "torch" else known(name))
    monkeypatch.setattr(module, "requires", lambda name: needs)
    assert module.is_there(PIN) == is_there


class Index(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", "190500000")
        self.end_headers()

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_):
        pass


@pytest.fixture
def index():
    """The address of a server that says about every file that it has 190.5 MB."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def wheel(url, name="torch", version="2.13.0+cpu"):
    return {"download_info": {"url": url}, "metadata": {"name": name, "version": version}}


def test_what_will_be_fetched_is_told_with_its_size(pytorch, index, tmp_path):
    host = index.removeprefix("http://")
    one = wheel(f"{index}/torch.whl")
    assert pytorch.summary([one]) == f"Downloading torch 2.13.0+cpu: 190 MB, from {host}."
    many = [wheel(f"{index}/{n}.whl", f"nvidia-{n}", "13") for n in range(9)]
    more = "and 9 packages that it needs"
    assert pytorch.summary([one, *many]) == f"Downloading torch 2.13.0+cpu {more}: 1.9 GB, from {host}."
    file = tmp_path / "torch.whl"
    file.write_bytes(bytes(2_000_000))
    assert pytorch.summary([wheel(file.as_uri())]) == "Downloading torch 2.13.0+cpu: 2 MB, from this machine's disk."
    gone = wheel("http://127.0.0.1:9/torch.whl")
    assert pytorch.summary([gone]) == "Downloading torch 2.13.0+cpu: of unknown size, from 127.0.0.1:9."


def test_an_index_that_answers_is_known_from_one_that_does_not(pytorch, index, monkeypatch):
    assert pytorch.answers(index)
    assert not pytorch.answers("http://127.0.0.1:9/")
    monkeypatch.setattr(pytorch, "ANSWER_SECONDS", 1)
    with create_server(("127.0.0.1", 0)) as silent:
        assert not pytorch.answers(f"http://127.0.0.1:{silent.getsockname()[1]}/")


def test_pip_plans_before_it_installs(pytorch, monkeypatch, capsys):
    asked = []

    def run(command, **_):
        asked.append(command[5:])
        report = {"install": [wheel("http://127.0.0.1:9/torch.whl")]}
        return subprocess.CompletedProcess(command, 0, stdout=json.dumps(report))

    monkeypatch.setattr(subprocess, "run", run)
    assert pytorch.install("--no-deps", PIN)
    assert asked == [["--dry-run", "--quiet", "--report", "-", "--no-deps", PIN], ["--no-deps", PIN]]
    assert "Downloading torch" in capsys.readouterr().out
