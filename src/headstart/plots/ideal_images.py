"""Ideal images as files: the pixels that the network takes, the way to them as a strip, and as a film."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.imagine.images import IdealImage
from headstart.plots.files import file_names, write_files
from headstart.plots.pictures import Tile, sheet, write_pictures

IN_STRIP = 6  # pictures
DURATION, LAST = 120, 1500  # milliseconds that a film shows each picture, and the last one


def names_of_files(names: Sequence[str], *, gif: bool) -> list[tuple[str, ...]]:
    """For each image the names of its files: the picture, the strip, and with ``gif`` the film."""
    return file_names(names, (".png", "_steps.png", *((".gif",) if gif else ())))


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
        films = {name: partial(_write_film, image) for name in film}
        written.append(write_pictures(made, folder) + write_files(films, folder))
    return written


def strip(image: IdealImage) -> Image.Image:
    """A few pictures of the way to an ideal image, the first and the last among them."""
    chosen = sorted({round(place) for place in np.linspace(0, len(image.frames) - 1, IN_STRIP)})
    return sheet([[Tile(image.frames[place], (f"step {image.steps[place]}",)) for place in chosen]])


def _write_film(image: IdealImage, path: Path) -> None:
    frames = [Image.fromarray(frame) for frame in image.frames]
    durations = [DURATION] * (len(frames) - 1) + [LAST]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
