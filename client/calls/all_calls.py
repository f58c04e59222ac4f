"""All that a client can ask of a farm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from client.calls.farm import Farm
from client.calls.jobs import Jobs
from client.calls.keys import Keys
from client.calls.owners import Owners
from client.calls.pictures import Pictures
from client.calls.presets import Presets
from client.calls.shares import Shares
from client.calls.usage import Usage
from client.calls.webhooks import Webhooks


class Calls(Jobs, Pictures, Farm, Presets, Webhooks, Keys, Owners, Usage, Shares):
    """The calls of both clients."""

    url: str

    def page(self, job: Mapping[str, Any]) -> str:
        """Return the address of the job's page."""
        return f"{self.url}{job['links']['page']}"
