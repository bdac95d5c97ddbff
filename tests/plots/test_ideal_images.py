"""Ideal images as files: names that any disk takes and no two share, strips, films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import headstart as hs
from headstart.plots.ideal_images import IN_STRIP, names_of_files, strip, write_ideal_images


def made(name: str, count: int = 9) -> hs.IdealImage:
    frames = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    return hs.IdealImage(name, frames[-1], 0.9, (0.0, 1.0), frames, tuple(range(count)))


def test_names_are_such_that_any_disk_takes_them() -> None:
    assert names_of_files(["golden retriever", "a/b\\c:d", "..", "x" * 300], gif=False) == [
        ("golden_retriever.png", "golden_retriever_steps.png"),
        ("a_b_c_d.png", "a_b_c_d_steps.png"),
        ("_.png", "__steps.png"),
        ("x" * 80 + ".png", "x" * 80 + "_steps.png"),
    ]


def test_no_two_images_share_a_file() -> None:
    names = ["cat", "Cat", "c?at", "c_at", "cat_steps"]
    files = [file.casefold() for of_one in names_of_files(names, gif=True) for file in of_one]
    assert len(set(files)) == 3 * len(names)


def test_the_picture_is_written_as_it_is_and_the_film_has_every_frame(tmp_path: Path) -> None:
    image = made("zebra")
    ((picture, steps, film),) = write_ideal_images([image], tmp_path / "out", gif=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["zebra.gif", "zebra.png", "zebra_steps.png"]
    assert np.array_equal(np.asarray(Image.open(picture)), image.pixels)
    with Image.open(film) as opened:
        assert (getattr(opened, "n_frames", 0), opened.size) == (9, (32, 32))
    assert np.asarray(Image.open(steps)).shape[1] > 6 * 224


def test_a_strip_has_the_first_and_the_last_picture() -> None:
    image = made("zebra")
    for count in (1, 3, 9):
        few = hs.IdealImage("zebra", image.pixels, 0.9, (0.0, 1.0), image.frames[:count], tuple(range(count)))
        width = strip(few).width
        assert width == min(count, IN_STRIP) * (224 + 8) + 8
