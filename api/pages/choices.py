"""The choices that the form offers: names that the farm knows, and the files that it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from api.languages import _, lazy
from api.pages.fields import printed
from api.schemas.catalogue import StyleBody
from api.sentences import said
from shared.admission import sizes
from shared.admission.checkpoints import allowed_checkpoints
from shared.models import architectures, image_encoders
from shared.models.catalogue import Catalogue, Entry
from shared.models.kinds import KINDS, Kind
from shared.params.codecs import BUILT_IN_VAE
from shared.params.facts import CONTROLNET, FACES, IP_ADAPTER, Group, ValueKind
from shared.params.fields import AUTOMATIC_VAE
from shared.params.samplers import SAMPLERS, SCHEDULE_OPTIONS, SCHEDULES
from shared.params.scheduling import Scheduling
from shared.params.table import Parameter, parameters
from shared.params.upscalers import UPSCALERS
from shared.settings import Limits


@dataclass(frozen=True)
class Option:
    """One thing to choose; `data` are facts that scripts read off it."""

    value: str
    label: str
    data: Mapping[str, str] = field(default_factory=dict)
    group: str = ""  # the heading that it stands under


KINDS_OFFERED: Final[tuple[Kind, ...]] = (
    *("checkpoint", "vae", "controlnet", "ip-adapter", "image-encoder", "face-restorer", "upscaler"),
)
"""The kinds of model files that fields of the form choose from."""
_NEEDED: Final[tuple[tuple[Group, Kind], ...]] = (
    (CONTROLNET, "controlnet"),
    (IP_ADAPTER, "ip-adapter"),
    (FACES, "face-restorer"),
)
"""Groups of the form that can do nothing without a model file."""
_OWN_VAES: Final = ((AUTOMATIC_VAE, lazy("Automatic")), (BUILT_IN_VAE, lazy("Built in")))


def offers(
    catalogue: Catalogue, styles: Iterable[StyleBody], pools: Iterable[str], limits: Limits
) -> dict[str, list[Option]]:
    """Return what can be chosen, by the name of the parameter; model files are those that can be used and may be."""
    open_pools = limits.of_owner.pools
    known: dict[ValueKind | None, list[Option]] = {
        "style": [_style(style) for style in styles],
        "checkpoint": _checkpoints(allowed_checkpoints(catalogue, limits), limits),
        "sampler": _samplers(),
        "schedule": [
            Option(name, said(label), {"takes": _takes(SCHEDULE_OPTIONS.get(name, ()))})
            for name, label in SCHEDULES.items()
        ],
        "vae": [
            *(Option(name, str(label)) for name, label in _OWN_VAES),
            *(Option(vae.title, vae.title, _traits(vae)) for vae in catalogue.usable("vae")),
        ],
        "controlnet": _by_family(catalogue.usable("controlnet")),
        "ip-adapter": _ip_adapters(catalogue),
        "image-encoder": [Option(file.title, file.title) for file in catalogue.usable("image-encoder")],
        "face-restorer": [Option(file.title, file.title) for file in catalogue.usable("face-restorer")],
        "upscaler": [
            Option(name, name) for name in (*UPSCALERS, *(file.title for file in catalogue.usable("upscaler")))
        ],
        "pool": [Option(pool, pool) for pool in pools if open_pools is None or pool in open_pools],
    }
    return {
        one.name: [*_none(one), *known[one.takes.kind]]
        for one in (*parameters().values(), *parameters(Scheduling).values())
        if one.takes.kind in known
    }


def missing(catalogue: Catalogue) -> dict[str, str]:
    """Return what to do so that a group of the form can be used at all, by the names of those that cannot be."""
    found = {group.name: _missing(catalogue, kind) for group, kind in _NEEDED if not catalogue.usable(kind)}
    adapters = catalogue.usable("ip-adapter")
    if adapters and not any(_has_encoder(catalogue, one) for one in adapters):
        place = image_encoders.wanted(adapters[0].details).place
        found[IP_ADAPTER.name] = _("The IP-Adapters here need an image encoder. Put %(place)s.", place=said(place))
    return found


def _missing(catalogue: Catalogue, kind: Kind) -> str:
    facts, broken = KINDS[kind], catalogue.entries(kind)
    if broken:
        return _("%(name)s cannot be used: %(reason)s", name=broken[0].name, reason=said(broken[0].reason))
    return _("There is no %(kind)s here. Put %(file)s.", kind=said(facts.label), file=said(facts.accepted))


def _ip_adapters(catalogue: Catalogue) -> list[Option]:
    """Return the IP-Adapters; those whose image encoder is not here say so."""
    lacking = {one.title for one in catalogue.usable("ip-adapter") if not _has_encoder(catalogue, one)}
    return [
        replace(one, label=_("%(name)s, image encoder missing", name=one.label)) if one.value in lacking else one
        for one in _by_family(catalogue.usable("ip-adapter"))
    ]


def _has_encoder(catalogue: Catalogue, adapter: Entry) -> bool:
    return any(image_encoders.fits(one.details, adapter.details) for one in catalogue.usable("image-encoder"))


def _by_family(files: Sequence[Entry]) -> list[Option]:
    """Return files that steer a checkpoint, each under the architecture that it fits."""
    ordered = sorted(files, key=lambda one: (one.architecture or "", one.title.casefold()))
    return [Option(one.title, one.title, _traits(one), _traits(one)["family"]) for one in ordered]


def _none(parameter: Parameter) -> list[Option]:
    """Return the choice of nothing: in a group it is what the empty default means, or leaves the group out."""
    if "." not in parameter.name:
        return []
    if parameter.is_required:
        return [Option("", _("none"))]
    return [Option("", printed(parameter.fact.means[""]))] if "" in parameter.fact.means else []


def _checkpoints(files: Sequence[Entry], limits: Limits) -> list[Option]:
    """Return the checkpoints by their titles; those of several architectures stand under a heading for each.

    One of several of that name says where it lies.
    """
    names = Counter(one.name.casefold() for one in files)
    kinds = list(dict.fromkeys(one.architecture for one in files))
    return [
        Option(
            one.title,
            one.title if names[one.name.casefold()] == 1 else f"{one.title}, {one.path}",
            _traits(one) | {"native": str(sizes.own(None, sizes.native(one), limits)[0])},
            architectures.label(one.architecture) if len(kinds) > 1 else "",
        )
        for one in sorted(files, key=lambda file: kinds.index(file.architecture))
    ]


def _traits(file: Entry) -> dict[str, str]:
    """Return what scripts may want to know of a model file, and its architecture and prediction in words."""
    family = architectures.label(file.architecture) if file.architecture else ""
    words = [family, _("predicts %(what)s", what=file.prediction) if file.prediction else ""]
    return {
        "architecture": file.architecture or "",
        "family": family,
        "prediction": file.prediction or "",
        "traits": ", ".join(filter(None, words)),
    }


def _style(style: StyleBody) -> Option:
    texts = [style.prompt, style.negative_prompt and _("Negative: %(text)s", text=style.negative_prompt)]
    return Option(style.name, style.name, {"text": "\n".join(filter(None, texts))})


def _samplers() -> list[Option]:
    """Return the samplers with what goes with each: schedules, and the fields that it takes beside its schedule's."""
    return [
        Option(
            sampler.name,
            sampler.name,
            {
                "schedules": " ".join(sampler.schedules),
                "automatic": sampler.automatic,
                "takes": _takes(sampler.options),
            },
        )
        for sampler in SAMPLERS.values()
    ]


def _takes(options: Iterable[str]) -> str:
    return " ".join(f"sampling.{option}" for option in options)
