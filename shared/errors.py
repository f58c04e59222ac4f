"""Every error that the farm raises on purpose, as one tree:

    FarmError                 500
    ├── Refused               422  cannot be done as asked; `fields` says which field and what would be accepted
    │   ├── Malformed         400  a body that cannot be read at all
    │   └── TooLarge          413  a body over the limit
    ├── Unauthorized          401  no key, or a wrong one
    ├── Forbidden             403  a foreign Host, Origin or form, or more than the key may do
    ├── NotFound              404  no such job, image, page or file
    ├── TooManyTries          429  too many wrong keys came from this address
    ├── TooManyRequests       429  too many requests came with this key
    ├── Conflict              409  the thing is there, but not in a state that allows this
    ├── Unavailable           503  PostgreSQL or the storage is away; the same call may go through later
    │   ├── TooSlow                PostgreSQL is there, but a statement or a lock took longer than it may
    │   └── NotLooked              no worker has looked into the models folder yet
    ├── SchemaError                the database's tables cannot be brought to this version
    ├── SettingsError              a FARM_* variable that cannot be used; ends the start
    ├── LauncherError              an embedded server that cannot be started
    ├── CardError                  the card cannot be used; the message is the reason
    ├── NotRunning                 no farm answers; the message says how to start one
    ├── Unreadable                 foreign bytes ended the process that read them, or took more than they may
    ├── NotConfined                the machine could not start such a process
    └── RenderError                ends one image, never the worker
        ├── ModelFileError         a checkpoint that cannot be used; the message is the reason
        │   └── ModelFileAway      the farm has the checkpoint, this machine does not
        ├── NotUnderstood          its job is from a newer version of the farm: other workers can read it
        ├── Cancelled              the run was closed on request
        ├── RenderFailed           the engine failed unexpectedly
        ├── Spoilt                 the picture came out black or without numbers: another worker may do better
        ├── OutOfMemory            the card cannot hold even one row
        └── StorageError           the storage refused an object: another one has its name
            └── StorageAway        the storage takes and gives nothing now; nothing that was rendered is lost

`status` is the HTTP status that an error becomes; `retryable` says whether the same call may go through later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

REVOKED: Final = "The key was revoked, its time is over, or its owner has signed out."
"""What a request hears that was accepted with a key and goes on when that opens nothing any more."""

STORAGE_AWAY: Final = "the storage takes no pictures"
"""The beginning of every message that nothing can be stored; the reason follows."""

CARD_UNUSABLE: Final = "its card cannot be used"
"""The beginning of every message that a worker takes no images because of its card; the reason follows."""


class FarmError(Exception):
    """The farm could not do what was asked."""

    status = 500
    retryable = False


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with one field: `accepted` says what would have been right."""

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
    """The request came from a page or for a host that is not this farm's, or its key may not do this."""

    status = 403


class NotFound(FarmError):
    """There is no such thing here."""

    status = 404


class Conflict(FarmError):
    """The thing is not in a state that allows this."""

    status = 409


class TooManyTries(FarmError):
    """Too many wrong keys were sent; `seconds` says when the next one is looked at."""

    status = 429

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many wrong keys came from this address: try again in {seconds} s.")
        self.seconds = seconds


class TooManyRequests(FarmError):
    """Too many requests came with a key; `seconds` says when the next one is answered."""

    status = 429

    def __init__(self, most: int, seconds: int) -> None:
        super().__init__(f"More than {most} requests came with this key within a minute: try again in {seconds} s.")
        self.seconds = seconds


class Unavailable(FarmError):
    """A server that the farm needs is away.

    `reason` holds the words of the server. It may name hosts and users: for logs and operators, not clients.
    """

    status = 503
    retryable = True

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class TooSlow(Unavailable):
    """The database ended a statement that took, or waited for a lock, longer than it may."""


class NotLooked(Unavailable):
    """No worker has scanned the whole models folder yet, and no file that was found so far can be used."""


class SchemaError(FarmError):
    """The database's tables cannot be brought to this version; the message says why, and what to do."""


class SettingsError(FarmError):
    """A FARM_* variable cannot be used."""


class LauncherError(FarmError):
    """An embedded server cannot be started."""


class CardError(FarmError):
    """The card cannot be used; the message is the reason, with what to do about it."""


class NotRunning(FarmError):
    """No farm answers."""


class Unreadable(FarmError):
    """Foreign bytes ended the process that read them, or exceeded a limit, which the message names."""

    def __init__(self, message: str, limit: str | None = None) -> None:
        super().__init__(message)
        self.limit = limit  # memory, processor, time or answer; None: it ended in another way


class NotConfined(FarmError):
    """The machine could not start a process to read foreign bytes in."""

    retryable = True


class RenderError(FarmError):
    """An image cannot be rendered."""


class ModelFileError(RenderError):
    """A model file cannot be used; the message is the reason."""


class ModelFileAway(ModelFileError):
    """The catalogue names a model file that is not on this machine (now): another worker may have it.

    `sha256` is that of the file.
    """

    retryable = True

    def __init__(self, message: str, sha256: str = "") -> None:
        super().__init__(message)
        self.sha256 = sha256


class NotUnderstood(RenderError):
    """The image's job is from a newer version of the farm: upgraded workers can read it.

    `what` names the parts that are not understood.
    """

    retryable = True

    def __init__(self, message: str, what: str = "") -> None:
        super().__init__(message)
        self.what = what


class Cancelled(RenderError):
    """The run was closed because its image was cancelled or taken away."""


class RenderFailed(RenderError):
    """The engine failed unexpectedly, so another worker may succeed."""


class Spoilt(RenderError):
    """The picture came out black or without numbers, because of its checkpoint or the card."""


class OutOfMemory(RenderError):
    """The card cannot hold even one row of this picture."""

    retryable = True


class StorageError(RenderError):
    """The storage refused an object."""

    retryable = True


class StorageAway(StorageError):
    """The storage takes and gives nothing now: it is full, read-only, silent, not mounted or another farm's.

    `why` names no path and no address, so everybody may see it. Only logs and operators may see `what` and `detail`.
    """

    def __init__(self, what: str, why: str, *, detail: str = "", advice: str = "", is_certain: bool = False) -> None:
        """`is_certain`: the cause is not one object, as it would be with a folder of another user."""
        super().__init__(f"{what}: {detail or why}{f'; {advice}' if advice else ''}")
        self.why = why
        self.advice = advice
        self.is_certain = is_certain

    @property
    def words(self) -> str:
        """The message for everybody, without what was being done."""
        return f"{STORAGE_AWAY}: {self.why}"


def explain(error: BaseException) -> str:
    """Return the message of an error for logs and commands, with the reason that the server itself gave."""
    message, reason = str(error) or repr(error), getattr(error, "reason", "")
    return f"{message} ({reason})" if isinstance(error, FarmError) and reason else message
