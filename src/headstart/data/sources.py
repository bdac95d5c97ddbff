"""Opens an image data set: class folders, CSV, Parquet, tar or IDX files, a named set, paths or arrays."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.arguments import PATH, TEXT, checks, expanded
from headstart.core.counts import counted
from headstart.core.errors import DataError, HeadstartError, UsageError, did_you_mean
from headstart.core.missing import why_missing
from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data.class_folders import LAYOUT, class_folders, not_read, part_of
from headstart.data.columns import Columns
from headstart.data.csv_files import CSV_SUFFIXES
from headstart.data.formats import ARCHIVES, SUFFIXES
from headstart.data.idx import idx_dataset, idx_pairs, is_idx
from headstart.data.left_out import warn_of
from headstart.data.listing import list_images, why_no_photos
from headstart.data.named_sets import NAMED, NAMED_ROWS
from headstart.data.parquet import parquet_dataset
from headstart.data.patterns import matches, scan_matching
from headstart.data.remote import is_remote, remote_dataset
from headstart.data.scan import entries, printable, scan
from headstart.data.shards import PACKED_TARS, files_in, in_braces, of_braces, shards, tars_in
from headstart.data.tables import METADATA, NOT_USED, Found, csv_samples, file_dataset, table_dataset
from headstart.data.tar_samples import UNPACKED
from headstart.data.tars import tar_dataset, tar_images
from headstart.data.web_address import is_address

PathLike = str | os.PathLike[str]


@checks(data=PATH, image_column=TEXT, label_column=TEXT, group_column=TEXT, split_column=TEXT, label_from=TEXT)
def open_source(
    data: PathLike,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    split_column: str | None = None,
    label_from: str | None = None,
) -> ImageDataset:
    """The data set in a folder, a CSV, Parquet, tar or IDX file, in several such shards, or of a known name.

    A folder or shards may be at an address: s3://, gs://, hdfs://, file://, or one that fsspec knows.

    Args:
        image_column, label_column, group_column, split_column: of a table, or fields in the .json files of a tar;
            columns with the usual names are found without them.
        label_from: for a folder or tar files, a regular expression whose first group, searched in each image's path,
            is the class.

    Raises:
        UsageError: no such path, or a file of another kind.
        DataError: there are no labelled images in it.
    """
    columns = Columns(image_column, label_column, group_column, split_column)
    root = os.fspath(data)
    if root in NAMED and not os.path.isdir(root):
        return NAMED[root]()
    if root in NAMED_ROWS and not os.path.exists(root):
        raise UsageError(f"{root!r} is a table of numbers, not of photos: headstart train {root}")
    if is_remote(root):
        return remote_dataset(root, columns, label_from)
    if os.path.isdir(root) and (problem := why_no_photos(root)):
        raise UsageError(problem)
    if os.path.isdir(root):
        return _folder(root, columns) if label_from is None else _folder_by_pattern(root, columns, label_from)
    if names := in_braces(root):
        return of_braces(root, names, columns, label_from)
    if files := matches(root):
        return shards(root, files, columns, label_from) or _matching(root, label_from)
    if os.path.lexists(root) and (dataset := shards(root, [root], columns, label_from)):
        return dataset
    if label_from is not None:
        raise UsageError(f"--label-from is for a folder of photos or tar files. Received: {root!r}.")
    if missing := why_missing(root):
        named = did_you_mean(root, NAMED) if root.isidentifier() else ""
        raise UsageError(f"{missing} {named}".strip())
    folder, name = os.path.split(root)
    suffix = os.path.splitext(name)[1].lower()
    if suffix in CSV_SUFFIXES:
        return table_dataset(folder, [(root, "")], columns)
    if stem := is_idx(name):
        beside = [entry.name for entry in entries(folder or os.curdir) if is_idx(entry.name) == stem]
        return idx_dataset(root, idx_pairs(folder, beside))
    raise UsageError(_why_no_source(root, suffix))


def _why_no_source(root: str, suffix: str) -> str:
    if root.lower().endswith(PACKED_TARS):
        return f"{root!r} is a packed tar. {UNPACKED}"
    what = "a single image" if suffix in SUFFIXES else "a file"
    todo = "Unpack it first, and give the folder" if suffix in ARCHIVES else LAYOUT
    return f"{root!r} is {what}, not a folder of images nor a CSV, Parquet, tar or IDX file. {todo}."


def _matching(pattern: str, label_from: str | None) -> ImageDataset:
    """The images that a pattern matches, of the classes that their folders have."""
    root, there = scan_matching(pattern)
    if not there.images:
        raise DataError(f"No image matches the pattern '{pattern}'.{not_read(there.problems)}")
    return class_folders(root, label_from, there)


def from_pairs(paths: Sequence[PathLike], labels: Sequence[object] | NDArray[Any]) -> ImageDataset:
    """Image files and their labels, in this order.

    Raises:
        UsageError: not as many labels as paths, or a label that is blank.
    """
    if isinstance(paths, (str, os.PathLike)):
        raise UsageError(f"Expected a list of paths, received the single path {os.fspath(paths)!r}.")
    names = [expanded(path) for path in paths]
    words = label_texts(labels, len(names), "paths")
    found = [(Sample(printable(name), label), name) for name, label in zip(names, words, strict=True)]
    return file_dataset("", found, in_order=True)


def from_arrays(
    images: NDArray[Any] | Sequence[NDArray[Any]], labels: Sequence[object] | NDArray[Any] | None = None
) -> ImageDataset:
    """Images in memory, NHWC, NHW, or a list of HWC or HW: uint8, uint16, or floats in [0, 1].

    Without labels, as `unlabelled`: to predict on.

    Raises:
        UsageError: lengths that differ, another shape, values out of range.
    """
    kept = [np.asarray(image) for image in images]
    for index, image in enumerate(kept):
        _check_array(image, f"Image {index}")
    words = label_texts(labels, len(kept), "images") if labels is not None else [""] * len(kept)

    def read(index: int) -> NDArray[np.generic]:
        image = kept[index]
        if image.dtype.kind == "f":
            return np.asarray(np.rint(image * 255).astype(np.uint8))
        if image.dtype.kind == "b":
            return np.asarray(image.astype(np.uint8) * 255)
        return image if image.dtype in (np.uint8, np.uint16) else image.astype(np.uint8)

    return ImageDataset("", [Sample(f"images[{index}]", label) for index, label in enumerate(words)], read)


def unlabelled(paths: Sequence[PathLike] | PathLike, *, all_listed: bool = False) -> ImageDataset:
    """Image files, and all images in folders and their subfolders, to predict on; see `images_in`. Or those in tars.

    What of folders cannot be read is left out, with a `DataWarning`.

    Args:
        all_listed: have it in its place instead, and files of a list that are not there too: reading them fails.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    if (tars := [*map(expanded, given)]) and all(
        path.lower().endswith(".tar") and os.path.isfile(path) for path in tars
    ):
        dataset = tar_images(tars[0] if len(tars) == 1 else "", tars)
        warn_of(dataset.problems, "image")
        return dataset
    if all_listed:
        listing = list_images(given, missing_too=given is paths)
        listing.check(urls=True)
        return listing.dataset()
    found, problems = images_in(paths)
    warn_of(problems, "file")
    return file_dataset("", found, problems, in_order=True)


def images_in(paths: Sequence[PathLike] | PathLike) -> tuple[list[Found], list[Problem]]:
    """Image files, and all images in folders and their subfolders; in this order, folders sorted.

    Raises:
        UsageError: a path is not there.
        DataError: a folder without images.
    """
    listing = list_images([paths] if isinstance(paths, (str, os.PathLike)) else paths)
    if address := next(filter(is_address, listing.paths), None):
        raise UsageError(why_missing(address))
    listing.check(urls=True)
    rows = (row for row in range(len(listing)) if row not in listing.problems)
    found = [(Sample(printable(listing.paths[row]), ""), listing.paths[row]) for row in rows]
    return found, [*listing.problems.values()]


def _folder(root: str, columns: Columns) -> ImageDataset:
    names = {entry.name for entry in entries(root)}
    if METADATA in names:
        return table_dataset(root, [(os.path.join(root, METADATA), "")], columns)
    if idx := sorted(name for name in names if is_idx(name)):
        return idx_dataset(root, idx_pairs(root, idx))
    if files := tars_in(root):
        return tar_dataset(root, files, columns)
    if files := files_in(root):
        return parquet_dataset(root, files, columns)
    parts = {name: os.path.join(root, name, METADATA) for name in sorted(names) if part_of(name)}
    if tables := [(path, part_of(name) or "") for name, path in parts.items() if os.path.isfile(path)]:
        return table_dataset(root, tables, columns)
    beside = sorted(name for name in names if name.lower().endswith(CSV_SUFFIXES))
    return _folders_or_tables(root, [os.path.join(root, name) for name in beside], columns)


def _folder_by_pattern(root: str, columns: Columns, label_from: str) -> ImageDataset:
    files = tars_in(root)
    return tar_dataset(root, files, columns, label_from) if files else class_folders(root, label_from)


def _folders_or_tables(root: str, tables: Sequence[str], columns: Columns) -> ImageDataset:
    """Class folders; or where these do not make two classes, the tables beside them, if they name every image."""
    try:
        dataset = class_folders(root)
    except DataError:
        by_table = _by_tables(root, tables, columns)
        if by_table is None:
            raise
        return by_table
    if len(dataset.classes) > 1 or not tables:
        ignored = "the folders say the classes; to go by this table, give it instead of the folder"
        more = (Problem(os.path.basename(table), NOT_USED, ignored) for table in tables)
        return replace(dataset, problems=(*dataset.problems, *more))
    by_table = _by_tables(root, tables, columns)
    return dataset if by_table is None else by_table


def _by_tables(root: str, tables: Sequence[str], columns: Columns) -> ImageDataset | None:
    """The data set of tables that name every image of a folder, None where some image is in none."""
    labelled = {table: named for table in tables if (named := _named_images(table, root, columns))}
    if not labelled or not set().union(*labelled.values()) >= {
        os.path.realpath(os.path.join(root, name)) for name in scan(root).images
    }:
        return None
    return table_dataset(root, [(table, "") for table in labelled], columns)


def _named_images(table: str, root: str, columns: Columns) -> set[str]:
    """The labelled images that are there and that a CSV file names; none where it is not such a file."""
    try:
        return {os.path.realpath(path) for _, path in csv_samples(table, root, columns)[0]}
    except HeadstartError:
        return set()


def label_texts(labels: Sequence[object] | NDArray[Any], count: int, what: str) -> list[str]:
    """Labels as text.

    Raises:
        UsageError: not as many as there are images, or a blank one.
    """
    words = [label_text(label) for label in labels]
    if len(words) != count:
        received = f"{counted(count, what.removesuffix('s'))} and {counted(len(words), 'label')}"
        raise UsageError(f"Expected as many labels as {what}: received {received}.")
    if not count:
        raise UsageError(f"Expected at least one of the {what}, received none.")
    texts = [isinstance(label, str) for label in labels]
    first = {word: place for place, word in reversed([*enumerate(words)])}
    for place, word in enumerate(words):
        if texts[place] != texts[first[word]]:
            raise UsageError(
                f"Labels {first[word]} and {place} are {labels[first[word]]!r} and {labels[place]!r}, a word and a "
                "number that read the same. Expected words alone, or numbers alone."
            )
    if "" in words:
        raise UsageError(f"Label {words.index('')} is blank. Expected a label for each of the {what}.")
    return words


def label_text(label: object) -> str:
    """A label as text; "" where it is missing, as pandas writes that too."""
    missing = label is None or (isinstance(label, float) and math.isnan(label))
    return "" if missing else str(label).strip()


def _check_array(image: NDArray[Any], what: str) -> None:
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)):
        hint = ""
        if image.ndim == 3 and 0 not in image.shape and image.shape[0] < 5:
            hint = " Move the channels last: images.transpose(0, 2, 3, 1)."
        elif image.ndim == 1 and (side := math.isqrt(len(image))) > 1 and side**2 == len(image):
            hint = f" Rows of pixels? images.reshape(-1, {side}, {side}); to learn from numbers: hs.train_rows."
        raise UsageError(f"{what}: expected height × width × channels, received shape {image.shape}.{hint}")
    if image.dtype in (np.uint8, np.uint16, np.bool_):
        return
    top = {"f": 1, "i": 255, "u": 255}.get(image.dtype.kind)
    if top is None:
        raise UsageError(f"{what}: expected uint8, or floats in [0, 1], received {image.dtype}.")
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= top):
        hint = " Divide by 255." if 1 < high <= 255 and low >= 0 else ""
        if image.dtype.kind == "f" and -1 <= low < 0 and high <= 1:
            hint = " Of pixels from -1 to 1: (images + 1) / 2."
        if np.isnan(low):
            raise UsageError(f"{what}: expected {image.dtype} values in [0, {top}], received NaN, which is no number.")
        raise UsageError(f"{what}: expected {image.dtype} values in [0, {top}], received {low} to {high}.{hint}")
