"""A path that is not there, or that cannot be looked at: what it may be instead."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Callable

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def why_missing(path: str | os.PathLike[str]) -> str:
    """A sentence on a path that cannot be opened, "" for one that is there."""
    name = os.fspath(path)
    if is_absent(name):
        near = near_path(name)
        return f"No such file or folder: '{name}'.{f' Did you mean {near!r}?' if near else ''}"
    if _ADDRESS.match(name):
        return f"'{name}' is an address, and nothing is downloaded. Save it first, and name the file or folder."
    try:
        os.stat(name)
    except PermissionError:
        return f"'{name}' cannot be read: permission denied."
    except (FileNotFoundError, NotADirectoryError):
        near = near_path(name)
        return f"No file matches the pattern '{name}'.{f' Did you mean {near!r}?' if near else ''}"
    except (OSError, ValueError) as error:
        return f"'{name}' cannot be read: {str(getattr(error, 'strerror', None) or error).lower()}."
    return ""


def why_no_file(path: str | os.PathLike[str]) -> str:
    """What is at a path in place of a file, for the end of a sentence; "" where there is a file."""
    if os.path.isfile(path):
        return ""
    if os.path.isdir(path):
        return "received a folder"
    return "received a pipe or a device" if os.path.exists(path) else "there is none"


def is_absent(name: str) -> bool:
    """Whether nothing is at a path; an address or a pattern is none."""
    try:
        os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        return not (_ADDRESS.match(name) or glob.has_magic(name))
    except (OSError, ValueError):
        pass
    return False


def near_path(name: str, wanted: Callable[[str], bool] = lambda path: True) -> str:
    """The path in the same folder that is nearest in spelling, of those ``wanted``; "" where none is near."""
    folder, base = os.path.split(name.rstrip("/\\"))
    try:
        there = [entry for entry in os.listdir(folder or os.curdir) if not entry.startswith(".")]
    except OSError:
        return ""
    found = difflib.get_close_matches(base, there, n=5, cutoff=0.6)
    return next((path for each in found if wanted(path := os.path.join(folder, each))), "")
