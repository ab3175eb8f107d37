"""Where captrain keeps what outlives a run."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`CAPTRAIN_CACHE`, else `captrain` in the platform's folder for caches."""
    chosen = os.environ.get("CAPTRAIN_CACHE")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("captrain")
