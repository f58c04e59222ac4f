"""What the prompt language and the ways to start from a picture do, each measured by the judge over a few seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from shared.params.img2img import Img2Img, Mask
from tools.demo_checkpoint import drawing
from tools.demo_checkpoint.judging import Judge
from tools.demo_checkpoint.measures import Row
from tools.demo_checkpoint.scenes import Scene
from tools.demo_checkpoint.studio import Inputs, Studio, painted

DESERT, MEADOW = "a photo of the desert at noon", "a photo of the meadow at noon"
LEVEL = 0.5  # of 255: mean distances less apart than this are the same
TOP = 56  # pixels above the masked part, well over every house


@dataclass(frozen=True, eq=False)
class Trials:
    """Renders a prompt for `count` seeds and asks the judge."""

    studio: Studio
    judge: Judge
    count: int

    def shares(self, prompt: str, *words: str, **changes: object) -> list[float]:
        """How likely each word holds, on average over the pictures."""
        found = self.judge.of(self.pictures(prompt, **changes))
        return [float(found[word].mean()) for word in words]

    def pictures(self, prompt: str, inputs: list[Inputs] | None = None, **changes: object) -> NDArray[np.uint8]:
        return self.studio.render([painted(prompt, seed, **changes) for seed in range(self.count)], inputs or [])

    def drawn(self, scene: Scene) -> NDArray[np.uint8]:
        """Pictures of a scene by the generator, to start from."""
        return np.stack([drawing.render(scene, np.random.default_rng([8, seed])) for seed in range(self.count)])


RENDERINGS = 18  # of `count` pictures each, that `rows` makes


def rows(trials: Trials) -> Iterator[Row]:
    """All effects, a row each."""
    yield emphasis(trials)
    yield negative_weight(trials)
    yield editing(trials)
    yield alternation(trials)
    yield conjunction(trials)
    yield inpainting(trials)
    yield image_to_image(trials)


def emphasis(trials: Trials) -> Row:
    """Without guidance, which would settle every case, there is room for both ways."""
    texts = [f"{DESERT}, (pyramid:{weight}), sun, mountains" for weight in (0.6, 1.0, 1.4)]
    shares = [trials.shares(text, "pyramids", cfg_scale=1.0)[0] for text in texts]
    return _rising("pyramids by (pyramid:0.6), :1.0, :1.4 (CFG 1)", shares)


def negative_weight(trials: Trials) -> Row:
    shares = [trials.shares(f"{DESERT}, pyramids{ending}", "pyramids")[0] for ending in ("", " AND pyramids :-1")]
    return _falling("pyramids by AND pyramids :-1", shares)


def editing(trials: Trials) -> Row:
    """A switch at a share of the steps: what comes early shapes the picture."""
    found = [trials.shares(f"{DESERT}, [pyramids:palm trees:{when}]", "pyramids", "palm") for when in (0.1, 0.5, 0.9)]
    pyramids, palms = zip(*found, strict=True)
    value = f"pyramids {_listed(pyramids)}; palms {_listed(palms)}"
    return Row(
        "[pyramids:palm trees:when] at 0.1, 0.5, 0.9",
        "one comes, one goes",
        value,
        pyramids[0] < pyramids[-1] and palms[0] > palms[-1],
    )


def alternation(trials: Trials) -> Row:
    """Every second step names the one, the others the other: each leaves its traces in some pictures."""
    things = ("pyramids", "[pyramids|palm trees]", "palm trees")
    found = [trials.shares(f"{DESERT}, {thing}", "pyramids", "palm") for thing in things]
    pyramids, palms = zip(*found, strict=True)
    value = f"pyramids {_listed(pyramids)}; palms {_listed(palms)}"
    is_between = pyramids[0] > pyramids[1] > pyramids[2] and palms[0] < palms[1] < palms[2]
    return Row("pyramids, then [pyramids|palm trees], then palm trees", "in between", value, is_between)


def conjunction(trials: Trials) -> Row:
    shares = [trials.shares(MEADOW + ending, "house")[0] for ending in ("", " AND a red house")]
    return _rising("a house by AND a red house", shares)


def inpainting(trials: Trials) -> Row:
    """Only the lower part is repainted: its house becomes blue, and everything above stays."""
    sources = trials.drawn(Scene("meadow", "noon", "photo", building="house", colour="red"))
    mask = np.zeros(sources.shape[1:3], np.uint8)
    mask[TOP:] = 255
    start = Img2Img(picture="source", denoising=0.9, mask=Mask(picture="mask", blur=0))
    results = trials.pictures(f"{MEADOW}, blue house", [Inputs(source, mask) for source in sources], img2img=start)
    before, after = (float(trials.judge.of(pictures)["blue"].mean()) for pictures in (sources, results))
    kept = int(np.abs(results[:, :TOP].astype(np.int16) - sources[:, :TOP]).max())
    value = f"blue {_listed((before, after))}; the rest {kept} of 255 off at most"
    return Row(
        "a red house repainted blue under a mask",
        "blue comes, the rest stays",
        value,
        after - before > 0.5 and kept == 0,
    )


def image_to_image(trials: Trials) -> Row:
    """The stronger, the less is left of the source; once nothing is, two strengths are equally far from it."""
    sources = trials.drawn(Scene("desert", "noon", "photo", pyramids=1))
    inputs, left, apart = [Inputs(source) for source in sources], [], []
    for denoising in (0.2, 0.5, 0.8, 1.0):
        results = trials.pictures(
            f"{DESERT}, palm trees", inputs, img2img=Img2Img(picture="source", denoising=denoising)
        )
        left.append(float(trials.judge.of(results)["pyramids"].mean()))
        apart.append(float(np.abs(results.astype(np.float32) - sources).mean()))
    value = f"pyramids of the source {_listed(left)}; mean distance {', '.join(f'{one:.0f}' for one in apart)} of 255"
    return Row(
        "a pyramid in the desert as palm trees, strengths 0.2, 0.5, 0.8, 1",
        "the source fades",
        value,
        left[-1] < left[0] and all(later > sooner - LEVEL for sooner, later in pairwise(apart)),
    )


def _rising(measure: str, shares: list[float]) -> Row:
    return Row(measure, "rises", _listed(shares), shares[-1] > shares[0])


def _falling(measure: str, shares: list[float]) -> Row:
    return Row(measure, "falls", _listed(shares), shares[-1] < shares[0])


def _listed(shares: Sequence[float]) -> str:
    return ", ".join(f"{share:.0%}" for share in shares)
