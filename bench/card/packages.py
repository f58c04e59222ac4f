"""What a bare machine lacks, and what is taken to it."""

from __future__ import annotations

import lzma
import re
import shutil
import sys
import zipfile
from collections.abc import Iterable
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DEMO: Final = ROOT / "models" / "Stable-diffusion" / "scenes-v1.safetensors"
THIS_PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
CARDS_PYTHON: Final = "3.12"  # that images for cards mostly have
LIMIT_BYTES: Final = 64 * 2**20  # what some ways to a machine carry at most
# Module -> the package that brings it, as constraints.txt names it. torch is the machine's own: never brought.
NEEDED: Final = {
    "diffusers": "diffusers", "importlib_metadata": "importlib-metadata", "zipp": "zipp",
    "transformers": "transformers", "huggingface_hub": "huggingface-hub", "tokenizers": "tokenizers",
    "safetensors": "safetensors", "regex": "regex", "requests": "requests", "filelock": "filelock",
    "pydantic": "pydantic", "pydantic_core": "pydantic-core", "annotated_types": "annotated-types",
    "typing_inspection": "typing-inspection", "lark": "lark", "yaml": "pyyaml", "PIL": "pillow", "numpy": "numpy",
    "scipy": "scipy", "torchsde": "torchsde", "trampoline": "trampoline", "structlog": "structlog",
    "pytest": "pytest", "pluggy": "pluggy", "iniconfig": "iniconfig",
}  # fmt: skip
USUALLY_MISSING: Final = (
    "diffusers", "importlib_metadata", "zipp", "pydantic", "pydantic_core", "annotated_types", "typing_inspection",
    "lark", "torchsde", "trampoline", "structlog",
)  # fmt: skip
_CODE: Final = (
    "bench", "shared", "worker", "tests/gpu", "tests/support",
    "tools/__init__.py", "tools/demo_checkpoint/__init__.py", "tools/demo_checkpoint/layout.py",
)  # fmt: skip
_FORMATS: Final = ("*.py", "*.yaml", "*.json", "*.txt", "*.gz", "*.lark")
_FILTERS: Final = [{"id": lzma.FILTER_LZMA2, "preset": 1, "lc": 0, "lp": 1, "pb": 1}]  # numbers of two bytes


def missing() -> list[str]:
    """Return the modules that a run needs and this Python does not have."""
    return [module for module in NEEDED if find_spec(module) is None]


def why_no_torch() -> str:
    """Return why torch, which a machine with a card has of its own, cannot be imported; "" where it can."""
    try:
        import_module("torch")
    except (ImportError, OSError) as error:  # the latter of libraries that it loads
        return " ".join(str(error).split())
    return ""


def pip_command(modules: Iterable[str], folder: str, version: str = THIS_PYTHON) -> str:
    """Return the command that fetches the wheels of these modules for a Python on a machine with a network."""
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", constraints, re.MULTILINE))
    wanted = " ".join(f"{NEEDED[module]}=={pinned[NEEDED[module]]}" for module in modules)
    platforms = " ".join(f"--platform manylinux{form}_x86_64" for form in ("_2_28", "_2_17", "2014"))
    options = f"--no-deps --only-binary=:all: --python-version {version} {platforms}"
    return f"python3 -m pip download {options} -d {folder} {wanted}"


def bring_in(wheels: Path, site: Path) -> None:
    """Unpack the wheels of what this Python lacks into `site`, and have it and its children import from there."""
    lacking = {NEEDED[module].replace("-", "_").lower() for module in missing()}
    for wheel in sorted(wheels.glob("*.whl")):
        if wheel.name.partition("-")[0].lower() in lacking:
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(site)
    sys.path.insert(1, str(site))
    invalidate_caches()


def prepare(folder: Path) -> str:
    """Write what must travel to a bare machine into `folder`; return what is still to be done, for people."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*_CODE, *(f"tests/{file.name}" for file in (ROOT / "tests").glob("*.py"))):
        _copy(ROOT / name, folder / name)
    shutil.copy(ROOT / "constraints.txt", folder)
    packed = folder / f"{DEMO.name}.xz"
    with DEMO.open("rb") as whole, lzma.open(packed, "wb", format=lzma.FORMAT_XZ, filters=_FILTERS) as smaller:
        shutil.copyfileobj(whole, smaller, 2**20)
    shutil.copy(DEMO.with_suffix(".yaml"), folder)
    (folder / "wheels").mkdir(exist_ok=True)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return "\n".join([
        f"{folder} holds code and checkpoint: {size / 2**20:.1f} MiB. Some machines take {LIMIT_BYTES >> 20} in all.",
        f"Fetch the wheels (for another Python than {CARDS_PYTHON} change the number; torch is the machine's own):",
        f"  {pip_command(USUALLY_MISSING, str(folder / 'wheels'), CARDS_PYTHON)}",
        "On the machine, in that folder:",
        "  python3 -m bench.card --wheels wheels --demo scenes-v1.safetensors.xz --out results",
    ])  # fmt: skip


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copy(source, target)
    else:
        for form in _FORMATS:
            for file in source.rglob(form):
                _copy(file, target / file.relative_to(source))
