"""The adapters that the tags of prompts name: each resolved in the catalogue, or refused with what would be right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, NamedTuple

from shared.errors import FieldError, Refused
from shared.models.architectures import label
from shared.models.catalogue import Catalogue, Entry
from shared.models.kinds import KIND_OF_TAG, KINDS, Kind
from shared.models.model_set import Merge
from shared.params.render import RenderParams
from shared.prompts.adapters import BadTag, Use, used
from shared.prompts.extra_networks import networks
from shared.wording import LONGEST, choices

MOST_ADAPTERS: Final = 16  # of a prompt; each makes every step slower
_SHOWN: Final = 3  # files that a refusal offers


class Adapter(NamedTuple):
    """One tag of a prompt, and its file."""

    use: Use
    file: Entry

    @property
    def is_merged(self) -> bool:
        """True if it is merged into the checkpoints before the first step, instead of being applied at each."""
        return self.file.details.form == "merged"


@dataclass
class NamedAdapters:
    """The files that the tags of prompts name, and the problems of tags that name none that fits."""

    roles: dict[str, object] = field(default_factory=dict)  # of a model set
    problems: list[FieldError] = field(default_factory=list)


def named_adapters(catalogue: Catalogue, params: RenderParams, checkpoints: Mapping[str, Entry]) -> NamedAdapters:
    """Return the adapters that both passes' prompts name; `checkpoints` stand by their dotted field names."""
    found, of_prompts = NamedAdapters(), dict[str, list[Adapter]]()
    for name, bases in bases_of(params, checkpoints).items():
        prompt = params.of_kind("prompt")[name]
        try:
            of_prompts[name] = _of_prompt(catalogue, prompt, bases)
        except Refused as refused:
            found.problems += [replace(problem, field=name) for problem in refused.fields]
    found.problems += [*_in_negative_prompts(params), *_merged_otherwise(of_prompts)]
    adapters = [one for some in of_prompts.values() for one in some]
    roles = {
        "adapters": {one.use.key: one.file.sha256 for one in adapters if not one.is_merged},
        "merges": next(map(_merges, of_prompts.values()), ()),
        "hashes": {one.use.key: one.file.short_hash or (one.file.sha256 or "")[:12] for one in adapters},
    }
    found.roles = {role: value for role, value in roles.items() if value}
    return found


def bases_of(params: RenderParams, checkpoints: Mapping[str, Entry]) -> dict[str, list[Entry]]:
    """Return by the name of each prompt the checkpoints that it guides. An empty one of the second pass guides none."""
    first, second = "checkpoint", "hires.checkpoint"
    guided = {"prompt": [first]}
    if params.hires is not None:
        last = second if params.hires.checkpoint else first
        guided |= {"hires.prompt": [last]} if params.hires.prompt else {"prompt": [first, last]}
    return {
        prompt: [checkpoints[name] for name in dict.fromkeys(names) if name in checkpoints]
        for prompt, names in guided.items()
    }


def _of_prompt(catalogue: Catalogue, prompt: str, bases: Sequence[Entry]) -> list[Adapter]:
    """Return what the tags of a prompt name. Raises Refused."""
    try:
        uses = used(prompt)
    except BadTag as error:
        raise _refused(str(error), error.accepted) from None
    if len(uses) > MOST_ADAPTERS:
        raise _refused(f"has {len(uses)} tags for adapters", f"at most {MOST_ADAPTERS} tags")
    return [Adapter(use, file_of(catalogue, use, bases)) for use in uses]


def file_of(catalogue: Catalogue, use: Use, bases: Sequence[Entry]) -> Entry:
    """Return the file that a tag names. Raises Refused if there is none, or one that does not fit."""
    file = fitting(catalogue, use.name, KIND_OF_TAG[use.kind], bases)
    is_simple = use.text_encoder.is_constant and use.unet.is_constant and use.rank is None
    if Adapter(use, file).is_merged and not is_simple:
        what = file.details.algorithm or "an adapter of its kind"
        message = (
            f"{file.name} cannot change its weight or rank on the way: {what} is merged into the checkpoint before "
            "the first step"
        )
        raise _refused(message, f"one weight, such as <{use.kind}:{use.name[:LONGEST]}:0.8>")
    return file


def fitting(catalogue: Catalogue, name: str, kind: Kind, bases: Sequence[Entry]) -> Entry:
    """Return the file of a kind that `name` means. Raises Refused if there is none, or one that fits not all `bases`.

    `bases` are the checkpoints that it has to change. The refusal offers files that fit.
    """

    def fits(file: Entry) -> bool:
        return all(not misfit(file, base) for base in bases)

    file = catalogue.resolve(name, kind, is_offered=fits)
    if reason := next(filter(None, (misfit(file, base) for base in bases)), ""):
        raise _refused(reason, _offered(kind, filter(fits, catalogue.usable(kind)), bases))
    return file


def misfit(adapter: Entry, checkpoint: Entry) -> str:
    """Return why an adapter cannot change the networks of a checkpoint; empty: it can, as far as is known."""
    if None not in {adapter.architecture, checkpoint.architecture} and adapter.architecture != checkpoint.architecture:
        return f"{adapter.described} does not fit {checkpoint.described}"
    its, wanted = adapter.details, checkpoint.details
    if its.width and wanted.width and its.width != wanted.width:
        return (
            f"{adapter.name} changes U-Nets of {its.width} channels, and that of {checkpoint.name} has {wanted.width}"
        )
    if its.context and wanted.context and its.context != wanted.context:
        return (
            f"{adapter.name} changes U-Nets that read text of width {its.context}, and that of {checkpoint.name} reads "
            f"{wanted.context}"
        )
    return ""


def _offered(kind: Kind, files: Iterator[Entry], bases: Sequence[Entry]) -> str:
    """Return in words which files of a kind would fit."""
    families = choices(list(dict.fromkeys(label(base.architecture) for base in bases)))
    titles = [file.title for file in islice(files, _SHOWN)]
    wanted = f"{KINDS[kind].description} of {families}"
    return f"{wanted}, such as {choices(titles)}" if titles else wanted


def _in_negative_prompts(params: RenderParams) -> Iterator[FieldError]:
    """Yield the negative prompts that have tags."""
    for name, prompt in params.of_kind("prompt").items():
        if name.endswith("negative_prompt") and (tags := networks(prompt)):
            message = f"names {tags[0].kind[:20]} {tags[0].name[:LONGEST]!r}"
            yield FieldError(
                name, message, "the tag in the prompt: it acts on both prompts; a negative weight reverses it"
            )


def _merged_otherwise(of_prompts: Mapping[str, list[Adapter]]) -> Iterator[FieldError]:
    """Yield the problem of a second pass into which other adapters would be merged: both passes share the result."""
    first, second = of_prompts.get("prompt"), of_prompts.get("hires.prompt")
    if first is None or second is None or _merges(first) == _merges(second):
        return
    name = next(one.file.name for one in (*second, *first) if one.is_merged)
    message = f"{name} is merged into the checkpoint before the first step, and the prompt asks for it otherwise"
    yield FieldError("hires.prompt", message, "the same tags with the same weights as in the prompt")


def _merges(adapters: Sequence[Adapter]) -> tuple[Merge, ...]:
    """Return what is merged, each file once with the sum of its weights; not those that change nothing."""
    weights: dict[str, tuple[float, float]] = {}
    for use, file in (one for one in adapters if one.is_merged):
        text_encoder, unet = weights.get(file.sha256 or "", (0.0, 0.0))
        weights[file.sha256 or ""] = text_encoder + use.text_encoder.start, unet + use.unet.start
    merges = (Merge(sha256=sha256, text_encoder=te, unet=unet) for sha256, (te, unet) in weights.items())
    return tuple(sorted(one for one in merges if one.text_encoder or one.unet))


def _refused(message: str, accepted: str) -> Refused:
    return Refused(f"{message}.", (FieldError("prompt", message, accepted),))
