from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def _card(request: pytest.FixtureRequest) -> None:
    """A CUDA card: this machine's, or if it has none a pretended one."""
    if not torch.cuda.is_available():
        request.getfixturevalue("pretended")
