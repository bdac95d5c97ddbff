"""Image data sets in tar files, as of WebDataset: a sample is the members of one name with different endings."""

from __future__ import annotations

import os
import posixpath
from array import array
from collections.abc import Sequence
from dataclasses import replace

from headstart.core.errors import DataError
from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data.class_folders import in_classes, not_read
from headstart.data.columns import Columns, pick_column
from headstart.data.open_files import OpenFiles
from headstart.data.scan import Scan, name_below
from headstart.data.spelling import as_whole
from headstart.data.tables import NO_LABEL
from headstart.data.tar_samples import LABELS, Found, Tar

EXPECTED = (
    "Expected a .cls beside each image (0001.jpg, 0001.cls), a .json with a label in it, or a folder for each class "
    "(cat/0001.jpg)"
)
_UNSAID = Sample("", "")


def tar_dataset(
    root: str,
    files: Sequence[str],
    wanted: Columns | None = None,
    label_from: str | None = None,
    *,
    whole: bool = True,
) -> ImageDataset:
    """The images in tar files; a file called train…, validation… or test… gives its images that split.

    The label of cat/0001.jpg is in cat/0001.cls, or in cat/0001.json; where no image has either, folders say it, as
    `class_folders` has them. Group and split are taken from .json too. Every image of a sample counts, or those of
    which the ending is ``wanted.image``. Headers and labels are read at once, images when they are needed, from where
    they lie: so a packed tar is none.

    Args:
        whole: False for some files of a data set: what is known of all of them alone is left to `as_whole`.

    Raises:
        DataError: a file is no tar, or no image has a label.
        UsageError: a file cannot be read.
    """
    wanted = wanted or Columns()
    found = _found(root, files, wanted)
    samples, rows = _labelled(root, found, wanted, label_from)
    dataset = _dataset(root, samples, files, found, rows, found.problems)
    return as_whole(dataset) if whole else dataset


def tar_images(root: str, files: Sequence[str]) -> ImageDataset:
    """All images in tar files without their labels, to predict on.

    Raises:
        DataError, UsageError: as `tar_dataset`.
    """
    found = _found(root, files, Columns())
    samples = [Sample(sample.name, "") for sample in found.samples]
    return _dataset(root, samples, files, found, range(len(samples)), found.problems)


def _found(root: str, files: Sequence[str], wanted: Columns) -> Found:
    found = Found()
    folder = root if os.path.isdir(root) else os.path.commonpath([os.path.dirname(os.path.abspath(f)) for f in files])
    for number, path in enumerate(files):
        Tar(path, name_below(folder, os.path.abspath(path)), wanted, found).read(number)
    if not found.samples:
        ending = f" with the ending '.{wanted.image.lstrip('.')}'" if wanted.image else ""
        raise DataError(f"'{root}' has no image{ending} in it. {EXPECTED}.{not_read(found.problems)}")
    return found


def _dataset(
    root: str,
    samples: Sequence[Sample],
    files: Sequence[str],
    found: Found,
    rows: Sequence[int],
    problems: Sequence[Problem],
) -> ImageDataset:
    """The data set of these ``rows``."""
    paths, cache = [*map(os.path.abspath, files)], OpenFiles()
    offset, size = (array(kind.typecode, (kind[row] for row in rows)) for kind in (found.offset, found.size))
    of_each = [paths[found.file[row]] for row in rows]

    def read(index: int) -> bytes:
        return cache.read_image(of_each[index], offset[index], size[index])

    return ImageDataset(root, samples, read, tuple(problems), files=of_each, spans=(offset, size))


def _labelled(root: str, found: Found, wanted: Columns, label_from: str | None) -> tuple[list[Sample], list[int]]:
    """The samples that have a label, and which they are."""
    why = "no .cls and no .json with a label beside it"
    if label_from is not None:
        why = "--label-from finds no class in its name"
        found.whys.clear()
        _label_by_names(root, found, found.inner, label_from)
    elif not any(sample.label for sample in found.samples):
        if wanted.label is not None:
            pick_column([*found.fields], wanted.label, LABELS, f"'{root}'", "label")
        why = "it is beside the class folders, not in one"
        folders = [f"{posixpath.dirname(name)}/x" if "/" in name else "" for name in found.inner]
        if not any(folders):
            raise DataError(_no_labels(root, found))
        _label_by_names(root, found, folders)
    kept = [row for row, sample in enumerate(found.samples) if sample.label]
    found.problems += (
        Problem(sample.name, NO_LABEL, found.whys.get(row, why))
        for row, sample in enumerate(found.samples)
        if not sample.label
    )
    return [found.samples[row] for row in kept], kept


def _label_by_names(root: str, found: Found, names: Sequence[str], label_from: str | None = None) -> None:
    """The labels that class folders of these names have."""
    images = sorted({name for name in names if name})
    by_name = {name: sample for sample, name in in_classes(root, Scan(images=images), label_from)[0]}
    for row, (sample, name) in enumerate(zip(found.samples, names, strict=True)):
        said = by_name.get(name, _UNSAID)
        found.samples[row] = replace(sample, label=said.label, split=sample.split or said.split)


def _no_labels(root: str, found: Found) -> str:
    seen = ", ".join(repr(name[:40]) for name in [*found.fields][:12])
    fields = (
        f" One of the fields in .json may be the label: {seen}. Say which one it is: --label COLUMN." if seen else ""
    )
    why = f" First: {next(iter(found.whys.values()))}." if found.whys else ""
    return f"'{root}': nothing says the class of its images. {EXPECTED}.{fields}{why}"
