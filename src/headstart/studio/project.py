"""A project: a folder with a folder of photos for each class, and what was made of them. The disk is all there is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headstart.core.atomic_files import beside, put_new
from headstart.core.counts import counted
from headstart.core.errors import UsageError
from headstart.core.types import ImageDataset
from headstart.data.scan import scan
from headstart.data.sources import open_source
from headstart.model.answers import UNSAFE, put_into, under_free_name

PHOTOS, LEFT_OUT, NEW = "photos", "left out", "new photos"  # folders of a project
MODEL, REPORT = "model", "report"
LONGEST = 80  # characters of a class


@dataclass(frozen=True)
class BroughtIn:
    """What was taken from a folder of labelled photos."""

    photos: int
    classes: int
    parts: tuple[str, ...]  # train, test and the like, which are put together
    problems: int  # files that are no photos


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

    def photos(self, label: str, *, left_out: bool = False) -> list[Path]:
        """The photos of a class, in the order of their names; or those of it that are left out."""
        return _images(self.folder / (LEFT_OUT if left_out else PHOTOS) / label)

    def left_out(self) -> list[Path]:
        """All photos that are left out."""
        return [photo for label in _folders(self.folder / LEFT_OUT) for photo in self.photos(label, left_out=True)]

    def new_photos(self) -> list[Path]:
        """Photos that have no label yet."""
        return _images(self.folder / NEW)

    def add_class(self, name: str) -> str:
        """Make a folder for a class.

        Raises:
            UsageError: the name cannot be that of a folder, or there is such a class.
        """
        label = name.strip()
        if not label or label.startswith(".") or len(label) > LONGEST or UNSAFE.search(label):
            raise UsageError(f"'{name}' cannot be the name of a class. Expected letters, digits, blanks or dashes.")
        if label.casefold() in {known.casefold() for known in self.classes()}:
            raise UsageError(f"There is a class '{label}' already.")
        _make(self.photos_folder / label)
        return label

    def add(self, label: str, files: Iterable[str | os.PathLike[str]]) -> int:
        """Copy photos into a class; returns how many."""
        return len([put_into(self.photos_folder, label, os.fspath(file), link=False) for file in files])

    def add_new(self, files: Iterable[str | os.PathLike[str]]) -> int:
        """Copy photos that have no label yet; returns how many."""
        return len([put_into(self.folder, NEW, os.fspath(file), link=False) for file in files])

    def bring_in(self, source: str) -> BroughtIn:
        """Link the photos of a folder, or of what else `hs.fit` takes, into their classes; what has no file is written.

        Raises:
            UsageError, DataError: there is nothing of the kind.
        """
        whole = os.path.abspath(os.path.expanduser(source))
        if self.folder in (Path(whole), *Path(whole).parents):
            raise UsageError("These are the photos of the project itself.")
        data = open_source(whole)
        link = _can_link(self.photos_folder)
        for row, sample in enumerate(data.samples):
            self._take(data, row, sample.name, sample.label, link=link)
        labels = {sample.label for sample in data.samples}
        parts = tuple(dict.fromkeys(sample.split for sample in data.samples if sample.split))
        return BroughtIn(len(data), len(labels), parts, len(data.problems))

    def _take(self, data: ImageDataset, row: int, name: str, label: str, *, link: bool) -> None:
        file = Path(data.root) / name
        if file.is_file():
            put_into(self.photos_folder, label, str(file), link=link)
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
        return self._moved(photo, self.folder / LEFT_OUT / photo.parent.relative_to(self.photos_folder).parts[0])

    def put_back(self, photo: Path) -> Path:
        """Put a photo that was left out back into its class."""
        return self._moved(photo, self.photos_folder / photo.parent.relative_to(self.folder / LEFT_OUT).parts[0])

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


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"'{folder}' cannot be made: {error.strerror or error}.") from error


def said(done: BroughtIn) -> str:
    """What was brought in, in a sentence or two."""
    photos, classes = counted(done.photos, "photo"), counted(done.classes, "class", "classes")
    words = f"{photos} of {classes} linked; the originals stay as they are."
    if done.parts:
        words += f" {' and '.join(done.parts)} are together now: the fit holds out a test set of its own."
    return words
