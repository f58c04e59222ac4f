"""Files of face restorers: recognised by their weights, loaded strictly, and called as they were trained."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shared.errors import ModelFileError
from tests.support import faces, upscalers
from worker.engine.devices import Device
from worker.engine.loading.inspect import inspect
from worker.engine.upscaling import architectures, files
from worker.engine.upscaling.architectures import PixelNetwork


def test_a_restorer_is_recognised_by_its_weights(tmp_path: Path, cpu: Device) -> None:
    path = faces.write_small(tmp_path / "RestoreFormer.safetensors")
    found = inspect(path)
    assert (found.kind, found.reason, found.details["algorithm"]) == ("face-restorer", None, "RestoreFormer")
    network = files.load(path, cpu, torch.float32)
    assert (network.restores_faces, network.half_formats) == (True, (torch.bfloat16,))


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    content = faces.small_weights() | changes
    return {name: value for name, value in content.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (changed(**{"decoder.conv_out.bias": None}), "Missing key"),
        (changed(**{"quant_conv.bias": torch.zeros(7)}), "size mismatch"),
        (changed(**{"decoder.other.weight": torch.zeros(7)}), "Unexpected key"),
        (changed(**{"encoder.down.999999999.weight": torch.zeros(7)}), "no network is so deep"),
        ({"stylegan_decoder.style_mlp.1.weight": torch.zeros(7)}, "not an upscaler or a face restorer of a known"),
        pytest.param(
            {"stylegan_decoder.style_mlp.1.weight": torch.zeros(7), "toRGB.0.weight": torch.zeros(3)},
            "Missing key",
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_a_restorer_that_does_not_fit_is_refused(
    content: dict[str, Tensor], reason: str, tmp_path: Path, cpu: Device
) -> None:
    path = upscalers.write(tmp_path / "GFPGANv1.4.safetensors", content)
    found = inspect(path)
    assert found.kind == "face-restorer"
    assert reason in (found.reason or "")
    with pytest.raises(ModelFileError):
        files.load(path, cpu, torch.float32)


def test_a_restorer_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = upscalers.write(tmp_path / "GFPGANv1.4.pth", faces.small_weights(), "params_ema")
    path.write_bytes(path.read_bytes()[:100_000])
    assert "damaged" in (inspect(path).reason or "")


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (os.environ["HARM"],)


def test_a_pickle_that_executes_is_refused_and_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARM", str(tmp_path / "done"))
    torch.save({"params_ema": {**faces.small_weights(), "x": Harmful()}}, tmp_path / "GFPGANv1.4.pth")
    assert "holds code" in (inspect(tmp_path / "GFPGANv1.4.pth").reason or "")
    assert not (tmp_path / "done").exists()


def test_codeformer_is_refused_with_what_to_install(tmp_path: Path) -> None:
    if architectures.recognised(_codeformer()):
        pytest.skip("its package is installed here")
    found = inspect(upscalers.write(tmp_path / "codeformer-v0.1.0.pth", _codeformer(), "params_ema"))
    assert found.kind == "face-restorer"
    assert "licence forbids commercial use" in (found.reason or "")
    assert "pip install --no-deps spandrel_extra_arches" in (found.reason or "")


def _codeformer() -> dict[str, Tensor]:
    names = ("position_emb", "idx_pred_layer.1.weight", "quantize.embedding.weight", "encoder.blocks.0.weight")
    return {name: torch.zeros(4, 4) for name in (*names, "ft_layers.0.self_attn.in_proj_weight")}


class Signed(nn.Module):
    """A network that gives what it was given in -1..1, mixed with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, given: Tensor, *, weight: float = 0.0, randomize_noise: bool = True) -> tuple[Tensor, None]:
        assert given.min() >= -1
        assert given.min() < 0
        return given * self.one + (weight or 10 * randomize_noise), None


class Descriptor:
    scale, purpose, supports_half, supports_bfloat16 = 1, "FaceSR", False, True

    def __init__(self, name: str) -> None:
        self.model = Signed()
        self.architecture = type("Known", (), {"id": name, "name": name})


@pytest.mark.parametrize(("name", "added"), [("GFPGAN", 0.0), ("CodeFormer", 0.3)])
def test_networks_of_signed_values_are_given_and_give_these(name: str, added: float) -> None:
    network = PixelNetwork(Descriptor(name))
    pixels = torch.linspace(0, 1, 48).view(1, 3, 4, 4)
    with torch.inference_mode():
        assert torch.allclose(network(pixels, fidelity=0.3), (pixels + added / 2).clamp(0, 1), atol=1e-6)


@pytest.mark.nightly
def test_gfpgan_at_its_full_size_makes_the_same_face_each_time(tmp_path: Path, cpu: Device) -> None:
    from spandrel.architectures.GFPGAN import GFPGAN  # noqa: PLC0415 - slow

    torch.manual_seed(0)
    network = GFPGAN(
        out_size=512, num_style_feat=512, channel_multiplier=2, decoder_load_path=None, fix_decoder=False, num_mlp=8,
        input_is_latent=True, different_w=True, narrow=1, sft_half=True,
    )  # fmt: skip
    weights = network.state_dict()
    for name in [name for name in weights if name.endswith("conv1.weight") and weights[name].shape == (1,)]:
        weights[name].fill_(0.5)  # of the noise, which is 0 before training
    path = upscalers.write(tmp_path / "GFPGANv1.4.pth", weights, "params_ema")
    found = inspect(path)
    assert (found.kind, found.reason, found.details["algorithm"]) == ("face-restorer", None, "GFPGAN")
    loaded = files.load(path, cpu, torch.float32)
    face = torch.tensor(faces.pixels(faces.astronaut())).permute(2, 0, 1)[None] / 255
    threads = torch.get_num_threads()
    with torch.inference_mode():
        first, again = loaded(face), loaded(face)
    assert torch.equal(first, again)
    assert first.shape == (1, 3, 512, 512)
    assert first.std() > 0.01
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        with torch.inference_mode():
            assert (loaded(face) - first).abs().max() < 1e-3
    finally:
        torch.set_num_threads(threads)
