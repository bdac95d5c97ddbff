"""Pictures with captions side by side, maps over photos, and PNG files that are complete or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.plots.pictures import Tile, coloured, laid_over, sheet, write_pictures

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)


def test_a_sheet_has_a_place_for_every_tile() -> None:
    one, two = (
        sheet([[Tile(PHOTO)]], side=40),
        sheet([[Tile(PHOTO), Tile(PHOTO)], [Tile(PHOTO, ("cat", "0.9"))]], side=40),
    )
    assert two.width > 1.8 * one.width
    assert two.height > 2 * one.height
    assert np.array_equal(np.asarray(one)[8:48, 8:48], PHOTO)


def test_a_caption_is_dark_on_white_and_never_wider_than_its_picture() -> None:
    plain, long = (np.asarray(sheet([[Tile(PHOTO, (text,))]], side=40)) for text in ("", "a class with a long name"))
    assert (plain[50:] == 255).all()
    assert (long[50:] < 128).any()
    assert long.shape == plain.shape
    assert (long[50:, 48:] == 255).all()


def test_colours_get_brighter_with_the_value() -> None:
    scale = coloured(np.linspace(-0.5, 1.5, 41)[None])[0].astype(float) @ (0.299, 0.587, 0.114)
    assert (np.diff(scale) >= -1).all()
    assert scale[-1] - scale[0] > 150


def test_a_map_over_a_photo_has_its_size_and_lets_it_through() -> None:
    found = laid_over(PHOTO, np.eye(5))
    assert found.shape == PHOTO.shape
    assert np.corrcoef(found.ravel(), PHOTO.ravel())[0, 1] > 0.3
    assert found[2, 2].mean() > found[2, -3].mean()


def test_pictures_are_written_and_an_older_one_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "inside"
    write_pictures({"a.png": Image.new("RGB", (3, 3))}, folder)
    paths = write_pictures({"a.png": Image.fromarray(PHOTO), "b.png": Image.new("RGB", (2, 2))}, folder)
    assert [path.name for path in paths] == ["a.png", "b.png"]
    assert np.array_equal(np.asarray(Image.open(paths[0])), PHOTO)
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.png"]


def test_a_folder_that_cannot_be_written_to_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(hs.UsageError, match="cannot be written to"):
        write_pictures({"a.png": Image.new("RGB", (3, 3))}, tmp_path / "file" / "inside")
