"""The ControlNet extension as its clients ask it: nets, preprocessors, and pictures as these prepare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import Field

from api.compat.sdapi.asked import wrong
from api.compat.sdapi.bodies import Base64, Body, needs
from api.compat.sdapi.pictures import decoded, encoded
from api.services import Services
from api.use_cases import catalogue
from shared.accounts.principal import Principal
from shared.infotext.control_nets import MODULES
from shared.media.control_question import ControlQuestion, Size
from shared.media.decode import Picture
from shared.params.controlnet import MOST_UNITS, ControlUnit
from shared.params.preprocessors import PREPROCESSORS
from shared.wording import LONGEST, choices

_VERSION: Final = 3  # of the extension's API
_GRID: Final = 8  # pixels: sides are its multiples
_MASKED: Final = "inpaint"
_ALL: Final = "All"


class Detect(Body):
    """The request of detect."""

    model_config = needs("controlnet_input_images")

    controlnet_module: str = "none"
    controlnet_input_images: list[Base64] = Field([], min_length=1, max_length=8, validate_default=True)
    controlnet_processor_res: int = Field(512, ge=64, description="The shorter side of the answer, pixels.")
    controlnet_threshold_a: float = Field(-1, description="Below 0: the usual one.")
    controlnet_threshold_b: float = -1


def version(_: Services) -> dict[str, int]:
    """Return the version of the extension's API that is spoken here."""
    return {"version": _VERSION}


def settings(_: Services) -> dict[str, int]:
    """Return how many nets a picture may follow."""
    return {"control_net_unit_count": MOST_UNITS}


def models(services: Services) -> dict[str, list[str]]:
    """Return the nets."""
    return {"model_list": [file.title for file in catalogue.catalogue(services, "controlnet").usable("controlnet")]}


def modules(_: Services) -> dict[str, Any]:
    """Return the preprocessors, and the numbers that each takes."""
    details = {
        one.module: {
            "model_free": False,
            "sliders": [
                {"name": taken.label, "value": taken.default, "min": taken.least, "max": taken.most}
                for taken in one.thresholds
            ],
        }
        for one in PREPROCESSORS.values()
    }
    return {"module_list": [*details], "module_detail": details}


def types(services: Services) -> dict[str, Any]:
    """Return preprocessors and nets by what pictures show: any of them goes with any."""
    offered = {
        "module_list": [one.module for one in PREPROCESSORS.values()],
        "model_list": ["None", *models(services)["model_list"]],
        "default_option": "none",
        "default_model": "None",
    }
    return {"control_types": {_ALL: offered}}


LISTS: Final[Mapping[str, tuple[str, Callable[[Services], object]]]] = {
    "version": ("Get the version of the extension's API.", version),
    "settings": ("Get how many ControlNets a picture may follow.", settings),
    "model_list": ("List the ControlNets.", models),
    "module_list": ("List the preprocessors.", modules),
    "control_types": ("List preprocessors and ControlNets by what pictures show.", types),
}
"""Everything that is asked for without a question: its summary, and what makes it."""


def detected(services: Services, who: Principal, sent: Detect) -> dict[str, object]:
    """Return pictures as a preprocessor prepares them. Raises Refused, TooLarge, Unavailable."""
    unit = _unit(sent)
    made = [_made(services, who, sent, unit, number) for number in range(len(sent.controlnet_input_images))]
    return {"images": [encoded(one) for one in made], "info": "Success"}


def _made(services: Services, who: Principal, sent: Detect, unit: ControlUnit, number: int) -> bytes:
    field = f"controlnet_input_images.{number}"
    data = decoded(sent.controlnet_input_images[number], field)
    picture = services.picture_reader.read(data, field, who.owner)
    size = _size(picture, sent.controlnet_processor_res)
    if size[0] * size[1] > services.settings.limits.max_pixels:
        most = services.settings.limits.max_pixels
        raise wrong("controlnet_processor_res", f"makes {size[0]} x {size[1]} pixels", f"at most {most:,} pixels")
    question = ControlQuestion(unit, size, None, {"control": picture.png})
    return services.picture_reader.control(question, field, who.owner)


def _unit(sent: Detect) -> ControlUnit:
    """Return the preprocessor that a request names, with its numbers. Raises Refused."""
    name = MODULES.get(sent.controlnet_module)
    if name is None or name == _MASKED:
        known = [one.module for key, one in PREPROCESSORS.items() if key != _MASKED]
        message = f"{sent.controlnet_module[:LONGEST]!r} is not one that needs a picture alone"
        raise wrong("controlnet_module", message, choices(known))
    given = {"threshold_a": sent.controlnet_threshold_a, "threshold_b": sent.controlnet_threshold_b}
    numbers: dict[str, float] = {}
    for taken, (field, value) in zip(PREPROCESSORS[name].thresholds, given.items(), strict=False):
        if value >= 0 and not taken.least <= value <= taken.most:
            raise wrong(
                f"controlnet_{field}", f"{value:g} is beyond the {taken.label}", f"{taken.least:g} to {taken.most:g}"
            )
        numbers |= {field: value} if value >= 0 else {}
    return ControlUnit.model_validate({"model": "none", "preprocessor": name, **numbers})


def _size(picture: Picture, short_side: int) -> Size:
    """Return the size of a picture whose shorter side is about so long, in its proportions."""
    scale = short_side / min(picture.width, picture.height)
    width, height = (max(_GRID, round(side * scale / _GRID) * _GRID) for side in (picture.width, picture.height))
    return width, height
