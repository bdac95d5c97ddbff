"""Image data sets whose folders or file names say the class."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from headstart.core.counts import counted, verb
from headstart.core.errors import DataError, UsageError
from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data.columns import PARTS
from headstart.data.csv_files import CSV_SUFFIXES
from headstart.data.scan import NO_IMAGE, Scan, entries, printable, scan
from headstart.data.tables import NO_LABEL, Found, labelled_files

LAYOUT = (
    "Expected a folder for each class with its photos inside (photos/cat/1.jpg, photos/dog/2.jpg), train/ and test/ "
    "folders of those, or a metadata.csv with the columns file_name and label"
)
_UNLABELLED = frozenset(("pred", "predict", "prediction", "unlabeled", "unlabelled", "unsup"))
_FILLING = frozenset(("set", "data", "dataset", "images", "image", "imgs", "img", "photos", "pics", "files", "split"))
_NAMED = re.compile(r"([A-Za-z][A-Za-z_ -]*?)[._ -]*\d+\.\w+")  # cat.0.jpg, breed_12.jpg


def class_folders(root: str, label_from: str | None = None, there: Scan | None = None) -> ImageDataset:
    """The images of a folder of class folders, or of folders for the parts of those: train/, test_set/, seg_val/ …

    A folder that holds nothing but one other folder of folders is passed through.

    Args:
        label_from: a regular expression whose first group, searched in each path below ``root``, is the class.
        there: what of the folder counts; default: all that is in it.

    Raises:
        DataError: no image has a class; or the folders may be read in two ways.
    """
    found, problems = in_classes(root, there or scan(root), label_from)
    return labelled_files(root, [(sample, os.path.join(root, path)) for sample, path in found], problems)


def in_classes(root: str, there: Scan, label_from: str | None = None) -> tuple[list[Found], list[Problem]]:
    """The images of `class_folders`, each with its path below ``root``, and what is left out; no file is looked at."""
    if label_from is not None:
        return _by_pattern(root, there, label_from)
    base = _common_folder(there.images)
    names = {name[len(base) :]: name for name in there.images}  # below that folder -> below the root
    tops = {name.split("/", 1)[0] for name in names if "/" in name}
    parts = parts_of(tops)
    if parts:
        for top in parts:
            _pass_through_part(names, top)
    else:
        _check_one_reading(root, names)
    return _by_folder(root, base, names, parts, there)


def parts_of(tops: Iterable[str]) -> dict[str, str]:
    """The folders that are parts of a data set, with "train", "val", "test", or "" for one without labels.

    A class may be called "train" (as well as "bus"): parts need a train and another one, or no other folder.
    """
    tops = sorted(tops)
    found = {top: part for top in tops if (part := part_of(top)) is not None}
    words = {top: [word for word in _words(top) if word not in PARTS and word not in _UNLABELLED] for top in tops}
    for top in tops:  # seg_train and seg_test: what they share says nothing
        own = [word for word in _words(top) if word in PARTS or word in _UNLABELLED]
        alike = [other for other in tops if other != top and words[other] == words[top]]
        if len(own) == 1 and words[top] and alike and top not in found:
            found[top] = PARTS.get(own[0], "")
    kinds = {part for part in found.values() if part}
    if kinds and (len(found) == len(tops) or ("train" in kinds and len(kinds) > 1)):
        return found
    return {}


def part_of(name: str) -> str | None:
    """The part that a name says by itself ("train", "Training Set", "test_images"), "" for one without labels."""
    words = [word for word in _words(name) if word not in _FILLING]
    if len(words) != 1:
        return None
    return "" if words[0] in _UNLABELLED else PARTS.get(words[0])


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()) if word]


def _common_folder(names: Sequence[str]) -> str:
    """The folder, with a slash at its end, that holds all of them in folders of its own; "" for none but the root."""
    folders = [name.split("/")[:-1] for name in names]
    pairs = zip(min(folders, default=[]), max(folders, default=[]), strict=False)  # what these share, all share
    common = [part for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return "".join(f"{part}/" for part in common) if min(map(len, folders), default=0) > len(common) else ""


def _pass_through_part(names: dict[str, str], top: str) -> None:
    """Take away the folder in a part's folder that is named like a part: train/train/cat."""
    inner, *others = {name.split("/", 2)[1] for name in names if name.startswith(top + "/")}
    if not others and (inner == top or part_of(inner) is not None):
        for name in [name for name in names if name.startswith(f"{top}/{inner}/")]:
            names[top + name[len(top) + len(inner) + 1 :]] = names.pop(name)


def _check_one_reading(root: str, names: Mapping[str, str]) -> None:
    """Refuse folders that all have folders of the same names in them: either may be the classes.

    Raises:
        DataError: what the two readings are, and how to choose.
    """
    inner: dict[str, set[str]] = {}
    for name in names:
        top, *rest = name.split("/", 2)
        inner.setdefault(top, set())
        if len(rest) < 2:
            return
        inner[top].add(rest[0])
    counts = Counter(folder for folders in inner.values() for folder in folders)
    shared = sorted(folder for folder, count in counts.items() if count > 1)
    if len(inner) < 2 or len(shared) < 2 or any(len(folders) < 2 for folders in inner.values()):
        return
    tops = sorted(inner)
    raise DataError(
        f"'{root}' can be read in two ways: {_some(tops)} have the same folders in them ({_some(shared)}). If the "
        "inner folders are the classes: --label-from '^[^/]+/([^/]+)/'. If the outer folders are: --label-from "
        "'^([^/]+)/'."
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:4])
    return shown + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _by_folder(
    root: str, base: str, names: Mapping[str, str], parts: Mapping[str, str], there: Scan
) -> tuple[list[Found], list[Problem]]:
    found: list[Found] = []
    loose: list[str] = []
    beside: Counter[str] = Counter()
    for name, path in names.items():
        top, *rest = name.split("/", 2)
        if len(rest) < (2 if parts else 1) and (top in parts or not rest):
            loose.append(path)
        elif parts and not parts.get(top):
            beside[top] += 1
        else:
            label = printable(rest[0] if parts else top)
            found.append((Sample(printable(path), label, parts.get(top, "")), path))
    if not found:
        raise DataError(nothing_labelled(root, loose, there.problems))
    where = "the split folders" if parts else "the class folders"
    problems = [*there.problems]
    problems += [Problem(printable(name), NO_LABEL, f"is beside {where}, not in one") for name in sorted(loose)]
    for top, count in sorted(beside.items()):
        detail = f"{counted(count, 'image')} {verb(count)} beside {where}: {', '.join(sorted(parts))}"
        problems.append(Problem(printable(base + top), NO_LABEL, detail))
    problems += [
        Problem(printable(name), NO_IMAGE, "a folder without an image that can be read")
        for name in there.empty_folders(base.count("/") + (2 if parts else 1))
    ]
    return found, problems


def _by_pattern(root: str, there: Scan, label_from: str) -> tuple[list[Found], list[Problem]]:
    try:
        pattern = re.compile(label_from)
    except re.error as error:
        raise UsageError(f"--label-from: {error} in {label_from!r}. Expected a regular expression.") from error
    if not pattern.groups:
        raise UsageError(
            f"--label-from: expected a group for the class, as in '([a-z_]+)_[0-9]+'. Received: {label_from!r}."
        )
    found, problems = [], [*there.problems]
    tops = parts_of({name.split("/", 1)[0] for name in there.images if "/" in name})
    for name in there.images:
        match = pattern.search(name)
        if match and match[1]:
            part = tops.get(name.split("/", 1)[0], "")
            found.append((Sample(printable(name), printable(match[1]), part), name))
        else:
            problems.append(Problem(printable(name), NO_LABEL, "--label-from finds no class in its path"))
    if not found:
        seen = counted(len(there.images), "image")
        first = f" First of {seen}: '{printable(min(there.images))}'." if there.images else ""
        raise DataError(f"'{root}': --label-from {label_from!r} finds no class in any path.{first}")
    return found, problems


def nothing_labelled(root: str, loose: Sequence[str], problems: Sequence[Problem]) -> str:
    """The sentence for a folder of which no image has a class."""
    if not loose:
        return f"{root!r} has no images in it. {LAYOUT}.{not_read(problems)}"
    first = min(loose)
    folder = os.path.dirname(first)
    beside = entries(root) if os.path.isdir(root) else ()
    tables = sorted(entry.name for entry in beside if entry.name.lower().endswith(CSV_SUFFIXES))
    hint = f" If {tables[0]!r} has their labels, give that file instead." if tables else ""
    stems = {match[1] for name in loose if (match := _NAMED.fullmatch(os.path.basename(name)))}
    if 1 < len(stems) <= max(2, len(loose) // 2):
        hint += (
            f" If the file names say the class, as {printable(os.path.basename(first))!r} may: "
            r"--label-from '([A-Za-z_-]+?)[._-]*[0-9]+\.'"
        )
    where = os.path.join(root, folder) if folder else root
    return (
        f"{counted(len(loose), 'image')} {verb(len(loose))} directly in {where!r}, so nothing says which class each "
        f"belongs to. {LAYOUT}.{hint}"
    )


def not_read(problems: Sequence[Problem]) -> str:
    """A sentence on what was there and is not read, each kind with its first file."""
    if not problems:
        return ""
    first: dict[str, str] = {}
    for problem in sorted(problems, key=lambda each: each.name):
        first.setdefault(problem.detail, problem.name)
    counts = Counter(problem.detail for problem in problems)
    kinds = [f"{first[detail]!r}{' …' if count > 1 else ''}: {detail}" for detail, count in counts.most_common(3)]
    return f" Left out: {len(problems)} ({'; '.join(kinds)})."
