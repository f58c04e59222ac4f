"""The door: the one place where what somebody asked for becomes parameters that can be stored and rendered.

A refusal names every bad field at once: what was wrong with it, and what would be accepted. What the parts of
`shared/admission` look after: forms, names, amounts, texts, pictures, terms.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Self

from sqlalchemy.orm import Session

from shared.admission import backlog, names, prompts, ranges, sizes, sources
from shared.admission import parse as forms
from shared.admission import scheduling as terms
from shared.admission.accepted import accepted
from shared.admission.sources import Sent
from shared.errors import FieldError, Refused
from shared.models.catalogue import Catalogue, Entry
from shared.models.model_set import ModelSet
from shared.params.codecs import BUILT_IN_VAE
from shared.params.fields import AUTOMATIC_VAE, RANDOM_SEED
from shared.params.render import RenderParams
from shared.params.scheduling import NO_SCHEDULING, Scheduling
from shared.prompts.styles import Style
from shared.settings import Limits

_USUAL_SIZE: Final = 512  # of a checkpoint that does not say
_RANDOM_SEEDS: Final = 2**32  # few enough digits to read out; any seed up to MAX_SEED can be given


@dataclass(frozen=True)
class Asker:
    """Who asks, and what they may use: the pictures that came with the parameters, their uploads, styles."""

    owner: str
    limits: Limits = field(default_factory=Limits)
    sent: Sent = field(default_factory=Sent)
    styles: Mapping[str, Style] = field(default_factory=dict)


class Asked(NamedTuple):
    """What has the right form of what was given, names in their own spelling, and what is wrong with the rest."""

    params: RenderParams
    problems: tuple[FieldError, ...]
    terms: Scheduling = NO_SCHEDULING  # of the job, which came beside the parameters
    unreadable: tuple[FieldError, ...] | None = None  # what is wrong with the prompts; None: not measured yet


class Admitted(NamedTuple):
    """What may be submitted: complete parameters, and the model files that they name."""

    params: RenderParams
    models: ModelSet
    notes: tuple[str, ...] = ()  # in sentences: what was chosen for it that may not be expected


def parse(given: object, limits: Limits = Limits()) -> RenderParams:  # noqa: B008 - frozen
    """Return the parameters that a JSON object asks for, names in their own spelling, nothing else filled in yet.

    Raises Refused for what is wrong whatever the farm's limits and checkpoints are; what is said of them are `limits`.
    """
    asked = read(given, limits)
    if problems := [*asked.problems, *names.misnamed(asked.params)]:
        raise forms.refused(problems)
    return asked.params


def read(given: object, limits: Limits) -> Asked:
    """Return what was given as far as it has the right form. Raises Refused for what is no object at all."""
    parted = terms.part(given)
    params, problems = forms.read(parted.rest, limits)
    return Asked(names.spelled(params), (*problems, *parted.problems), parted.terms)


def measured(asked: Asked, asker: Asker) -> Asked:
    """Return what was read with what is wrong with its prompts, styles and all.

    It takes a while, in company a long one: so it is done before a transaction is opened.
    """
    if asked.unreadable is not None:
        return asked
    params = prompts.styled(asked.params, asker.styles, asker.limits)
    return asked._replace(unreadable=tuple(prompts.unreadable(params, asker.limits)))


def admit(session: Session, given: object, asker: Asker, catalogue: Catalogue) -> Admitted:
    """Return what a JSON object, or what was `read` of one and `measured` before, asks for, ready to be submitted.

    `catalogue` is what its names are looked up in.

    Resolved: seeds are drawn, the size is the checkpoint's own (in a source's proportions), model files have their
    hashes, styles stand in the prompts, pictures are uploads (those that came have still to be stored). Raises Refused.
    """
    asked = measured(given if isinstance(given, Asked) else read(given, asker.limits), asker)
    files = _Files.found(catalogue, asked.params, asker.limits)
    source = sizes.of_source(session, asker.owner, asked.params, asker.sent)
    native = (files.checkpoint and files.checkpoint.native_size) or _USUAL_SIZE
    size = sizes.resolved(asked.params, source, native, asker.limits)
    started = sources.stored(asked.params, asker.sent)
    resolved = prompts.styled(_resolved(started, files, size), asker.styles, asker.limits)
    problems = [
        *asked.problems,
        *files.problems,
        *names.misnamed(asked.params),
        *ranges.beyond(resolved, asker.limits),
        *prompts.unknown_styles(asked.params, asker.styles),
        *(asked.unreadable or ()),
        *sources.missing(session, asker.owner, asked.params, asker.sent),
        *terms.impossible(session, asker.owner, asked.terms, asker.limits),
        *backlog.too_many(session, asker.owner, asker.limits),
    ]
    models = files.models
    if problems or models is None:
        raise forms.refused(problems)
    said = sizes.told(asked.params, size, source, native, asker.limits)
    return Admitted(resolved, models, (said,) if said else ())


@dataclass(frozen=True)
class _Files:
    """The model files that parameters name, as the catalogue has them."""

    titles: dict[str, str]  # by dotted field name
    checkpoint: Entry | None
    models: ModelSet | None  # None: without a checkpoint
    problems: list[FieldError]

    @classmethod
    def found(cls, catalogue: Catalogue, params: RenderParams, limits: Limits) -> Self:
        titles: dict[str, str] = {}
        problems: list[FieldError] = []
        files: dict[str, Entry] = {}
        for name, given in _checkpoints(params).items():
            if name == "refiner.checkpoint" and not given.strip():  # no name means the farm's first one elsewhere
                problems.append(FieldError(name, "is missing", accepted(name, limits)))
                continue
            try:
                files[name] = catalogue.resolve(given, first=limits.first_checkpoint)
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
        return cls(titles, files.get("checkpoint"), _model_set(files), problems)


def _checkpoints(params: RenderParams) -> dict[str, str]:
    """Return the checkpoints that parameters name, by dotted field name."""
    named = {"checkpoint": params.checkpoint}
    if params.refiner is not None:
        named["refiner.checkpoint"] = params.refiner.checkpoint
    if params.hires is not None and params.hires.checkpoint:
        named["hires.checkpoint"] = params.hires.checkpoint
    return named


def _vae(catalogue: Catalogue, given: str, checkpoint: Entry | None) -> Entry | None:
    """Return the VAE that is meant; None: the checkpoint's own. Raises Refused."""
    is_word = given.casefold() in {AUTOMATIC_VAE, BUILT_IN_VAE}
    if checkpoint is None:  # which is refused: only a name can be looked for without one
        return None if is_word else catalogue.resolve(given, "vae")
    return catalogue.vae_for(given.casefold() if is_word else given, checkpoint)


def _model_set(files: Mapping[str, Entry]) -> ModelSet | None:
    """Return the set of files by dotted field name; None: without a checkpoint."""
    sha256 = {name: file.sha256 for name, file in files.items()}
    checkpoint, vae, hires = sha256.get("checkpoint"), sha256.get("vae"), sha256.get("hires.checkpoint")
    if checkpoint is None:
        return None
    refiner = sha256.get("refiner.checkpoint")
    return ModelSet(checkpoint=checkpoint, vae=vae, refiner=refiner, hires=hires, hires_vae=vae if hires else None)


def _without_vae(vae: str | None, second: Entry | None) -> list[FieldError]:
    """Return what is wrong with the second pass's checkpoint: it decodes by the VAE that is named, else by its own."""
    if second is None or second.has_vae or vae != BUILT_IN_VAE:
        return []
    message = f"{second.name} has no VAE inside, which the second pass needs where vae names none"
    return [FieldError("hires.checkpoint", message, "a checkpoint with a VAE inside, or one together with a named vae")]


def _resolved(params: RenderParams, files: _Files, size: sizes.Size) -> RenderParams:
    """Return the parameters with all filled in; without a checkpoint of its own, as for any."""
    noise, hires, refiner = params.noise, params.hires, params.refiner
    if noise.variation_strength > 0:
        noise = noise.model_copy(update={"variation_seed": _drawn(noise.variation_seed)})
    if hires is not None:
        checkpoint = files.titles.get("hires.checkpoint", hires.checkpoint)
        hires = hires.model_copy(update={"checkpoint": checkpoint})
    if refiner is not None:
        checkpoint = files.titles.get("refiner.checkpoint", refiner.checkpoint)
        refiner = refiner.model_copy(update={"checkpoint": checkpoint})
    return params.model_copy(
        update={
            "checkpoint": files.titles.get("checkpoint", params.checkpoint),
            "vae": files.titles.get("vae", params.vae),
            "width": size[0],
            "height": size[1],
            "seed": _drawn(params.seed),
            "noise": noise,
            "hires": hires,
            "refiner": refiner,
        }
    )


def _drawn(seed: int) -> int:
    """Return a seed, drawn where it is random."""
    return secrets.randbelow(_RANDOM_SEEDS) if seed == RANDOM_SEED else seed
