"""Photos and shards in object stores and other file systems; only where such an address is given."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from headstart.core.atomic_files import beside, put
from headstart.core.cache_folder import SPARE, cache_dir, free_disk
from headstart.core.errors import DataError, HeadstartError, UnreadableImageError, UsageError, check_machine, one_line
from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data.class_folders import LAYOUT, in_classes, not_read, part_of
from headstart.data.columns import PARTS, Columns
from headstart.data.csv_files import CSV_SUFFIXES
from headstart.data.file_systems import Place, answered, in_words, is_remote, joined, name_in, place_of, shown
from headstart.data.formats import COMPANIONS, HEAD, MOST_BYTES, SUFFIXES, suffix_of, why_not_read
from headstart.data.scan import Scan, is_passed_over, printable
from headstart.data.shards import shards
from headstart.data.tables import METADATA, NOT_USED, labelled_files

__all__ = ["Entry", "fetched", "is_remote", "joined", "listed", "read", "remote_dataset", "remote_images", "shards_in"]

_PIECE = 8 << 20  # bytes copied at once
_SHARDS = (".tar", ".parquet", ".pq")


class Entry(NamedTuple):
    """A file below an address."""

    path: str  # from the address on, with forward slashes; "" for the address itself
    size: int
    mtime: float | None  # seconds since 1970; None where the file system does not say


def listed(url: str) -> list[Entry]:
    """All files below an address, sorted by path; hidden ones too.

    Raises:
        UsageError: nothing is there, it may not be read or be reached, or no library knows such addresses.
    """
    return _listed(url)[0]


def _listed(url: str) -> tuple[list[Entry], list[str]]:
    """The files, and the folders."""
    place = answered(url, lambda: place_of(url))  # which says what is missing where there is no pyarrow
    from pyarrow import fs

    kind = answered(url, lambda: place.system.get_file_info([place.path])[0])
    if kind.type == fs.FileType.NotFound:
        raise UsageError(f"No such file or folder: '{shown(url)}'.")
    if kind.type == fs.FileType.File:
        return [Entry("", int(kind.size or 0), _seconds(kind.mtime_ns))], []
    try:
        if place.other is not None:
            files, folders = _of_fsspec(place)
        else:
            found = place.system.get_file_info(fs.FileSelector(place.path, recursive=True))
            files = [Entry(x.path, int(x.size or 0), _seconds(x.mtime_ns)) for x in found if x.type == fs.FileType.File]
            folders = [x.path for x in found if x.type == fs.FileType.Directory]
    except Exception as error:
        raise in_words(url, error) from error
    start = len(place.path.rstrip("/")) + 1
    below = [Entry(each.path[start:], each.size, each.mtime) for each in files]
    return sorted(each for each in below if each.path), sorted(path[start:] for path in folders if path[start:])


def _of_fsspec(place: Place) -> tuple[list[Entry], list[str]]:
    root = place.other._strip_protocol(place.path).rstrip("/")
    if not place.other.exists(root or "/"):
        raise FileNotFoundError(root)
    found = place.other.find(root, detail=True, withdirs=True)
    at = len(root) - len(place.path.rstrip("/"))
    files = [
        Entry(path[at:], int(info.get("size") or 0), _moment(info))
        for path, info in found.items()
        if info["type"] == "file"
    ]
    return files, [path[at:] for path, info in found.items() if info["type"] == "directory"]


def _moment(info: dict[str, object]) -> float | None:
    """When a file was changed; each file system has its own word."""
    value = next(
        (info[key] for key in ("mtime", "LastModified", "last_modified", "updated", "created") if info.get(key)), None
    )
    if isinstance(value, int | float):
        return float(value)
    stamp = getattr(value, "timestamp", None)
    return float(stamp()) if callable(stamp) else None


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def read(url: str, most: int = MOST_BYTES) -> bytes:
    """The bytes of one file; any thread may call it.

    Raises:
        UnreadableImageError: it is not there, has more than ``most`` bytes, or cannot be read.
    """
    try:
        place = place_of(url)
        with place.system.open_input_file(place.path) as file:
            size = int(file.size())
            if size > most:
                raise UnreadableImageError("unreadable", f"{size:,} bytes, and up to {most:,} are read")
            return bytes(file.read(size))
    except HeadstartError:
        raise
    except FileNotFoundError as error:
        raise UnreadableImageError("missing", "no such file") from error
    except Exception as error:
        check_machine(error)
        raise UnreadableImageError("unreadable", one_line(error)) from error


def fetched(url: str, folder: str | os.PathLike[str]) -> Path:
    """A file copied into a folder, in a folder of its own there; as a whole, or not at all.

    Raises:
        UsageError: nothing is there, it may not be read or be reached, or the disk has no room.
        DataError: less came than there is.
    """
    target = Path(folder) / hashlib.blake2b(url.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    target /= _safe(name_in(url))
    place = answered(url, lambda: place_of(url))
    info = answered(url, lambda: place.system.get_file_info([place.path])[0])
    if not info.is_file:
        there = "a folder" if info.type.name == "Directory" else "nothing"
        raise UsageError(f"Expected a file at '{shown(url)}'. There is {there}.")
    Path(folder).mkdir(parents=True, exist_ok=True)
    with beside(target) as made:
        try:
            with place.system.open_input_file(place.path) as source, (made / "file").open("xb") as copy:
                size = int(source.size())
                while piece := source.read(_PIECE):
                    copy.write(piece)
                came = copy.tell()
        except OSError as error:
            if error.errno == 28:  # no space left on device
                raise UsageError(f"'{folder}' lacks room for '{shown(url)}'.") from error
            raise in_words(url, error) from error
        except Exception as error:
            raise in_words(url, error) from error
        if came != size:
            raise DataError(f"'{shown(url)}': {came:,} of {size:,} bytes came. Try again.")
        put(made / "file", target)
    return target


def _safe(name: str) -> str:
    """A name that any disk takes, and that leads nowhere."""
    stem, suffix = os.path.splitext(re.sub(r"[^\w.-]", "_", name))
    return f"{stem.strip('.')[-80:] or 'file'}{suffix[-20:]}"


def shards_in(url: str, there: Sequence[Entry] | None = None) -> list[str] | None:
    """The addresses of the tar or Parquet files that hold the images of a folder, or of the file itself; else None.

    Args:
        there: what `listed` gave, where it was asked.

    Raises:
        UsageError: as `listed`.
    """
    found = _shards(url, [each.path for each in (listed(url) if there is None else there)])
    return [joined(url, path) for path in found] or None


def _shards(url: str, paths: Sequence[str]) -> list[str]:
    """As `shards.tars_in` and `shards.files_in` find them on a disk."""
    if [*paths] == [""]:
        return [""] if name_in(url).lower().endswith(_SHARDS) else []
    seen = [path for path in paths if not any(map(is_passed_over, path.split("/")))]
    tars, parquets = (_in_usual_places(seen, suffix) for suffix in (".tar", ".parquet"))
    images = any(suffix_of(path) in SUFFIXES for path in seen)
    if (
        tars
        and not images
        and {path[: -len(".parquet")] for path in parquets} <= {path[: -len(".tar")] for path in tars}
    ):
        return tars
    return parquets


def _in_usual_places(paths: Sequence[str], suffix: str) -> list[str]:
    for base in ("", "data/", "default/"):
        places = {base, *(f"{base}{part}/" for part in PARTS)}
        if found := [path for path in paths if path.endswith(suffix) and path[: path.rfind("/") + 1] in places]:
            return sorted(found)
    return []


def remote_dataset(url: str, columns: Columns, label_from: str | None = None) -> ImageDataset:
    """The labelled images at an address: class folders as on a disk, read one by one; or shards, which are copied.

    Copies lie in a temporary folder of the cache that lives as long as the data set.

    Raises:
        UsageError, DataError: as `listed`, and as `open_source` for what is there.
    """
    files, folders = _listed(url)
    paths = [each.path for each in files]
    if names := _shards(url, paths):
        total = sum(each.size for each in files if each.path in {*names})
        return _of_shards(url, names, total, columns, label_from)
    if paths == [""]:
        raise UsageError(f"'{shown(url)}' is a file, not a folder of images nor a tar or Parquet file. {LAYOUT}.")
    if label_from is None and (table := next((path for path in paths if _says_labels(path)), None)):
        raise UsageError(
            f"'{shown(joined(url, table))}' says the labels, and tables are read on a disk alone. Copy the folder, "
            "or say the class by the paths: --label-from REGEX."
        )
    found, problems = in_classes(shown(url), _scan(url, paths, folders), label_from)
    if label_from is None:
        ignored = "tables are not read at an address; the folders say the classes"
        tables = (path for path in paths if "/" not in path and path.lower().endswith(CSV_SUFFIXES))
        problems += [Problem(printable(path), NOT_USED, ignored) for path in tables]
    return labelled_files(shown(url), [(sample, joined(url, path)) for sample, path in found], problems, read)


def remote_images(url: str) -> ImageDataset:
    """The images at an address without their labels, to predict on; each has its address as its name.

    Raises:
        UsageError, DataError: as `listed`; or there are none.
    """
    files, folders = _listed(url)
    there = _scan(url, [each.path for each in files], folders)
    if not there.images:
        raise DataError(f"'{shown(url)}' has no images in it.{not_read(there.problems)}")
    found = [joined(url, path) for path in sorted(there.images)]
    samples = [Sample(shown(path), "") for path in found]
    return ImageDataset(shown(url), samples, lambda row: read(found[row]), tuple(there.problems), files=found)


def _says_labels(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return name == METADATA and (not folder or ("/" not in folder and bool(part_of(folder))))


def _scan(url: str, paths: Sequence[str], folders: Sequence[str]) -> Scan:
    """What `scan.scan` finds on a disk."""
    there = Scan(folders=[path for path in folders if not any(map(is_passed_over, path.split("/")))])
    for path in paths:
        if any(map(is_passed_over, path.split("/"))):
            continue
        try:
            head = b"" if suffix_of(path) in SUFFIXES | COMPANIONS else _head(joined(url, path))
        except UnreadableImageError as error:
            there.problems.append(Problem(printable(path), error.kind, error.detail))
            continue
        why = why_not_read(path, head)
        if why is None:
            there.images.append(path)
        elif why:
            there.problems.append(Problem(printable(path), "unreadable", why))
    return there


def _head(url: str) -> bytes:
    """The first bytes of a file whose name says nothing."""
    try:
        place = place_of(url)
        with place.system.open_input_file(place.path) as file:
            return bytes(file.read(HEAD))
    except Exception as error:
        check_machine(error)
        raise UnreadableImageError("unreadable", one_line(error)) from error


def _of_shards(url: str, names: Sequence[str], total: int, columns: Columns, label_from: str | None) -> ImageDataset:
    if total > free_disk():
        raise UsageError(
            f"'{shown(url)}': {total / 1e6:,.0f} MB, and '{cache_dir()}' has room for {free_disk() / 1e6:,.0f} MB "
            f"beside {SPARE / 1e6:,.0f} MB that stay free. Another place for it: HEADSTART_HOME."
        )
    if sys.stderr.isatty():
        sys.stderr.write(f"{shown(url)}: {total / 1e6:,.1f} MB are copied to this machine.\n")
    cache_dir().mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = stack.enter_context(beside(cache_dir() / "shards"))
        files = []
        for name in names:
            target = folder.joinpath("shards", *map(_safe, (name or name_in(url)).split("/")))
            put(fetched(joined(url, name), folder), target)
            files.append(str(target))
        root = files[0] if [*names] == [""] else str(folder / "shards")
        dataset = shards(root, files, columns, label_from)
        if dataset is None:
            raise UsageError(f"--label-from is for a folder of photos or tar files. Received: '{shown(url)}'.")
        weakref.finalize(dataset.read, _remove, stack.pop_all(), os.getpid())
        return replace(dataset, root=shown(url), files=None, spans=None)  # the copies have no place of their own


def _remove(folder: ExitStack, process: int) -> None:
    """Remove a folder of copies; not from a process that was forked from the one that made it."""
    if os.getpid() == process:
        folder.close()
