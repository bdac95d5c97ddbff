"""The folder of the caches."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

SPARE = 1 << 30  # bytes of its disk that stay free


def cache_dir() -> Path:
    """The folder of all caches: ``HEADSTART_HOME`` if set, else the platform's own. It need not exist yet."""
    home = os.environ.get("HEADSTART_HOME")
    if home:
        return Path(home).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("headstart", appauthor=False)


def free_disk() -> int:
    """Bytes that the disk of the caches can still take."""
    folder = cache_dir()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return max(shutil.disk_usage(folder).free - SPARE, 0)
