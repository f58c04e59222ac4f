"""The languages of the pages: which one a request is answered in, and the texts, numbers and times of it.

Texts stand in English in templates, scripts and code, and in every other language in `shared.languages.catalogue`.
Programs get English: what is translated here goes into pages, and into tables for people.
"""

from __future__ import annotations

from collections import UserString
from datetime import datetime
from functools import cache
from typing import Final
from urllib.parse import urlencode

from flask import Flask, Response, g, has_request_context, request
from markupsafe import Markup

from shared.languages.catalogue import ENGLISH, catalogue, offered, translations

COOKIE: Final = "language"
SCRIPTS: Final = "api/static/"
_YEAR_SECONDS: Final = 365 * 86400


def init_app(app: Flask) -> None:
    """Give templates their texts, and keep the language that an address chooses (`?lang=zh`)."""
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.install_gettext_callables(_gettext, _ngettext, newstyle=True)  # type: ignore[attr-defined]
    app.jinja_env.globals.update(
        ngettext=_ngettext_in_template, language=language, other_languages=others, script_texts=script_texts
    )
    app.after_request(_keep)


def _(text: str, /, **values: object) -> str:
    """Return a text in the language of the request, its places `%(name)s` filled in; a percent sign is `%%`."""
    return _gettext(text) % values


def ngettext(singular: str, plural: str, num: int, /, **values: object) -> str:
    """Return the text for so many, in the language of the request; `%(num)s` stands for the number."""
    return _ngettext(singular, plural, num) % {"num": number(num), **values}


def lazy(text: str) -> Lazy:
    """Return a text that is made at import: it is in the language of the request when it is shown, its places open."""
    return Lazy(text)


class Lazy(UserString):
    """A text in the language of the request that shows it."""

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def data(self) -> str:  # type: ignore[override]
        return _gettext(self.text)


def language() -> str:
    """Return the code of the language of the request: chosen now or before, else one that the browser asks for."""
    if not has_request_context():
        return ENGLISH
    if "language" not in g:
        g.language = _chosen() or request.cookies.get(COOKIE)
        if g.language not in offered():
            wanted = (tag.lower().partition("-")[0] for tag, quality in request.accept_languages if quality)
            g.language = next((code for code in wanted if code in offered()), ENGLISH)
    return str(g.language)


def others() -> list[tuple[str, str, str]]:
    """Return the languages that this page is not in: code, name, and the address of the page in it."""
    kept = {name: value for name, value in request.args.items(multi=True) if name != "lang"}
    path = "" if request.method in ("GET", "HEAD") else "/"  # an answer to a form has no address to come back to
    here = language()
    return [
        (code, name, f"{path}?{urlencode({**kept, 'lang': code})}") for code, name in offered().items() if code != here
    ]


def number(value: float) -> str:
    """Return a number as the language groups its digits."""
    if language() == ENGLISH:
        return f"{value:,}"
    from babel.numbers import format_decimal  # noqa: PLC0415 - English does without it

    return str(format_decimal(value, locale=language()))


def moment(at: datetime) -> str:
    """Return a time in UTC as the language writes it."""
    if language() == ENGLISH:
        return at.strftime("%d %b %Y, %H:%M UTC")
    from babel.dates import format_date  # noqa: PLC0415 - English does without it

    return f"{format_date(at, format='long', locale=language())} {at:%H:%M} UTC"


def in_every_language(text: str) -> list[str]:
    """Return a text in each of the languages, so that a person who knows one of its names finds it."""
    return list(dict.fromkeys(translations(code).gettext(text) for code in offered()))


def script_texts() -> dict[str, list[str]]:
    """Return what scripts say in the language of the request, by the English: one text, or one for each plural form."""
    return {} if language() == ENGLISH else _of_scripts(language())


@cache
def _of_scripts(code: str) -> dict[str, list[str]]:
    texts = {}
    for message in catalogue(code):
        if any(place.startswith(SCRIPTS) for place, _ in message.locations):
            english, said = (message.id, message.string) if message.pluralizable else ([message.id], [message.string])
            texts[english[0]] = list(said)
    return texts


def _gettext(text: str) -> str:
    return translations(language()).gettext(text) if text else ""


def _ngettext(singular: str, plural: str, num: int) -> str:
    return translations(language()).ngettext(singular, plural, num)


def _ngettext_in_template(singular: str, plural: str, num: int, /, **values: object) -> Markup:
    return Markup(_ngettext(singular, plural, num)) % {"num": number(num), **values}  # noqa: S704 - of the catalogue


def _chosen() -> str | None:
    code = request.args.get("lang")
    return code if code in offered() else None


def _keep(answer: Response) -> Response:
    """Keep the language that was chosen, and tell caches what a page hangs on."""
    if answer.mimetype == "text/html":
        answer.vary.update(("Accept-Language", "Cookie"))
        answer.headers["Content-Language"] = language()
        if code := _chosen():
            answer.set_cookie(COOKIE, code, _YEAR_SECONDS, secure=request.is_secure, httponly=True, samesite="Lax")
    return answer
