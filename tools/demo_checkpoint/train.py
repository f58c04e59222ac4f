"""Make the demo checkpoints: `python -m tools.demo_checkpoint.train --help`."""

import logging
import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers.models import AutoencoderKL
from rich.progress import track

from tools.demo_checkpoint import autoencoding, dataset, diffusing, layout, sheets, teaching
from tools.demo_checkpoint.judging import WEIGHTS, Judge, Network
from tools.demo_checkpoint.layout import Checkpoint, Shape
from tools.demo_checkpoint.scenes import STYLES
from tools.demo_checkpoint.training import Training, compile_blocks

app = typer.Typer(no_args_is_help=True, add_completion=False)
log = logging.getLogger("demo")

State = Annotated[Path, typer.Option(help="folder of data and training states; what is there is continued")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
Minutes = Annotated[float, typer.Option(help="training time of this stage, counted over all its starts")]
From = Annotated[Path | None, typer.Option("--from", help="start from the weights of this checkpoint")]
Output = Annotated[Path, typer.Option(help="the file to write")]
STATE = Path("var/demo")
RATE = 1.5e-3  # of learning, at its peak
Style = Enum("Style", {style: style for style in STYLES})  # as typer wants its choices
SCALE_FACTOR = 0.18215  # what readers of SD v1 assume where no yaml tells them


@app.callback()
def main() -> None:
    """Make the demo checkpoints and their judge from nothing.

    The stages in their order: data, vae, latents, decoder (optional), diffusion, export; judge at any time after
    latents. Every stage continues where it was stopped, however it was stopped; sample and reconstruct show what it
    has come to.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))


@app.command()
def data(
    state: State = STATE,
    count: Annotated[int, typer.Option(help="how many pictures")] = 20_000,
    processes: Annotated[int, typer.Option(help="that draw at once")] = os.cpu_count() or 1,
    style: Annotated[Style | None, typer.Option(help="draw all in this style, whatever the captions say")] = None,
) -> None:
    """Draw the captioned pictures (about 200 a second and core)."""
    chunks = dataset.draw(state / "data", count, processes, style.value if style else "")
    for drawn in track(chunks, "drawing", total=-(-count // dataset.CHUNK)):
        log.info("%d pictures", drawn)


@app.command()
def vae(state: State = STATE, minutes: Minutes = 45, device: Device = "cpu", start: From = None) -> None:
    """Train the autoencoder on crops of the pictures."""
    network = _start(start).vae.train()
    if start is None:
        autoencoding.prepare(network)
    network = network.to(device, memory_format=torch.channels_last)
    training = Training(network, RATE, minutes, state / "vae.pt")
    compile_blocks(network)
    training.run(autoencoding.reconstruction_loss(network, dataset.Dataset(state / "data"), device), log.info)


@app.command()
def decoder(state: State = STATE, minutes: Minutes = 45, device: Device = "cpu") -> None:
    """Go on with the decoder alone, after `latents`: what the U-Net has learnt from these stays valid."""
    network = layout.build(Shape()).vae.train()
    network.load_state_dict(torch.load(state / "latents.pt", weights_only=True)["vae"])
    network.encoder.requires_grad_(requires_grad=False)
    network.quant_conv.requires_grad_(requires_grad=False)
    network = network.to(device, memory_format=torch.channels_last)
    training = Training(network, RATE / 4, minutes, state / "decoder.pt")
    compile_blocks(network)
    loss = autoencoding.reconstruction_loss(network, dataset.Dataset(state / "data"), device)
    training.run(lambda step, _progress: loss(step, 1.0), log.info)


@app.command()
def latents(state: State = STATE, count: int = 20_000, device: Device = "cpu", start: From = None) -> None:
    """Encode pictures once, with the trained VAE, brought to unit variance, or with a checkpoint's as it is."""
    pictures = dataset.Dataset(state / "data").pictures[:count]
    network = layout.load(start)[0].vae if start else _trained_vae(state)
    network = network.to(device, memory_format=torch.channels_last)
    batches = [pictures[first : first + 50] for first in range(0, len(pictures), 50)]
    raw = torch.cat([autoencoding.encode(network, batch, device) for batch in track(batches, "encoding")])
    network = network.cpu()
    unit = raw * SCALE_FACTOR if start else autoencoding.normalise(network, raw, SCALE_FACTOR)
    saved = {"latents": unit.half(), "vae": network.state_dict()}
    torch.save(saved, state / "latents.partial")
    (state / "latents.partial").replace(state / "latents.pt")
    log.info("%d latents", len(unit))


@app.command()
def diffusion(state: State = STATE, minutes: Minutes = 60, device: Device = "cpu", start: From = None) -> None:
    """Train text encoder and U-Net together on the latents."""
    pair = diffusing.networks(_start(start)).train().to(device, memory_format=torch.channels_last)
    unit = torch.load(state / "latents.pt", weights_only=True)["latents"]
    listed = dataset.Dataset(state / "data").scenes
    training = Training(pair, RATE / 3 if start else RATE, minutes, state / "diffusion.pt")
    compile_blocks(pair)
    training.run(diffusing.noise_loss(diffusing.from_captions(pair, listed, device), unit, device), log.info)


@app.command()
def judge(  # noqa: PLR0913, PLR0917  a command's options are its arguments
    state: State = STATE,
    minutes: Minutes = 15,
    device: Device = "cpu",
    start: From = None,
    count: Annotated[int, typer.Option(help="pictures that the VAE gives back, seen beside the drawn ones")] = 4_000,
    out: Output = WEIGHTS,
) -> None:
    """Train the judge on scenes, and on scenes as the VAE gives them back; write it in half precision."""
    autoencoder = layout.load(start)[0].vae if start else _finished_vae(state)
    restored = teaching.restored(autoencoder.to(device, memory_format=torch.channels_last), device)
    for kept in track(dataset.keep(state / "judge", count, restored), "restoring", total=-(-count // dataset.CHUNK)):
        log.info("%d pictures", kept)
    network = Network().to(device, memory_format=torch.channels_last)
    training = Training(network, RATE, minutes, state / "judge.pt")
    sources = [dataset.Dataset(state / "data"), dataset.Dataset(state / "judge")]
    training.run(teaching.lesson(network, sources, device), log.info)
    Judge(training.averaged.cpu()).save(out)


@app.command()
def export(
    out: Output,
    state: State = STATE,
    away_from: Annotated[Path | None, typer.Option(help="the checkpoint that the training began from")] = None,
    by: Annotated[float, typer.Option(help="how much further than trained to lead away from it, of the way")] = 0.1,
) -> None:
    """Write the averaged weights of all stages as one checkpoint in half precision, with its yaml."""
    checkpoint = _averaged(state)
    if away_from:
        diffusing.lead_away(diffusing.networks(checkpoint), diffusing.networks(layout.load(away_from)[0]), by)
    layout.save(checkpoint, Shape(), out)
    log.info("%s, %.1f MB", out, out.stat().st_size / 1e6)


@app.command()
def sample(  # noqa: PLR0913, PLR0917  a command's options are its arguments
    out: Output,
    prompts: Annotated[list[str] | None, typer.Argument(help="default: a sheet of many")] = None,
    state: State = STATE,
    start: From = None,
    seed: int = 0,
    steps: int = 20,
    cfg_scale: float = 7.0,
) -> None:
    """Write a contact sheet of pictures for prompts: Euler a, guided; from the training states or a checkpoint."""
    checkpoint = layout.load(start)[0] if start else _averaged(state)
    texts = prompts or list(sheets.PROMPTS)
    pair = diffusing.networks(checkpoint).eval()
    unit = diffusing.euler_ancestral(pair, texts, seed, steps=steps, scale=cfg_scale)
    sheets.write(autoencoding.decode(checkpoint.vae, unit / checkpoint.scale_factor), out, captions=texts)


@app.command()
def reconstruct(out: Output, state: State = STATE, start: From = None, count: int = 16) -> None:
    """Write fresh scenes beside their reconstructions by the VAE, and log the mean absolute error (of 0..1)."""
    autoencoder = (layout.load(start)[0].vae if start else _trained_vae(state)).eval()
    fresh = np.stack([dataset.sample(dataset.SEED + 1, index).picture for index in range(count)])
    restored = np.concatenate([autoencoding.restore(autoencoder, fresh[row : row + 1]) for row in range(count)])
    sheets.write(np.stack([fresh, restored], 1).reshape(-1, *fresh.shape[1:]), out)
    log.info("mean absolute error %.4f", np.abs(fresh.astype(np.float32) - restored).mean() / 255)


@app.command()
def untrained(out: Output, seed: int = 0) -> None:
    """Write a checkpoint of random weights: the right form without the training."""
    layout.save(layout.build(Shape(), seed, SCALE_FACTOR), Shape(), out)


def _trained_vae(state: Path) -> AutoencoderKL:
    autoencoder = layout.build(Shape()).vae
    autoencoder.load_state_dict(torch.load(state / "vae.pt", weights_only=True)["averaged"])
    return autoencoder


def _finished_vae(state: Path) -> AutoencoderKL:
    """The VAE that made the latents, or its further trained decoder if there is one."""
    further = state / "decoder.pt"
    path, part = (further, "averaged") if further.exists() else (state / "latents.pt", "vae")
    autoencoder = layout.build(Shape()).vae
    autoencoder.load_state_dict(torch.load(path, weights_only=True)[part])
    return autoencoder


def _averaged(state: Path) -> Checkpoint:
    """The checkpoint that the stages have come to; missing stages are an error."""
    checkpoint = layout.build(Shape(), scale_factor=SCALE_FACTOR)
    checkpoint.vae = _finished_vae(state)
    averaged = torch.load(state / "diffusion.pt", weights_only=True)["averaged"]
    diffusing.networks(checkpoint).load_state_dict(averaged)
    return checkpoint


def _start(path: Path | None) -> Checkpoint:
    return layout.load(path)[0] if path else layout.build(Shape())


if __name__ == "__main__":
    app()
