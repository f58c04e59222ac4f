"""A job request in the making, which remembers how the client calls each part of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from shared.admission.parse import refused
from shared.errors import FieldError, Refused
from shared.params import paths


@dataclass
class Asked:
    """The JSON of `POST /api/v1/jobs`, and by dotted name what the client calls a value."""

    job: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def put(self, path: str, value: object, name: str) -> None:
        """Set a value that the client calls `name`."""
        paths.put(self.job, path, value)
        self.names[path] = name

    def fill(self, values: Mapping[str, Any], name: str) -> None:
        """Set values that all come from what the client calls `name`."""
        for path, value in values.items():
            self.put(path, value, name)

    @contextmanager
    def in_words_of_the_client(self) -> Iterator[None]:
        """Have a refusal name fields as the client does."""
        try:
            yield
        except Refused as error:
            if not error.fields:
                raise
            fields = tuple(replace(one, field=self.name_of(one.field)) for one in error.fields)
            raise type(error)(str(refused(fields)), fields) from error

    def name_of(self, path: str) -> str:
        """Return what the client calls a value, or what is around it; another value keeps the farm's name."""
        parts = path.split(".")
        around = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        return next((self.names[one] for one in around if one in self.names), path)


def wrong(name: str, message: str, accepted: str) -> Refused:
    """Return the refusal of one field."""
    return refused([FieldError(name, message, accepted)])
