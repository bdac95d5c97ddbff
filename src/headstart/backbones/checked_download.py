"""A download that is kept: under a temporary name, checked, renamed; one process fetches, the others wait for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from headstart.core.cache_folder import cache_dir
from headstart.core.errors import CheckError
from headstart.core.progress import StageProgress

OFFLINE = ("HEADSTART_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
PART, LOCK = ".part", ".lock"


def weights_folder() -> Path:
    """The folder of downloaded files."""
    return cache_dir() / "weights"


def offline() -> str:
    """The variable that forbids downloads; "" where none does."""
    return next((name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")), "")


def download(
    url: str,
    target: Path,
    fault: Callable[[Path], str],
    progress: StageProgress | None = None,
    *,
    timeout: float = 30.0,
    pause: float = 1.0,
) -> Path:
    """Download to a temporary name, check, rename. Another process waits for the lock, then finds the file.

    Args:
        url: see `fetch.fetch`, for ``progress``, ``timeout`` and ``pause`` too.
        target: where it is kept; its folder is made.
        fault: how a file differs from the recorded one; "" where it is the right one.

    Raises:
        FetchError: it cannot be downloaded.
        UsageError: it cannot be written.
        CheckError: it is another file.
    """
    from filelock import FileLock

    from headstart.backbones.fetch import fetch, writing

    part = target.with_name(target.name + PART)
    with writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.parent / LOCK)
        lock.acquire()
    try:
        if target.is_file() and not fault(target):
            return target
        resumed = part.is_file()
        fetch(url, part, progress, timeout=timeout, pause=pause)
        if (wrong := fault(part)) and resumed:  # its beginning may be of another file: once more from the start
            part.unlink()
            fetch(url, part, progress, timeout=timeout, pause=pause)
            wrong = fault(part)
        if wrong:
            part.unlink()
            raise CheckError(f"{url} gave another file than the recorded one ({wrong}). It was not kept.")
        with writing(target):
            part.replace(target)
        return target
    finally:
        lock.release()
