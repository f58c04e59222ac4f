"""Which ways to enlarge a picture the farm has without a model file, as facts; the engine holds the mathematics."""

from __future__ import annotations

from typing import Final

LATENT: Final = (
    "Latent",
    "Latent (antialiased)",
    "Latent (bicubic)",
    "Latent (bicubic antialiased)",
    "Latent (nearest)",
    "Latent (nearest-exact)",
)
"""These enlarge the latent, without a way over pixels."""

UPSCALERS: Final = (*LATENT, "None", "Lanczos", "Nearest")
WITHOUT_FILE: Final = ("Lanczos", "Nearest")
"""These enlarge a picture, also one by itself."""

_SPELLED: Final = {name.casefold(): name for name in UPSCALERS}


def spelled(text: str) -> str | None:
    """Return the name that `text` is another spelling of; None if it can only be that of a model file."""
    return _SPELLED.get(text.strip().casefold())
