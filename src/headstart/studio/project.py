"""A project: a folder with a folder of photos for each class, and what was made of them. The disk is all there is."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headstart.core.atomic_files import beside, probe, put_new
from headstart.core.counts import counted
from headstart.core.errors import UsageError
from headstart.core.regular_file import open_regular
from headstart.core.types import ImageDataset
from headstart.data.class_folders import parts_of
from headstart.data.formats import HEAD, READ, sniff, unknown_format, why_not_read
from headstart.data.scan import scan
from headstart.data.sources import open_source
from headstart.model.answers import UNSAFE, put_into, under_free_name

PHOTOS, LEFT_OUT, NEW = "photos", "left out", "new photos"  # folders of a project
MODEL, REPORT = "model", "report"
LONGEST = 80  # characters of a class
NAMED = 5  # files in a message
NO_MARK = frozenset(suffix for form in READ if not form.magic for suffix in form.suffixes)  # known by their names alone


@dataclass(frozen=True)
class BroughtIn:
    """What was taken from a folder of labelled photos."""

    photos: int
    again: int  # photos that were there already
    classes: int
    parts: tuple[str, ...]  # train, test and the like, which are put together
    problems: int  # files that are no photos
    linked: bool  # not copied


@dataclass(frozen=True)
class Added:
    """What became of files that were added."""

    photos: int
    refused: tuple[tuple[str, str], ...]  # the name of a file, and why it is no photo


class Project:
    """The folders of one project. Photos of others are copied or linked, never changed."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(os.path.abspath(os.path.expanduser(folder)))
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"'{self.folder}' is a file. Expected a folder for the project.")

    @property
    def photos_folder(self) -> Path:
        """That which is fitted on."""
        return self.folder / PHOTOS

    @property
    def model_folder(self) -> Path:
        """That of the fitted model."""
        return self.folder / MODEL

    def classes(self) -> list[str]:
        """The names of the classes."""
        return _folders(self.photos_folder)

    def photos(self, label: str) -> list[Path]:
        """The photos of a class, in the order of their names."""
        return _images(self.photos_folder / label)

    def left_out(self) -> list[Path]:
        """All files that are left out, also those that are no photos."""
        return [photo for label in _folders(self.folder / LEFT_OUT) for photo in _files(self.folder / LEFT_OUT / label)]

    def new_photos(self) -> list[Path]:
        """Photos that have no label yet."""
        return _images(self.folder / NEW)

    def add_class(self, name: str) -> str:
        """Make a folder for a class.

        Raises:
            UsageError: the name cannot be that of a folder, or there is such a class.
        """
        label = self._name(name)
        _make(self.photos_folder / label)
        return label

    def rename_class(self, label: str, name: str) -> str:
        """Give a class another name, also where its photos are left out.

        Raises:
            UsageError: as for `add_class`.
        """
        new = self._name(name, besides=self._known(label))
        for place in (self.photos_folder, self.folder / LEFT_OUT):
            if (place / label).is_dir():
                for photo in _files(place / label):
                    self._moved(photo, place / new)
                shutil.rmtree(place / label)
        return new

    def remove_class(self, label: str) -> int:
        """Take a class away; its photos are left out. Returns how many."""
        photos = _files(self.photos_folder / self._known(label))
        for photo in photos:
            self.leave_out(photo)
        shutil.rmtree(self.photos_folder / label)
        return len(photos)

    def _name(self, name: str, besides: str = "") -> str:
        """A name as that of a new class."""
        label, others = name.strip(), [known for known in self.classes() if known != besides]
        if not label:
            raise UsageError("Type the name of the class.")
        if len(label) > LONGEST:
            raise UsageError(f"The name of a class may have {LONGEST} letters; this one has {len(label)}.")
        if label.startswith(".") or (found := UNSAFE.search(label)):
            sign = "." if label.startswith(".") else found.group() if found else ""
            where = "begin with" if label.startswith(".") else "have"
            raise UsageError(f"The name of a class is that of a folder, which cannot {where} {sign!r}: '{label}'.")
        if label.casefold() in {known.casefold() for known in others}:
            raise UsageError(f"There is a class '{label}' already.")
        _check_no_parts([*others, label])
        return label

    def add(self, label: str, files: Iterable[str | os.PathLike[str]], name: str | None = None) -> Added:
        """Copy photos into a class; what is no photo is not copied.

        Args:
            name: of the copies; None: that of each file.
        """
        return self._add(self.photos_folder, label, files, name)

    def add_new(self, files: Iterable[str | os.PathLike[str]]) -> Added:
        """Copy photos that have no label yet; what is no photo is not copied."""
        return self._add(self.folder, NEW, files)

    def _add(self, place: Path, label: str, files: Iterable[str | os.PathLike[str]], name: str | None = None) -> Added:
        _make(place / label)
        count, refused = 0, []
        for file in map(Path, files):
            if why := _why_no_photo(file):
                refused.append((file.name, why))
            else:
                put_into(place, label, os.fspath(file), link=False, name=name)
                count += 1
        return Added(count, tuple(refused))

    def bring_in(self, source: str) -> BroughtIn:
        """Link the photos of a folder, or of what else `hs.fit` takes, into their classes; what has no file is written.

        Photos that are linked already are passed over.

        Raises:
            UsageError, DataError: there is nothing of the kind.
        """
        whole = os.path.abspath(os.path.expanduser(source))
        if self.folder in (Path(whole), *Path(whole).parents) or Path(whole) in self.folder.parents:
            raise UsageError("This is the folder of the project itself, or one around it. Expected one with photos.")
        data = open_source(whole)
        labels = {sample.label for sample in data.samples}
        _check_no_parts(labels | set(self.classes()))
        _make(self.photos_folder)
        link = _can_link(self.photos_folder)
        there = {os.path.realpath(photo) for label in self.classes() for photo in self.photos(label)}
        there |= {os.path.realpath(photo) for photo in self.left_out()}
        taken = 0
        for row, sample in enumerate(data.samples):
            if data.files is None or os.path.realpath(data.files[row]) not in there:
                self._take(data, row, sample.name, sample.label, link=link)
                taken += 1
        parts = tuple(dict.fromkeys(sample.split for sample in data.samples if sample.split))
        return BroughtIn(taken, len(data) - taken, len(labels), parts, len(data.problems), link)

    def _take(self, data: ImageDataset, row: int, name: str, label: str, *, link: bool) -> None:
        if data.files is not None and data.spans is None:  # a file of its own, not a part of a tar
            put_into(self.photos_folder, label, data.files[row], link=link)
            return
        content = data.read(row)
        if not isinstance(content, bytes):
            raise UsageError("Arrays of pixels cannot be brought in. Expected a folder or a table of image files.")
        with beside(self.photos_folder / label / "photo") as folder:
            place = folder / (re.sub(r"[^\w.-]", "_", name)[-60:] or "photo")
            place.write_bytes(content)
            put_into(self.photos_folder, label, str(place), link=False)

    def move(self, photo: Path, label: str) -> Path:
        """Put a photo of the project into another class."""
        return self._moved(photo, self.photos_folder / self._known(label))

    def leave_out(self, photo: Path) -> Path:
        """Take a photo out of its class; it stays in the project."""
        return self._moved(photo, self.folder / LEFT_OUT / self._label_of(photo, self.photos_folder))

    def put_back(self, photo: Path) -> Path:
        """Put a photo that was left out back into its class."""
        return self._moved(photo, self.photos_folder / self._label_of(photo, self.folder / LEFT_OUT))

    def _label_of(self, photo: Path, place: Path) -> str:
        """The class of a photo of one place."""
        if place not in photo.parents or photo.parent == place:
            where = "left out already" if self.folder / LEFT_OUT in photo.parents else "not left out"
            raise UsageError(f"'{photo.name}' is {where}.")
        return photo.relative_to(place).parts[0]

    def take_label_off(self, photo: Path) -> Path:
        """Put a photo of a class back among those that have no label."""
        return self._moved(photo, self.folder / NEW)

    def _known(self, label: str) -> str:
        if label not in self.classes():
            raise UsageError(f"There is no class '{label}'.")
        return label

    def _moved(self, photo: Path, folder: Path) -> Path:
        """Rename a file, or a link, without replacing another."""
        if self.folder not in photo.parents or not os.path.lexists(photo):
            raise UsageError(f"'{photo.name}' is not in the project any more. Look again.")
        _make(folder)

        def put(target: Path) -> None:
            if photo.is_symlink():
                target.symlink_to(os.readlink(photo))
            else:
                put_new(photo, target)

        found = under_free_name(folder, photo.name, put)
        photo.unlink(missing_ok=True)
        return found


def _can_link(folder: Path) -> bool:
    """Whether this system, and this user, may make symbolic links there."""
    with beside(folder) as place:
        try:
            (place / "link").symlink_to(place)
        except OSError:
            return False
        return True


def _images(folder: Path) -> list[Path]:
    return [folder / name for name in scan(str(folder)).images] if folder.is_dir() else []


def _folders(place: Path) -> list[str]:
    if not place.is_dir():
        return []
    return sorted(each.name for each in place.iterdir() if each.is_dir() and each.name[0] != ".")


def _files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if not each.is_dir() and each.name[0] != ".")


def _make(folder: Path) -> None:
    """Make a folder, unless it is there, which can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe(folder / "photo")
    except OSError as error:
        raise UsageError(f"'{folder}' cannot be written to: {error.strerror or error}.") from error


def _check_no_parts(labels: Iterable[str]) -> None:
    """Refuse classes that would be taken for training set and test set."""
    if parts := sorted(parts_of(labels)):
        raise UsageError(
            f"Folders with these names are taken for parts of a data set, not for classes: {', '.join(parts)}. Choose "
            "another name, such as 'train (railway)'."
        )


def _why_no_photo(file: Path) -> str:
    """Why a file is not read as a photo; "" if it is, by its first bytes."""
    try:
        with open_regular(file) as opened:
            head = opened.read(HEAD)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    why = why_not_read(file.name, head)
    if why is None and not sniff(head) and file.suffix.lower() not in NO_MARK:
        why = unknown_format(head).detail if head else "it is empty"
    return "it is no photo" if why == "" else why or ""


def said(done: BroughtIn) -> str:
    """What was brought in, in a sentence or two."""
    photos, classes = counted(done.photos, "photo"), counted(done.classes, "class", "classes")
    words = f"{photos} of {classes} {'linked' if done.linked else 'copied'}; the originals stay as they are."
    if done.again:
        words += f" {counted(done.again, 'photo')} {'was' if done.again == 1 else 'were'} there already."
    if done.problems:
        words += f" {counted(done.problems, 'file')} beside them {'is' if done.problems == 1 else 'are'} no photo."
    if done.parts:
        words += f" {' and '.join(done.parts)} are together now: the fit holds out a test set of its own."
    return words


def refusals(added: Added) -> str:
    """Which files were not added, and why; "" if all were."""
    if not added.refused:
        return ""
    shown = "; ".join(f"{name}: {why}" for name, why in added.refused[:NAMED])
    more = f"; and {len(added.refused) - NAMED} more" if len(added.refused) > NAMED else ""
    return f"Not added: {shown}{more}."
