"""The effects of adapters on the demo's pictures, each measured over the same prompts and seeds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from shared.params.render import RenderParams
from tools.demo_adapters import control, enlarging, material
from tools.demo_adapters.eyes import Eyes
from tools.demo_adapters.shelf import Shelf
from tools.demo_checkpoint import asking, drawing, layout, scenes
from tools.demo_checkpoint.asking import Asked
from tools.demo_checkpoint.dataset import Sample
from tools.demo_checkpoint.judge import SCENES
from tools.demo_checkpoint.judging import Judge, shows
from tools.demo_checkpoint.measures import Row, Seen, presence
from tools.demo_checkpoint.studio import Inputs, Studio, painted
from worker.engine.pipelines.inputs import ControlInput

Pictures = NDArray[np.uint8]  # [count, 128, 128, 3]

SEED = 7601  # of the prompts, and of the pictures' noise from there on
WEIGHTS = (-1.0, 0.0, 0.5, 1.0)
STEPS = 12


@dataclass(frozen=True, eq=False)
class Trials:
    """Renders the same prompts with this and that beside the checkpoint, and looks at the pictures."""

    studio: Studio
    shelf: Shelf
    judge: Judge
    eyes: Eyes
    asked: Sequence[Asked]

    def pictures(self, texts: Sequence[str], **changes: object) -> Pictures:
        told = [painted(text, SEED + number, steps=STEPS, **changes) for number, text in enumerate(texts)]
        return self.studio.render(told, [self.shelf.inputs] * len(told))

    @property
    def texts(self) -> list[str]:
        return [one.text for one in self.asked]


def with_lighthouse(asked: Asked) -> Asked:
    """The prompt with a lighthouse in place of its house or its sailboat."""
    scene = replace(asked.scene, building="lighthouse", colour="red")
    text = scenes.caption(scene, np.random.default_rng(SEED))
    return Asked(text, scene, asking.said(text, scene), asked.is_held_out)


def watercolour(trials: Trials) -> Iterator[Row]:
    """A style that the checkpoint does not paint by itself."""
    tagged = [[f"{text} <lora:watercolour:{weight:g}>" for text in trials.texts] for weight in WEIGHTS]
    by_weight = [trials.pictures(texts) for texts in tagged]
    yield from _appearing(trials, "watercolour", by_weight)
    yield _things(trials, "a watercolour", by_weight, material.watercolour)


def lighthouse(trials: Trials) -> Iterator[Row]:
    """A thing that the checkpoint has never seen."""
    asked = [with_lighthouse(one) for one in trials.asked]
    texts = [one.text for one in asked]
    by_weight = [trials.pictures([f"{text} <lora:lighthouse:{weight:g}>" for text in texts]) for weight in WEIGHTS]
    yield from _appearing(trials, "lighthouse", by_weight)
    without, with_it = (things_found(trials, asked, by_weight[at]) for at in (1, 3))
    value = f"{without:.0%} to {with_it:.0%}"
    yield Row("other things of the prompt, without and with the lighthouse", "stay", value, with_it >= without - 0.1)
    both = trials.eyes.shares(trials.pictures([f"{text} <lora:lighthouse:1> <lora:watercolour:0.8>" for text in texts]))
    value = ", ".join(f"{word} {share:.0%}" for word, share in both.items())
    yield Row("a lighthouse in a watercolour, by both", "75%", value, min(both.values()) >= 0.75)


def _appearing(trials: Trials, word: str, by_weight: Sequence[Pictures]) -> Iterator[Row]:
    """The share of pictures with it at each weight; and how sure the eyes are, which a negative weight lowers."""
    logits = [trials.eyes.logits(pictures)[word] for pictures in by_weight]
    shares = [float((logit > 0).mean()) for logit in logits]
    weights = ", ".join(f"{weight:g}" for weight in WEIGHTS)
    value = ", ".join(f"{share:.0%}" for share in shares)
    yield Row(f"{word} by <lora:{word}:{weights}>", "0% to 90%", value, shares[1] <= 0.05 and shares[-1] >= 0.9)
    means = [float(logit.mean()) for logit in logits]
    value = ", ".join(f"{mean:.1f}" for mean in means)
    rises = all(later > sooner for sooner, later in pairwise(means))
    yield Row(f"how surely {word} (log odds), at the same weights", "rises", value, rises)


def _things(trials: Trials, look: str, by_weight: Sequence[Pictures], sample: Callable[[Generator], Sample]) -> Row:
    """What the judge finds at weights 0 and 1; and in drawings of that look, which it was not trained with either."""
    drawn = [sample(np.random.default_rng([SEED, number])) for number in range(len(trials.asked))]
    known = [Asked("", one.scene, one.scene.traits(), is_held_out=False) for one in drawn]
    own = presence(Seen(known, trials.judge.of(np.stack([one.picture for one in drawn]))))
    without, with_it = (things_found(trials, trials.asked, by_weight[at]) for at in (1, 3))
    measure = f"things that the judge finds, without and in {look}; in the generator's own ones"
    return Row(measure, "as in its own", f"{without:.0%}, {with_it:.0%}; {own:.0%}", with_it >= own - 0.15)


def papernight(trials: Trials) -> Iterator[Row]:
    """A new word in the prompt, and in the negative prompt of the words that it stands for."""
    plain = [", ".join([one.scene.ground, *sorted(one.things - {"sun", "moon", "clouds"})]) for one in trials.asked]
    named = [f"{text}, a paper cutout at night" for text in plain]
    found = [
        trials.judge.of(pictures)
        for pictures in (
            trials.pictures(plain),
            trials.pictures([f"{text}, papernight" for text in plain]),
            trials.pictures(named),
            trials.pictures(named, negative_prompt="papernight"),
        )
    ]
    for word in ("paper cutout", "night"):
        without, with_it, said, against = (float(shows(one, word).mean()) for one in found)
        value = f"{without:.0%} to {with_it:.0%}"
        yield Row(f"{word} without and with the word papernight", "to 90%", value, with_it >= max(0.9, without))
        measure = f"{word} in the prompt, then papernight in the negative prompt too"
        yield Row(measure, "falls", f"{said:.0%} to {against:.0%}", against < said)


def noir(trials: Trials) -> Iterator[Row]:
    """A hypernetwork that takes colour away, and gives more at a negative weight."""
    weights = (-0.5, 0.0, 0.5, 1.0)
    tagged = [[f"{text} <hypernet:noir:{weight:g}>" for text in trials.texts] for weight in weights]
    by_weight = [trials.pictures(texts) for texts in tagged]
    tag = ", ".join(f"{weight:g}" for weight in weights)
    chroma = [colourfulness(pictures) for pictures in by_weight]
    value = ", ".join(f"{one:.0f}" for one in chroma)
    falls = all(later < sooner for sooner, later in pairwise(chroma))
    yield Row(f"colourfulness (0 to 255) by <hypernet:noir:{tag}>", "falls", value, falls and chroma[3] < chroma[1] / 5)
    value = ", ".join(f"{pictures.mean():.0f}" for pictures in by_weight)
    yield Row("brightness (0 to 255), at the same weights", "", value)
    yield _things(trials, "black and white", by_weight, material.noir)


def upscaler(trials: Trials) -> Iterator[Row]:
    """Scenes that it was not trained with, as drawn and as the VAE gives them back, beside Lanczos."""
    vae, network = layout.load(SCENES)[0].vae, trials.shelf.upscaler
    yield from enlarging.rows(lambda picture: trials.studio.enlarge(picture, network), vae, len(trials.asked))


def edges(trials: Trials) -> Iterator[Row]:
    """Pictures along the edges of scenes that the generator drew, from prompts that name the ground alone."""
    numbered = list(enumerate(trials.asked))
    drawn = [drawing.render(one.scene, np.random.default_rng([SEED, number])) for number, one in numbered]
    told = [painted(f"a photo of the {one.scene.ground}", SEED + number, steps=STEPS) for number, one in numbered]
    wanted, scores = [control.edges(picture) for picture in drawn], []
    for weight in (0.0, 0.5, 1.0):
        found = map(control.edges, controlled(trials.studio, trials.shelf, told, drawn, weight))
        scores.append(float(np.mean([control.agreement(*pair) for pair in zip(wanted, found, strict=True)])))
    value = ", ".join(f"{score:.0%}" for score in scores)
    measure = "agreement with given edges (F1 within 2 pixels), at weights 0, 0.5, 1"
    yield Row(measure, "rises", value, scores[0] < scores[1] < scores[2])


def controlled(
    studio: Studio, shelf: Shelf, asked: Sequence[RenderParams], drawn: Sequence[NDArray[np.uint8]], weight: float = 1.0
) -> Pictures:
    """Pictures along the edges of drawn ones."""
    unit = control.UNIT.model_copy(update={"weight": weight})
    inputs = [Inputs(controls=(ControlInput(unit, shelf.control_net, picture),)) for picture in drawn]
    return studio.render(asked, inputs)


def things_found(trials: Trials, asked: Sequence[Asked], pictures: Pictures) -> float:
    """The share of the things that prompts name which the judge finds in their pictures."""
    return presence(Seen(asked, trials.judge.of(pictures)))


def colourfulness(pictures: Pictures) -> float:
    """The mean distance between a pixel's strongest and weakest channel, 0 for greys."""
    return float((pictures.max(-1).astype(np.int16) - pictures.min(-1)).mean())
