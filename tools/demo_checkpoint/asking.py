"""The prompts that checkpoints are judged by: drawn from the scene grammar, a quarter of them kept out of training."""

import re
from dataclasses import dataclass

import numpy as np

from tools.demo_checkpoint import scenes
from tools.demo_checkpoint.judging import THINGS
from tools.demo_checkpoint.scenes import Scene

SEED = 7001  # no series that anything was trained on


@dataclass(frozen=True)
class Asked:
    """A prompt, the scene that it says, which of the scene's words it says, and one thing to speak against."""

    text: str
    scene: Scene
    said: frozenset[str]
    is_held_out: bool
    against: str = ""  # a word of THINGS; none where the prompt names none

    @property
    def things(self) -> frozenset[str]:
        """The things that are wanted; all others are wanted absent, since a prompt names every thing of its scene."""
        return self.said & frozenset(THINGS)

    @property
    def negative(self) -> str:
        """What a negative prompt says to be rid of that thing: what the prompt calls it."""
        scene, word = self.scene, self.against
        if word in ("house", "sailboat"):
            return f"{scene.colour} {word}" if scene.colour in self.said else word
        if word in ("pine", "palm"):
            return f"{word} tree" if scene.trees == 1 else f"{word} trees"
        return "pyramid" if word == "pyramids" and scene.pyramids == 1 else word


def prompts(count: int, seed: int = SEED) -> list[Asked]:
    """Prompts of a series; number i is the same whatever the count, and every fourth is a held-out combination."""
    return [_prompt(seed, index, held_out=index % 4 == 3) for index in range(count)]


def _prompt(seed: int, index: int, *, held_out: bool) -> Asked:
    rng = np.random.default_rng([seed, index])
    scene = scenes.choose(rng, held_out=held_out)
    text = scenes.caption(scene, rng)
    words = said(text, scene)
    things = [word for word in THINGS if word in words]
    return Asked(text, scene, words, held_out, against=str(rng.choice(things)) if things else "")


def said(text: str, scene: Scene) -> frozenset[str]:
    """Which of the words that are true of a scene stand in a text; one pyramid says "pyramids"."""
    return frozenset(word for word in scene.traits() if re.search(rf"\b{word.removesuffix('s')}s?\b", text))
