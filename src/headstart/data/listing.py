"""The images that paths name, in order: files, folders, patterns, addresses and lists of names. A million are cheap."""

from __future__ import annotations

import hashlib
import heapq
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, overload

from headstart.core.arguments import expanded
from headstart.core.errors import DataError, UnreadableImageError, UsageError
from headstart.core.missing import why_missing
from headstart.core.regular_file import open_regular, rest_of
from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data.class_folders import not_read
from headstart.data.formats import MOST_BYTES
from headstart.data.patterns import matches
from headstart.data.scan import entries, printable, scan
from headstart.data.web_address import is_address

if TYPE_CHECKING:
    from headstart.data.addresses import FetchAhead

_BOMS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16


class Listing:
    """Paths of images; what a folder holds that is no image keeps its place, with the problem."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.problems: dict[int, Problem] = {}  # by row
        self.stamps = array("Q")  # see `stamp_of`; 0 for what was not read

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def samples(self) -> Sequence[Sample]:
        """The images by name, each made when it is asked for."""
        return _Samples(self)

    def add(self, given: str | os.PathLike[str], *, missing_too: bool = False) -> None:
        """A file or an address, all images in a folder and its subfolders, or what a pattern matches.

        Raises:
            UsageError: it is not there, unless such are listed too: reading them fails.
            DataError: a folder without images.
        """
        path = expanded(given)
        if is_address(path):
            self.paths.append(path)
        elif os.path.isdir(path):
            self._add_folder(path)
        elif matching := matches(path):
            searched: list[str] = []
            for each in matching:  # sorted: a folder comes before what is in it
                if any(each.startswith(folder) for folder in searched):
                    continue
                if os.path.isdir(each):
                    searched.append(os.path.join(each, ""))
                self.add(each, missing_too=True)
        elif (missing := why_missing(path)) and not missing_too:
            raise UsageError(missing)
        else:
            self.paths.append(path)

    def _add_folder(self, path: str) -> None:
        if problem := why_no_photos(path):
            raise UsageError(problem)
        there = scan(path)
        if not there.images:
            raise DataError(f"{path!r} has no images in it.{not_read(there.problems)}")
        images = ((name, None) for name in there.images)
        others = ((problem.name, problem) for problem in there.problems)
        for name, found in heapq.merge(images, others, key=lambda pair: pair[0]):
            if found is not None:
                where = os.path.join(printable(path), found.name)
                self.problems[len(self.paths)] = Problem(where, found.kind, found.detail)
            self.paths.append(os.path.join(path, name))

    def check(self, *, urls: bool) -> None:
        """Refuse an empty list, and addresses unless they are to be fetched.

        Raises:
            UsageError: either.
        """
        if not self.paths:
            raise UsageError("No images given. Expected paths of image files or of folders with images.")
        address = None if urls else next((path for path in self.paths if is_address(path)), None)
        if address is not None:
            raise UsageError(
                f"'{address}' is an address, and nothing is downloaded unless it is asked for: --urls. Or save it "
                "first, and name the file."
            )

    def _fetched(self, rows: Sequence[int]) -> FetchAhead | None:
        """The addresses among these rows, fetched ahead; None where there are none."""
        if not (addresses := [row for row in rows if is_address(self.paths[row])]):
            return None
        from headstart.data.addresses import FetchAhead, fetch_image

        return FetchAhead(lambda row: fetch_image(self.paths[row]), addresses)

    @contextmanager
    def opened(self, rows: Sequence[int] | None = None) -> Iterator[ImageDataset]:
        """All images as a data set, of which these ``rows`` are read, in this order; default: all."""
        self.stamps = array("Q", bytes(8 * len(self)))
        ahead = self._fetched(range(len(self)) if rows is None else rows)

        def read(row: int) -> bytes:
            path = self.paths[row]
            if not (ahead and is_address(path)):
                return self._read(row, path)
            content = ahead.read(row)
            self.stamps[row] = stamp_of(path)
            return content

        try:
            yield ImageDataset("", self.samples, read)
        finally:
            if ahead:
                ahead.close()

    def dataset(self) -> ImageDataset:
        """All images as a data set; no address is fetched."""
        self.stamps = array("Q", bytes(8 * len(self)))
        paths = [*map(os.path.abspath, self.paths)]  # also where the working directory is another one later
        return ImageDataset("", self.samples, lambda row: self._read(row, paths[row]))

    def _read(self, row: int, path: str) -> bytes:
        if problem := self.problems.get(row):
            raise UnreadableImageError(problem.kind, problem.detail)
        with open_regular(path, MOST_BYTES) as file:
            self.stamps[row] = stamp_of(path, os.fstat(file.fileno()))
            return rest_of(file, path, MOST_BYTES)

    def stamps_now(self) -> array[int]:
        """What `stamps` would be if all were read now."""
        return array("Q", (_stamp_now(path) for path in self.paths))


class _Samples(Sequence[Sample]):
    """Made when they are asked for."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    def __len__(self) -> int:
        return len(self._listing)

    @overload
    def __getitem__(self, row: int) -> Sample: ...

    @overload
    def __getitem__(self, row: slice) -> Sequence[Sample]: ...

    def __getitem__(self, row: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        problem = self._listing.problems.get(row)
        return Sample(problem.name if problem else printable(self._listing.paths[row]), "")


def list_images(paths: Iterable[str | os.PathLike[str]], *, missing_too: bool = False) -> Listing:
    """All that the paths name, see `Listing.add`."""
    listing = Listing()
    for path in paths:
        listing.add(path, missing_too=missing_too)
    return listing


def names_in(content: bytes) -> list[str]:
    """The names in a list: one a line, or with a NUL after each, as ``find -print0`` has them. Blank lines are none.

    Raises:
        UsageError: it is UTF-16.
    """
    if content.startswith(_BOMS):
        raise UsageError("The list of paths is UTF-16. Expected UTF-8: in PowerShell, Out-File -Encoding utf8.")
    content = content.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in content:
        return [os.fsdecode(name) for name in content.split(b"\0") if name]
    return [os.fsdecode(name) for line in content.split(b"\n") if (name := line.removesuffix(b"\r"))]


def stamp_of(path: str, stat: os.stat_result | None = None) -> int:
    """64 bits that stand for a path, and for the size of its file and when it was changed; never 0."""
    seen = (os.path.abspath(path), stat.st_size, stat.st_mtime_ns) if stat else (path,)
    digest = hashlib.blake2b(repr(seen).encode("utf-8", "surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest(), "little") or 1


def _stamp_now(path: str) -> int:
    try:
        return stamp_of(path, None if is_address(path) else os.stat(path))
    except (OSError, ValueError):
        return 0


def why_no_photos(folder: str) -> str:
    """A sentence where a folder is a model that Headstart wrote, "" where it is not."""
    if {"config.json", "model.safetensors"} <= {entry.name for entry in entries(folder)}:
        return f"{folder!r} is a model, not a folder of photos. The model comes first: headstart predict {folder} PHOTO"
    return ""
