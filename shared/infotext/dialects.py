"""What other programs write in another way than the farm: said in its way where it can do the same, else noted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

from shared.params.codecs import SIZE
from shared.params.samplers import AUTOMATIC, SAMPLERS, SCHEDULES
from shared.params.spellings import caveat, named, schedule_named

Values = dict[str, str]

_HASH: Final = re.compile(r"(?:0x)?([0-9a-f]{10})[0-9a-f]{0,54}", re.IGNORECASE)  # of a SHA-256, or its beginning
_SAME: Final = re.compile(r"Use same (sampler|scheduler|checkpoint)", re.IGNORECASE)
_LONGEST_NAME: Final = 80
_CELL: Final = 8  # pixels that a side is cut to a multiple of
_SIZES: Final = ("Size", "Seed resize from", "Hires resize")
_REFINES_BY_STEPS: Final = re.compile(r"v1\.[67]\.")  # versions of A1111 that switch at a share of the steps
_DRAWN_ON_CPU: Final = ("comfyui", "fooocus", "swarmui")  # beginnings of versions whose noise is torch's on the host

_ANY: Final = frozenset({"*"})
_HARMLESS: Final = {
    "Version": _ANY,
    "User": _ANY,
    "App": _ANY,
    "Operations": _ANY,
    "Civitai metadata": _ANY,
    "Created Date": _ANY,
    "Batch size": _ANY,  # each picture has its own seed
    "Batch pos": _ANY,
    "Hires refiner": frozenset({"second pass"}),
    "Hires size": _ANY,  # beside the scale that it follows from
    "Hashes": _ANY,
    "Init image hash": _ANY,
    "Pad conds": _ANY,  # rows of unequal length share calls without a loss
    "Cache FP16 weight for LoRA": _ANY,
    "FP8 weight": frozenset({"Disable"}),
    "VAE Encoder": frozenset({"Full"}),
    "VAE Decoder": frozenset({"Full"}),
    "Mask rounding": frozenset({"True"}),
    "Token merging ratio": frozenset({"0", "0.0"}),
    "Token merging ratio hr": frozenset({"0", "0.0"}),
    "SGM noise multiplier": frozenset({"False"}),
    "Old prompt editing timelines": frozenset({"False"}),
    "Downcast alphas_cumprod": frozenset({"False"}),
}
"""Values that change no picture, or none here: any of a name's (_ANY), or these."""


def translate(values: Values) -> list[str]:
    """Bring `values` into the farm's way of saying the same; return notes of what it cannot do."""
    return [note for change in _CHANGES for note in change(values)]


def is_harmless(name: str, value: str) -> bool:
    """True for a value that has no key here, and needs none."""
    harmless = _HARMLESS.get(name, frozenset())
    return harmless is _ANY or value in harmless


def _titles(values: Values) -> list[str]:
    """Join names with their hashes: `name [short hash]` is what a checkpoint and a VAE are asked for by."""
    notes = []
    for name in ("Model", "VAE", "Hires upscaler", "Face restorer"):
        known, given = values.get(name, ""), values.pop(f"{name} hash", "")
        short_hash = _HASH.fullmatch(given)
        if given and not short_hash:
            notes.append(f"{name} hash: {given[:_LONGEST_NAME]}: not the first ten digits of a SHA-256")
        elif short_hash and (name, known) != ("VAE", "None"):
            values[name] = f"{known} [{short_hash[1].lower()}]" if known else short_hash[1].lower()
    if values.get("VAE", "").casefold() in {"automatic", "default", "default (model)"}:
        del values["VAE"]
    return notes


def _resources(values: Values) -> list[str]:
    """Note the networks in Civitai's list of what a picture was made with; its prompt does not name them."""
    try:
        listed = json.loads(values.pop("Civitai resources", "[]"))
    except (ValueError, RecursionError):
        return ["Civitai resources cannot be understood"]
    resources = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    others = [one for one in resources if str(one.get("type")).casefold() != "checkpoint"]
    names = [(one.get("type"), one.get("modelName") or one.get("modelVersionName")) for one in others]
    return [
        f"{shown[:_LONGEST_NAME]}: not read; a tag in the prompt names it, such as <lora:name:0.8>"
        for shown in (f"{kind} {name}" for kind, name in names)
    ]


def _sizes(values: Values) -> list[str]:
    """Cut sides to whole cells, as the program does that most of these texts come from."""
    notes = []
    if "Hires upscale" not in values and (size := values.pop("Hires size", "")):
        values.setdefault("Hires resize", size)
    for name in _SIZES:
        try:
            sides = SIZE.read(values.get(name, ""))
        except ValueError:
            continue
        cut = tuple(side - side % _CELL for side in sides)
        if cut != sides and all(cut):
            values[name] = SIZE.write(*cut)
            notes.append(f"{name}: {SIZE.write(*sides)}: cut to {values[name]}, whole cells of {_CELL} pixels")
    return notes


def _same(values: Values) -> list[str]:
    """Drop values that say the hires pass is like the first pass, for which the farm writes nothing."""
    for name in [name for name, value in values.items() if name.startswith("Hires") and _SAME.fullmatch(value)]:
        del values[name]
    return []


def _samplers(values: Values) -> list[str]:
    """Translate the names of both passes' samplers and schedules; the second pass has the first one's sampler."""
    notes = _sampler(values, "Sampler", "Schedule type", values.get("Sampler", ""))
    second, schedule = values.get("Hires sampler", ""), values.get("Schedule type", "")
    if (known := named(second)) and schedule and schedule_named(schedule) not in SAMPLERS[known.sampler].schedules:
        values.setdefault("Hires schedule type", schedule)  # elsewhere the first one's, which the second overlooks
    second = second or values.get("Sampler", "")
    return [*notes, *_sampler(values, "Hires sampler", "Hires schedule type", second)]


def _sampler(values: Values, name: str, schedule_name: str, text: str) -> list[str]:
    """Take apart names such as "DPM++ 2M Karras", and leave to the sampler what its schedule cannot be."""
    known = named(text) if len(text) <= _LONGEST_NAME else None
    if known is None:
        values.pop(schedule_name, None)
        return [f"{name}: {values.pop(name)[:_LONGEST_NAME]}: there is no such sampler here"] if name in values else []
    sampler, schedule = known
    notes = []
    if name in values:
        notes = [f"{name}: {text}: {other}"] if (other := caveat(text)) else []
        values[name] = sampler
    if schedule and schedule_named(values.get(schedule_name, AUTOMATIC)) == AUTOMATIC:
        values[schedule_name] = SCHEDULES[schedule]
    return [*notes, *_schedule(values, schedule_name, sampler)]


def _schedule(values: Values, name: str, sampler: str) -> list[str]:
    text = values.get(name)
    if text is None:
        return []
    schedule = schedule_named(text)
    if schedule in SAMPLERS[sampler].schedules:
        values[name] = SCHEDULES[schedule]
        return []
    values[name] = SCHEDULES[AUTOMATIC]
    return [f"{name}: {text[:_LONGEST_NAME]}: {sampler} takes its own schedule instead"]


def _noise(values: Values) -> list[str]:
    """Take the imitation of a card's noise where a card's own was used: the same in pictures of usual size."""
    if values.get("Version", "").casefold().startswith(_DRAWN_ON_CPU):
        values.setdefault("RNG", "CPU")
    if values.get("RNG", "GPU") != "GPU":
        return []
    values["RNG"] = "NV"
    return ["RNG: GPU: the noise came from a graphics card; the farm imitates it (NV), which large pictures may show"]


def _faces(values: Values) -> list[str]:
    """Leave out the usual word for a face restorer beside its name, or where it says that there was none."""
    if "Face restorer" in values or values.get("Face restoration") == "None":
        values.pop("Face restoration", None)
    return []


def _refiner(values: Values) -> list[str]:
    """Note a switch that was counted in steps: the farm counts the noise's way, as the program does since 1.8.0."""
    at = values.get("Refiner switch at")
    if at is None or not _REFINES_BY_STEPS.match(values.get("Version", "")):
        return []
    return [f"Refiner switch at: {at[:_LONGEST_NAME]}: a share of the steps there, here of the noise's way down"]


_CHANGES: Final[tuple[Callable[[Values], list[str]], ...]] = (
    *(_same, _titles, _resources, _sizes, _samplers, _noise, _refiner, _faces),
)
