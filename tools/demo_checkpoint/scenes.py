"""The scene grammar: what a demo picture may show, and the captions that say so.

A scene comes first and its caption is made from it, so that a caption names exactly what is there. Things are left out
of scene and caption together; only sky, style and colour may stay unsaid. Some combinations are kept out of training,
to measure later whether the model has learnt the words or the pictures. Scenes by chance never are watercolours and
never have a lighthouse: the checkpoint does not know these, adapters learn them.
"""

from dataclasses import dataclass

from numpy.random import Generator

GROUNDS = ("desert", "meadow", "sea", "snow")
SKIES = ("noon", "sunset", "night", "dawn", "storm")
STYLES = ("painting", "photo", "pixel art", "paper cutout")
COLOURS = ("red", "blue", "green", "yellow", "white", "purple")

# A scene whose traits include one of these sets never appears in training.
HELD_OUT: tuple[frozenset[str], ...] = (
    frozenset({"yellow", "house", "snow"}),
    frozenset({"green", "house", "night"}),
    frozenset({"blue", "sailboat", "sunset"}),
    frozenset({"purple", "sailboat", "pixel art"}),
    frozenset({"pyramids", "storm", "painting"}),
    frozenset({"pine", "desert"}),
    frozenset({"palm", "meadow", "dawn"}),
    frozenset({"snow", "noon", "paper cutout"}),
)

_SKY_PHRASES = {"noon": "at noon", "sunset": "at sunset", "night": "at night", "dawn": "at dawn", "storm": "in a storm"}
_STYLE_PHRASES = {
    "painting": "a painting of",
    "photo": "a photo of",
    "pixel art": "pixel art of",
    "paper cutout": "a paper cutout of",
    "watercolour": "a watercolour of",
}


@dataclass(frozen=True)
class Scene:
    """What one picture shows. `pyramids` and `trees` are counts (0, 1 or 3); `colour` is the house's or the sail's."""

    ground: str
    sky: str
    style: str
    sun: bool = False
    moon: bool = False
    clouds: bool = False
    mountains: bool = False
    pyramids: int = 0
    tree: str = "pine"
    trees: int = 0
    building: str = ""  # "house", "sailboat", "lighthouse" or none
    colour: str = "red"

    def traits(self) -> frozenset[str]:
        """Every word that is true of the scene, said or unsaid."""
        flags = ("sun", "moon", "clouds", "mountains")
        words = {self.ground, self.sky, self.style} | {flag for flag in flags if getattr(self, flag)}
        words |= {"pyramids"} if self.pyramids else set()
        words |= {self.tree} if self.trees else set()
        return frozenset(words | ({self.building, self.colour} if self.building else set()))

    def is_held_out(self) -> bool:
        return any(combination <= self.traits() for combination in HELD_OUT)


def choose(rng: Generator, *, held_out: bool = False) -> Scene:
    """A scene of training or, with `held_out`, one that training never sees."""
    scene = draw_scene(rng)
    while scene.is_held_out() != held_out:
        scene = draw_scene(rng)
    return scene


def draw_scene(rng: Generator) -> Scene:
    """A scene by chance: a place, an hour, a style and a few things that belong there."""
    ground, sky, style = rng.choice(GROUNDS), rng.choice(SKIES), rng.choice(STYLES)
    is_sea = ground == "sea"
    has_pyramids = not is_sea and rng.random() < {"desert": 0.6}.get(ground, 0.2)
    has_trees = not is_sea and rng.random() < (0.3 if has_pyramids else 0.5)
    has_building = rng.random() < (0.65 if is_sea else 0.25 if has_pyramids and has_trees else 0.4)
    return Scene(
        ground=str(ground),
        sky=str(sky),
        style=str(style),
        sun=sky in ("noon", "sunset", "dawn") and rng.random() < 0.55,
        moon=sky == "night" and rng.random() < 0.6,
        clouds=sky != "storm" and rng.random() < 0.3,
        mountains=rng.random() < 0.35,
        pyramids=int(rng.choice((1, 3))) if has_pyramids else 0,
        tree=str(
            rng.choice({"desert": ("palm", "palm", "pine"), "snow": ("pine",)}.get(str(ground), ("pine", "palm")))
        ),
        trees=int(rng.choice((1, 3))) if has_trees else 0,
        building=("sailboat" if is_sea else "house") if has_building else "",
        colour=str(rng.choice(COLOURS)),
    )


def caption(scene: Scene, rng: Generator) -> str:
    """One way to say the scene: a sentence or a comma list, its parts in any order."""
    style = "" if rng.random() < 0.2 else scene.style
    sky = "" if rng.random() < 0.15 else scene.sky
    names = things(scene, rng)
    return (
        _sentence(scene.ground, style, sky, names, rng)
        if rng.random() < 0.5
        else _list(scene.ground, style, sky, names, rng)
    )


def things(scene: Scene, rng: Generator) -> list[str]:
    """The names of all things in the scene, in any order; a colour is named four times in five."""
    names = [word for word in ("sun", "moon", "clouds", "mountains") if getattr(scene, word)]
    if scene.pyramids:
        names.append("pyramid" if scene.pyramids == 1 else str(rng.choice(("pyramids", "three pyramids"))))
    if scene.trees:
        names.append(f"{scene.tree} tree" + ("s" if scene.trees > 1 else ""))
    if scene.building:
        names.append(scene.building if rng.random() < 0.2 else f"{scene.colour} {scene.building}")
    return [str(name) for name in rng.permutation(names)]


def _sentence(ground: str, style: str, sky: str, names: list[str], rng: Generator) -> str:
    place = f"the {ground} {_SKY_PHRASES[sky]}" if sky else f"the {ground}"
    phrases = [_with_article(name) for name in names]
    listed = " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)
    if not names:
        text = place
    elif rng.random() < 0.5:
        text = f"{place} with {listed}"
    else:
        text = f"{listed} {rng.choice(('in', 'by', 'and'))} {place}"
    return f"{_STYLE_PHRASES[style]} {text}" if style else text


def _with_article(name: str) -> str:
    if name in ("sun", "moon"):
        return f"the {name}"
    return name if name.endswith("s") else f"a {name}"


def _list(ground: str, style: str, sky: str, names: list[str], rng: Generator) -> str:
    """A head such as "a painting of the desert at sunset", then the things; or all parts in any order."""
    article = str(rng.choice(("the ", "")))
    place = f"{article}{ground} {_SKY_PHRASES[sky]}" if sky else f"{article}{ground}"
    if rng.random() < 0.6:
        head = f"{_STYLE_PHRASES[style]} {place}" if style else place
        return ", ".join([head, *names])
    apart = rng.random() < 0.5
    parts = [ground, sky] if apart else [place]
    return ", ".join(str(part) for part in rng.permutation([part for part in (*parts, style, *names) if part]))
