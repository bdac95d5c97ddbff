"""How an ideal image is made: two presets, and their settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from headstart.core.arguments import checks, instance, whole
from headstart.core.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Preset:
    """The settings of a gradient ascent on an image.

    A step looks at a random window of the canvas, scaled to the network's size, with noise on it.
    """

    fourier: bool  # the canvas: amplitudes of frequencies, changed by Adam; or pixels, changed by their gradient
    steps: int
    rate: float  # of Adam, or by how much the pixels change in a step, from 0 to 1
    others: float  # the objective of a class: its logit − others · log-sum-exp of all; 1 is cross-entropy
    variation: float = 0.0  # weight of the total variation, the mean absolute difference of neighbouring pixels
    canvas: float = 1.0  # height and width of the canvas, in sizes of the network's input
    window: tuple[float, float] = (1.0, 1.0)  # the smallest and the largest window, likewise
    noise: float = 0.0  # standard deviation of the noise in the first step; it falls to 0 in the last


PRESETS = {
    "best": Preset(fourier=True, steps=128, rate=0.02, others=0.5, canvas=8 / 7, window=(0.6, 8 / 7), noise=0.2),
    "lesson": Preset(fourier=False, steps=128, rate=0.02, others=1.0, variation=1.0),
}


@checks(preset=instance(f"{' or '.join(PRESETS)}, or settings", str, Preset), steps=whole(1))
def find_preset(preset: str | Preset, steps: int | None = None) -> Preset:
    """The preset of this name, with another number of steps where one is given.

    Raises:
        UsageError: there is none, or a number of steps below 1.
    """
    if isinstance(preset, str) and preset not in PRESETS:
        raise UsageError(f"There is no preset '{preset}'. {did_you_mean(preset, PRESETS)}")
    found = PRESETS[preset] if isinstance(preset, str) else preset
    return found if steps is None else replace(found, steps=steps)


def canvas_size(preset: Preset, size: int) -> int:
    """Height and width of the canvas, in pixels, for a network that takes ``size`` pixels: an even number."""
    return 2 * math.ceil(preset.canvas * size / 2) if preset.fourier else size
