"""Which ways to enlarge a picture the farm knows, as facts; the engine holds the mathematics."""

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
