"""An attack on a photo as pictures: the photo, the change, what comes out, and the three side by side."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.attack.examples import Attacked
from headstart.core.text import one_line
from headstart.plots.pictures import Picture, Tile, sheet, write_pictures

ORIGINAL, CHANGE, RESULT, SHEET = FILES = ("original.png", "change.png", "adversarial.png", "attack.png")
GREY = 128  # no change


def write_attack(result: Attacked, folder: str | os.PathLike[str], index: int = 0) -> list[Path]:
    """Write `FILES` of the photo number ``index`` into a folder, in place of those that are there; `RESULT` has
    exactly the pixels that fool the network.

    Raises:
        UsageError: the folder cannot be written to.
    """
    change, times = magnified(result.saved[index], result.originals[index])
    photo, made = result.originals[index], result.saved[index]
    before, after = result.before[index], result.after[index]
    tiles = [
        Tile(photo, ("the photo", *_answers(result, before, before, after))),
        Tile(change, (f"the change, {times:.3g} times" if (made != photo).any() else "no change",)),
        Tile(made, ("the result", *_answers(result, after, before, after))),
    ]
    pictures = dict(zip(FILES[:3], map(Image.fromarray, (photo, change, made)), strict=True))
    return write_pictures(pictures | {SHEET: sheet([tiles])}, folder)


def magnified(changed: NDArray[np.uint8], image: NDArray[np.uint8]) -> tuple[Picture, float]:
    """The change as a picture, grey where there is none, and by how much it is magnified."""
    change = changed.astype(np.float32) - image
    times = (GREY - 1) / max(float(np.abs(change).max()), 1.0)
    picture: Picture = (GREY + change * times).round().astype(np.uint8)
    return picture, times


def _answers(
    result: Attacked, probabilities: NDArray[np.floating], before: NDArray[np.floating], after: NDArray[np.floating]
) -> list[str]:
    """The probabilities of the class before and of the one after, the larger first."""
    shown = dict.fromkeys((int(before.argmax()), int(after.argmax())))
    lines = sorted(shown, key=lambda k: -probabilities[k])
    return [f"{one_line(str(result.classes[k]))} {probabilities[k]:.1%}" for k in lines]
