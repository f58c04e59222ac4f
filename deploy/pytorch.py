"""Install the PyTorch of constraints.txt into the running environment, in the build that fits the machine.

TORCH_INDEX names the package index. Without it, a machine without an NVIDIA card gets the CPU build, which is gigabytes
smaller, if its index answers within seconds. Everything else comes from pip's own index.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final
from urllib.request import Request, urlopen

CPU_INDEX: Final = "https://download.pytorch.org/whl/cpu"
ANSWER_SECONDS: Final = 6
_DRIVER: Final = Path("/proc/driver/nvidia/version")
_CONSTRAINTS: Final = Path("constraints.txt")
_OPEN: Final = "import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=4).read(1)"
_SIZE_SECONDS: Final = 5


def main() -> None:
    pin = re.search(r"^torch==\S+", _CONSTRAINTS.read_text(), re.MULTILINE).group()
    if is_there(pin):
        return
    if index := os.environ.get("TORCH_INDEX"):
        if not install("--no-deps", "--index-url", index, pin):
            sys.exit(f"TORCH_INDEX={index} has no {pin} for this machine: name another index.")
    elif not _DRIVER.exists():
        install_for_the_cpu(pin)
    # Also for packages that PyTorch's own index lacks: a CUDA build needs CUDA's libraries.
    if not install("--constraint", str(_CONSTRAINTS), pin):
        sys.exit(f"pip's index has no {pin} for this machine: set TORCH_INDEX to another one (docs/install.md).")


def install_for_the_cpu(pin: str) -> None:
    """Install the CPU build from its own index, if that answers and has one for this Python and machine."""
    if not answers(f"{CPU_INDEX}/torch/"):
        say(f"No NVIDIA card, but {CPU_INDEX} does not answer: installing from pip's own index, perhaps with CUDA.")
    elif not install("--no-deps", "--index-url", CPU_INDEX, pin):
        say(f"{CPU_INDEX} has no {pin} for this machine: installing from pip's own index, perhaps with CUDA.")


def is_there(pin: str) -> bool:
    """Return whether this version is installed, with the packages that its build needs."""
    try:
        found, needed = version("torch"), requires("torch") or []
        for line in needed:
            if "extra ==" not in line:
                version(re.split(r"[^\w.-]", line)[0])
    except PackageNotFoundError:
        return False
    return found.partition("+")[0] == pin.partition("==")[2]


def answers(url: str) -> bool:
    """Return whether `url` answers within seconds; another process asks, because name look-ups have no time limit."""
    try:
        return not subprocess.run(
            [sys.executable, "-c", _OPEN, url], timeout=ANSWER_SECONDS, stderr=subprocess.DEVNULL, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return False


def install(*arguments: str) -> bool:
    """Print what pip will download for these arguments, and install it. False if pip cannot."""
    planned = pip("--dry-run", "--quiet", "--report", "-", *arguments, stdout=subprocess.PIPE)
    if planned.returncode:
        return False
    wheels = json.loads(planned.stdout)["install"]
    if not wheels:
        return True
    say(summary(wheels))
    return not pip(*arguments).returncode


def pip(*arguments: str, stdout: int | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *arguments]
    return subprocess.run(command, stdout=stdout, text=True, check=False)


def summary(wheels: Sequence[dict]) -> str:
    """Return the message that names the downloads and their size."""
    urls = [wheel["download_info"]["url"] for wheel in wheels]
    names = [f"{wheel['metadata']['name']} {wheel['metadata']['version']}" for wheel in wheels]
    names.sort(key=lambda name: not name.startswith("torch "))
    more = f" and {len(names) - 1} packages that it needs" if len(names) > 1 else ""
    return f"Downloading {names[0]}{more}: {size(urls)}, from {source(urls[0])}."


def source(url: str) -> str:
    return url.partition("://")[2].partition("/")[0] or "this machine's disk"


def size(urls: Iterable[str]) -> str:
    """Return the size of these files as their servers give it."""
    try:
        total = sum(length(url) for url in urls)
    except (OSError, ValueError):  # a server that does not answer, or does not say
        return "of unknown size"
    return f"{total / 1e9:.1f} GB" if total >= 1e9 else f"{total / 1e6:.0f} MB"


def length(url: str) -> int:
    with urlopen(Request(url, method="HEAD"), timeout=_SIZE_SECONDS) as answer:  # noqa: S310 - of pip's own choice
        return int(answer.headers["Content-Length"] or "")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
