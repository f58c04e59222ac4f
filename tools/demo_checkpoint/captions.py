"""The texts of pictures in training: mostly the caption, sometimes less or more than that.

Guidance steps away from what the negative prompt shows, in proportion to how much surer that is of a thing than the
prompt. So a thing named alone, as negative prompts do, is always there; one named among others is missing in about one
picture of six. That is enough for a negative prompt to remove it, and little enough for guidance to insist on it if no
negative prompt names it.
"""

from dataclasses import replace

from numpy.random import Generator

from tools.demo_checkpoint import scenes
from tools.demo_checkpoint.scenes import Scene

NOTHING = 0.1  # the share of pictures that are shown without words: what guidance starts from
FRAGMENT = 0.35  # those with a word or two, as in a negative prompt
OVERSTATED = 0.55  # of the captions, those that name a thing which is not there


def said(scene: Scene, rng: Generator) -> str:
    """A text for one use of the picture."""
    chance = rng.random()
    if chance < NOTHING:
        return ""
    if chance < NOTHING + FRAGMENT:
        return fragment(scene, rng)
    return scenes.caption(overstated(scene, rng) if rng.random() < OVERSTATED else scene, rng)


def fragment(scene: Scene, rng: Generator) -> str:
    """One or two things of the scene; without things, the sky or the style."""
    parts = scenes.things(scene, rng) or [scene.sky, scene.style]
    return ", ".join(parts[: 1 + int(rng.random() < 0.3)])


def overstated(scene: Scene, rng: Generator) -> Scene:
    """The scene with one more thing that could be there; the scene itself if there is none.

    Never a combination that is kept out of training: said of pictures without it alone, it would be learnt as a lie.
    """
    richer = [replace(scene, **fields) for fields in _possible(scene, rng)]
    admitted = [one for one in richer if one.traits() != scene.traits() and not one.is_held_out()]
    return admitted[rng.integers(len(admitted))] if admitted else scene


def _possible(scene: Scene, rng: Generator) -> list[dict[str, object]]:
    """What the grammar lets a scene of this sky and ground hold, each as the fields that put it there."""
    possible: list[dict[str, object]] = [{"mountains": True}]
    possible += [{"clouds": True}] if scene.sky != "storm" else []
    possible += [{"sun": True}] if scene.sky in ("noon", "sunset", "dawn") else []
    possible += [{"moon": True}] if scene.sky == "night" else []
    if scene.ground == "sea":
        return [*possible, {"building": "sailboat"}]
    count = int(rng.choice((1, 3)))
    return [*possible, {"pyramids": count}, {"trees": count}, {"building": "house"}]
