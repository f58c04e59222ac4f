"""Texts of other programs: their JSON, or their lines of names, said as the `parameters` text says it.

Only values whose meaning is shown by the documentation or the files of a program are read. A value without a name in
that text keeps its own name, so that the reader reports it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from shared.infotext import comfyui, comfyui_graph, invokeai, novelai
from shared.infotext.found import Found, Json, bare, parsed, plain, unreadable
from shared.infotext.grammar import Parts, taken_apart

_PROMPT, _NEGATIVE, _WIDTH, _HEIGHT = "prompt", "negative prompt", "width", "height"
_COMMON: Final = {
    "prompt": _PROMPT,
    "positiveprompt": _PROMPT,
    "negativeprompt": _NEGATIVE,
    "negative": _NEGATIVE,
    "uc": _NEGATIVE,
    "width": _WIDTH,
    "height": _HEIGHT,
    "size": "Size",
    "resolution": "Size",
    "steps": "Steps",
    "numinferencesteps": "Steps",
    "sampler": "Sampler",
    "samplername": "Sampler",
    "scheduler": "Schedule type",
    "cfgscale": "CFG scale",
    "guidancescale": "CFG scale",
    "cfg": "CFG scale",
    "scale": "CFG scale",
    "cfgrescale": "CFG rescale",
    "cfgrescalemultiplier": "CFG rescale",
    "seed": "Seed",
    "variationseed": "Variation seed",
    "variationseedstrength": "Variation seed strength",
    "model": "Model",
    "modelname": "Model",
    "basemodel": "Model",
    "basemodelname": "Model",
    "stablediffusionmodel": "Model",
    "usestablediffusionmodel": "Model",
    "modelhash": "Model hash",
    "basemodelhash": "Model hash",
    "vae": "VAE",
    "vaemodel": "VAE",
    "usevaemodel": "VAE",
    "clipskip": "Clip skip",
    "clipstopatlayer": "Clip skip",
    "strength": "Denoising strength",
    "denoise": "Denoising strength",
}
"""The names of fields in the text, by their letters and digits alone."""
_SIDES: Final = re.compile(r"\D{0,9}(\d{1,9})\D{1,9}(\d{1,9})\D{0,9}")
_LINE: Final = re.compile(r"(\w[\w ]{0,40}):[ \t]*(.*)")
_JSON: Final = re.compile(r'\{\s*"|\[\s*[{"]')


@dataclass(frozen=True)
class _Program:
    """One program: sets of fields by any of which its JSON is known, and what makes no difference to a picture."""

    name: str
    marks: tuple[frozenset[str], ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)  # where they differ from others'
    harmless: frozenset[str] = frozenset()
    draws_on_cpu: bool = False


_SWARM: Final = _Program(
    "SwarmUI",
    harmless=frozenset({"swarmversion", "aspectratio", "sidelength", "images", "automaticvae", "batchsize"}),
    draws_on_cpu=True,
)
_INVOKE: Final = _Program("InvokeAI")
_FOOOCUS: Final = _Program(
    "Fooocus",
    (
        frozenset({"metadatascheme"}),
        frozenset({"basemodel", "sampler", "seed"}),
        frozenset({"basemodelname", "sampler", "seed"}),
        frozenset({"basemodelname", "samplername", "seed"}),
        frozenset({"performance", "seed"}),
    ),
    harmless=frozenset(
        {"metadatascheme", "createdby", "version", "fullprompt", "fullnegativeprompt", "promptexpansion", "software"}
        | {"realprompt", "negativerealprompt", "user", "username"}
    ),
    draws_on_cpu=True,
)
_EASY: Final = _Program(
    "Easy Diffusion",
    (frozenset({"prompt", "numinferencesteps"}),),
    harmless=frozenset(
        {"outputformat", "outputquality", "outputlossless", "metadataoutputformat", "numoutputs", "usedrandomseed"}
        | {"vramusagelevel", "sessionid", "streamprogressupdates", "streamimageprogress", "showonlyfilteredimage"}
        | {"blocknsfw"}
    ),
)
_DRAW_THINGS: Final = _Program(
    "Draw Things",
    (frozenset({"c", "seed"}),),
    {"c": _PROMPT},
    frozenset({"v2", "profile", "seedmode"}),
)
_ANY: Final = _Program("another program")


def found(text: str) -> Found | None:
    """Return what a text of another program amounts to; None where it is no such text, but a `parameters` text."""
    stripped = text.removeprefix("\ufeff").strip()
    if stripped.startswith(("{", "[")):
        document = parsed(stripped)
        if isinstance(document, Mapping):
            return _of_document(document)
        if document is not None or (_JSON.match(stripped) and not taken_apart(stripped).values):
            return unreadable("a program", "its JSON is damaged, cut off or no object", is_known=False)
        return None
    return _of_lines(stripped)


def _of_document(document: Json) -> Found:
    names = {bare(name): name for name in document}
    if graph := comfyui_graph.graph(document):
        return comfyui.found(graph)
    if "nodes" in names and "links" in names:
        return unreadable("ComfyUI", "it holds the workflow as it was drawn and not the graph that ran")
    if novelai.is_own(document):
        return novelai.found(document)
    if known := _known(document, names):
        return _flat(*known)
    named = next((document[names[name]] for name in ("software", "app", "generator", "source") if name in names), "")
    program = plain(named)[:40] or "a program that is not known here"
    return unreadable(program, "its fields are not known", is_known=False)


def _known(document: Json, names: Mapping[str, str]) -> tuple[_Program, Json] | None:
    """Return the program whose fields an object has, and the object that they stand in."""
    if isinstance(swarm := document.get("sui_image_params"), Mapping):
        return _SWARM, swarm
    if invokeai.is_own(document):
        return _INVOKE, invokeai.flat(document)
    for program in (_FOOOCUS, _EASY, _DRAW_THINGS):
        if any(marks <= names.keys() for marks in program.marks):
            return program, document
    is_plain = isinstance(document.get(names.get("prompt", "")), str) and names.keys() & {"seed", "steps"}
    return (_ANY, document) if is_plain else None


def _of_lines(text: str) -> Found | None:
    """Return what lines amount to of which each has a name, as Easy Diffusion writes them beside its pictures."""
    lines = [_LINE.fullmatch(line.strip()) for line in text.split("\n")] if text[:6].casefold() == "prompt" else []
    said = {line[1]: line[2] for line in lines if line}
    names = {bare(name) for name in said}
    if not (all(lines) and names >= {"prompt", "seed"} and names & {"steps", "numinferencesteps"}):
        return None
    return _flat(_EASY, said)


def _flat(program: _Program, document: Json) -> Found:
    """Return what an object of plain fields amounts to."""
    said: dict[str, str] = {}
    for name, value in document.items():
        known = program.names.get(bare(name)) or _COMMON.get(bare(name))
        if bare(name) not in program.harmless and (text := plain(value)):
            is_text = isinstance(value, str) or known not in {_PROMPT, _NEGATIVE}
            said[known if known and is_text else name] = text
    prompts = (said.pop(_PROMPT, ""), said.pop(_NEGATIVE, ""))
    return Found(Parts(*prompts, _values(said) | ({"RNG": "CPU"} if program.draws_on_cpu else {})))


def _values(said: dict[str, str]) -> dict[str, str]:
    """Return values by their names in the text, those that are said in another form in its own."""
    sides = said.pop(_WIDTH, ""), said.pop(_HEIGHT, "")
    if all(sides):
        said["Size"] = "x".join(sides)
    elif size := _SIDES.fullmatch(said.get("Size", "")):
        said["Size"] = f"{size[1]}x{size[2]}"
    if "Clip skip" in said:
        said["Clip skip"] = said["Clip skip"].removeprefix("-")
    if said.get("Denoising strength") in {"1", "1.0"}:
        del said["Denoising strength"]
    return said
