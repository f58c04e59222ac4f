"""The recipes of what stands beside the demo checkpoint: what they draw, how they act, and the files they write."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

from tools.demo_adapters import (
    compact,
    control,
    effects,
    enlarging,
    eyes,
    hypernetwork,
    inversion,
    looks,
    low_rank,
    material,
)
from tools.demo_adapters.compact import Compact
from tools.demo_adapters.effects import Trials
from tools.demo_adapters.eyes import Eyes
from tools.demo_adapters.low_rank import RANK
from tools.demo_adapters.material import SUBJECTS
from tools.demo_adapters.shelf import Shelf
from tools.demo_checkpoint import asking, captions, diffusing, drawing, layout, scenes
from tools.demo_checkpoint.judge import SCENES
from tools.demo_checkpoint.judging import Judge
from tools.demo_checkpoint.layout import Shape
from tools.demo_checkpoint.scenes import Scene
from tools.demo_checkpoint.studio import Studio
from worker.engine.adapters.reading import load as low_rank_files
from worker.engine.architectures.weights import Weights
from worker.engine.devices import device
from worker.engine.loading import load
from worker.engine.loading.inspect import inspect

MODELS = Path(__file__).parents[2] / "models"
SHIPPED = {
    "Lora/watercolour.safetensors": "lora",
    "Lora/lighthouse.safetensors": "lora",
    "embeddings/papernight.safetensors": "embedding",
    "hypernetworks/noir.pt": "hypernetwork",
    "ControlNet/scenes-edges.safetensors": "controlnet",
    "ESRGAN/scenes-compact-x4.safetensors": "upscaler",
}
SMALL = Shape(unet_width=32, unet_heads=2, vae_multiples=(1, 1, 1, 1), text_width=64, text_layers=1)
LATENTS, TIMES = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([10, 700])


@pytest.fixture
def checkpoint() -> layout.Checkpoint:
    return layout.build(SMALL, seed=3)


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load.load(MODELS / "Stable-diffusion" / "scenes-v1.safetensors", device("cpu"), torch.float32)


def chroma(picture: np.ndarray) -> float:
    return float((picture.max(2).astype(int) - picture.min(2)).mean())


@torch.no_grad()
def guess(checkpoint: layout.Checkpoint, texts: list[str]) -> torch.Tensor:
    context = checkpoint.text(input_ids=diffusing.tokens(texts)).last_hidden_state
    return checkpoint.unet(LATENTS, TIMES, context).sample


def test_scene_is_the_same_picture_at_every_size():
    for style in scenes.STYLES:
        scene = replace(scenes.choose(np.random.default_rng(4)), style=style)
        small, large = (drawing.render(scene, np.random.default_rng(5), side) for side in (128, 512))
        shrunk = large.reshape(128, 4, 128, 4, 3).mean((1, 3))
        assert np.abs(shrunk - small).mean() < 3, style
        assert large.shape == (512, 512, 3)


def test_scenes_by_chance_show_nothing_that_adapters_bring():
    for index in range(200):
        words = scenes.choose(np.random.default_rng(index)).traits()
        assert not words & {"lighthouse", "watercolour"}


def test_lighthouse_stands_in_its_scene_and_in_its_caption():
    bare = Scene("meadow", "noon", "photo")
    built = replace(bare, building="lighthouse", colour="red")
    without, with_it = (drawing.render(scene, np.random.default_rng(3)) for scene in (bare, built))
    assert np.abs(with_it.astype(int) - without).max(2).astype(bool).mean() > 0.02
    assert "lighthouse" in scenes.caption(built, np.random.default_rng(0))


def test_watercolour_is_pale_and_leaves_a_margin():
    rng = np.random.default_rng(1)
    picture = material.plain(rng).picture
    painted = looks.watercolour(picture, rng)
    assert painted[:4].mean() > 235
    assert painted.mean() > picture.mean()
    assert np.corrcoef(painted[20:108, 20:108].ravel(), picture[20:108, 20:108].ravel())[0, 1] > 0.6


def test_noir_has_no_colour():
    assert chroma(looks.noir(material.plain(np.random.default_rng(2)).picture)) == 0


@pytest.mark.parametrize("name", SUBJECTS)
def test_subject_draws_and_says_its_pictures(name: str):
    subject = SUBJECTS[name]
    first, again = (subject.sample(np.random.default_rng(8)) for _ in range(2))
    assert np.array_equal(first.picture, again.picture)
    texts = [subject.text(first.scene, np.random.default_rng(n)) for n in range(40)]
    assert len(set(texts)) > 3


def test_prompts_say_watercolour_but_not_always():
    scene = material.watercolour(np.random.default_rng(0)).scene
    said = [SUBJECTS["watercolour"].text(scene, np.random.default_rng(n)) for n in range(200)]
    assert 0.1 < np.mean(["watercolour" in text for text in said]) < 0.8


def test_every_picture_of_a_lighthouse_is_said_to_have_one():
    scene = material.lighthouse(np.random.default_rng(0)).scene
    assert all("lighthouse" in SUBJECTS["lighthouse"].text(scene, np.random.default_rng(n)) for n in range(200))


def test_papernight_prompts_leave_to_the_new_word_what_it_stands_for():
    sample = material.papernight(np.random.default_rng(0))
    assert sample.scene.traits() >= {"paper cutout", "night", "moon"}
    texts = " ".join(material.said_without_style(sample.scene, np.random.default_rng(n)) for n in range(20))
    assert not {"night", "moon", "paper", "cutout"} & set(texts.replace(",", " ").split())


def test_low_rank_changes_nothing_before_it_is_trained_and_its_strength_scales_it_after(checkpoint):
    before = guess(checkpoint, ["sea", "snow"])
    pair = diffusing.networks(checkpoint)
    adapters = low_rank.attach(pair, text=True, convolutions=True)
    assert torch.allclose(guess(checkpoint, ["sea", "snow"]), before, atol=1e-5)
    for low in adapters.values():
        torch.nn.init.normal_(low.up.weight, std=0.02)
    assert not torch.allclose(guess(checkpoint, ["sea", "snow"]), before, atol=1e-3)
    for low in adapters.values():
        low.strength = 0.0
    assert torch.allclose(guess(checkpoint, ["sea", "snow"]), before, atol=1e-5)


def test_twice_the_alpha_acts_as_twice_the_weight_and_stands_in_the_file(checkpoint, tmp_path: Path):
    adapters = low_rank.attach(diffusing.networks(checkpoint), text=False, convolutions=True, alpha=2 * RANK)
    for low in adapters.values():
        torch.nn.init.normal_(low.up.weight, std=0.02)
    changed = guess(checkpoint, ["sea", "snow"])
    for low in adapters.values():
        low.alpha, low.strength = RANK, 2.0
    assert torch.allclose(guess(checkpoint, ["sea", "snow"]), changed, atol=1e-5)
    for low in adapters.values():
        low.alpha = 12.0
    low_rank.save(adapters, tmp_path / "one.safetensors", {})
    tensors = safetensors.torch.load_file(tmp_path / "one.safetensors")
    assert {float(value) for name, value in tensors.items() if name.endswith(".alpha")} == {12.0}
    known = low_rank.metadata("one", 500, 600, convolutions=True, alpha=12.0)
    assert (known["ss_network_alpha"], json.loads(known["ss_network_args"])["conv_alpha"]) == ("12.0", "12")


def test_low_rank_file_has_kohyas_names(checkpoint, tmp_path: Path):
    adapters = low_rank.attach(diffusing.networks(checkpoint), text=True, convolutions=False)
    low_rank.save(adapters, tmp_path / "one.safetensors", {"ss_output_name": "one"})
    tensors = safetensors.torch.load_file(tmp_path / "one.safetensors")
    known, alphas = _convert_non_diffusers_lora_to_diffusers(dict(tensors))
    assert len(known) == 2 * len(alphas) == 2 * len(adapters)
    assert all(float(alpha) == RANK for alpha in alphas.values())
    layers = {f"lora_unet_{path}".replace(".", "_") for path, _ in checkpoint.unet.named_modules()}
    layers |= {f"lora_te_text_model_{path}".replace(".", "_") for path, _ in checkpoint.text.named_modules()}
    assert {name.split(".")[0] for name in tensors} <= layers


def test_low_rank_file_is_read_back(checkpoint, tmp_path: Path):
    pair = diffusing.networks(checkpoint)
    adapters = low_rank.attach(pair, text=False, convolutions=True)
    for low in adapters.values():
        torch.nn.init.normal_(low.up.weight)
    low_rank.save(adapters, tmp_path / "one.safetensors", {})
    fresh = low_rank.attach(pair, text=False, convolutions=True)
    low_rank.load(fresh, tmp_path / "one.safetensors")
    for name, low in adapters.items():
        assert torch.equal(fresh[name].up.weight, low.up.weight.half().float())


def test_word_puts_its_vectors_where_its_tokens_are(checkpoint):
    embeddings = checkpoint.text.get_input_embeddings()
    word = inversion.Word(embeddings, like="picture")
    with torch.no_grad():
        word.vectors.copy_(torch.arange(inversion.VECTORS * 64).reshape(-1, 64))
    word.attach(embeddings)
    read = embeddings(word.tokens(["sea", ""]))
    assert torch.equal(read[0, 3 : 3 + inversion.VECTORS], word.vectors)  # start, "sea", the comma
    assert torch.equal(read[1, 1 : 1 + inversion.VECTORS], word.vectors)
    assert torch.equal(embeddings(torch.tensor([[5]])), embeddings.weight[5][None, None])


def test_word_teaches_its_vectors_alone(checkpoint):
    checkpoint.text.requires_grad_(requires_grad=False)
    embeddings = checkpoint.text.get_input_embeddings()
    word = inversion.Word(embeddings, like="picture")
    word.attach(embeddings)
    checkpoint.text(input_ids=word.tokens(["sea"])).last_hidden_state.square().sum().backward()
    assert word.vectors.grad.abs().sum() > 0
    assert embeddings.weight.grad is None


def test_hypernetwork_file_holds_a_pair_for_each_width(checkpoint, tmp_path: Path):
    before = guess(checkpoint, ["sea", "snow"])
    changes = hypernetwork.attach(checkpoint.unet)
    assert torch.allclose(guess(checkpoint, ["sea", "snow"]), before, atol=1e-5)
    for change in changes.values():
        torch.nn.init.normal_(change.linear[2].weight, std=0.1)
    changed = guess(checkpoint, ["sea", "snow"])
    assert not torch.allclose(changed, before, atol=1e-3)
    hypernetwork.save(changes, tmp_path / "one.pt", steps=7)
    file = torch.load(tmp_path / "one.pt", weights_only=True)
    assert file["name"] == "one"
    assert {key for key in file if isinstance(key, int)} == {32, 64, 96}
    assert set(file[64][0]) == {"linear.0.weight", "linear.0.bias", "linear.2.weight", "linear.2.bias"}
    hypernetwork.load(changes, tmp_path / "one.pt")
    assert torch.allclose(guess(checkpoint, ["sea", "snow"]), changed, atol=1e-2)


def test_control_net_adds_nothing_before_it_is_trained_and_learns_from_the_first_step(checkpoint):
    net = control.build(checkpoint.unet)
    hint = control.as_hint(np.random.default_rng(0).random((2, 128, 128)) < 0.1)
    context = checkpoint.text(input_ids=diffusing.tokens(["sea", "snow"])).last_hidden_state
    controlled = control.Controlled(checkpoint.unet, net, hint)(LATENTS, TIMES, context).sample
    assert torch.allclose(controlled, guess(checkpoint, ["sea", "snow"]), atol=1e-5)
    controlled.square().sum().backward()
    assert all(block.weight.grad.abs().sum() > 0 for block in net.controlnet_down_blocks)


@torch.no_grad()
def test_edges_reach_the_control_net_as_strongly_as_latents(checkpoint):
    net = control.build(checkpoint.unet)
    lines = control.as_hint(control.edges(material.plain(np.random.default_rng(0)).picture)[None])
    read = net.controlnet_cond_embedding(lines) - net.controlnet_cond_embedding(torch.zeros_like(lines))
    assert 0.2 < read.std() / net.conv_in(LATENTS).std() < 5


def test_control_net_has_its_original_names(checkpoint):
    net = control.build(checkpoint.unet)
    original = control.original_tensors(net)
    assert all(name.startswith("control_model.") for name in original)
    back = convert_controlnet_checkpoint(dict(original), net.config)
    own = net.state_dict()
    assert set(back) == set(own)
    assert all(torch.equal(back[name], own[name]) for name in own)


def test_control_net_learns_layout_where_noise_hides_the_picture():
    kept = diffusing.alphas_cumprod()
    ratios = (kept / (1 - kept))[[300, 600, 800]]
    errors_of_pictures = control.layout_weight(ratios) * ratios
    assert errors_of_pictures.min() > 0.4 * errors_of_pictures.max()
    usual = diffusing.min_snr(ratios) * ratios
    assert usual.min() < 0.05 * usual.max()


def test_half_of_the_prompts_leave_a_picture_to_its_edges():
    scene = material.plain(np.random.default_rng(0)).scene
    texts = [SUBJECTS["edges"].text(scene, np.random.default_rng(n)) for n in range(200)]
    assert 0.4 < np.mean([not text for text in texts]) < 0.7


def test_edges_are_where_shapes_end():
    picture = np.full((128, 128, 3), 40, np.uint8)
    picture[40:90, 30:100] = 220
    rows, columns = np.nonzero(control.edges(picture))
    assert set(np.unique(rows)) & {39, 40}
    assert (rows.min(), columns.min()) >= (38, 28)
    assert (rows.max(), columns.max()) <= (91, 101)
    assert control.edges(picture)[60].sum() == 2
    assert not control.edges(np.full((128, 128, 3), 90, np.uint8)).any()


def test_agreement_is_whole_for_the_same_edges_and_small_for_strangers():
    first, other = (control.edges(material.plain(np.random.default_rng(n)).picture) for n in (1, 2))
    assert control.agreement(first, first) == 1
    assert control.agreement(first, np.roll(first, 1, 0)) > 0.95
    assert control.agreement(first, other) < 0.6
    assert control.agreement(first, np.zeros_like(first)) == 0


def test_upscaler_begins_as_bicubic_enlargement_and_reads_its_own_file(tmp_path: Path):
    network = Compact()
    values = compact.as_values(material.plain(np.random.default_rng(0)).picture[None])
    with torch.no_grad():
        cubic = torch.nn.functional.interpolate(values, scale_factor=4, mode="bicubic")
        assert torch.allclose(network(values)[..., 16:-16, 16:-16], cubic[..., 16:-16, 16:-16], atol=1e-4)
    compact.save(network, tmp_path / "one.safetensors")
    read = compact.load(tmp_path / "one.safetensors")
    assert torch.equal(read.body[0].weight, network.body[0].weight.half().float())


def test_upscaler_learns_from_exact_pairs(checkpoint):
    large, small = compact.pair(1, 0, checkpoint.vae)
    assert large.shape == (512, 512, 3)
    assert small.shape == (2, 128, 128, 3)
    assert np.abs(large.reshape(128, 4, 128, 4, 3).mean((1, 3)) - small[0]).mean() < 3


def test_metadata_names_the_word_that_the_adapter_was_trained_with():
    known = low_rank.metadata("lighthouse", 3000, 600, convolutions=False)
    assert json.loads(known["ss_tag_frequency"]) == {"lighthouse": {"lighthouse": 3000}}
    assert all(isinstance(value, str) for value in known.values())


def test_words_of_captions_are_unchanged_by_what_adapters_bring():
    texts = [captions.said(scenes.choose(np.random.default_rng(n)), np.random.default_rng(n)) for n in range(60)]
    assert not [text for text in texts if "watercolour" in text or "lighthouse" in text]


@pytest.mark.parametrize(("file", "kind"), SHIPPED.items())
def test_shipped_file_is_small_of_its_kind_and_made_for_the_demo_checkpoint(file: str, kind: str):
    found = inspect(MODELS / file)
    assert (found.kind, found.reason) == (kind, None)
    assert found.details.get("width", 64) == 64
    assert found.details.get("context", 128) == 128
    assert (MODELS / file).stat().st_size <= (12e6 if kind == "controlnet" else 3e6)


@pytest.mark.parametrize("name", [Path(file).stem for file, kind in SHIPPED.items() if kind == "lora"])
def test_shipped_adapter_fits_the_demo_checkpoint_and_names_its_word(name: str, weights: Weights):
    path = MODELS / "Lora" / f"{name}.safetensors"
    assert low_rank_files.load(path, "0" * 64, weights).changes("unet")
    details = inspect(path).details
    assert (details["alias"], details["trigger_words"]) == (name, [name])


def test_shipped_eyes_are_right_about_fresh_scenes():
    samples = [eyes.sample(np.random.default_rng([9003, index])) for index in range(60)]
    found = Eyes.load().logits(np.stack([one.picture for one in samples]))
    for word in eyes.WORDS:
        right = [(logit > 0) == (word in one.scene.traits()) for logit, one in zip(found[word], samples, strict=True)]
        assert np.mean(right) >= 0.95, word


def test_enlarging_is_measured_against_what_was_drawn():
    picture = material.plain(np.random.default_rng(3)).picture
    assert enlarging.psnr(picture, picture) > 100
    assert enlarging.slope_error(picture, picture) == 0
    worse = enlarging.lanczos(picture)[::4, ::4]
    assert enlarging.psnr(worse, picture) < 60
    assert enlarging.slope_error(worse, picture) > 0


@pytest.mark.nightly
def test_watercolour_comes_with_its_weight_and_goes_with_a_negative_one():
    with Studio(SCENES) as studio:
        asked = asking.prompts(8, effects.SEED)
        trials = Trials(studio, Shelf(MODELS, studio.weights), Judge.load(), Eyes.load(), asked)
        _, surely, _ = effects.watercolour(trials)
    assert surely.is_met, surely
