"""What can go wrong between a client and a farm:

FarmError                   any other answer of failure; `status` is its HTTP status
├── NotRunning              nothing answers at the address
├── UnusableAddress         no request can be sent, because of the address or a proxy
├── Refused            422  cannot be done as asked; `fields` says which field and what would be accepted
│   ├── Malformed      400  a body that cannot be read at all
│   └── TooLarge       413  a body over the limit
├── Unauthorized       401  no key, or a wrong one
├── Forbidden          403  a foreign Host, Origin or form
├── NotFound           404  no such job, image or file
├── Conflict           409  the thing is there, but not in a state that allows this
├── TooMany            429  more requests than the farm takes of one key or address
└── Unavailable        503  a server of the farm is away; the same call may succeed later
"""

from __future__ import annotations

from dataclasses import dataclass


class FarmError(Exception):
    """The farm could not be asked, or could not do what was asked."""

    status: int | None = None
    retry_after: float | None = None
    """Seconds after which the farm would like to be asked again."""


class NotRunning(FarmError):
    """Nothing answers at the farm's address. `was_sent`: the request may have arrived, and its answer been lost."""

    def __init__(self, message: str, *, was_sent: bool = False) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class UnusableAddress(FarmError):
    """No request can be sent to this address, or through the proxy that the environment names."""


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with one field. `accepted` says what would have been right."""

    field: str
    message: str
    accepted: str


class Refused(FarmError):
    """The request cannot be accepted as it is."""

    status = 422

    def __init__(self, message: str, fields: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.fields = fields


class Malformed(Refused):
    """The request's body cannot be read at all."""

    status = 400


class TooLarge(Refused):
    """The request's body is larger than the farm accepts."""

    status = 413


class Unauthorized(FarmError):
    """A key is needed, and the one given is missing or wrong."""

    status = 401


class Forbidden(FarmError):
    """The request came from a page or for a host that is not this farm's."""

    status = 403


class NotFound(FarmError):
    """There is no such thing on the farm."""

    status = 404


class Conflict(FarmError):
    """The thing is not in a state that allows this."""

    status = 409


class TooMany(FarmError):
    """The request was not looked at, because too many came before it."""

    status = 429


class Unavailable(FarmError):
    """A server that the farm needs is away."""

    status = 503


BY_STATUS = {
    kind.status: kind
    for kind in (Refused, Malformed, TooLarge, Unauthorized, Forbidden, NotFound, Conflict, TooMany, Unavailable)
}
