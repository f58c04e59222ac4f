"""The page that shows two to four pictures side by side, with the parameters in which they differ."""

from __future__ import annotations

import re
from typing import Final

from flask import Blueprint, render_template, request

from api.languages import _
from api.pages.parameter_table import parameter_table
from api.schemas.pictures import PictureBody
from api.security import auth
from api.services import services
from api.use_cases import pictures
from shared.pictures.filters import PictureId

MOST: Final = 4
_ID: Final = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})")

blueprint = Blueprint("compare_pages", __name__, url_prefix="/compare")


@blueprint.get("")
def compare() -> str:
    """Show the pictures that `of` names, such as 12.0,12.3; what names none does not count."""
    named = (_ID.fullmatch(one.strip()) for of in request.args.getlist("of") for one in of.split(","))
    ids = list(dict.fromkeys(PictureId(int(one[1]), int(one[2])) for one in named if one))
    shown = pictures.several(services(), auth.principal(), ids[:MOST])
    return render_template("compare.html", pictures=shown, differing=differing(shown), left_out=len(ids) > MOST)


def differing(shown: list[PictureBody]) -> list[tuple[str, list[str]]]:
    """Return the parameters in which pictures differ: what people call them, and the value of each picture."""
    tables = [_values(one) for one in shown]
    labels = dict.fromkeys(label for table in tables for label in table)
    rows = [(label, [table.get(label, "") for table in tables]) for label in labels]
    return [(label, values) for label, values in rows if len(set(values)) > 1]


def _values(picture: PictureBody) -> dict[str, str]:
    params = picture.params
    prompts = {_("Prompt"): params.prompt, _("Negative prompt"): params.negative_prompt, _("Seed"): str(params.seed)}
    table = {
        f"{rows.title}: {label}" if rows.title else str(label): str(value)
        for rows in parameter_table(params)
        for label, value in rows.rows
    }
    return prompts | table
