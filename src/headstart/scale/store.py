"""What is kept of runs on a cluster: lists of images, shards of features, and what an interrupted run left."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from headstart.core.cache_folder import cache_dir
from headstart.core.errors import UsageError, cannot_read, reason_of
from headstart.data.sources import PathLike
from headstart.learn.feature_cache import SpaceInfo
from headstart.scale.shards import SUFFIX, UNFINISHED, about

SHARDS, LISTS, MODELS, PREDICTIONS = "shards", "lists", "models", "predictions"  # folders of a store
IN_USE = 600  # seconds since the last file was written, within which a folder is left alone
LEFT = 86400  # seconds after which an unfinished file is nobody's


def place_of(store: PathLike | None) -> Path:
    """The folder of a store, which is made where it is not there; None: in the cache folder.

    Raises:
        UsageError: it cannot be made.
    """
    place = Path(os.path.abspath(store if store is not None else _default()))
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The folder '{place}' cannot be made: {reason_of(error)}. Choose another: --store") from error
    return place


def remove_left(folder: Path) -> None:
    """Remove files that a worker that was killed began long ago."""
    for path in folder.rglob(f"{UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFT:
                path.unlink()


def kept_spaces() -> list[SpaceInfo]:
    """The features in the store of the cache folder, the one used last first.

    Raises:
        UsageError: the folder cannot be read.
    """
    found = []
    for folder in _folders(SHARDS):
        shards, size, last_used = sorted(folder.rglob(f"*{SUFFIX}")), *_usage(folder)
        told = [about(path) for path in shards]
        rows = sum(int(each.get("images", 0)) for each in told)
        found.append(SpaceInfo(folder.name, told[-1].get("space", {}) if told else {}, rows, size, last_used))
    return sorted(found, key=lambda info: (-info.last_used, info.space))


def prune_store(*, older_than_days: float | None = None, max_bytes: int | None = None, everything: bool = False) -> int:
    """As `feature_cache.prune`, of the store; with ``everything`` also lists, and what interrupted runs left.

    A folder in which something was written a moment ago stays. Returns the bytes freed.
    """
    places = [*_folders(SHARDS)]
    if everything:
        places += [each for kind in (MODELS, PREDICTIONS) for each in _folders(kind)]
        places += [_default() / LISTS] if (_default() / LISTS).is_dir() else []
    used = sorted(((*_usage(place), place) for place in places), key=lambda each: each[1])
    total, freed = sum(size for size, _, _ in used), 0
    for size, last_used, place in used:
        age = time.time() - last_used
        old = older_than_days is not None and age > older_than_days * 86400
        if age > IN_USE and (everything or old or (max_bytes is not None and total - freed > max_bytes)):
            try:
                shutil.rmtree(place)
            except OSError as error:
                raise UsageError(f"'{error.filename}' cannot be removed: {reason_of(error)}.") from error
            freed += size
    return freed


def _default() -> Path:
    return cache_dir() / "scale"


def _folders(kind: str) -> Iterator[Path]:
    place = _default() / kind
    try:
        yield from (path for path in sorted(place.iterdir()) if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise cannot_read(place, error) from error


def _usage(folder: Path) -> tuple[int, float]:
    """Bytes, and when something was written last."""
    size, changed = 0, folder.stat().st_mtime
    for path in folder.rglob("*"):
        with suppress(OSError):
            status = path.stat()
            size, changed = size + status.st_size, max(changed, status.st_mtime)
    return size, changed
