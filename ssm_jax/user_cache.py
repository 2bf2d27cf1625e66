"""Where things are kept that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path | None:
    """This package's folder in $XDG_CACHE_HOME or ~/.cache, which may not exist; None: no home."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(folder):
        folder = os.path.expanduser("~/.cache")
        if not os.path.isabs(folder):
            return None
    return Path(folder) / "ssm_jax"
