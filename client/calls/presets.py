"""Presets: parameters that the farm keeps under names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from client.declared import call
from client.effects import API, Json, Steps, answered, done


class Presets:
    """Calls about your presets."""

    @call
    def presets(self) -> Steps[list[Json]]:
        """Return your presets: name, `params` and when each was changed."""
        found: list[Json] = (yield from answered("GET", f"{API}/presets"))["presets"]
        return found

    @call
    def preset(self, name: str) -> Steps[Json]:
        """Return one of your presets."""
        return answered("GET", _path(name))

    @call
    def keep_preset(self, name: str, params: Mapping[str, Any]) -> Steps[Json]:
        """Keep parameters under a name; `left_out` of the answer names groups with pictures, which are not kept."""
        return answered("PUT", _path(name), json=params)

    @call
    def drop_preset(self, name: str) -> Steps[None]:
        """Delete one of your presets."""
        return done("DELETE", _path(name))


def _path(name: str) -> str:
    return f"{API}/presets/{quote(name, safe='')}"
