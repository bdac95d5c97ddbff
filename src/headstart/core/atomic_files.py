"""Files and folders that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".headstart-"  # of what is on its way


def folder_above(target: Path) -> Path:
    """The nearest folder above ``target`` that exists."""
    return next(folder for folder in (*target.parents, target) if folder.exists())


def probe(target: Path) -> None:
    """Raise `OSError` if nothing can be made at ``target``; permission bits say little of a read-only disk or root."""
    os.rmdir(tempfile.mkdtemp(prefix=PREFIX, dir=folder_above(target)))


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """An empty folder on the disk where ``target`` is to lie, gone afterwards with what is still in it."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder_above(target)))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(made: Path, target: Path) -> None:
    """Rename what was made to ``target``; an older folder there goes only once the new one stands, else comes back."""
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
