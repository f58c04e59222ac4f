"""Writes the texts of the pages into the catalogues of shared/translations: `make messages`.

A catalogue keeps its translations; a new text is added without one, and one that nothing says any more is left out.
Entries are sorted by their English and name no lines, so that two changes of the pages seldom meet in a catalogue.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po, write_po

from shared import errors
from shared.jobs.lessons import BY_NAME
from shared.languages.sentences import JOINED
from shared.models.kinds import KINDS
from shared.params.facts import GROUPS
from shared.params.job_spec import SPECIAL
from shared.params.samplers import SCHEDULES
from shared.params.scheduling import Scheduling
from shared.params.table import parameters

ROOT: Final = Path(__file__).parents[1]
CATALOGUES: Final = ROOT / "shared/translations"
KEYWORDS: Final = {"_": None, "gettext": None, "lazy": None, "ngettext": (1, 2)}
_WAYS: Final = (
    ("api/templates", "*.html", "jinja2.ext:babel_extract", {"trimmed": "true", "newstyle_gettext": "true"}),
    ("api", "*.py", "python", {}),
    ("api/static", "*.js", "javascript", {}),
)
"""Folder, files, method of Babel and its options."""

_SENTENCES: Final = (
    *("shared/**/*.py", "api/http/*.py", "api/security/*.py", "api/use_cases/*.py", "api/readiness.py"),
    *("worker/dispatch/slots.py", "worker/dispatch/health.py", "worker/render/*.py", "worker/supervisor/child.py"),
    *("worker/supervisor/watchdog.py", "worker/engine/failures.py", "worker/engine/loop/runs.py"),
    *("worker/engine/vae.py", "worker/engine/upscaling/*ing.py", "worker/engine/pipelines/*.py"),
    *("worker/engine/guidance/conditioning.py", "worker/engine/sampling/dpm_solver.py"),
    "worker/engine/sampling/schedules.py",
)
"""The modules whose sentences pages show: all of `shared`, so that no refusal of a new module is forgotten."""
QUIET: Final = (
    *("shared/settings.py", "shared/setting_forms.py", "shared/row_limit_files.py", "shared/redis_url.py"),
    *("shared/db/locks.py", "shared/db/migrate.py", "shared/db/revisions.py", "shared/db/tables.py"),
    *("shared/logs/*.py", "shared/messaging/events.py", "shared/maintenance/*.py", "shared/jobs/lessons.py"),
    *("shared/infotext/keys.py", "shared/infotext/grammar.py", "shared/infotext/writer.py"),
    *("shared/infotext/control_nets.py", "shared/infotext/unit_text.py"),
    *(
        "shared/accounts/scope.py",
        "api/security/rules.py",
        "api/http/openapi.py",
        "api/http/responses.py",
        "api/http/sse.py",
    ),
    *(
        f"shared/params/{name}.py"
        for name in ("controlnet", "faces", "facts", "groups", "preprocessors", "render", "samplers", "upscalers")
    ),
    *("shared/params/size_conditioning.py", "shared/sheets/drawing.py", "shared/sheets/png.py"),
    *("shared/accounts/scope.py", "shared/webhooks/messages.py"),
)
"""Of these modules no page shows a sentence: what settings and the database's tables lack is said to the person who
starts the farm, `facts` has the words of parameters and lessons, and the keys of texts in pictures are the same
everywhere.
"""
_WORD: Final = re.compile(r"[^\W\d_]")
_PLACE: Final = re.compile(r"\{\w*\}")
_WITH_KEYS: Final = "shared/infotext/"
_IS_KEY: Final = re.compile(r"[A-Z][^:{]*:?")  # of texts in pictures, such as `CFG scale`
_UNITS: Final = "shared/quantities.py"  # where words as short as `s` count
_IS_SENTENCE: Final = re.compile(r"[^\W\d_]{2,}\W* [^\W\d_({]|[^\W\d_{}]+ \{|\} [^\W\d_]{2,}")
_IS_CODE: Final = re.compile(
    r"\{f|\b(SELECT|UPDATE|INSERT|DELETE|CREATE|ALTER|WHERE|FROM|SET|LOCK|AND|ORDER)\b|\(\?|\\|^#|://|-src |%[sd(]"
)
_WORDS_OF_ONE: Final = frozenset(
    {
        "small",
        "large",
        "number",
        "text",
        "handed back",
        "is missing",
        "a list",
        "a number",
        *("cancelled", "deleted", "failed", "gone"),
        "a path",
        "a value",
        "sampler",
        "schedule",
    }
)
"""Short texts that fill places of sentences."""
_VALUES: Final = frozenset(
    {
        *("Assertion failed, ", "Value error, ", "No norm", "latent noise", "latent nothing", "only masked"),
        *("whole picture", "from disk", "from memory", "host cache", "page cache", "prefetch {1}"),
        *('Bearer realm="stepfarm"', "session {1}", "workers drained", "workers resumed"),
        *("must name a folder, or several with {1} between them", "\n    ended_at < clock_timestamp()"),
        *("-c {1}={2}", "REPEATABLE READ", "unsupported startup parameter", "it ended its process ", "stepfarm job"),
        *(
            "{1} is not a key of the storage",
            "an axis has no reader",
            "draft {1}",
            "(owner = :whose OR CAST(:whose AS text) IS NULL)",
        ),
    }
)
"""Texts that look like sentences, but are not shown on a page."""
_NOT_SAID: Final = frozenset({"debug", "info", "warning", "error", "exception", "compile", "Field", "TypeVar", "text"})
"""Calls whose texts nobody reads on a page: logs, patterns, descriptions for the API's document."""

_REFUSALS: Final = frozenset(
    {
        "FieldError",
        "flash",
        *(name for name, one in vars(errors).items() if isinstance(one, type) and "Error" not in name),
    }
)
"""Calls whose texts say what cannot be done."""

Text = str | tuple[str, str]


def texts() -> Iterator[tuple[Text, str]]:
    """Yield every text, or pair of singular and plural, with the file that says it."""
    for folder, pattern, method, options in _WAYS:
        for path in sorted((ROOT / folder).rglob(pattern)):
            place = path.relative_to(ROOT).as_posix()
            for found in extract_from_file(method, path, keywords=KEYWORDS, options=options):
                yield found[1], place
    yield from facts()
    yield from ((text, "api/sentences.py") for text in JOINED)
    for place in said_in():
        found = sentences((ROOT / place).read_text(), is_short=place == _UNITS)
        yield from ((text, place) for text in found if not (place.startswith(_WITH_KEYS) and _IS_KEY.fullmatch(text)))


def said_in() -> list[str]:
    """Return the modules whose sentences pages show, by their paths."""
    read, quiet = (
        {path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern)}
        for patterns in (_SENTENCES, QUIET)
    )
    return sorted(read - quiet)


def facts() -> Iterator[tuple[str, str]]:
    """Yield the words that pages take from the facts of parameters, of experiments and of kinds of model files."""
    for parameter in (*parameters().values(), *parameters(Scheduling).values()):
        fact = parameter.fact
        words = (parameter.label, fact.help, fact.more, fact.placeholder, *fact.means.values(), *fact.labels.values())
        yield from ((text, "shared/params/facts.py") for text in words if _WORD.search(text))
    yield from (("empty", "shared/params/facts.py"), ("{1} or {2}", "shared/wording.py"))  # put together by code
    for group in GROUPS:
        yield from ((text, "shared/params/facts.py") for text in (group.title, group.summary) if text)
    yield from ((text, "shared/params/samplers.py") for text in SCHEDULES.values())
    for lesson in BY_NAME.values():
        yield from ((text, "shared/jobs/lessons.py") for text in (lesson.title, lesson.about, lesson.look_for))
    for axis in SPECIAL.values():
        yield from ((text, "shared/params/job_spec.py") for text in axis)
    for kind in KINDS.values():
        words = (kind.label, kind.plural, kind.description, kind.accepted)
        yield from ((text, "shared/models/kinds.py") for text in words)


def sentences(source: str, *, is_short: bool = False) -> Iterator[str]:
    """Yield the sentences of a module as templates: what an f-string fills in stands as `{1}`, `{2}` and so on."""
    tree = ast.parse(source)
    silent = set(map(id, _silent(tree)))
    for node in ast.walk(tree):
        if id(node) in silent:
            continue
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "counted"
            and len(node.args) == 2
        ):
            noun = node.args[1]
            if isinstance(noun, ast.Constant):
                yield from (f"{{1}} {noun.value}", f"{{1}} {noun.value}s")
        text = _template(node)
        is_said = _WORD.search(_PLACE.sub("", text)) if is_short else _IS_SENTENCE.search(text)
        if (is_said or text in _WORDS_OF_ONE) and text not in _VALUES and not _IS_CODE.search(text):
            yield text


def refusals(source: str) -> Iterator[tuple[ast.Call, str]]:
    """Yield the errors of the farm, the problems of fields and the flashes that a module makes of English literals."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _REFUSALS:
            said = node.args[node.func.id == "FieldError" :]
            yield from ((node, text) for text in map(_template, said) if _WORD.search(_PLACE.sub("", text)))


def _silent(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes whose texts no page shows: docstrings, what logs say, and the pieces of f-strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield from (piece for piece in node.values if isinstance(piece, ast.Constant))
            for piece in node.values:
                if isinstance(piece, ast.FormattedValue) and piece.format_spec:
                    yield from ast.walk(piece.format_spec)
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in _NOT_SAID:
                yield from ast.walk(node)
            if name == "Fact":
                yield from ast.walk(node)  # `facts` has them


def _template(node: ast.AST) -> str:
    """Return the text of a node as a template; empty for a node that is not one."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if not isinstance(node, ast.JoinedStr):
        return ""
    numbers = count(1)
    return "".join(
        str(piece.value) if isinstance(piece, ast.Constant) else f"{{{next(numbers)}}}" for piece in node.values
    )


def catalogue(old: Catalog) -> Catalog:
    """Return a catalogue of all texts, with the translations of `old`."""
    new = Catalog(
        old.locale,
        header_comment=old.header_comment,
        project="stepfarm",
        version="1",
        msgid_bugs_address="",
        last_translator="",
        language_team="",
        creation_date=old.creation_date,
        revision_date=old.revision_date,
        fuzzy=False,
    )
    for text, place in texts():
        new.add(text, locations=[(place, 0)])
    for message in list(new)[1:]:
        known = old.get(message.id)
        is_same_kind = known is not None and known.pluralizable == message.pluralizable
        message.string = known.string if is_same_kind and known is not None else message.string
        message.locations = sorted(set(message.locations))
    return new


def read(path: Path) -> Catalog:
    """Return a catalogue as it is written."""
    with path.open("rb") as file:
        return read_po(file, locale=path.stem)


def main() -> None:
    for path in CATALOGUES.glob("*.po"):
        made = catalogue(read(path))
        with path.open("wb") as file:
            write_po(file, made, width=0, sort_output=True, include_lineno=False)
        missing = sum(
            not all(message.string if message.pluralizable else [message.string]) for message in list(made)[1:]
        )
        print(f"{path.relative_to(ROOT)}: {len(made)} texts, {missing} to translate")


if __name__ == "__main__":
    main()
