"""Where Headstart keeps what it can always make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """The folder of all caches, which need not exist yet: ``HEADSTART_HOME`` if set, else the platform's own place."""
    home = os.environ.get("HEADSTART_HOME")
    if home:
        return Path(home).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("headstart", appauthor=False)
