"""Make what stands beside the demo checkpoint: `python -m tools.demo_adapters.train --help`."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from tools.demo_adapters import compact, control, hypernetwork, inversion, low_rank, material
from tools.demo_adapters.compact import Compact, Pairs
from tools.demo_adapters.eyes import WEIGHTS, Eyes, taught
from tools.demo_adapters.material import SUBJECTS
from tools.demo_checkpoint import diffusing, layout
from tools.demo_checkpoint.diffusing import Noised
from tools.demo_checkpoint.judge import SCENES
from tools.demo_checkpoint.training import Training

MODELS = SCENES.parents[1]
BATCH = 6

app = typer.Typer(no_args_is_help=True, add_completion=False)
log = logging.getLogger("demo")

State = Annotated[Path, typer.Option(help="folder of pictures and training states; what is there is continued")]
Minutes = Annotated[float, typer.Option(help="training time, counted over all starts")]
Rate = Annotated[float, typer.Option(help="of learning, at its peak")]
Alpha = Annotated[float, typer.Option(help=f"of a file of rank {low_rank.RANK}: how strongly weight 1 acts")]
Output = Annotated[Path, typer.Option(help="the file to write")]
STATE = Path("var/demo-adapters")


class Lesson:
    """The demo checkpoint, whose weights do not change, and the pictures of subjects, which prompts are made for.

    The first subject names the lesson.
    """

    def __init__(self, state: Path, *names: str, weight_of: Callable[[Tensor], Tensor] = diffusing.min_snr) -> None:
        checkpoint, _ = layout.load(SCENES)
        pair = diffusing.networks(checkpoint).requires_grad_(requires_grad=False).eval()
        self.pair = pair.to(memory_format=torch.channels_last)
        self.path, self._weight_of = state / f"{names[0]}.pt", weight_of
        self.sets = [material.drawn(SUBJECTS[name], state / name) for name in names]
        self._said = [
            (SUBJECTS[name].text, scene) for name, one in zip(names, self.sets, strict=True) for scene in one.scenes
        ]
        vae = checkpoint.vae.to(memory_format=torch.channels_last)
        paths = (state / f"{name}-latents.pt" for name in names)
        self.latents = torch.cat(
            [
                material.latents(one, vae, checkpoint.scale_factor, path)
                for one, path in zip(self.sets, paths, strict=True)
            ]
        )

    def taught(
        self,
        learner: nn.Module,
        rate: float,
        minutes: float,
        *,
        read: Callable[[list[str]], Tensor] = diffusing.tokens,
        paint: Callable[[Noised, Tensor], Tensor] | None = None,
    ) -> Training:
        """The finished training of what already acts on the networks; `read` makes tokens, `paint` predicts noise."""

        def predicted(noised: Noised) -> Tensor:
            chosen = [self._said[number] for number in noised.numbers]
            texts = [text(scene, noised.rng) for text, scene in chosen]
            context = self.pair["text"](input_ids=read(texts)).last_hidden_state
            return (paint or self._painted)(noised, context)

        training = Training(learner, rate, minutes, self.path)
        training.run(diffusing.noise_loss(predicted, self.latents, "cpu", BATCH, self._weight_of), log.info)
        return training

    def _painted(self, noised: Noised, context: Tensor) -> Tensor:
        return self.pair["unet"](noised.latents, noised.times, context).sample


@app.callback()
def main() -> None:
    """Train adapters, a control net and an upscaler beside the demo checkpoint, which stays as it is.

    Every command draws its own pictures, trains, and writes its file. It continues where it was stopped, however it was
    stopped.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))


@app.command()
def watercolour(
    state: State = STATE,
    minutes: Minutes = 20,
    rate: Rate = 4e-3,
    alpha: Alpha = 8,
    out: Output = MODELS / "Lora" / "watercolour.safetensors",
) -> None:
    """A LoCon of the U-Net that paints every scene as a watercolour."""
    lesson = Lesson(state, "watercolour")
    adapters = low_rank.attach(lesson.pair, text=False, convolutions=True, alpha=alpha)
    _write_locon(lesson.taught(adapters, rate, minutes), len(lesson.latents), alpha, out)


@app.command()
def lighthouse(
    state: State = STATE,
    minutes: Minutes = 12,
    rate: Rate = 2e-3,
    alpha: Alpha = 14,
    out: Output = MODELS / "Lora" / "lighthouse.safetensors",
) -> None:
    """A LoCon of the U-Net and the text encoder for a new thing: lighthouses, and scenes without them beside these."""
    lesson = Lesson(state, "lighthouse", "edges")
    adapters = low_rank.attach(lesson.pair, text=True, convolutions=True, alpha=alpha)
    _write_locon(lesson.taught(adapters, rate, minutes), len(lesson.latents), alpha, out)


@app.command()
def papernight(
    state: State = STATE,
    minutes: Minutes = 8,
    rate: Rate = 5e-3,
    out: Output = MODELS / "embeddings" / "papernight.safetensors",
) -> None:
    """A textual inversion whose word stands for paper cutouts of moonlit nights."""
    lesson = Lesson(state, "papernight")
    embeddings = lesson.pair["text"].get_input_embeddings()
    word = inversion.Word(embeddings, like="picture")
    word.attach(embeddings)
    inversion.save(lesson.taught(word, rate, minutes, read=word.tokens).averaged, out)
    _log_size(out)


@app.command()
def noir(
    state: State = STATE,
    minutes: Minutes = 25,
    rate: Rate = 4e-3,
    out: Output = MODELS / "hypernetworks" / "noir.pt",
) -> None:
    """A hypernetwork that paints in black and white."""
    lesson = Lesson(state, "noir")
    training = lesson.taught(hypernetwork.attach(lesson.pair["unet"]), rate, minutes)
    hypernetwork.save(training.averaged, out, training.steps)
    _log_size(out)


@app.command()
def edges(
    state: State = STATE,
    minutes: Minutes = 90,
    rate: Rate = 1e-3,
    out: Output = MODELS / "ControlNet" / "scenes-edges.safetensors",
) -> None:
    """A control net that paints along given edges."""
    lesson = Lesson(state, "edges", weight_of=control.layout_weight)
    lines = np.stack([control.edges(picture) for picture in lesson.sets[0].pictures])
    net = control.build(lesson.pair["unet"]).to(memory_format=torch.channels_last)

    def paint(noised: Noised, context: Tensor) -> Tensor:
        controlled = control.Controlled(lesson.pair["unet"], net, control.as_hint(lines[noised.numbers]))
        return controlled(noised.latents, noised.times, context).sample

    control.save(lesson.taught(net, rate, minutes, paint=paint).averaged, out)
    _log_size(out)


@app.command()
def upscaler(
    state: State = STATE,
    minutes: Minutes = 15,
    rate: Rate = 1e-3,
    out: Output = MODELS / "ESRGAN" / "scenes-compact-x4.safetensors",
) -> None:
    """A compact upscaler from 128 to 512 pixels a side."""
    pairs = Pairs(state / "pairs", layout.load(SCENES)[0].vae.to(memory_format=torch.channels_last))
    network = Compact().to(memory_format=torch.channels_last)
    training = Training(network, rate, minutes, state / "upscaler.pt")
    training.run(compact.restoring_loss(network, pairs), log.info)
    compact.save(training.averaged, out)
    _log_size(out)


@app.command()
def eyes(state: State = STATE, count: int = 800, out: Output = WEIGHTS) -> None:
    """The judge's eyes for lighthouses and watercolours, which its own words do not name."""
    found: Eyes = taught(state / "eyes", layout.load(SCENES)[0].vae, count)
    found.save(out)
    _log_size(out)


def _write_locon(training: Training, pictures: int, alpha: float, out: Path) -> None:
    known = low_rank.metadata(out.stem, pictures, training.steps, convolutions=True, alpha=alpha)
    low_rank.save(training.averaged, out, known)
    _log_size(out)


def _log_size(path: Path) -> None:
    log.info("%s, %.2f MB", path, path.stat().st_size / 1e6)


if __name__ == "__main__":
    app()
