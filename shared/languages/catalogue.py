"""The languages beside English, a catalogue each in `shared/translations`: adding a language is adding such a file.

A catalogue is read when something is first said in its language.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from gettext import NullTranslations
from io import BytesIO
from pathlib import Path
from typing import Any, Final

ENGLISH: Final = "en"
FOLDER: Final = Path(__file__).parents[1] / "translations"


@cache
def offered() -> Mapping[str, str]:
    """Return the names of the languages, each in itself, by code: the first line of a catalogue names its language."""
    names = {ENGLISH: "English"}
    for path in sorted(FOLDER.glob("*.po")):
        with path.open(encoding="utf-8") as file:
            names[path.stem] = file.readline().removeprefix("#").strip()
    return names


@cache
def translations(code: str) -> NullTranslations:
    """Return the texts of a language, read from its catalogue; English stands for itself."""
    if code == ENGLISH:
        return NullTranslations()
    from babel.messages.mofile import write_mo  # noqa: PLC0415 - only a page in another language needs it
    from babel.support import Translations  # noqa: PLC0415

    compiled = BytesIO()
    write_mo(compiled, catalogue(code))
    compiled.seek(0)
    texts: NullTranslations = Translations(compiled)
    return texts


@cache
def catalogue(code: str) -> Any:  # noqa: ANN401 - Babel's own, which English does without
    """Return the catalogue of a language other than English."""
    from babel.messages.pofile import read_po  # noqa: PLC0415 - only a page in another language needs it

    with (FOLDER / f"{code}.po").open("rb") as file:
        return read_po(file, locale=code)
