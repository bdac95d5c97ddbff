"""The folder of the caches."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """The folder of all caches: ``HEADSTART_HOME`` if set, else the platform's own. It need not exist yet."""
    home = os.environ.get("HEADSTART_HOME")
    if home:
        return Path(home).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("headstart", appauthor=False)
