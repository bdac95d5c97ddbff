"""Finds the image files in a folder and its subfolders, and says what else is in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from headstart.core.errors import cannot_read, reason_of
from headstart.core.regular_file import NO_FILE
from headstart.core.types import Problem
from headstart.data.formats import COMPANIONS, HEAD, SUFFIXES, suffix_of, why_not_read

LEFT_OUT = "left out"  # kinds of a Problem: a folder that is not searched
NO_IMAGE = "no image"  # and a folder without an image
_BY_NAME = SUFFIXES | COMPANIONS  # endings that say enough

# what systems and tools leave behind, in lower case; hidden ones begin with a dot
_NO_FOLDERS = frozenset(
    ("__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "recycler", "system volume information",
     "lost+found", "__pycache__")
)  # fmt: skip


@dataclass
class Scan:
    """What is below a folder: paths relative to it, with forward slashes, sorted."""

    images: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def empty_folders(self, depth: int) -> list[str]:
        """The folders so deep (1: in the folder itself) that have no image in them nor below."""
        full = {"/".join(name.split("/")[:depth]) for name in self.images if name.count("/") >= depth}
        return sorted(folder for folder in self.folders if folder.count("/") == depth - 1 and folder not in full)


def scan(root: str) -> Scan:
    """Search a folder. What cannot be entered or is not followed is a problem, and the search goes on.

    Raises:
        UsageError: the folder itself cannot be read.
    """
    found, real, waiting = Scan(), os.path.realpath(root), [""]
    while waiting:
        folder = waiting.pop()
        try:
            inside = [*_entries(os.path.join(root, folder))] if folder else [*entries(root)]
        except OSError as error:
            found.folders.remove(folder.rstrip("/"))  # whether there is an image in it is not known
            found.problems.append(_unreadable(folder.rstrip("/"), error))
            continue
        for entry in inside:
            _look_at(entry, folder + entry.name, real, found, waiting)
    found.images.sort()
    found.folders.sort()
    found.problems.sort(key=lambda problem: problem.name)
    return found


def _look_at(entry: os.DirEntry[str], name: str, root: str, found: Scan, waiting: list[str]) -> None:
    """Add one entry of a folder to what was found, or to the folders that wait."""
    try:
        if entry.is_symlink() and (problem := _why_not_followed(entry.path, name, root)):
            if problem.kind == LEFT_OUT or why_not_read(name, b"") is None:
                found.problems.append(problem)
        elif entry.is_dir():
            found.folders.append(name)
            waiting.append(name + "/")
        elif entry.is_file():  # to read a pipe would wait for ever
            why = why_not_read(name, _head(entry.path, name))
            if why is None:
                found.images.append(name)
            elif why:
                found.problems.append(Problem(printable(name), "unreadable", why))
        elif why_not_read(name, b"") is None:
            found.problems.append(Problem(printable(name), "unreadable", NO_FILE))
    except OSError as error:
        found.problems.append(_unreadable(name, error))


def _head(path: str, name: str) -> bytes:
    """The first bytes of a file, b"" where its name says enough."""
    if suffix_of(name) in _BY_NAME:
        return b""
    with open(path, "rb") as file:
        return file.read(HEAD)


def _unreadable(name: str, error: OSError) -> Problem:
    return Problem(printable(name), "unreadable", reason_of(error))


def _why_not_followed(path: str, name: str, root: str) -> Problem | None:
    """The problem with a symbolic link that is not followed.

    Links to files are followed, and links to folders on the two levels where classes are: so no chain of links can be
    endless.
    """
    target, shown = os.path.realpath(path), printable(name)
    if not os.path.isdir(target):
        missing = Problem(shown, "missing", f"a link to {target!r}, which is no file")
        return None if os.path.isfile(target) else missing
    if root == target or root.startswith(os.path.join(target, "")):
        return Problem(shown, LEFT_OUT, "a link to a folder that contains it")
    return Problem(shown, LEFT_OUT, "a link to a folder, not followed so deep") if name.count("/") > 1 else None


def entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder, without hidden ones and those that a system leaves behind.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        yield from _entries(folder)
    except OSError as error:
        raise cannot_read(folder, error) from error


def is_passed_over(name: str) -> bool:
    """Whether a file or a folder is hidden, or one that a system leaves behind."""
    return name.startswith(".") or name.lower() in _NO_FOLDERS


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as inside:
        yield from (entry for entry in inside if not is_passed_over(entry.name))


def name_below(root: str, path: str) -> str:
    """What a file is called in messages: its path from the folder that was given, "" being the working directory."""
    return printable(os.path.relpath(path, root or os.curdir).replace(os.sep, "/"))


def printable(name: str) -> str:
    """A file name that can be printed: bytes that are not UTF-8 become ``\\xff``."""
    if name.isascii():
        return name
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # signs that no file's name can have
        return name.encode("utf-8", "backslashreplace").decode()
