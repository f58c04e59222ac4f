"""What a farm has, as clients of AUTOMATIC1111's web UI list it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from api.compat.models import allowed
from api.compat.sdapi.scripts import CONTROLNET, MATRIX, PLOT, axes
from api.services import Services
from api.use_cases import catalogue
from shared.accounts.principal import Principal
from shared.models.catalogue import Entry
from shared.models.kinds import KINDS, Kind
from shared.params.samplers import SAMPLERS, SCHEDULES
from shared.params.upscalers import LATENT, UPSCALERS
from shared.version import version

Listed = list[dict[str, Any]]
_SCRIPTS: Final = (PLOT, MATRIX, CONTROLNET)
_FACTOR: Final = 4  # of an upscaler whose file does not say it


def models(services: Services, who: Principal) -> Listed:
    """Return the checkpoints that the caller may use; the one that is used if none is named comes first."""
    return [
        {
            "title": file.title,
            "model_name": file.name,
            "hash": (file.sha256 or "")[:10],
            "sha256": file.sha256,
            "filename": file.path,
            "config": None,
        }
        for file in allowed(services, who)
    ]


def vaes(services: Services) -> Listed:
    """Return the VAEs."""
    return [{"model_name": file.name, "filename": file.path} for file in _usable(services, "vae")]


def loras(services: Services) -> Listed:
    """Return the LoRAs and their relatives."""
    return [
        {"name": file.name, "alias": file.details.alias or file.name, "path": file.path, "metadata": {}}
        for file in _usable(services, "lora")
    ]


def hypernetworks(services: Services) -> Listed:
    """Return the hypernetworks."""
    return [{"name": file.name, "path": file.path} for file in _usable(services, "hypernetwork")]


def embeddings(services: Services) -> dict[str, Any]:
    """Return the embeddings by the words that they teach."""
    loaded = {
        file.name: {
            "step": None,
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
            "shape": file.details.width or 0,
            "vectors": max(file.details.vectors.values(), default=0),
        }
        for file in _usable(services, "embedding")
    }
    return {"loaded": loaded, "skipped": {}}


def upscalers(services: Services) -> Listed:
    """Return what enlarges pictures: the ways that need no file, then the files."""
    plain = [_upscaler(name, 1 if name == "None" else _FACTOR) for name in UPSCALERS if name not in LATENT]
    files = [_upscaler(file.name, file.details.scale or _FACTOR, file.path) for file in _usable(services, "upscaler")]
    return plain + files


def latent_modes(_: Services) -> Listed:
    """Return the ways to enlarge a latent."""
    return [{"name": name} for name in LATENT]


def esrgan_models(services: Services) -> Listed:
    """Return the files that enlarge pictures, as the list of one family of them has it."""
    found = _usable(services, "upscaler")
    return [{"name": file.name, "path": file.path, "scale": file.details.scale or _FACTOR} for file in found]


def face_restorers(services: Services) -> Listed:
    """Return the face restorers."""
    return [{"name": file.name, "cmd_dir": None} for file in _usable(services, "face-restorer")]


def samplers(_: Services) -> Listed:
    """Return the samplers."""
    return [
        {
            "name": one.name,
            "aliases": [*one.aliases],
            "options": {"scheduler": one.automatic} if one.automatic in SCHEDULES else {},
        }
        for one in SAMPLERS.values()
    ]


def schedulers(_: Services) -> Listed:
    """Return the schedules."""
    return [
        {"name": name, "label": label, "aliases": None, "default_rho": -1, "need_inner_model": False}
        for name, label in SCHEDULES.items()
    ]


def styles(services: Services) -> Listed:
    """Return the styles."""
    return [style.model_dump() for style in catalogue.styles(services).styles]


def scripts(_: Services) -> dict[str, list[str]]:
    """Return the scripts of both kinds of requests."""
    return {"txt2img": [*_SCRIPTS], "img2img": [*_SCRIPTS]}


def script_facts(_: Services) -> Listed:
    """Return what the scripts take; clients look up the places of the plot's axes here."""
    return [
        {"name": name, "is_alwayson": name == CONTROLNET, "is_img2img": is_img2img, "args": _args(name, is_img2img)}
        for name in _SCRIPTS
        for is_img2img in (False, True)
    ]


def flags(_: Services) -> dict[str, Any]:
    """Return what the program was started with, as far as that means something for a farm."""
    return {"api": True, "nowebui": True, "api_server_stop": False, "version": f"stepfarm {version()}"}


def memory(_: Services) -> dict[str, Any]:
    """Return what is known of the memory of one program on one card: there is none here."""
    where = {"error": "a farm has many cards: GET /api/v1/workers says what is in the memory of each"}
    return {"ram": where, "cuda": where}


def _usable(services: Services, kind: Kind) -> list[Entry]:
    """Return the files of a kind that can be used."""
    return catalogue.catalogue(services, kind).usable(kind)


def _upscaler(name: str, scale: float, path: str | None = None) -> dict[str, Any]:
    kind = KINDS["upscaler"].label if path else None
    return {"name": name, "model_name": kind, "model_path": path, "model_url": None, "scale": scale}


def _args(name: str, is_img2img: bool) -> Listed:  # noqa: FBT001 - a kind
    if name != PLOT:
        return []
    return [
        {"label": f"{letter} {part}", "value": None, "choices": axes(is_img2img=is_img2img) if part == "type" else None}
        for letter in "XYZ"
        for part in ("type", "values", "values (chosen)")
    ]


LISTS: Final[Mapping[str, tuple[str, Callable[[Services], object]]]] = {
    "sd-vae": ("List the VAEs.", vaes),
    "loras": ("List the LoRAs.", loras),
    "hypernetworks": ("List the hypernetworks.", hypernetworks),
    "embeddings": ("List the embeddings.", embeddings),
    "upscalers": ("List what enlarges pictures.", upscalers),
    "latent-upscale-modes": ("List the ways to enlarge a latent.", latent_modes),
    "realesrgan-models": ("List the files that enlarge pictures.", esrgan_models),
    "face-restorers": ("List the face restorers.", face_restorers),
    "samplers": ("List the samplers.", samplers),
    "schedulers": ("List the schedules.", schedulers),
    "prompt-styles": ("List the styles.", styles),
    "scripts": ("List the scripts.", scripts),
    "script-info": ("List what the scripts take.", script_facts),
    "extensions": ("List the extensions: none.", lambda _: []),
    "cmd-flags": ("List what the program was started with, as far as that means something here.", flags),
    "memory": ("Say that no one card stands for the farm.", memory),
}
"""Lists by their paths, each with a summary; that of the checkpoints, which depends on who asks, is not here."""
REFRESHES: Final = ("refresh-checkpoints", "refresh-vae", "refresh-loras", "refresh-embeddings")
WITHOUT_EFFECT: Final = ("unload-checkpoint", "reload-checkpoint")
"""Requests that concern a program on one card."""
