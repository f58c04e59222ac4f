"""A Python client of the farm's API: one method a call, problems as the errors of `client.errors`."""

from __future__ import annotations

from client.blocking import Blocking
from client.calls.all_calls import Calls
from client.calls.jobs import FINAL, Progress
from client.effects import API, Json
from client.shapes import Job

__all__ = ["API", "FINAL", "Client", "Job", "Json", "Progress"]


class Client(Blocking, Calls):
    """One farm, over HTTP. Every method raises NotRunning when nothing answers, else the error that the farm gave.

    It keeps connections open: use it in a `with`, or close it.
    """
