"""Files and folders that are complete or absent: written to a temporary folder beside their path, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".headstart-"  # of temporary folders


def folder_above(target: Path) -> Path:
    """The nearest folder above ``target`` that exists."""
    return next(folder for folder in (*target.parents, target) if folder.exists())


def probe(target: Path) -> None:
    """Raise `OSError` if ``target`` cannot be written; permission bits are no proof on read-only disks or for root."""
    os.rmdir(tempfile.mkdtemp(prefix=PREFIX, dir=folder_above(target)))


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A temporary folder on the disk of ``target``; removed afterwards with all that is still in it."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder_above(target)))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(made: Path, target: Path) -> None:
    """Rename ``made`` to ``target``. An older folder there is removed after that; on an error it is put back."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        made.rename(target)
        return
    old = made.with_name(f"{made.name}.old")
    target.rename(old)
    try:
        made.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
