"""The folder of the caches."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from headstart.core.errors import UsageError

SPARE = 1 << 30  # bytes of its disk that stay free


def cache_dir() -> Path:
    """The folder of all caches: ``HEADSTART_HOME`` if set, else the platform's own. It need not exist yet.

    Raises:
        UsageError: it is the folder of a user who is not there.
    """
    home = os.environ.get("HEADSTART_HOME")
    if home:
        folder = os.path.expanduser(home)
        if folder.startswith("~"):
            raise UsageError(f"HEADSTART_HOME: expected a folder. Received: '{home}', and there is no such user.")
        return Path(folder)
    from platformdirs import user_cache_path

    return user_cache_path("headstart", appauthor=False)


def free_disk() -> int:
    """Bytes that the disk of the caches can still take."""
    folder = cache_dir()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return max(shutil.disk_usage(folder).free - SPARE, 0)
