"""Pictures with captions, side by side, and maps over photos: drawn with Pillow, so that they need no extra."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from headstart.plots.files import write_files
from headstart.plots.style import INK, QUIET

Picture = NDArray[np.uint8]  # (height, width, 3)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

GAP, LINE, TEXT = 8, 17, 13  # pixels: between tiles, from line to line, and of letters
TITLE = 600  # pixels of a title for which a sheet is made wider
# A scale from dark to bright whose lightness grows evenly: five colours, with straight lines between them.
_SCALE = np.array([(13, 8, 60), (104, 20, 110), (190, 55, 84), (245, 140, 30), (252, 250, 170)], np.float32)


@dataclass(frozen=True, eq=False)
class Tile:
    """A picture, with lines of text below it: the first is dark, the others are quiet."""

    pixels: Picture
    lines: tuple[str, ...] = ()


def sheet(rows: Sequence[Sequence[Tile]], *, side: int = 224, titles: Sequence[str] = ()) -> Image.Image:
    """The tiles of each row beside each other, each scaled to a height of ``side`` pixels.

    ``titles`` stand above the rows, one each.
    """
    font = ImageFont.load_default(TEXT)
    drawn = [[_drawn(tile, side, font) for tile in row] for row in rows]
    heights = [max(tile.height for tile in row) for row in drawn]
    widths = [sum(tile.width + GAP for tile in row) for row in drawn]
    above = LINE if titles else 0
    widths += [min(round(font.getlength(title)), TITLE) + GAP for title in titles]
    whole = Image.new("RGB", (max(widths) + GAP, sum(heights) + (GAP + above) * len(rows) + GAP), "white")
    draw, top = ImageDraw.Draw(whole), GAP
    for row, height, title in zip(drawn, heights, titles or [""] * len(rows), strict=True):
        left = GAP
        draw.text((left + 1, top), _cut(title, whole.width - 2 * GAP, draw, font), font=font, fill=INK)
        top += above
        for tile in row:
            whole.paste(tile, (left, top))
            left += tile.width + GAP
        top += height + GAP
    return whole


def coloured(values: NDArray[np.floating]) -> Picture:
    """Values in [0, 1], (height, width), as colours from dark to bright."""
    place = np.clip(values, 0, 1).astype(np.float32) * (len(_SCALE) - 1)
    low = np.minimum(place.astype(int), len(_SCALE) - 2)
    share = (place - low)[..., None]
    colours: Picture = (_SCALE[low] * (1 - share) + _SCALE[low + 1] * share).round().astype(np.uint8)
    return colours


def laid_over(photo: Picture, values: NDArray[np.floating], *, strength: float = 0.55) -> Picture:
    """Values in [0, 1] as colours over a photo, which is seen through them; the map is scaled to the photo."""
    height, width = photo.shape[:2]
    small = Image.fromarray(np.clip(values, 0, 1).astype(np.float32))
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    return (photo * (1 - strength) + coloured(large) * np.float32(strength)).round().astype(np.uint8)


def write_pictures(pictures: Mapping[str, Image.Image], folder: str | os.PathLike[str]) -> list[Path]:
    """Write each as a PNG file by its name, complete or not at all; one that is there is replaced.

    Raises:
        UsageError: the folder cannot be written to.
    """
    return write_files({name: partial(picture.save, format="PNG") for name, picture in pictures.items()}, folder)


def _drawn(tile: Tile, side: int, font: Font) -> Image.Image:
    """A tile with its lines; text that is wider than the picture is cut at its end."""
    picture = Image.fromarray(tile.pixels)
    width = round(picture.width * side / picture.height)
    smooth = Image.Resampling.BICUBIC if side > picture.height * 0.75 and picture.height > 32 else Image.Resampling.BOX
    picture = picture.resize((width, side), smooth)
    whole = Image.new("RGB", (width, side + LINE * len(tile.lines)), "white")
    whole.paste(picture)
    draw = ImageDraw.Draw(whole)
    for number, text in enumerate(tile.lines):
        place = (1, side + LINE * number + 1)
        draw.text(place, _cut(text, width, draw, font), font=font, fill=QUIET if number else INK)
    return whole


def _cut(text: str, width: int, draw: ImageDraw.ImageDraw, font: Font) -> str:
    """A line of at most so many pixels; "…" for the end of a longer one."""
    while text and draw.textlength(text, font=font) > width:
        text = text[:-2].rstrip() + "…" if len(text) > 1 else ""
    return text
