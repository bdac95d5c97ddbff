"""A path that is not there, or that cannot be looked at: what it may be instead."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Callable

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def why_missing(path: str | os.PathLike[str], wanted: Callable[[str], bool] | None = None) -> str:
    """A sentence on a path that cannot be opened, "" for one that is there.

    Args:
        wanted: whether a path near to it is of the right kind, and may be meant.
    """
    name = os.fspath(path)
    if _ADDRESS.match(name):
        return f"'{name}' is an address, and nothing is downloaded. Save it first, and name the file or folder."
    try:
        os.stat(name)
    except PermissionError:
        return f"'{name}' cannot be read: permission denied."
    except (FileNotFoundError, NotADirectoryError):
        near = _near(name, wanted)
        kind = "No file matches the pattern" if glob.has_magic(name) else "No such file or folder:"
        return f"{kind} '{name}'.{f' Did you mean {near!r}?' if near else ''}"
    except (OSError, ValueError) as error:
        return f"'{name}' cannot be read: {str(getattr(error, 'strerror', None) or error).lower()}."
    return ""


def _near(name: str, wanted: Callable[[str], bool] | None) -> str:
    """The path in the same folder that is nearest in spelling, "" where none is near."""
    folder, base = os.path.split(name.rstrip("/\\"))
    try:
        there = [entry for entry in os.listdir(folder or os.curdir) if not entry.startswith(".")]
    except OSError:
        return ""
    found = difflib.get_close_matches(base, there, n=5, cutoff=0.6)
    paths = (os.path.join(folder, each) for each in found)
    return next((each for each in paths if wanted is None or wanted(each)), "")
