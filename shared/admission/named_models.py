"""The model files that parameters name: each resolved in the catalogue, or refused with the nearest names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from shared.admission import learned_words, pairing
from shared.admission.accepted import accepted
from shared.admission.adapters import named_adapters
from shared.admission.checkpoints import closed_checkpoint, named_checkpoint, not_allowed
from shared.admission.control_nets import named_control_nets
from shared.admission.face_restorers import named_restorer
from shared.admission.ip_adapters import named_ip_adapters
from shared.admission.upscalers import named_upscaler
from shared.errors import FieldError, Refused
from shared.models.catalogue import Catalogue, Entry
from shared.models.model_set import ModelSet
from shared.params.codecs import BUILT_IN_VAE
from shared.params.fields import AUTOMATIC_VAE
from shared.params.paths import field_name
from shared.params.render import RenderParams
from shared.params.table import parameters
from shared.settings import Limits

_KINDS: Final = frozenset({"checkpoint", "vae", "upscaler", "face-restorer"})  # named by fields outside of lists


def _roles() -> dict[str, str]:
    """Return the roles of model files by the dotted name of the field. Raises TypeError for a field without one."""
    named = [one for one in parameters().values() if one.takes.kind in _KINDS]
    for one in named:
        if one.is_in_list or one.takes.role not in ModelSet.model_fields:
            raise TypeError(f"{one.name}: a field that names a model file needs a role that ModelSet has")
        if one.takes.kind == "checkpoint" and one.name not in pairing.ORDER:
            raise TypeError(f"{one.name}: it is not said which checkpoints its file has to suit")
    return {one.name: one.takes.role for one in named}


_ROLES: Final = _roles()


@dataclass(frozen=True)
class NamedModels:
    """The model files that parameters name, as the catalogue has them."""

    titles: dict[str, str]  # by dotted field name
    checkpoint: Entry | None
    architectures: frozenset[str | None]  # of the checkpoints
    models: ModelSet | None  # None: without a checkpoint
    problems: list[FieldError]
    notes: list[str]  # sentences for the job's owner

    @classmethod
    def found(cls, catalogue: Catalogue, params: RenderParams, limits: Limits) -> Self:
        """Return the files that `params` name, and the problems of names that mean no usable file, or an unfit one."""
        titles: dict[str, str] = {}
        problems: list[FieldError] = []
        files: dict[str, Entry] = {}
        named = params.of_kind("checkpoint")
        for name in sorted(named, key=pairing.ORDER.index):
            given = named[name]
            if not given and "" in parameters()[field_name(name)].fact.means and "." in name:
                continue  # the first pass's
            if (
                name == "refiner.checkpoint" and not given.strip()
            ):  # elsewhere no name means the farm's first checkpoint
                problems.append(FieldError(name, "is missing", accepted(name, limits)))
                continue
            needed = pairing.requirement(name, params, files)
            try:
                files[name] = named_checkpoint(catalogue, given, limits, needed.fits)
                problems += not_allowed(catalogue, files[name], limits, name)
                problems += needed.problems(name, files[name], catalogue.usable(first=limits.first_checkpoint))
            except Refused as refused:
                problems += [replace(problem, field=name) for problem in refused.fields]
        try:
            if vae := _vae(catalogue, params.vae, files.get("checkpoint")):
                files["vae"] = vae
            else:
                titles["vae"] = BUILT_IN_VAE if "checkpoint" in files else params.vae
        except Refused as refused:
            problems += refused.fields
        titles |= {name: file.title for name, file in files.items()}
        problems += _without_vae(titles.get("vae"), files.get("hires.checkpoint"))
        adapters = named_adapters(catalogue, params, files)
        words = learned_words.mentioned(catalogue, params, files, limits)
        nets = named_control_nets(catalogue, params, files)
        followed = named_ip_adapters(catalogue, params, files)
        problems += [*adapters.problems, *words.problems, *nets.problems, *followed.problems]
        architectures = frozenset(file.architecture for name, file in files.items() if name != "vae")
        over_pixels = _over_pixels(catalogue, params, problems)
        models = _model_set(files | over_pixels, adapters.roles, words.roles, nets.roles, followed.roles)
        titles |= {name: file.title for name, file in (nets.files | followed.files | over_pixels).items()}
        return cls(titles, files.get("checkpoint"), architectures, models, problems, words.notes)


def closed_checkpoints(
    catalogue: Catalogue, images: Iterable[tuple[RenderParams, ModelSet]], allowed: Sequence[str]
) -> list[FieldError]:
    """Return the problems of checkpoints, found for these images before, that their owner's jobs may not use now.

    Images whose file is gone or has become another one wait for it, as everybody's do.
    """
    used = dict.fromkeys(
        (name, title, sha256)
        for params, models in images
        for name, title in params.of_kind("checkpoint").items()
        if title and (sha256 := getattr(models, _ROLES[name]))
    )
    files = {
        sha256: [file for file in catalogue.files if sha256 in {file.sha256, file.weights_sha256}]
        for _, _, sha256 in used
    }
    return [
        closed_checkpoint(name, title, allowed)
        for name, title, sha256 in used
        if files[sha256] and not any(catalogue.is_allowed(file, allowed) for file in files[sha256])
    ]


def _over_pixels(catalogue: Catalogue, params: RenderParams, problems: list[FieldError]) -> dict[str, Entry]:
    """Return the upscaler and the face restorer by dotted field name; add what is wrong with them to `problems`."""
    found: dict[str, Entry | None] = {}
    if params.hires:
        upscaler = named_upscaler(catalogue, params.hires.upscaler, "hires.upscaler")
        problems += filter(None, [upscaler.problem])
        found["hires.upscaler"] = upscaler.file
    if params.faces:
        restorer = named_restorer(catalogue, params.faces, "faces")
        problems += restorer.problems
        found["faces.restorer"] = restorer.file
    return {name: file for name, file in found.items() if file}


def _vae(catalogue: Catalogue, given: str, checkpoint: Entry | None) -> Entry | None:
    """Return the VAE that `given` means; None: the checkpoint's own. Raises Refused."""
    is_word = given.casefold() in {AUTOMATIC_VAE, BUILT_IN_VAE}
    if checkpoint is None:  # the job is refused; without a checkpoint only a name can be looked up
        return None if is_word else catalogue.resolve(given, "vae")
    return catalogue.vae_for(given.casefold() if is_word else given, checkpoint)


def _model_set(files: Mapping[str, Entry], *others: Mapping[str, Any]) -> ModelSet | None:
    """Return the set of files by dotted field name, and of other roles; None: without a checkpoint."""
    roles: dict[str, object] = {role: files[name].sha256 for name, role in _ROLES.items() if name in files}
    if "checkpoint" not in roles:
        return None
    second = {"hires_vae": roles.get("vae")} if "hires" in roles else {}
    hashes = {key: value for some in others for key, value in some.get("hashes", {}).items()}
    beside = {role: value for some in others for role, value in some.items()}
    return ModelSet.model_validate(roles | second | beside | {"hashes": hashes})


def _without_vae(vae: str | None, second: Entry | None) -> list[FieldError]:
    """Return the problem of a second pass without a VAE: it decodes by the VAE that is named, else by its own."""
    if second is None or second.has_vae or vae != BUILT_IN_VAE:
        return []
    message = f"{second.name} has no VAE inside, which the second pass needs unless `vae` names one"
    return [FieldError("hires.checkpoint", message, "a checkpoint with a VAE inside, or any with a VAE named in `vae`")]
