"""Where the ticks of an axis stand, and what is written at them."""

from __future__ import annotations

import math
from itertools import chain

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``most``: steps of 1, 2 or 5 times a power of ten."""
    if not low < high:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [round(place * step, 12) for place in range(first, last + 1)]
    return [low]


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Powers of ten from ``low`` to ``high``, with 2 and 5 between them where there is room; both are above 0."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))

    def of(factors: tuple[int, ...], every: int = 1) -> list[float]:
        found = (factor * 10.0**power for power in range(first, last + 1, every) for factor in factors)
        return [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]

    several = chain((of(factors) for factors in ((1, 2, 5), (1, 3), (1,))), (of((1,), every) for every in (2, 3, 5)))
    return next((found for found in several if len(found) <= most), of((1,), 10))


def tick_text(value: float, *, percent: bool = False) -> str:
    """A tick as it is written: "20%", "1000", "10⁻⁶"."""
    if percent:
        return f"{100 * value:.6g}%"
    power = round(math.log10(value)) if value > 0 else 0
    if abs(power) >= 4 and math.isclose(value, 10.0**power, rel_tol=1e-9):
        return f"10{str(power).translate(_SUPERSCRIPT)}"
    return f"{value:.6g}"
