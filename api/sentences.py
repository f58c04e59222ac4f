"""Sentences that other parts of the farm make, in the language of the page that shows them."""

from __future__ import annotations

from api.languages import language
from shared.errors import FarmError, Refused
from shared.languages import sentences


def said(text: object) -> str:
    """Return a sentence of the farm in the language of the request."""
    return sentences.said(language(), str(text))


def refusal(error: FarmError) -> str:
    """Return what was wrong, field by field, in one line in the language of the request."""
    fields = error.fields if isinstance(error, Refused) else ()
    wrong = (f"{one.field}: {said(one.message)} ({said(one.accepted)})" for one in fields)
    return "; ".join(wrong) or said(error)
