"""The demo's trainings: what they minimise, what survives a stop, and what a stage leaves to the next."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tools.demo_checkpoint import autoencoding, dataset, diffusing, layout
from tools.demo_checkpoint.layout import Shape
from tools.demo_checkpoint.optimiser import Muon, orthogonalised
from tools.demo_checkpoint.training import Training

ROOT = Path(__file__).parents[2]
SMALL = Shape(unet_width=32, unet_heads=2, vae_multiples=(1, 1, 1, 1), text_width=64, text_layers=1)


@pytest.fixture(scope="module")
def checkpoint() -> layout.Checkpoint:
    return layout.build(SMALL, seed=3)


def squares(network: nn.Linear, seen: list[int]) -> object:
    """A loss that is least where all weights are 1; remembers the steps it was asked for."""

    def loss(step: int, _progress: float) -> dict[str, Tensor]:
        seen.append(step)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return {"loss": (network.weight - 1).square().mean()}

    return loss


@pytest.mark.parametrize("shape", [(3, 24, 60), (2, 60, 24)])
def test_orthogonalised_matrices_keep_directions_and_even_their_lengths(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for matrix, found in zip(matrices, orthogonalised(matrices).float(), strict=True):
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        lengths = torch.linalg.svdvals(found)
        assert lengths.min() > 0.5
        assert lengths.max() < 1.5
        assert torch.nn.functional.cosine_similarity(found.flatten(), (left @ right).flatten(), dim=0) > 0.95


def test_orthogonalised_matrix_of_lowest_rank_stays_bounded() -> None:
    line = torch.outer(torch.linspace(-1, 1, 64), torch.linspace(1, 2, 200))
    assert torch.linalg.svdvals(orthogonalised(line[None])[0].float()).max() < 1.5


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_muon_moves_a_kernel_along_its_orthogonalised_gradient(memory_format: torch.memory_format) -> None:
    kernel = nn.Parameter(torch.zeros(32, 16, 3, 3).to(memory_format=memory_format))
    gradient = torch.randn(32, 16, 3, 3, generator=torch.Generator().manual_seed(1))
    kernel.grad = gradient.to(memory_format=memory_format)
    Muon([kernel], lr=0.1).step()
    left, _, right = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    step = kernel.detach().flatten(1) / (-0.1 * 0.2 * 144**0.5)
    assert torch.nn.functional.cosine_similarity(step.flatten(), (left @ right).flatten(), dim=0) > 0.95
    assert step.norm() == pytest.approx(32**0.5, rel=0.2)


def test_training_goes_on_from_its_last_saved_step(tmp_path: Path) -> None:
    network = nn.Linear(32, 32)
    training = Training(network, 0.01, 1.0, tmp_path / "state.pt")
    with pytest.raises(KeyboardInterrupt):
        training.run(squares(network, []), lambda _line: None)
    training.save()

    again = nn.Linear(32, 32)
    resumed = Training(again, 0.01, 1.0, tmp_path / "state.pt")
    assert resumed.steps == training.steps == 4
    assert len(resumed.history) == 4
    assert torch.equal(again.weight, network.weight)
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        resumed.run(squares(again, seen), lambda _line: None)
    assert seen == [4, 5, 6, 7, 8]


KILLED = """
import sys, torch
from tools.demo_checkpoint import training
training.SAVE_SECONDS = 0.0
network = torch.nn.Linear(32, 32)
run = training.Training(network, 0.01, 10.0, __import__("pathlib").Path(sys.argv[1]))
save = run.save
run.save = lambda: (save(), print(run.steps, flush=True))
run.run(lambda step, progress: {"loss": (network.weight - 1).square().mean()}, lambda line: None)
"""


@pytest.mark.nightly
def test_training_goes_on_after_it_was_killed(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(state)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
    ) as child:
        saved = [int(child.stdout.readline()) for _ in range(20)]
        child.kill()
    network = nn.Linear(32, 32)
    resumed = Training(network, 0.01, 10.0, state)
    assert resumed.steps >= saved[-1] == 20
    assert len(resumed.history) == resumed.steps
    assert resumed.history[-1]["loss"] < resumed.history[0]["loss"]


def test_training_stops_when_its_minutes_are_spent(tmp_path: Path) -> None:
    network = nn.Linear(32, 32)
    training = Training(network, 0.01, 0.3 / 60, tmp_path / "state.pt")
    training.run(lambda _step, _progress: {"loss": (network.weight - 1).square().mean()}, lambda _line: None)
    assert training.progress == 1.0
    assert training.history[-1]["loss"] < training.history[0]["loss"]


def test_normalised_latents_have_unit_variance_and_the_same_pictures(checkpoint: layout.Checkpoint) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8)
    vae = checkpoint.vae
    pixels = autoencoding.as_pixels(pictures)
    with torch.no_grad():
        raw = vae.encode(pixels).latent_dist
        before = vae.decode(raw.mean).sample
        unit = autoencoding.normalise(vae, raw.mean, 0.18215)
        after = vae.encode(pixels).latent_dist
        assert torch.allclose(after.mean * 0.18215, unit, atol=1e-4)
        assert torch.allclose(vae.decode(after.mean).sample, before, atol=1e-4)
        assert torch.allclose(
            after.std / after.mean.std((0, 2, 3))[:, None, None],
            raw.std / raw.mean.std((0, 2, 3))[:, None, None],
            rtol=1e-3,
        )
    assert torch.allclose(unit.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(unit.std((0, 2, 3)), torch.ones(4), atol=1e-4)


def test_crops_lie_on_latent_cells_and_prefer_detail() -> None:
    pictures = np.zeros((1, 128, 128, 3), np.uint8)
    pictures[:, :64, :64] = np.arange(64, dtype=np.uint8)[:, None, None]
    crops = autoencoding.crops(pictures, np.random.default_rng(0))
    assert crops.shape == (autoencoding.BATCH, 64, 64, 3)
    assert {int(crop[0, 0, 0]) % 8 for crop in crops} == {0}
    assert np.mean([crop.any() for crop in crops]) > 0.9


def test_tokens_are_framed_and_cut_to_what_the_encoder_reads() -> None:
    rows = diffusing.tokens(["a red house", "", "sea " * 100])
    assert rows.shape == (3, 77)
    assert rows[:, 0].tolist() == [layout.START] * 3
    assert rows[1].tolist() == [layout.START] + [layout.END] * 76
    assert rows[2, -1] == layout.END
    assert len(set(rows[0].tolist())) == 5


def test_alphas_are_those_of_stable_diffusion() -> None:
    kept = diffusing.alphas_cumprod()
    assert kept[0] == pytest.approx(0.99915, abs=1e-5)
    assert kept[-1] == pytest.approx(0.004660, abs=1e-6)


def test_sampler_answers_the_same_latents_for_the_same_seed(checkpoint: layout.Checkpoint) -> None:
    pair = diffusing.networks(checkpoint).eval()
    first, again, other = (diffusing.euler_ancestral(pair, ["sea"], seed, steps=2) for seed in (1, 1, 2))
    assert first.shape == (1, 4, 16, 16)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_drawing_in_one_style_keeps_what_scenes_and_captions_say() -> None:
    for index in range(6):
        plain, pixel = dataset.sample(5, index), dataset.sample(5, index, style="pixel art")
        assert pixel.scene == plain.scene
        blocks = pixel.picture.reshape(32, 4, 32, 4, 3)
        assert (blocks == blocks[:, :1, :, :1]).all()


def test_drawing_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "CHUNK", 4)
    assert next(dataset.draw(tmp_path, 10, 1)) == 4
    with pytest.raises(ValueError, match="4 of 10 pictures"):
        dataset.Dataset(tmp_path)
    assert list(dataset.draw(tmp_path, 10, 1)) == [8, 10]
    drawn = dataset.Dataset(tmp_path)
    for index in (3, 4, 9):
        again = dataset.sample(dataset.SEED, index)
        assert np.array_equal(drawn.pictures[index], again.picture)
        assert drawn.scenes[index] == again.scene


def test_leading_away_goes_on_in_the_direction_of_the_training() -> None:
    before, trained = nn.ModuleDict({"a": nn.Linear(2, 2)}), nn.ModuleDict({"a": nn.Linear(2, 2)})
    learnt = [now.detach() - then.detach() for now, then in zip(trained.parameters(), before.parameters(), strict=True)]
    diffusing.lead_away(trained, before, 0.5)
    for now, then, change in zip(trained.parameters(), before.parameters(), learnt, strict=True):
        torch.testing.assert_close(now.detach(), then.detach() + 1.5 * change)
