"""The kind of a model file, found without loading it.

Imports diffusers and transformers, which takes seconds: imported when files are inspected, not before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.architectures.parts import Part
from worker.engine.architectures.reading import control_nets, image_encoders, ip_adapters
from worker.engine.architectures.registry import ARCHITECTURES
from worker.engine.files import tensors, vae_origin
from worker.engine.files.kinds import OtherKind
from worker.engine.files.lora import facts, metadata
from worker.engine.files.lora import reading as lora
from worker.engine.loading import embeddings, hypernetworks, layouts, networks, taesd, vaes
from worker.engine.sigma_table import PURE_NOISE
from worker.engine.upscaling import files as upscalers

Kind = Literal[
    "checkpoint", "vae", "decoder", "lora", "embedding", "hypernetwork", "controlnet", "ip-adapter", "image-encoder",
    "upscaler", "face-restorer", "other",
]  # fmt: skip
Weights = Mapping[str, Tensor]
_LONGEST: Final = 500


@dataclass(frozen=True)
class Inspection:
    """The kind of a file, and why it cannot be used, if so; reason and note are for people."""

    kind: Kind
    architecture: str | None  # by its name in the registry; None if it is not known
    native_size: int | None  # pixels of a side
    reason: str | None
    note: str | None = None  # something odd about a file that can be used
    description: str | None = field(default=None, compare=False)  # digest of a .yaml that adds to the weights
    has_vae: bool = True
    prediction: Literal["noise", "velocity"] | None = None  # of a checkpoint
    is_inpainting: bool = field(default=False, compare=False)
    has_zero_terminal_snr: bool = field(default=False, compare=False)
    networks: Mapping[str, Mapping[str, int]] = field(default_factory=dict, compare=False)
    """By diffusers' names: how many numbers are stored in each number format."""
    details: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What people see of the file, and what must fit the checkpoint: shared.models.details.Details, as JSON."""


def inspect(path: Path) -> Inspection:
    """Return the kind of `path`, by the names and shapes of its weights. A file that is usable here will load.

    It goes the loader's way on the meta device, so that a broken file is found now, and not when a picture needs it.
    """
    kind: Kind = "checkpoint"
    try:
        weights = None if path.is_dir() else tensors.read(path, "meta")
        note = None if weights is None else tensors.wrong_ending(path)
        if alone := next((row for row in _ALONE if row.holds(path, weights)), None):
            kind = alone.kind
            found = alone.inspect(path, weights or {})
            return replace(found, note="; ".join(filter(None, (note, found.note))) or None)
        parts = layouts.read(path, "meta") if weights is None else layouts.of_file(path, weights)
        networks.build(parts)
    except ModelFileError as error:
        return _unusable("other" if isinstance(error, OtherKind) else kind, str(error))
    except MemoryError:
        return _unusable(kind, "takes more memory to read than a model file may: replace it")
    except Exception as error:  # noqa: BLE001 - an edge: one file must not keep the others out of the catalogue
        return _unusable(kind, f"cannot be read: {type(error).__name__}: {error}")
    latent, unet = ARCHITECTURES[parts.architecture].latent, parts.networks["unet"].config
    return Inspection(
        kind,
        architecture=parts.architecture,
        native_size=parts.figures.native_size,
        reason=None,
        note="; ".join(filter(None, (note, parts.figures.note))) or None,
        description=parts.description,
        has_vae="vae" in parts.networks,
        prediction=parts.figures.prediction.value,
        is_inpainting=unet.get("in_channels") == latent.channels + latent.mask_channels,
        has_zero_terminal_snr=parts.figures.sigmas.highest > PURE_NOISE,
        networks=_formats(parts.networks),
        details={"width": unet["block_out_channels"][0], "context": unet["cross_attention_dim"]},
    )


def _decoder(path: Path, weights: Weights) -> Inspection:
    del path
    part = taesd.part(weights)
    networks.build_decoder(part)
    return Inspection("decoder", None, None, None, networks=_formats({"decoder": part}))


def _vae(path: Path, weights: Weights) -> Inspection:
    part = vaes.part(weights)
    networks.build_vae(part)
    return Inspection("vae", vae_origin.architecture(path), None, None, networks=_formats({"vae": part}))


def _control_net(path: Path, weights: Weights) -> Inspection:
    part = control_nets.of_file(path, weights) if weights else control_nets.read(path, "meta")
    networks.build_control_net(part)
    return Inspection(
        "controlnet",
        control_nets.architecture(part),
        None,
        None,
        description=control_nets.description(path) if weights else None,
        networks=_formats({"controlnet": part}),
        details=control_nets.details(part),
    )


def _ip_adapter(_: Path, weights: Weights) -> Inspection:
    part = ip_adapters.of_weights(weights)
    networks.build_ip_adapter(part)
    return Inspection(
        "ip-adapter",
        ip_adapters.architecture(ip_adapters.sizes(part)),
        None,
        None,
        networks=_formats({"ip-adapter": part}),
        details=ip_adapters.details(part),
    )


def _image_encoder(path: Path, weights: Weights) -> Inspection:
    part = image_encoders.of_weights(weights) if weights else image_encoders.read(path, "meta")
    networks.build_image_encoder(part)
    return Inspection(
        "image-encoder",
        None,
        None,
        None,
        note=image_encoders.note(part) if weights else None,
        networks=_formats({"image-encoder": part}),
        details=image_encoders.details(part),
    )


def _embedding(_: Path, weights: Weights) -> Inspection:
    found = embeddings.read(weights)
    architecture, details = embeddings.architecture(found), embeddings.details(found)
    networks_of = {name: _counted({name: one}) for name, one in found.items()}
    return Inspection("embedding", architecture, None, None, networks=networks_of, details=details)


def _hypernetwork(path: Path, weights: Weights) -> Inspection:
    widths = hypernetworks.of_weights(weights, tensors.values(path)).nets.keys()
    architecture, details = hypernetworks.architecture(widths), hypernetworks.details(widths)
    counted = {"hypernetwork": _counted(weights)}
    return Inspection("hypernetwork", architecture, None, None, networks=counted, details=details)


def _lora(path: Path, weights: Weights) -> Inspection:
    file = lora.of_weights(weights, metadata.read(path))
    return Inspection(
        "lora",
        facts.architecture(file),
        None,
        None,
        note=facts.note(file),
        networks={name: _counted(one) for name, one in facts.weights(file).items()},
        details=facts.details(file, path),
    )


def _upscaler(path: Path, weights: Weights) -> Inspection:
    del weights  # some networks are described by values
    facts = upscalers.inspected(path)
    details = {"algorithm": facts.algorithm, "scale": facts.scale}
    return Inspection(facts.kind, None, None, None, networks={facts.kind: facts.numbers}, details=details)


class _Alone(NamedTuple):
    """A kind of files beside checkpoints: how one is recognised, and what is then read of it."""

    kind: Kind
    holds: Callable[[Path, Weights | None], bool]  # weights of a file; None: a folder
    inspect: Callable[[Path, Weights], Inspection]


_ALONE: Final = (
    _Alone("decoder", lambda _, weights: weights is not None and taesd.holds_one(weights), _decoder),
    _Alone("vae", lambda _, weights: weights is not None and vaes.holds_one(weights), _vae),
    _Alone("lora", lambda _, weights: weights is not None and lora.holds_one(weights), _lora),
    _Alone("controlnet", control_nets.is_one, _control_net),
    _Alone("ip-adapter", ip_adapters.is_one, _ip_adapter),
    _Alone("image-encoder", image_encoders.is_one, _image_encoder),
    _Alone("embedding", lambda _, weights: weights is not None and embeddings.holds_one(weights), _embedding),
    _Alone("hypernetwork", lambda _, weights: weights is not None and hypernetworks.holds_one(weights), _hypernetwork),
    _Alone("face-restorer", lambda _, weights: weights is not None and upscalers.holds_restorer(weights), _upscaler),
    _Alone("upscaler", lambda _, weights: weights is not None and upscalers.holds_one(weights), _upscaler),
)


def _formats(parts: Mapping[str, Part]) -> dict[str, dict[str, int]]:
    """Return how many numbers of each network are stored in each number format."""
    return {name: _counted(part.weights) for name, part in parts.items()}


def _counted(weights: Weights) -> dict[str, int]:
    """Return how many numbers are stored in each number format."""
    counted: Counter[str] = Counter()
    for weight in weights.values():
        counted[str(weight.dtype).removeprefix("torch.")] += weight.numel()
    return dict(counted)


def _unusable(kind: Kind, reason: str) -> Inspection:
    """Return an unusable file; a reason may repeat text of the file, so it is cut and cleaned for the catalogue."""
    text = "".join(letter if letter.isprintable() else "?" for letter in " ".join(reason.split())[:_LONGEST])
    return Inspection(kind, None, None, text)
