"""Tiny decoders: the forms that people have, what previews by them look like, and what cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

from shared.errors import ModelFileError
from tests.support.checkpoints import fitting_decoder, plain_sample, tiny_decoder
from worker.engine.answers.pixels import to_latent
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.images import previews
from worker.engine.loading import load
from worker.engine.loading.inspect import Inspection, inspect
from worker.engine.requests import ToLatent

Tensors = dict[str, torch.Tensor]
USABLE = Inspection("decoder", None, None, None)
LATENT = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(1))

PLAIN = plain_sample()  # latents that are the colours themselves


@pytest.fixture(scope="module")
def reference() -> AutoencoderTiny:
    """The autoencoder that diffusers builds for TAESD, with weights drawn from a seed."""
    torch.manual_seed(3)
    return AutoencoderTiny().eval()


@pytest.fixture
def original(reference: AutoencoderTiny) -> Tensors:
    """Its decoder as madebyollin's taesd_decoder files name it: layer 0, which clamps, has no weights."""
    split = {name: name.split(".", 2)[1:] for name in reference.decoder.state_dict()}
    return {
        f"{int(layer) + 1}.{rest}": reference.decoder.state_dict()[name].clone()
        for name, (layer, rest) in split.items()
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(content: object, name: str = "taesd_decoder.safetensors") -> Path:
        if name.endswith(".safetensors"):
            safetensors.torch.save_file(content, tmp_path / name)
        else:
            torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def assert_decodes_as(path: Path, reference: AutoencoderTiny, cpu: Device) -> None:
    assert inspect(path) == USABLE
    decoder = load.load_decoder(path, cpu, torch.float32)
    with torch.inference_mode():
        expected = reference.decode(LATENT[None]).sample[0]
        torch.testing.assert_close(decoder(LATENT[None])[0], expected, rtol=0, atol=1e-5)
    pixels = ((expected.clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(previews.decoded(LATENT, decoder) - pixels).max() <= 0.51
    assert pixels.std() > 1


# Forms that people have.


@pytest.mark.parametrize("name", ["taesd_decoder.safetensors", "taesd_decoder.pth", "taesd_decoder.pt"])
def test_it_is_read_under_the_original_names(
    reference: AutoencoderTiny, original: Tensors, write: Callable[..., Path], cpu: Device, name: str
) -> None:
    assert {"1.weight", "3.conv.0.weight", "19.bias"} <= original.keys()
    assert_decodes_as(write(original, name), reference, cpu)


def test_it_is_read_as_diffusers_saves_it_with_its_encoder(
    reference: AutoencoderTiny, tmp_path: Path, cpu: Device
) -> None:
    reference.save_pretrained(tmp_path)
    assert_decodes_as(tmp_path / "diffusion_pytorch_model.safetensors", reference, cpu)


def test_it_is_read_as_diffusers_names_it_without_an_encoder(
    reference: AutoencoderTiny, write: Callable[..., Path], cpu: Device
) -> None:
    alone = {name: value for name, value in reference.state_dict().items() if name.startswith("decoder.")}
    assert_decodes_as(write(alone), reference, cpu)


# Previews in comparison.


def test_a_large_picture_is_shown_small_and_in_its_shape(write: Callable[..., Path], cpu: Device) -> None:
    decoder = load.load_decoder(write(tiny_decoder()), cpu, torch.float32)
    assert previews.decoded(torch.zeros(4, 64, 128), decoder).shape == (128, 256, 3)
    assert previews.decoded(torch.zeros(4, 8, 4), decoder).shape == (64, 32, 3)


def test_numbers_that_are_not_finite_are_a_picture_too(write: Callable[..., Path], cpu: Device) -> None:
    decoder = load.load_decoder(write(tiny_decoder()), cpu, torch.float32)
    assert previews.decoded(torch.full((4, 8, 8), torch.nan), decoder).shape == (64, 64, 3)


def test_a_decoder_fits_the_latents_that_it_reads_and_no_others(
    tiny: Weights, write: Callable[..., Path], cpu: Device
) -> None:
    fitting = load.load_decoder(write(fitting_decoder(PLAIN)), cpu, torch.float32)
    assert previews.fit(fitting, PLAIN) > 0.95
    others = (tiny.sample, -PLAIN, PLAIN.flip(0), torch.full_like(PLAIN, torch.nan))
    assert all(previews.fit(fitting, other) < 0.3 for other in others)
    random = load.load_decoder(write(tiny_decoder()), cpu, torch.float32)
    assert previews.fit(random, PLAIN) < 0.3


def test_a_checkpoint_knows_what_its_vae_makes_of_the_known_picture(tiny: Weights) -> None:
    (latent,) = to_latent([ToLatent(tiny, previews.known_picture())])
    torch.testing.assert_close(tiny.sample, latent)


# Files that cannot be used, and why.


def test_it_runs_nothing_that_a_pickle_holds(original: Tensors, tmp_path: Path, write: Callable[..., Path]) -> None:
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    path = write({"state_dict": original, "more": Hostile()}, "taesd_decoder.pth")
    assert "holds code or objects" in (inspect(path).reason or "")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["taesd_decoder.safetensors", "taesd_decoder.pth"])
def test_a_truncated_file_says_so(original: Tensors, write: Callable[..., Path], cpu: Device, name: str) -> None:
    path = write(original, name)
    os.truncate(path, path.stat().st_size // 2)
    assert "damaged" in (inspect(path).reason or "")
    with pytest.raises(ModelFileError, match="damaged"):
        load.load_decoder(path, cpu, torch.float32)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"19.bias": None}, "1 of the decoder's 67 weights are missing, first layers.18.bias"),
        ({"20.bias": torch.zeros(3)}, "the decoder has 1 weights too many, first layers.19.bias"),
        ({"19.bias": torch.zeros(5)}, "the decoder's layers.18.bias has the shape (5,), not (3,)"),
        ({"1.weight": torch.zeros(64, 16, 3, 3)}, "decodes latents of 16 channels; those of Stable Diffusion 1 have 4"),
    ],
)
def test_one_that_does_not_fit_says_why(
    original: Tensors, write: Callable[..., Path], cpu: Device, change: dict[str, torch.Tensor | None], reason: str
) -> None:
    path = write({name: value for name, value in (original | change).items() if value is not None})
    told = inspect(path)
    assert told.kind == "decoder"
    assert (told.reason or "").startswith(reason)
    with pytest.raises(ModelFileError) as error:
        load.load_decoder(path, cpu, torch.float32)
    assert str(error.value) == told.reason


def test_the_encoder_that_comes_with_it_says_that_it_is_one(
    reference: AutoencoderTiny, write: Callable[..., Path]
) -> None:
    encoder = {name.removeprefix("layers."): value for name, value in reference.encoder.state_dict().items()}
    path = write(encoder, "taesd_encoder.safetensors")
    assert inspect(path) == Inspection(
        "decoder", None, None, "is the encoder of a tiny autoencoder; previews need its decoder"
    )


def test_a_vae_and_a_checkpoint_are_none(tiny_path: Path, cpu: Device) -> None:
    assert inspect(tiny_path).kind == "checkpoint"
    with pytest.raises(ModelFileError, match="is not a tiny decoder"):
        load.load_decoder(tiny_path, cpu, torch.float32)
