"""Ideal images as files: the pixels that the network takes, the way to them as a strip, and as a film."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.core.atomic_files import beside, put
from headstart.core.errors import UsageError
from headstart.imagine.images import IdealImage
from headstart.plots.pictures import Tile, sheet, write_pictures

IN_STRIP = 6  # pictures
LONGEST = 80  # characters of a file's name that come from the class
DURATION, LAST = 120, 1500  # milliseconds that a film shows each picture, and the last one
_UNSAFE = re.compile(r'[\\/:*?"<>|\s\x00-\x1f\x7f]+')


def names_of_files(names: Sequence[str], *, gif: bool) -> list[tuple[str, ...]]:
    """For each image the names of its files: the picture, the strip, and with ``gif`` the film; no name twice."""
    taken: set[str] = set()
    found = []
    for name in names:
        stem = _UNSAFE.sub("_", name).strip("._")[:LONGEST] or "_"
        number = 1
        while True:
            base = stem if number == 1 else f"{stem}-{number}"
            files = (f"{base}.png", f"{base}_steps.png", *([f"{base}.gif"] if gif else []))
            if taken.isdisjoint(file.casefold() for file in files):
                break
            number += 1
        taken.update(file.casefold() for file in files)
        found.append(files)
    return found


def write_ideal_images(
    images: Sequence[IdealImage], folder: str | os.PathLike[str], *, gif: bool = False
) -> list[list[Path]]:
    """Write the files of `names_of_files`, each complete or not at all; those that are there are replaced.

    Raises:
        UsageError: the folder cannot be written to.
    """
    written = []
    names = names_of_files([image.name for image in images], gif=gif)
    for image, (picture, steps, *film) in zip(images, names, strict=True):
        made = {picture: Image.fromarray(image.pixels), steps: strip(image)}
        written.append(write_pictures(made, folder) + [_write_film(image, Path(folder) / name) for name in film])
    return written


def strip(image: IdealImage) -> Image.Image:
    """A few pictures of the way to an ideal image, the first and the last among them."""
    chosen = sorted({round(place) for place in np.linspace(0, len(image.frames) - 1, IN_STRIP)})
    return sheet([[Tile(image.frames[place], (f"step {image.steps[place]}",)) for place in chosen]])


def _write_film(image: IdealImage, target: Path) -> Path:
    target = Path(os.path.abspath(target))
    frames = [Image.fromarray(frame) for frame in image.frames]
    durations = [DURATION] * (len(frames) - 1) + [LAST]
    try:
        with beside(target) as folder:
            made = folder / target.name
            frames[0].save(made, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
            put(made, target)
    except OSError as error:
        raise UsageError(f"'{target}' cannot be written: {error.strerror or error}.") from error
    return target
