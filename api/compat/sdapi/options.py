"""The options of AUTOMATIC1111's web UI that mean something here: an owner's own, and those of one request.

There they are settings of the program, which everybody's requests share. Here each owner has their own, and a client
that sends the whole object back changes what differs alone. Other names are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from api.compat.models import allowed
from api.compat.sdapi.asked import Asked, wrong
from api.services import Services
from api.use_cases import catalogue, doors
from shared.accounts.principal import Principal
from shared.admission.checkpoints import allowed_checkpoints, not_allowed
from shared.admission.parse import parse, refused
from shared.errors import FieldError, Refused
from shared.models.catalogue import Catalogue, Entry
from shared.models.kinds import Kind
from shared.params import paths
from shared.params.fields import AUTOMATIC_VAE
from shared.params.samplers import SAMPLERS
from shared.params.spellings import named
from shared.wording import LONGEST, choices, message, wanted

DOOR: Final = "sdapi"
CHECKPOINT: Final = "sd_model_checkpoint"
_VAE: Final = "sd_vae"
_HASH: Final = "sd_checkpoint_hash"
_OWN_VAES: Final = {"automatic": AUTOMATIC_VAE, "": AUTOMATIC_VAE, "none": "none"}


@dataclass(frozen=True)
class Option:
    """One option: its value if nobody has set it, and the parameter that it stands for; empty: it takes part in one."""

    default: Any
    path: str = ""
    means: Mapping[str, Any] = field(default_factory=dict)  # by its values in small letters; none: itself


OPTIONS: Final[Mapping[str, Option]] = {
    CHECKPOINT: Option("", "checkpoint"),
    _VAE: Option("Automatic", "vae"),
    "CLIP_stop_at_last_layers": Option(1, "clip_skip"),
    "randn_source": Option("CPU", "noise.source", {"gpu": "NV", "cpu": "CPU", "nv": "NV"}),
    "eta_noise_seed_delta": Option(0, "noise.eta_seed_delta"),
    "emphasis": Option("Original", "emphasis"),
    "samples_format": Option("png", "format", {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}),
    "tiling": Option(False, "tiling", {"true": "both", "false": "none"}),
    "s_churn": Option(0.0, "sampling.s_churn"),
    "s_tmin": Option(0.0, "sampling.s_tmin"),
    "s_tmax": Option(0.0, "sampling.s_tmax"),
    "s_noise": Option(1.0, "sampling.s_noise"),
    "sigma_min": Option(0.0, "sampling.sigma_min"),
    "sigma_max": Option(0.0, "sampling.sigma_max"),
    "rho": Option(0.0, "sampling.rho"),
    "always_discard_next_to_last_sigma": Option(
        False,
        "sampling.discard_next_to_last_sigma",
        {"true": True, "false": None},
    ),
    "sd_noise_schedule": Option("Default", "sampling.zero_terminal_snr", {"default": False, "zero terminal snr": True}),
    "eta_ancestral": Option(1.0),
    "eta_ddim": Option(0.0),
    "s_min_uncond": Option(0.0, "guidance.skip_below_sigma"),
    "s_min_uncond_all": Option(False, "guidance.skip_all_steps"),
    "skip_early_cond": Option(0.0, "guidance.skip_early"),
    "initial_noise_multiplier": Option(1.0, "img2img.noise_multiplier"),
    "img2img_extra_noise": Option(0.0, "img2img.extra_noise"),
    "img2img_color_correction": Option(False, "img2img.color_correction"),
    "img2img_fix_steps": Option(False, "img2img.exact_steps"),
    "inpainting_mask_weight": Option(1.0, "img2img.mask.weight"),
    "face_restoration": Option(False),
    "face_restoration_model": Option(""),
    "code_former_weight": Option(0.5),
}


_KINDS: Final[Mapping[str, Kind]] = {CHECKPOINT: "checkpoint", _VAE: "vae"}


def of_owner(services: Services, who: Principal) -> dict[str, Any]:
    """Return what the owner has set, as far as this version knows it, and without a checkpoint that is now closed."""
    found = {name: value for name, value in doors.options(services, who, DOOR).items() if name in OPTIONS}
    is_open = who.limits.checkpoints is None or found.get(CHECKPOINT) in {file.title for file in allowed(services, who)}
    return found if is_open else {name: value for name, value in found.items() if name != CHECKPOINT}


def shown(services: Services, who: Principal) -> dict[str, Any]:
    """Return all options as the owner has them, with the title of the checkpoint that is used."""
    known = catalogue.catalogue(services, "checkpoint")
    values = {name: option.default for name, option in OPTIONS.items()} | of_owner(services, who)
    usable = allowed_checkpoints(known, services.limits(who))
    used = known.only(values[CHECKPOINT], "checkpoint") if values[CHECKPOINT] else next(iter(usable), None)
    values[CHECKPOINT] = used.title if used else values[CHECKPOINT] or None
    return values | {_HASH: used.sha256 if used else None}


def change(services: Services, who: Principal, given: Mapping[str, Any]) -> None:
    """Set the options of the owner that differ from what they are. Raises Refused that names every wrong one."""
    said, now = read(given), shown(services, who)
    changes = {name: value for name, value in said.items() if value != now[name]}
    known = catalogue.catalogue(services)
    for name, kind in _KINDS.items():
        if changes.get(name) and changes[name].casefold() not in _OWN_VAES:
            file = _found(known, changes[name], kind, name)
            if kind == "checkpoint" and (problems := not_allowed(known, file, services.limits(who), name)):
                raise refused(problems)
            changes[name] = file.title  # as clients compare it with their lists
    _check(services, who, changes)
    defaults = {name: option.default for name, option in OPTIONS.items()}
    kept = {name: None if value == defaults[name] else value for name, value in changes.items()}
    if kept:
        doors.set_options(services, who, DOOR, kept)


def read(given: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return the options in an object that mean something here, in their types; null: its default.

    `where` comes before their names in refusals. Raises Refused that names every wrong one.
    """
    values, problems = dict[str, Any](), list[FieldError]()
    for name, option in OPTIONS.items():
        if name not in given:
            continue
        try:
            values[name] = _typed(option, given[name])
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            problems.append(FieldError(f"{where}{name}", message(problem), wanted(problem)))
        else:
            problems += _unknown(option, values[name], f"{where}{name}")
    if problems:
        raise refused(problems)
    return values


def fill(asked: Asked, values: Mapping[str, Any], where: str = "", *, is_over: bool) -> None:
    """Write options into a request, those about pictures only if it starts from one, `where` before their names.

    `is_over`: also over what it says already.
    """
    sampler = named(str(asked.job.get("sampler", "")))
    eta = "eta_ddim" if sampler and SAMPLERS[sampler.sampler].default_eta == 0 else "eta_ancestral"
    for name, value in values.items():
        path = "sampling.eta" if name == eta else OPTIONS[name].path
        group = path.rpartition(".")[0]
        is_open = paths.get(asked.job, path) is None or (is_over and name != eta)
        if path and is_open and (not group.startswith("img2img") or paths.get(asked.job, group)):
            asked.put(path, _meant(name, value), f"{where}{name}")


def _typed(option: Option, value: object) -> Any:  # noqa: ANN401 - the option's
    if value is None:
        return option.default
    kind = TypeAdapter[Any](type(option.default), config={"allow_inf_nan": False, "str_max_length": 1000})
    return kind.validate_python(value)


def _unknown(option: Option, value: object, name: str) -> Iterator[FieldError]:
    if option.means and str(value).casefold() not in option.means:
        yield FieldError(name, f"{str(value)[:LONGEST]!r} is none of the choices", choices([*option.means]))


def _meant(name: str, value: object) -> object:
    if name == _VAE:
        return _OWN_VAES.get(str(value).casefold(), value)
    means = OPTIONS[name].means
    return means[str(value).casefold()] if means else value


def _found(known: Catalogue, text: str, kind: Kind, name: str) -> Entry:
    """Return the file that a text means. Raises Refused that names the option."""
    try:
        return known.resolve(text, kind)
    except Refused as error:
        raise wrong(name, error.fields[0].message, error.fields[0].accepted) from error


def _check(services: Services, who: Principal, values: Mapping[str, Any]) -> None:
    """Raise Refused for values that no request could have."""
    picture = "0" * 64
    asked = Asked({"img2img": {"picture": picture, "mask": {"picture": picture}}})
    fill(asked, values, is_over=True)
    with asked.in_words_of_the_client():
        if problems := parse(asked.job, who.owner, services.limits(who)).problems:
            raise refused(problems)
