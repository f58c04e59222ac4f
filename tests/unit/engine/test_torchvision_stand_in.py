"""Spandrel without torchvision: it finds what it needs, and nobody else finds anything."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import diffusers.utils
import pytest
import torch
import transformers.utils

from worker.engine.upscaling import architectures, torchvision_stand_in

from spandrel.architectures import RestoreFormer  # isort: skip

ROOT = Path(__file__).parents[3]
without_torchvision = pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")


@without_torchvision
def test_spandrel_finds_the_stand_in() -> None:
    assert RestoreFormer.tv_normalize is torchvision_stand_in.normalize
    assert len(list(architectures.MAIN_REGISTRY)) == 42


@without_torchvision
def test_no_other_library_finds_a_torchvision() -> None:
    assert "torchvision" not in {name.partition(".")[0] for name in sys.modules}
    assert not transformers.utils.is_torchvision_available()
    assert not diffusers.utils.is_torchvision_available()
    with pytest.raises(ModuleNotFoundError, match="torchvision"):
        exec("import torchvision.transforms.functional", {})
    with pytest.raises(ModuleNotFoundError, match="torchvision"):
        exec("import torchvision", vars(RestoreFormer).copy())  # the stand-in is one module, no package


@without_torchvision
def test_it_finds_no_modules_but_spandrel_s() -> None:
    (finder,) = (one for one in sys.meta_path if type(one).__module__ == torchvision_stand_in.__name__)
    assert [finder.find_spec(name, None) for name in ("torchvision", "transformers", "spandrel_extra_arches")] == [
        None
    ] * 3
    torchvision_stand_in.install()
    assert sys.meta_path.count(finder) == 1


@pytest.mark.nightly
def test_a_torchvision_that_is_installed_is_used(tmp_path: Path) -> None:
    functional = tmp_path / "torchvision/transforms/functional.py"
    functional.parent.mkdir(parents=True)
    functional.write_text("InterpolationMode = rotate = normalize = 'its own'\n")
    for package in (functional.parent, functional.parents[1]):
        (package / "__init__.py").touch()
    script = (
        "from worker.engine.upscaling import torchvision_stand_in as ours; import sys; before = [*sys.meta_path]; "
        "ours.install(); assert sys.meta_path == before; "
        "from spandrel.architectures import RestoreFormer; print(RestoreFormer.tv_normalize)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "its own\n"


def test_normalizing_takes_the_mean_from_each_channel_and_divides_by_its_deviation() -> None:
    pixels = torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2)
    found = torchvision_stand_in.normalize(pixels, [1.0, 2.0, 3.0], [2.0, 4.0, 8.0])
    for channel, (mean, deviation) in enumerate(zip((1, 2, 3), (2, 4, 8), strict=True)):
        torch.testing.assert_close(found[:, channel], (pixels[:, channel] - mean) / deviation)


def test_rotating_is_refused_because_nothing_that_is_loaded_rotates() -> None:
    with pytest.raises(NotImplementedError, match="torchvision"):
        torchvision_stand_in.rotate(torch.ones(3, 2, 2), 90)
