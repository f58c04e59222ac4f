"""The newcomer's commands: what is typed arrives as typed, and a wrong Python is refused at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from shared.params.table import parameters

ROOT = Path(__file__).parents[2]
RECORDER = '#!/bin/sh\nprintf "%s\\0" "$@" > "$(dirname "$0")/arguments"\n'


def make(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run make as a person would: without what an outer make (`make test`) hands down."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        env=clean | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What make reads, as in a fresh clone."""
    (tmp_path / "deploy").mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "deploy/venv.sh", "deploy/pytorch.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def installed(clone: Path) -> Path:
    """A clone whose `farm` writes down what it was given."""
    program(clone / ".venv/bin/farm", RECORDER)
    (clone / ".venv/.installed").touch()
    return clone


def rendered(clone: Path) -> list[str]:
    return (clone / ".venv/bin/arguments").read_text().split("\0")[:-1]


@pytest.mark.parametrize(
    "prompt",
    [
        'a "b" $(id)',
        "$(shell touch pwned) ${PATH} $$ $HOME `id`",
        "it's; a & b | c > pwned # no comment",
        "back\\slash \\n and two\nlines",
        "--seed=9",
        "blanks   inside and after  ",
        "Prärie, 夕焼け, 🏜",
    ],
)
def test_prompt_arrives_as_typed(installed: Path, prompt: str):
    answer = make(installed, "render", f"PROMPT={prompt}")
    assert answer.returncode == 0, answer.stderr
    assert rendered(installed) == ["render", "--", prompt]
    assert not (installed / "pwned").exists()


def test_prompt_arrives_from_the_environment(installed: Path):
    make(installed, "render", PROMPT='a "b" $(id)')
    assert rendered(installed) == ["render", "--", 'a "b" $(id)']


def test_every_option_arrives(installed: Path):
    typed = {
        "NEGATIVE": 'no "frame"', "CHECKPOINT": "demo $(x)", "SIZE": "64x128", "STEPS": "5", "CFG": "2.5",
        "SAMPLER": "DPM++ 2M", "SCHEDULE": "karras", "SEED": "7", "COUNT": "2", "OUT": "my pictures",
    }  # fmt: skip
    make(installed, "render", "PROMPT=sea", *(f"{name}={value}" for name, value in typed.items()))
    options = [f"--{name.lower()}={value}" for name, value in typed.items()]
    assert rendered(installed) == ["render", *options, "--", "sea"]


def test_render_without_a_prompt_says_what_to_type(installed: Path):
    answer = make(installed, "render", PROMPT="")
    assert answer.returncode != 0
    assert 'make render PROMPT="' in answer.stderr


def test_status_of_farm_is_status_of_make(installed: Path):
    program(installed / ".venv/bin/farm", "#!/bin/sh\nexit 1\n")
    assert make(installed, "render", "PROMPT=sea").returncode != 0


def test_help_lists_every_target(clone: Path):
    answer = make(clone).stdout
    for target in (
        "help",
        "render",
        "up",
        "doctor",
        "venv",
        "test",
        "nightly",
        "chaos",
        "lint",
        "docs",
        "judge",
        "lessons",
        "lock",
        "format",
        "clean",
    ):
        assert f"make {target} " in answer


def fake_python(folder: Path, name: str, version: str, *, can_make_environments: bool = True) -> None:
    """An interpreter that says it is `version` and answers the two questions that venv.sh asks."""
    accepted = version.startswith(("3.11.", "3.12.", "3.13.", "3.14."))
    series = ".".join(version.split(".")[:2])
    program(
        folder / name,
        f"""#!/bin/sh
case "$*" in
--version) echo "Python {version}" ;;
*%d-venv*) echo "python{series}-venv" ;;
*version_info*) exit {0 if accepted else 1} ;;
*ensurepip*) exit {0 if can_make_environments else 1} ;;
*) echo "$0 $*" >> "$(dirname "$0")/calls"; exit 3 ;;
esac
""",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH on which only the interpreters of the test stand."""
    folder = tmp_path / "path"
    folder.mkdir()
    for tool in ("sh", "make", "grep", "dirname", "touch", "mkdir", "rm"):
        (folder / tool).symlink_to(shutil.which(tool) or tool)
    return folder


def venv(clone: Path, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return make(clone, "venv", *arguments, PATH=str(path), PYTHON="")


@pytest.mark.parametrize("version", ["3.10.14", "3.15.0", "2.7.18"])
def test_other_python_is_refused_with_those_that_would_do(clone: Path, path: Path, version: str):
    fake_python(path, "python3", version)
    answer = venv(clone, path)
    assert answer.returncode != 0
    assert "Python 3.11, 3.12, 3.13 or 3.14" in answer.stderr
    assert f"python3 is Python {version}" in answer.stderr
    assert not (clone / ".venv").exists()


def test_no_python_is_refused_too(clone: Path, path: Path):
    answer = venv(clone, path)
    assert answer.returncode != 0
    assert "Stepfarm needs Python 3.11, 3.12, 3.13 or 3.14. None was found." in answer.stderr


def test_named_python_is_the_only_one_looked_at(clone: Path, path: Path):
    fake_python(path, "python3", "3.12.1")
    fake_python(path, "other", "3.10.14")
    answer = venv(clone, path, f"PYTHON={path / 'other'}")
    assert f"{path / 'other'} is Python 3.10.14." in answer.stderr


@pytest.mark.parametrize("version", ["3.11.2", "3.12.3", "3.13.5", "3.14.2"])
def test_python_without_venv_names_the_package(clone: Path, path: Path, version: str):
    fake_python(path, "python3", version, can_make_environments=False)
    answer = venv(clone, path)
    assert answer.returncode != 0
    assert f"sudo apt-get install python{version.rpartition('.')[0]}-venv\n" in answer.stderr


def test_another_python_is_taken_where_the_first_cannot_make_environments(clone: Path, path: Path):
    fake_python(path, "python3", "3.13.5", can_make_environments=False)
    fake_python(path, "python3.11", "3.11.2")
    venv(clone, path)
    assert (path / "calls").read_text() == f"{path / 'python3.11'} -m venv --clear .venv\n"


@pytest.mark.parametrize("name", ["python3", "python3.11", "python3.12", "python3.13", "python3.14"])
def test_accepted_python_is_found_under_each_name(clone: Path, path: Path, name: str):
    fake_python(path, "python3", "3.10.14")
    fake_python(path, name, "3.12.3")
    venv(clone, path)
    assert (path / "calls").read_text() == f"{path / name} -m venv --clear .venv\n"


def test_stamp_is_not_left_when_the_installation_fails(clone: Path, path: Path):
    fake_python(path, "python3", "3.11.2")
    assert venv(clone, path).returncode != 0
    assert not (clone / ".venv/.installed").exists()


ENVIRONMENT = """#!/bin/sh
case "$*" in
*version_info*) exit 0 ;;
esac
echo "$*" >> "$(dirname "$0")/calls"
case "$*" in
*"$FAIL"*) exit 4 ;;
esac
"""


@pytest.fixture
def made(clone: Path) -> Path:
    """A clone whose environment has been made, with a Python that writes down what it is asked; FAIL ends it."""
    program(clone / ".venv/bin/python", ENVIRONMENT)
    return clone


def calls(clone: Path) -> list[str]:
    return (clone / ".venv/bin/calls").read_text().splitlines()


def test_everything_comes_by_its_hash_then_pytorch_then_the_farm_itself(made: Path, path: Path):
    answer = make(made, "venv", PATH=str(path), FAIL="nothing")
    assert answer.returncode == 0, answer.stderr
    *locked, torch, farm, compiled, check = calls(made)
    assert [call.rpartition(" ")[2] for call in locked] == [
        f"deploy/lock/{part}.txt" for part in ("build", "api", "oidc", "worker", "dev")
    ]
    assert all("--no-deps --require-hashes" in call for call in locked)
    assert torch == "deploy/pytorch.py"
    assert farm.endswith("install --quiet --no-deps --no-build-isolation --editable .")
    assert compiled == "-m compileall -qq -j 0 .venv/lib"
    assert check == "deploy/check.py"


@pytest.mark.parametrize("step", ["lock/api.txt", "pytorch.py", "--editable", "check"])
def test_a_step_that_fails_ends_it_and_leaves_no_stamp(made: Path, path: Path, step: str):
    answer = make(made, "venv", PATH=str(path), FAIL=step)
    assert answer.returncode != 0
    assert step in calls(made)[-1]
    assert not (made / ".venv/.installed").exists()


def test_every_variable_of_render_is_an_option_of_the_command():
    recipe = (ROOT / "Makefile").read_text().partition("\nrender:")[2].partition("\n\n")[0]
    options = {one.fact.option.name for one in parameters().values() if one.fact.option}
    assert set(re.findall(r"--[a-z-]+(?==)", recipe)) <= {*options, "--out"}
