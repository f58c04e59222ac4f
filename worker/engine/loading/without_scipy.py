"""diffusers and transformers without scipy.

They import it for schedulers and for losses of training, which the farm has no use for: a sixth of the processor time
that a reader of model files takes to start. Code that needs scipy imports it as ever.
"""

from __future__ import annotations

import transformers.utils
from diffusers.utils import import_utils


def install() -> None:
    """Have both take scipy for missing in what they import from now on."""
    import_utils._scipy_available = False  # noqa: SLF001 - it asks once, at its import
    transformers.utils.is_scipy_available = lambda: False  # type: ignore[attr-defined]
