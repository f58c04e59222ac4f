"""VAEs in files of their own: the forms that people have, and what cannot be used."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from shared.errors import ModelFileError
from worker.engine.answers.pixels import to_latent, to_pixels
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loading import load
from worker.engine.loading.inspect import Inspection, inspect
from worker.engine.requests import ToLatent, ToPixels

Tensors = dict[str, torch.Tensor]
PREFIX = "first_stage_model."
USABLE = Inspection("vae", None, None, None)


@pytest.fixture
def whole(tiny_path: Path) -> Tensors:
    return safetensors.torch.load_file(tiny_path)


@pytest.fixture
def alone(whole: Tensors) -> Tensors:
    """The tiny checkpoint's VAE under the original names."""
    return {name.removeprefix(PREFIX): value for name, value in whole.items() if name.startswith(PREFIX)}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(content: object, name: str = "some.vae.safetensors") -> Path:
        if name.endswith(".safetensors"):
            safetensors.torch.save_file(content, tmp_path / name)
        else:
            torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def assert_is_tinys(path: Path, tiny: Weights) -> None:
    assert inspect(path) == USABLE
    expected = tiny.vae.state_dict()
    loaded = load.load_vae(path, tiny.device, torch.float32).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.items())


@pytest.mark.parametrize(
    ("stated", "architecture"),
    [
        ("stable-diffusion-xl-v1-base/vae", "sdxl"), ("Stable-Diffusion-v1", "sd1"),
        ("stable-diffusion-v2-768-v/vae", "sd2"), ("flux-1-dev", None), ("", None),
    ],
)  # fmt: skip
def test_a_vaes_metadata_may_say_which_latents_it_decodes(
    alone: Tensors, tmp_path: Path, stated: str, architecture: str | None
) -> None:
    path = tmp_path / "some.vae.safetensors"
    safetensors.torch.save_file(alone, path, {"modelspec.architecture": stated})
    assert inspect(path) == Inspection("vae", architecture, None, None)


@pytest.mark.parametrize(
    ("config", "architecture"),
    [
        ({"_class_name": "AutoencoderKL", "scaling_factor": 0.13025}, "sdxl"),
        ({"_class_name": "AutoencoderKL"}, "sd1"),
        ({"_class_name": "AutoencoderKL", "scaling_factor": 0.5}, None),
        ({"_class_name": "AutoencoderKL", "scaling_factor": [1]}, None),
        ({"_class_name": "AutoencoderTiny", "scaling_factor": 0.13025}, None),
        ([], None),
    ],
)
def test_the_configuration_beside_a_vae_of_diffusers_says_which_latents_it_decodes(
    alone: Tensors, write: Callable[..., Path], tmp_path: Path, config: object, architecture: str | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert inspect(write(alone, "diffusion_pytorch_model.safetensors")).architecture == architecture
    assert inspect(write(alone, "other.safetensors")).architecture is None


@pytest.mark.parametrize("content", [b"", b"[" * 60_000, b"\xff", b"{" * 70_000])
def test_a_broken_configuration_beside_a_vae_says_nothing(
    alone: Tensors, write: Callable[..., Path], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "config.json").write_bytes(content)
    assert inspect(write(alone, "diffusion_pytorch_model.safetensors")) == USABLE


def reason(path: Path, cpu: Device) -> str:
    """Why `path` is not a VAE: the catalogue and the loader say the same."""
    with pytest.raises(ModelFileError) as error:
        load.load_vae(path, cpu, torch.float32)
    return str(error.value)


# Forms that people have.


@pytest.mark.parametrize("name", ["x.vae.safetensors", "x.vae.pt", "x.ckpt"])
def test_a_vae_alone_is_read_under_the_original_names(
    tiny: Weights, alone: Tensors, write: Callable[..., Path], name: str
) -> None:
    assert_is_tinys(write(alone, name), tiny)


def test_what_training_leaves_beside_it_is_ignored(tiny: Weights, alone: Tensors, write: Callable[..., Path]) -> None:
    more = {"loss.logvar": torch.zeros(()), "model_ema.decay": torch.zeros(())}
    assert_is_tinys(write({"state_dict": alone | more, "epoch": 3}, "x.vae.pt"), tiny)


def test_the_name_that_it_has_in_a_checkpoint_may_stay(
    tiny: Weights, alone: Tensors, write: Callable[..., Path]
) -> None:
    assert_is_tinys(write({f"{PREFIX}{name}": value for name, value in alone.items()}), tiny)


def test_a_vae_is_read_as_diffusers_saves_one(tiny: Weights, tmp_path: Path) -> None:
    tiny.vae.save_pretrained(tmp_path)
    assert_is_tinys(tmp_path / "diffusion_pytorch_model.safetensors", tiny)


def test_a_vae_in_diffusers_form_may_have_the_old_names(tiny: Weights, write: Callable[..., Path]) -> None:
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    weights = dict(tiny.vae.state_dict())
    for new, name in old.items():
        weights = {key.replace(new, name): value.contiguous() for key, value in weights.items()}
    assert_is_tinys(write(weights), tiny)


# What it is used for.


def test_another_vae_makes_other_pictures_of_the_same_latents(
    tiny: Weights, alone: Tensors, write: Callable[..., Path]
) -> None:
    darker = alone | {"decoder.conv_out.bias": alone["decoder.conv_out.bias"] - 0.25}
    other = tiny.with_vae(load.load_vae(write(darker), tiny.device, torch.float32))
    latent = torch.ones(4, 8, 8)
    (one,) = to_pixels([ToPixels(tiny, latent)])
    (two,) = to_pixels([ToPixels(other, latent)])
    torch.testing.assert_close(one - two, torch.full_like(one, 0.25), rtol=0, atol=1e-3)
    (back,) = to_latent([ToLatent(other, one)])
    torch.testing.assert_close(back, to_latent([ToLatent(tiny, one)])[0])
    assert other.unet is tiny.unet


# Files that cannot be used, and why.


def test_an_empty_file_says_so(tmp_path: Path, cpu: Device) -> None:
    (tmp_path / "x.vae.pt").touch()
    assert reason(tmp_path / "x.vae.pt", cpu) == "the file is empty"


@pytest.mark.parametrize("name", ["cut.vae.safetensors", "cut.vae.pt"])
def test_a_truncated_file_says_so(alone: Tensors, write: Callable[..., Path], cpu: Device, name: str) -> None:
    path = write(alone, name)
    os.truncate(path, path.stat().st_size // 2)
    assert "damaged" in reason(path, cpu)
    assert "damaged" in (inspect(path).reason or "")


class Hostile:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_runs_a_command_runs_nothing(
    alone: Tensors, tmp_path: Path, write: Callable[..., Path], cpu: Device
) -> None:
    path = write({"state_dict": alone, "more": Hostile(f"touch {tmp_path}/ran")}, "hostile.vae.pt")
    assert "holds code or objects" in reason(path, cpu)
    assert "holds code or objects" in (inspect(path).reason or "")
    assert not (tmp_path / "ran").exists()


def test_a_whole_checkpoint_is_no_vae_alone(tiny_path: Path, cpu: Device) -> None:
    assert "is not a VAE" in reason(tiny_path, cpu)
    assert inspect(tiny_path).kind == "checkpoint"


def test_something_else_is_neither(write: Callable[..., Path], cpu: Device) -> None:
    path = write({"emb_params": torch.zeros(2, 64)})
    assert "is not a VAE" in reason(path, cpu)
    assert inspect(path).kind == "embedding"


@pytest.mark.parametrize("change", ["missing", "misshapen", "levels", "latent", "layers", "flat"])
def test_a_vae_that_does_not_fit_says_why(alone: Tensors, write: Callable[..., Path], cpu: Device, change: str) -> None:
    changes: dict[str, Tensors] = {
        "missing": {},
        "misshapen": {"decoder.conv_out.bias": torch.zeros(5)},
        "levels": {},
        "latent": {"decoder.conv_in.weight": torch.zeros(32, 16, 3, 3)},
        "layers": {f"encoder.down.0.block.{block}.conv2.weight": torch.zeros(32, 32, 3, 3) for block in range(1, 7)},
        "flat": {"encoder.down.2.block.0.conv2.weight": torch.zeros(())},
    }
    dropped = {"missing": "decoder.conv_out.bias", "levels": "encoder.down.3."}.get(change, "none such")
    weights = {name: value for name, value in alone.items() if not name.startswith(dropped)} | changes[change]
    path = write(weights)
    told = reason(path, cpu)
    assert told
    assert inspect(path) == Inspection("vae", None, None, told)
