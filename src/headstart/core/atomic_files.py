"""Files and folders that are complete or absent: written to a temporary folder beside their path, then renamed."""

from __future__ import annotations

import errno
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


def put_new(made: Path, target: Path) -> None:
    """Move ``made``, a file or a folder that is not empty, to ``target``, where nothing may be.

    Raises:
        FileExistsError: something is there, though it came into being a moment ago.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if made.is_dir():
            made.rename(target)  # it replaces nothing but an empty folder
        else:
            _link(made, target)  # a rename would replace a file
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise


def _link(made: Path, target: Path) -> None:
    try:
        os.link(made, target)  # a second name of it; the first goes with its folder
    except FileExistsError:
        raise
    except OSError:  # a disk that knows no links: take the name first
        target.open("xb").close()
        try:
            made.replace(target)
        except BaseException:
            target.unlink()
            raise
