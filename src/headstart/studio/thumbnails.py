"""Small pictures of photos for the screens: made once for each file, kept for as long as the studio runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from headstart.core.errors import UnreadableImageError
from headstart.core.processors import cores
from headstart.core.regular_file import read_regular
from headstart.core.types import ImageSpec
from headstart.data.formats import MOST_BYTES
from headstart.data.listing import stamp_of
from headstart.data.load import decode

SIDE = 160  # pixels
_SPEC = ImageSpec(SIDE, (0.0,) * 3, (1.0,) * 3, crop=1.0)


class Thumbnails:
    """A folder of small pictures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, photos: Sequence[Path]) -> list[Path]:
        """The middle square of each; a grey one of what cannot be read."""
        with ThreadPoolExecutor(cores()) as pool:
            return list(pool.map(self._one, photos))

    def _one(self, photo: Path) -> Path:
        try:
            stamp = stamp_of(os.path.realpath(photo), os.stat(photo))
        except OSError:
            stamp = 0
        small = self.folder / f"{stamp:016x}.jpg"
        if not small.exists():
            try:
                pixels = decode(read_regular(photo, MOST_BYTES), _SPEC)
            except (OSError, UnreadableImageError):
                pixels = np.full((SIDE, SIDE, 3), 160, np.uint8)
            unfinished = small.with_suffix(f".{os.getpid()}.{id(pixels)}.part")
            Image.fromarray(pixels).save(unfinished, "JPEG", quality=80)
            unfinished.replace(small)
        return small


def pairs_of(photos: Sequence[Path], captions: Sequence[str], thumbnails: Thumbnails) -> list[tuple[str, str]]:
    """Small pictures with words, as galleries take them."""
    return [(str(small), text) for small, text in zip(thumbnails.of(photos), captions, strict=True)]


def gallery_of(pairs: Sequence[tuple[str, str]]) -> Any:
    """Small pictures side by side."""
    return gr.Gallery(
        list(pairs), columns=3, object_fit="cover", allow_preview=False, interactive=False, buttons=[], height="auto",
        show_label=False, elem_classes="hs-tiles",
    )  # fmt: skip


def toggled(chosen: Sequence[str], photo: str) -> tuple[str, ...]:
    """The photos that are chosen when one of them, or another one, is clicked."""
    return tuple(each for each in chosen if each != photo) if photo in chosen else (*chosen, photo)
