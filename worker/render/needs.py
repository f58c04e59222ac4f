"""The models that an image needs, by their roles in its render, and the kit that they make once they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, Self, cast

from shared.errors import ModelFileError, RenderError
from shared.models.architectures import label
from shared.models.kinds import KIND_OF_TAG
from shared.models.model_set import Merge, ModelSet
from shared.params.render import RenderParams
from shared.prompts.adapters import used
from worker.engine.adapters.low_rank import LowRank
from worker.engine.adapters.reading import fitting
from worker.engine.architectures.conditioning import Adapter
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.pipelines.inputs import ControlInput, IPAdapterInput, Kit
from worker.engine.pipelines.upscale import UpscaleKit
from worker.engine.upscaling.architectures import PixelNetwork
from worker.render.model_cache import Model
from worker.render.sources import Sources

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from worker.engine.adapters.control_nets import ControlNet
    from worker.engine.adapters.ip_adapters import IPAdapter
    from worker.engine.architectures.embeddings import Embedding
    from worker.engine.loading.image_encoders import ImageEncoder
    from worker.render.file_loads import Loaded


class Choice(NamedTuple):
    """A checkpoint that an image is rendered with, and its VAE; None: the one built in."""

    checkpoint: Model
    vae: Model | None

    @classmethod
    def of(cls, checkpoint: str, vae: str | None, merges: tuple[Merge, ...] = ()) -> Self:
        """Return the choice of files by their hashes, with what is merged into the checkpoint."""
        pristine = Model("checkpoint", checkpoint)
        return cls(Model.merged(pristine, merges) if merges else pristine, Model("vae", vae) if vae else None)

    def weights(self, loaded: Mapping[Model, Loaded]) -> Weights:
        """Return the checkpoint with its VAE."""
        weights = cast("Weights", loaded[self.checkpoint])
        return weights.with_vae(cast("AutoencoderKL", loaded[self.vae])) if self.vae else weights


@dataclass(frozen=True)
class Needs:
    """The models of one image. A role that a render may have is a field here, and a line in each of the methods."""

    params: RenderParams
    checkpoints: Mapping[str, Choice]  # by their place in the kit
    adapters: Mapping[str, Model]  # by the keys of their tags
    embeddings: Mapping[str, Model]  # by the paths of their files
    upscaler: Model | None = None
    second_upscaler: Model | None = None
    face_restorer: Model | None = None
    controls: tuple[Model, ...] = ()  # of each of the parameters' `controlnet`
    ip_adapters: tuple[tuple[Model, Model], ...] = ()  # each with its image encoder

    @classmethod
    def of(cls, models: ModelSet, params: RenderParams) -> Self:
        """Return what a render of `params` with `models` needs."""
        checkpoints: dict[str, Choice] = {}
        if models.checkpoint:
            checkpoints["weights"] = Choice.of(models.checkpoint, models.vae, models.merges)
        if models.refiner:
            checkpoints["refiner"] = Choice.of(models.refiner, None)  # it decodes nothing
        if models.hires:
            checkpoints["hires"] = Choice.of(models.hires, models.hires_vae, models.merges)
        return cls(
            params,
            checkpoints,
            _adapters(models.adapters, params, checkpoints),
            {path: Model("embedding", sha256) for path, sha256 in models.embeddings.items()},
            upscaler=Model("upscaler", models.upscaler) if models.upscaler else None,
            second_upscaler=Model("upscaler", models.second_upscaler) if models.second_upscaler else None,
            face_restorer=Model("face-restorer", models.face_restorer) if models.face_restorer else None,
            controls=tuple(Model("controlnet", sha256) for sha256 in models.controls),
            ip_adapters=tuple(
                (Model("ip-adapter", adapter), Model("image-encoder", encoder))
                for adapter, encoder in zip(models.ip_adapters, models.image_encoders, strict=True)
            ),
        )

    @property
    def models(self) -> frozenset[Model]:
        """All models that must be loaded before the image starts."""
        chosen = (model for choice in self.checkpoints.values() for model in choice)
        networks = (self.upscaler, self.second_upscaler, self.face_restorer)
        beside = (*self.adapters.values(), *self.embeddings.values(), *self.controls, *chain(*self.ip_adapters))
        return frozenset(filter(None, (*chosen, *networks, *beside)))

    def kit(self, loaded: Mapping[Model, Loaded], sources: Sources) -> Kit:
        """Return the kit of a render. Raises ModelFileError if an adapter does not fit its checkpoint, and what reading
        pictures raises.
        """
        embeddings = {path: cast("Embedding", loaded[model]) for path, model in self.embeddings.items()}
        weights = {place: choice.weights(loaded).taught(embeddings) for place, choice in self.checkpoints.items()}
        nets = [cast("ControlNet", loaded[model]) for model in self.controls]
        controls = zip(sources.controls, nets, strict=True)
        readers = [
            (cast("IPAdapter", loaded[adapter]), cast("ImageEncoder", loaded[encoder]))
            for adapter, encoder in self.ip_adapters
        ]
        kit = Kit(
            weights["weights"],
            weights.get("refiner"),
            weights.get("hires"),
            sources.source,
            sources.mask,
            adapters={key: cast("Adapter", loaded[model]) for key, model in self.adapters.items()},
            upscaler=_network(self.upscaler, loaded),
            face_restorer=_network(self.face_restorer, loaded),
            controls=tuple(ControlInput(options, net, *pictures) for (options, pictures), net in controls),
            ip_adapters=tuple(
                IPAdapterInput(options, adapter, encoder, read(encoder.side))
                for (options, read), (adapter, encoder) in zip(sources.ip_adapters, readers, strict=True)
            ),
        )
        _require_fits(self.params, kit)
        return kit

    def upscale_kit(self, loaded: Mapping[Model, Loaded], sources: Sources, device: Device) -> UpscaleKit:
        """Return the kit of a picture that is enlarged by itself. Raises RenderError if there is no such picture."""
        if sources.source is None:
            raise RenderError("the picture to enlarge is missing")
        networks = (_network(model, loaded) for model in (self.upscaler, self.second_upscaler, self.face_restorer))
        return UpscaleKit(device, sources.source, sources.alpha, *networks)


def _network(model: Model | None, loaded: Mapping[Model, Loaded]) -> PixelNetwork | None:
    return cast("PixelNetwork", loaded[model]) if model else None


def _adapters(adapters: Mapping[str, str], params: RenderParams, checkpoints: Mapping[str, Choice]) -> dict[str, Model]:
    """Return adapters by their keys, each with a checkpoint of the pass whose prompt has its tag."""
    if not adapters:
        return {}
    first = checkpoints["weights"]
    second = checkpoints.get("hires", first)
    of_first = {use.key for use in used(params.prompt)}
    return {
        key: Model(KIND_OF_TAG[key.partition(":")[0]], sha256, (first if key in of_first else second).checkpoint)
        for key, sha256 in adapters.items()
    }


def _require_fits(params: RenderParams, kit: Kit) -> None:
    """Raise ModelFileError unless each adapter fits the checkpoints of all passes whose prompts have its tag.

    One that is resident was read for another checkpoint.
    """
    prompts = [(params.prompt, False)]
    if params.hires:
        prompts.append((params.hires.prompt or params.prompt, True))
    for prompt, is_second in prompts:
        for use in used(prompt):
            if adapter := kit.adapters.get(use.key):
                _require_fit(use.name, adapter, kit.of_pass(is_second=is_second))


def _require_fit(name: str, adapter: Adapter, weights: Weights) -> None:
    if adapter.architecture != weights.architecture.name:
        its, wanted = label(adapter.architecture), weights.architecture.label
        raise ModelFileError(f"{name} is an adapter of {its}, and the checkpoint is {wanted}: use another one of both")
    if isinstance(adapter, LowRank):
        try:
            fitting.require_fit(adapter, fitting.networks_of(weights))
        except ModelFileError as error:
            raise ModelFileError(f"the LoRA {name} {error}") from None
