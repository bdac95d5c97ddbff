"""Opens an image data set: class folders, CSV, Parquet or IDX files, a named set, paths or arrays."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError, UsageError, did_you_mean
from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data.formats import SUFFIXES
from headstart.data.named_sets import NAMED
from headstart.data.parquet import parquet_dataset
from headstart.data.scan import NO_IMAGE, entries, printable, scan
from headstart.data.tables import (
    CSV_SUFFIXES,
    IMAGE_COLUMN,
    NO_LABEL,
    SPLIT_NAMES,
    Found,
    csv_samples,
    file_dataset,
    idx_dataset,
    idx_pairs,
    is_idx,
)

METADATA = "metadata.csv"
_LAYOUT = (
    "Expected a folder for each class with its photos inside (photos/cat/1.jpg, photos/dog/2.jpg), train/ and test/ "
    f"folders of those, or a {METADATA} with the columns file_name and label"
)

PathLike = str | os.PathLike[str]


def open_source(data: PathLike, *, image_column: str = IMAGE_COLUMN, label_column: str | None = None) -> ImageDataset:
    """The data set in a folder, a CSV, Parquet or IDX file, or of a known name.

    The columns are for CSV and Parquet files; columns with the usual names are found without them.

    Raises:
        UsageError: no such path, or a file of another kind.
        DataError: there are no labelled images in it.
    """
    root = os.fspath(data)
    if root in NAMED and not os.path.isdir(root):
        return NAMED[root]()
    if os.path.isdir(root):
        return _folder(root, image_column, label_column)
    if not os.path.exists(root):
        raise UsageError(f"No such file or folder, and no data set of that name: {root!r}. {did_you_mean(root, NAMED)}")
    folder, name = os.path.split(root)
    suffix = os.path.splitext(name)[1].lower()
    if suffix in CSV_SUFFIXES:
        return _csv(folder, [(root, "")], image_column, label_column)
    if suffix in (".parquet", ".pq"):
        return parquet_dataset(root, [root], image_column=image_column, label_column=label_column)
    if stem := is_idx(name):
        beside = [entry.name for entry in entries(folder or os.curdir) if is_idx(entry.name) == stem]
        return idx_dataset(root, idx_pairs(folder, beside))
    what = "a single image" if suffix in SUFFIXES else "a file"
    todo = (
        "Unpack it first, and give the folder" if suffix in (".zip", ".gz", ".tar", ".tgz", ".7z", ".rar") else _LAYOUT
    )
    raise UsageError(f"{root!r} is {what}, not a folder of images nor a CSV, Parquet or IDX file. {todo}.")


def from_pairs(paths: Sequence[PathLike], labels: Sequence[object] | NDArray[Any]) -> ImageDataset:
    """Image files and their labels, in this order.

    Raises:
        UsageError: not as many labels as paths, or a label that is blank.
    """
    if isinstance(paths, (str, os.PathLike)):
        raise UsageError(f"Expected a list of paths, received the single path {os.fspath(paths)!r}.")
    names = [os.fspath(path) for path in paths]
    words = _label_texts(labels, len(names), "paths")
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
    words = _label_texts(labels, len(kept), "images") if labels is not None else [""] * len(kept)

    def read(index: int) -> NDArray[np.generic]:
        image = kept[index]
        if image.dtype.kind == "f":
            return np.asarray(np.rint(image * 255).astype(np.uint8))
        if image.dtype.kind == "b":
            return np.asarray(image.astype(np.uint8) * 255)
        return image if image.dtype in (np.uint8, np.uint16) else image.astype(np.uint8)

    return ImageDataset("", [Sample(f"images[{index}]", label) for index, label in enumerate(words)], read)


def unlabelled(paths: Sequence[PathLike] | PathLike) -> ImageDataset:
    """Image files, and all images in folders and their subfolders, to predict on; in this order, folders sorted.

    Raises:
        UsageError: a path is not there.
        DataError: a folder without images.
    """
    found: list[Found] = []
    problems: list[Problem] = []
    for given in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        path = os.fspath(given)
        if os.path.isdir(path):
            there = scan(path)
            problems += there.problems
            inside = sorted(there.images)
            if not inside:
                raise DataError(f"{path!r} has no images in it.{_not_read(there.problems)}")
            found += [(Sample(printable(os.path.join(path, name)), ""), os.path.join(path, name)) for name in inside]
        elif os.path.exists(path):
            found.append((Sample(printable(path), ""), path))
        else:
            raise UsageError(f"No such file or folder: {path!r}.")
    if not found:
        raise UsageError("No images given. Expected paths of image files or of folders with images.")
    return file_dataset("", found, problems, in_order=True)


def _folder(root: str, image_column: str, label_column: str | None) -> ImageDataset:
    names = {entry.name for entry in entries(root)}
    if METADATA in names:
        return _csv(root, [(os.path.join(root, METADATA), "")], image_column, label_column)
    if idx := [name for name in names if is_idx(name)]:
        return idx_dataset(root, idx_pairs(root, idx))
    for folder in (root, os.path.join(root, "data")):  # the Hub keeps them in data/
        if os.path.isdir(folder) and (files := sorted(e.name for e in entries(folder) if e.name.endswith(".parquet"))):
            paths = [os.path.join(folder, name) for name in files]
            return parquet_dataset(root, paths, image_column=image_column, label_column=label_column)
    parts = {name: os.path.join(root, name, METADATA) for name in sorted(names) if name.lower() in SPLIT_NAMES}
    if tables := [(path, SPLIT_NAMES[name.lower()]) for name, path in parts.items() if os.path.isfile(path)]:
        return _csv(root, tables, image_column, label_column)
    return _class_folders(root)


def _csv(root: str, files: Iterable[tuple[str, str]], image_column: str, label_column: str | None) -> ImageDataset:
    found: list[Found] = []
    problems: list[Problem] = []
    for file, split in files:
        more = csv_samples(file, root, image_column=image_column, label_column=label_column, split=split)
        found += more[0]
        problems += more[1]
    if not found:
        first = f" First of {len(problems)} problems: {problems[0].detail}." if problems else ""
        raise DataError(f"{root!r}: the CSV file names no labelled image that is there.{first}")
    return file_dataset(root, found, problems)


def _class_folders(root: str) -> ImageDataset:
    there = scan(root)
    names, problems = there.images, there.problems
    tops = {name.split("/", 1)[0] for name in names if "/" in name}
    given = {top: SPLIT_NAMES[top.lower()] for top in tops if top.lower() in SPLIT_NAMES}
    # A class may be called "train" (as well as "bus"): splits need a train and another one, or no other folder.
    splits = given if len(given) == len(tops) or ("train" in given.values() and len(set(given.values())) > 1) else {}

    found: list[Found] = []
    loose: list[str] = []
    beside: Counter[str] = Counter()
    for name in names:
        top, *rest = name.split("/", 2)
        if len(rest) < (2 if splits else 1) and (top in splits or not rest):
            loose.append(name)
        elif splits and top not in splits:
            beside[top] += 1
        else:
            label = rest[0] if splits else top
            found.append((Sample(printable(name), printable(label), splits.get(top, "")), os.path.join(root, name)))
    if not found:
        raise DataError(_nothing_labelled(root, loose, problems))
    where = "the split folders" if splits else "the class folders"
    problems += [Problem(printable(name), NO_LABEL, f"is beside {where}, not in one") for name in sorted(loose)]
    problems += [
        Problem(printable(name), NO_IMAGE, "a folder without an image that can be read")
        for name in there.empty_folders(2 if splits else 1)
    ]
    problems += [
        Problem(printable(top), NO_LABEL, f"{count} images are beside {where}: {', '.join(sorted(splits))}")
        for top, count in sorted(beside.items())
    ]
    return file_dataset(root, found, problems)


def _nothing_labelled(root: str, loose: Sequence[str], problems: Sequence[Problem]) -> str:
    if loose:
        folder = os.path.dirname(loose[0])
        tables = sorted(entry.name for entry in entries(root) if entry.name.lower().endswith(CSV_SUFFIXES))
        hint = f" If {tables[0]!r} has their labels, give that file instead." if tables else ""
        return (
            f"{len(loose)} images are directly in {os.path.join(root, folder) if folder else root!r}, so nothing says "
            f"which class each belongs to. {_LAYOUT}.{hint}"
        )
    return f"{root!r} has no images in it. {_LAYOUT}.{_not_read(problems)}"


def _not_read(problems: Sequence[Problem]) -> str:
    """A sentence on what was there and is not read, each kind with its first file."""
    if not problems:
        return ""
    first: dict[str, str] = {}
    for problem in sorted(problems, key=lambda each: each.name):
        first.setdefault(problem.detail, problem.name)
    counts = Counter(problem.detail for problem in problems)
    kinds = [f"{first[detail]!r}{' …' if count > 1 else ''}: {detail}" for detail, count in counts.most_common(3)]
    return f" Left out: {len(problems)} ({'; '.join(kinds)})."


def _label_texts(labels: Sequence[object] | NDArray[Any], count: int, what: str) -> list[str]:
    words = ["" if _is_blank(label) else str(label).strip() for label in labels]
    if len(words) != count:
        raise UsageError(f"Expected as many labels as {what}: received {count} {what} and {len(words)} labels.")
    if not count:
        raise UsageError(f"Expected at least one of the {what}, received none.")
    if "" in words:
        raise UsageError(f"Label {words.index('')} is blank. Expected a label for each of the {what}.")
    return words


def _is_blank(label: object) -> bool:
    return label is None or (isinstance(label, float) and math.isnan(label))  # as pandas writes it


def _check_array(image: NDArray[Any], what: str) -> None:
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)):
        hint = (
            " Move the channels last: images.transpose(0, 2, 3, 1)." if image.ndim == 3 and image.shape[0] < 5 else ""
        )
        raise UsageError(f"{what}: expected height × width × channels, received shape {image.shape}.{hint}")
    if image.dtype in (np.uint8, np.uint16, np.bool_):
        return
    top = {"f": 1, "i": 255, "u": 255}.get(image.dtype.kind)
    if top is None:
        raise UsageError(f"{what}: expected uint8, or floats in [0, 1], received {image.dtype}.")
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= top):
        hint = " Divide by 255." if 1 < high <= 255 and low >= 0 else ""
        raise UsageError(f"{what}: expected {image.dtype} values in [0, {top}], received {low} to {high}.{hint}")
