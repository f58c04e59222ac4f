"""What people can choose from: model files, styles, and how a prompt becomes tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy.orm import Session

from api.schemas.catalogue import (
    CheckpointsBody,
    DecodersBody,
    ModelsBody,
    OthersBody,
    Page,
    StylesBody,
    TokensBody,
    VaesBody,
)
from api.services import Services
from shared.accounts.principal import Principal
from shared.admission.accepted import accepted
from shared.admission.checkpoints import named_checkpoint
from shared.admission.learned_words import Lexicon
from shared.admission.parse import parse, refused
from shared.db.sessions import transact
from shared.errors import FieldError, NotFound, NotLooked, Refused, TooLarge, Unavailable
from shared.models import first_scan, previews
from shared.models.catalogue import Catalogue, names_of
from shared.models.facets import FACETS_OF_ALL, Faceted, Group
from shared.models.kinds import Kind
from shared.models.listing import Listing
from shared.models.listing import offered as listed
from shared.params.render import RenderParams
from shared.params.samplers import SAMPLERS
from shared.prompts.chunks import CHUNK
from shared.prompts.learned_words import NO_WORDS, Words
from shared.prompts.styles import load
from shared.prompts.tokenizer import Tokenizer
from shared.settings import Limits

OFFERED: Final = 100
"""Files of a kind that can be chosen without a search."""


def catalogue(services: Services, kind: Kind | None = None) -> Catalogue:
    """Return the model files that the farm knows, or those of one kind."""
    return transact(services.sessions, partial(Catalogue.read, kind=kind))


def offered(
    services: Services, who: Principal, kinds: tuple[Kind, ...], named: Iterable[str] = (), search: str = ""
) -> Catalogue:
    """Return the first files of these kinds that hold the words of a search, and all that have one of the names.

    Of checkpoints the first that the caller's jobs may use, however their limit names them.
    """
    limits = services.limits(who)

    def read(session: Session) -> Catalogue:
        listing = Listing(kinds, search, first=limits.first_checkpoint)
        if (allowed := limits.of_owner.checkpoints) is not None and "checkpoint" in kinds:
            known = services.catalogue.read(session)
            listing = replace(listing, checkpoints=known.paths_of(allowed, "checkpoint"))
        return listed(session, listing, OFFERED, named)

    return transact(services.sessions, read)


class Part(NamedTuple):
    """Which part of a list is asked for; None: from the first file, to the last one."""

    cursor: int | None
    limit: int | None


def models(services: Services, who: Principal, filters: Mapping[str, str], search: str, part: Part) -> ModelsBody:
    """Return a page of the model files of all kinds that pass the filters and hold the words. Raises Refused."""
    listing = Listing(search=search, first=services.limits(who).first_checkpoint)
    faceted = partial(Faceted.of, wanted=filters, facets=FACETS_OF_ALL)
    return ModelsBody.from_part(*_part(services, listing, faceted, part))


def checkpoints(services: Services, who: Principal, filters: Mapping[str, str], part: Part) -> CheckpointsBody:
    """Return a page of the checkpoints of the catalogue that pass the filters. Raises Refused."""
    listing = Listing(("checkpoint",), first=services.limits(who).first_checkpoint)
    faceted = partial(Faceted.of, wanted=filters)
    return CheckpointsBody.from_part(*_part(services, listing, faceted, part))


def _part(
    services: Services, listing: Listing, faceted: Callable[[Sequence[Group]], Faceted], part: Part
) -> tuple[Faceted, Page, bool]:
    """Return the counts of a list, a page of it, and whether the whole models folder has been scanned."""

    def read(session: Session) -> tuple[Faceted, Page, bool]:
        found = faceted(listing.groups(session))
        first = part.cursor or 0
        files = listing.page(session, found.wanted, first, part.limit)
        end = first + len(files)
        return found, Page(files, end if files and end < found.passing else None), not first_scan.is_awaited(session)

    return transact(services.sessions, read)


def vaes(services: Services) -> VaesBody:
    """Return the VAEs of the catalogue."""
    return VaesBody.from_catalogue(catalogue(services, "vae"))


def decoders(services: Services) -> DecodersBody:
    """Return the tiny decoders of the catalogue."""
    return DecodersBody.from_catalogue(catalogue(services, "decoder"))


def others(services: Services) -> OthersBody:
    """Return the files of kinds that the farm cannot use."""
    return OthersBody.from_catalogue(catalogue(services, "other"))


@dataclass(frozen=True)
class Preview:
    """The picture that lies beside a model file; read when it is needed."""

    services: Services
    who: Principal
    path: Path

    @property
    def tag(self) -> str:
        """The identity of its bytes. Raises NotFound."""
        with _there():
            status = self.path.stat()
        return sha256(f"{self.path} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:32]

    def read(self) -> bytes:
        """Return it as a small WebP, decoded in a confined process. Raises NotFound, Unavailable."""
        with _there():
            data = previews.read(self.path)
        try:
            return self.services.picture_reader.thumbnail(data, "preview", self.who.owner)
        except (Refused, TooLarge) as error:
            raise NotFound(f"The file {self.path.name} beside the model cannot be shown. {error}") from error


def preview(services: Services, who: Principal, file: str) -> Preview:
    """Return the picture beside a model file of this SHA-256. Raises NotFound."""
    names = transact(services.sessions, partial(names_of, sha256=file))
    for path in previews.paths(services.settings.models, names).values():
        return Preview(services, who, path)
    raise NotFound("No picture lies beside a model file with this hash, as far as the API's machine can see.")


@contextmanager
def _there() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotFound(f"The picture cannot be read: {error.strerror or error}.") from error


def styles(services: Services) -> StylesBody:
    """Return the styles that jobs may name. Raises Unavailable."""
    return StylesBody.from_styles(load(services.settings.styles_path).values())


def tokens(services: Services, who: Principal, given: object) -> TokensBody:
    """Return the length of a job's prompt, or of its negative prompt if it has no other. Raises Refused."""
    limits = services.limits(who)
    request = parse(given, who.owner, limits)
    if problems := [*request.problems, *_too_much(request.params, limits)]:
        raise refused(problems)
    params = request.params
    is_negative = params.model_fields_set & {"prompt", "negative_prompt"} == {"negative_prompt"}
    prompt = params.negative_prompt if is_negative else params.prompt
    calls = params.steps * SAMPLERS[params.sampler].order
    words = _learned(services, params, limits)
    tokens = Tokenizer().measure(prompt, calls, params.emphasis, is_negative=is_negative, words=words).tokens
    return TokensBody(tokens=tokens, limit=CHUNK * max(1, math.ceil(tokens / CHUNK)))


def _learned(services: Services, params: RenderParams, limits: Limits) -> Words:
    """Return the words that embeddings teach to the checkpoint of a job; none if that cannot be known now."""
    try:
        if not catalogue(services, "embedding").usable("embedding"):
            return NO_WORDS
        known = catalogue(services)
        checkpoint = named_checkpoint(known, params.checkpoint, limits)
    except (Refused, NotLooked, Unavailable):
        return NO_WORDS
    return Lexicon.of(known, checkpoint).words


def _too_much(params: RenderParams, limits: Limits) -> Iterator[FieldError]:
    """Yield the fields that would make measuring a prompt too slow."""
    for field, prompt in {"prompt": params.prompt, "negative_prompt": params.negative_prompt}.items():
        if len(prompt) > limits.max_prompt_chars:
            yield FieldError(field, f"is {len(prompt):,} characters long", accepted(field, limits))
    if params.steps > limits.max_steps:
        yield FieldError("steps", f"{params.steps} is too large", accepted("steps", limits))


def rescan(services: Services) -> None:
    """Have the workers look into the models folder now; without Redis they do so within seconds anyway."""
    services.events.announce_rescan()
