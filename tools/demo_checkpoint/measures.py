"""What the judge finds in pictures of a list of prompts, as rows of a table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.demo_checkpoint.asking import Asked
from tools.demo_checkpoint.judging import CHOICES, THINGS, Found, shows
from tools.demo_checkpoint.scenes import Scene


@dataclass(frozen=True)
class Row:
    """One line of the table: what is measured, what it should be, what it came to."""

    measure: str
    target: str
    value: str
    is_met: bool | None = None  # None: no target

    def __str__(self) -> str:
        verdict = {True: "yes", False: "**no**", None: ""}[self.is_met]
        measure = self.measure.replace("|", "\\|")
        return f"| {measure} | {self.target} | {self.value} | {verdict} |"


@dataclass(frozen=True, eq=False)
class Seen:
    """Prompts and what the judge finds in their pictures."""

    asked: Sequence[Asked]
    found: Found

    def only(self, *, held_out: bool) -> "Seen":
        """Those prompts that are, or are not, combinations kept out of training."""
        rows = [row for row, asked in enumerate(self.asked) if asked.is_held_out == held_out]
        return Seen([self.asked[row] for row in rows], {word: share[rows] for word, share in self.found.items()})

    def shown(self, word: str) -> NDArray[np.bool_]:
        return shows(self.found, word)


def presence(seen: Seen) -> float:
    """The share of the named things that are there."""
    return _share(seen.shown(word)[row] for row, asked in enumerate(seen.asked) for word in asked.things)


def absence(seen: Seen) -> float:
    """The share of the things not named that are not there."""
    rows = ((row, word) for row, asked in enumerate(seen.asked) for word in THINGS if word not in asked.things)
    return _share(not seen.shown(word)[row] for row, word in rows)


def choice(seen: Seen, name: str) -> float:
    """The share of named grounds, skies, styles or colours that are right; a colour only where its bearer is there."""
    rows = ((row, word) for row, asked in enumerate(seen.asked) for word in asked.said & frozenset(CHOICES[name]))
    judged = ((row, word) for row, word in rows if name != "colour" or _bears_colour(seen, row))
    return _share(seen.shown(word)[row] for row, word in judged)


def _bears_colour(seen: Seen, row: int) -> bool:
    return bool(seen.shown(seen.asked[row].scene.building)[row])


def complete(seen: Seen) -> float:
    """The share of pictures with everything that is named and nothing that is not."""
    return _share(
        all(seen.shown(word)[row] for word in asked.said)
        and not any(seen.shown(word)[row] for word in THINGS if word not in asked.things)
        for row, asked in enumerate(seen.asked)
    )


def against(seen: Seen) -> float:
    """The share of the things spoken against that are there."""
    return _share(seen.shown(asked.against)[row] for row, asked in enumerate(seen.asked) if asked.against)


def fall(before: Seen, after: Seen) -> float:
    """By what share the things spoken against become rarer."""
    return 1 - against(after) / max(against(before), 1e-9)


def accuracy(found: Found, truths: Sequence[Scene]) -> dict[str, float]:
    """How often the judge is right about each thing and each choice, where the truth is known."""
    traits = [scene.traits() for scene in truths]
    right = {
        word: _share(shown == (word in words) for shown, words in zip(shows(found, word), traits, strict=True))
        for word in THINGS
    }
    for name, words in CHOICES.items():
        answers = np.array(words)[np.argmax([found[word] for word in words], axis=0)]
        rows = [row for row, scene in enumerate(truths) if name != "colour" or scene.building]
        right[name] = _share(answers[row] == getattr(truths[row], name) for row in rows)
    return right


def _share(holds: Iterable[bool | np.bool_]) -> float:
    """The mean of booleans; 1 if there are none."""
    values = [bool(held) for held in holds]
    return float(np.mean(values)) if values else 1.0
