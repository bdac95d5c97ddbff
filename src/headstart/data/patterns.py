"""Patterns of paths, such as photos/*/1*.jpg, where no shell has filled them in: in quotes, in Python, on Windows."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import replace

from headstart.data.scan import Scan, scan


def matches(path: str | os.PathLike[str]) -> list[str]:
    """What a pattern matches, sorted; nothing where it is no pattern, or the name of a file that is there."""
    name = os.fspath(path)
    if not glob.has_magic(name) or os.path.lexists(name):
        return []
    return sorted(glob.glob(name, recursive=True))


def filled_in(paths: Iterable[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """The same paths, with the files that a pattern matches in its place."""
    return [each for path in paths for each in (*matches(path),) or (path,)]


def scan_matching(pattern: str) -> tuple[str, Scan]:
    """The folder before the first sign of a pattern, and what in it the pattern matches, with all that is below."""
    parts = pattern.replace(os.sep, "/").split("/")
    fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    root = "/".join(parts[:fixed]) or ("/" if fixed else os.curdir)
    wanted = {os.path.relpath(path, root).replace(os.sep, "/") for path in matches(pattern)}
    there = scan(root)

    def is_wanted(name: str) -> bool:
        above = name.split("/")
        return any("/".join(above[:count]) in wanted for count in range(1, len(above) + 1))

    images = [name for name in there.images if is_wanted(name)]
    return root, replace(there, images=images, folders=[], problems=[x for x in there.problems if is_wanted(x.name)])
