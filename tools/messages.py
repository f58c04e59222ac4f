"""Writes the texts of the pages into the catalogues of api/translations: `make messages`.

A catalogue keeps its translations; a new text is added without one, and one that nothing says any more is left out.
Entries are sorted by their English and name no lines, so that two changes of the pages seldom meet in a catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po, write_po

ROOT: Final = Path(__file__).parents[1]
CATALOGUES: Final = ROOT / "api/translations"
KEYWORDS: Final = {"_": None, "gettext": None, "lazy": None, "ngettext": (1, 2)}
_WAYS: Final = (
    ("api/templates", "*.html", "jinja2.ext:babel_extract", {"trimmed": "true", "newstyle_gettext": "true"}),
    ("api", "*.py", "python", {}),
    ("api/static", "*.js", "javascript", {}),
)
"""Folder, files, method of Babel and its options."""

Text = str | tuple[str, str]


def texts() -> Iterator[tuple[Text, str]]:
    """Yield every text, or pair of singular and plural, with the file that says it."""
    for folder, pattern, method, options in _WAYS:
        for path in sorted((ROOT / folder).rglob(pattern)):
            place = path.relative_to(ROOT).as_posix()
            for found in extract_from_file(method, path, keywords=KEYWORDS, options=options):
                yield found[1], place


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
