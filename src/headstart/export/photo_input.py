"""The way from photos of any size to a network's pixels, as part of an export: what `data.load.decode` does."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.core.types import ImageSpec
from headstart.data.load import MARGIN
from headstart.export.operations.protocol import Operations

REACH = {"bicubic": 2.0, "bilinear": 1.0}  # pixels to either side, where a photo is not made smaller
CUBIC = -0.5  # the parameter of the cubic, as Pillow has it (Keys 1981)
GRID = 64.0  # places of the kernel for a pixel at which float32 is exact
WHOLE = 2.0**22  # Pillow's weights are whole numbers, of this sum
HALF = 2.0**11  # they are split into two of so many steps, whose products with bytes float32 adds without rounding


def to_pixels(ops: Operations, photos: Any, spec: ImageSpec) -> Any:
    """uint8 (N, height, width, 3), any height and width → uint8 (N, size, size, 3): the centred square, scaled.

    As Pillow scales it, to the last bit where the format has float64, and but for a few pixels in a million in float32:
    the kernel is as wide as a pixel of the result, across first, then down, each in 8 bits. These are products of
    matrices, which every format has and computes quickly; no two have the same resize.
    """
    height, width = ops.length(photos, 1), ops.length(photos, 2)
    side = ops.lower(height, width) * ops.wide(spec.crop)
    photos, rows = _line(ops, photos, 1, height, side, spec)
    photos, columns = _line(ops, photos, 2, width, side, spec)
    values = ops.floats(ops.turned(photos, (0, 3, 1, 2)))
    values = _bytes_of(ops, *(ops.product(values, ops.turned(part, (1, 0))) for part in columns))
    values = _bytes_of(ops, *(ops.product(part, values) for part in rows))
    return ops.as_bytes(ops.turned(values, (0, 2, 3, 1)))


def _line(
    ops: Operations, photos: Any, axis: int, length: Any, side: Any, spec: ImageSpec
) -> tuple[Any, tuple[Any, Any]]:
    """The photos without what does not matter on this axis, and two parts of the weights (size, pixels) of the rest."""
    w = ops.wide
    start, wide = (length - side) / w(2), ops.higher(ops.ratio(side, w(spec.size)), w(1))
    zero = ops.higher(ops.floor(start - wide * w(MARGIN)), w(0))  # as `data.load` cuts, before float32 counts
    low, high = ops.single(start - zero), ops.single(start + side - zero)
    step = ops.ratio(ops.single(high - low), w(spec.size))  # pixels of the photo for one of the result
    wide = ops.higher(step, w(1))
    reach = wide * w(REACH[spec.resample])
    first = ops.higher(ops.floor(low + step * w(0.5) - reach + w(0.5)) + zero, w(0))
    last = ops.lower(ops.floor(low + step * w(spec.size - 0.5) + reach + w(0.5)) + zero, length)
    part, places = ops.line(photos, axis, first, last)
    centres = ops.constant((np.arange(spec.size)[:, None] + 0.5).astype(ops.kind)) * step + low
    distance = ops.absolute(places - zero - centres + w(0.5))
    near = ops.floor(ops.ratio(distance, wide) * w(GRID)) / w(GRID)
    kernel = _cubic if spec.resample == "bicubic" else _linear
    return part, _in_steps(ops, *kernel(ops, near, ops.ratio(distance - near * wide, wide)))


def _cubic(ops: Operations, near: Any, rest: Any) -> tuple[Any, Any]:
    """The kernel at ``near``, and what ``rest`` more changes: in float32 the first is exact, and the second small."""
    w = ops.wide
    inner = (near * w(CUBIC + 2) - w(CUBIC + 3)) * near * near + w(1)
    outer = (((near - w(5)) * near + w(8)) * near - w(4)) * w(CUBIC)
    inner_rest = _taylor(ops, near, rest, CUBIC + 2, -CUBIC - 3, 0)
    outer_rest = _taylor(ops, near, rest, CUBIC, -5 * CUBIC, 8 * CUBIC)

    def within(value: Any, other: Any) -> Any:
        return ops.where(ops.below(near, w(1)), value, ops.where(ops.below(near, w(2)), other, w(0)))

    return within(inner, outer), within(inner_rest, outer_rest)


def _taylor(ops: Operations, near: Any, rest: Any, a: float, b: float, c: float) -> Any:
    """What a·x³ + b·x² + c·x changes from ``near`` to ``rest`` more."""
    w = ops.wide
    slope, bend = (near * w(3 * a) + w(2 * b)) * near + w(c), near * w(3 * a) + w(b)
    return ((rest * w(a) + bend) * rest + slope) * rest


def _linear(ops: Operations, near: Any, rest: Any) -> tuple[Any, Any]:
    w = ops.wide
    inside = ops.below(near, w(1))
    return ops.where(inside, w(1) - near, w(0)), ops.where(inside, w(0) - rest, w(0))


def _in_steps(ops: Operations, weights: Any, rest: Any) -> tuple[Any, Any]:
    """Weights as whole numbers, of sum `WHOLE`, in two float32 parts: of `HALF` steps each, and what is left."""
    w = ops.wide
    total, sign = ops.total(weights) + ops.total(rest), ops.where(ops.below(weights, w(0)), w(-1), w(1))
    most, more = (ops.ratio(part * sign, total) * w(WHOLE) for part in (weights, rest))
    whole = ops.floor(most)
    steps = (whole + ops.floor(most - whole + more + w(0.5))) * sign
    many = ops.floor(steps / w(HALF) + w(0.5))
    return ops.floats(many), ops.floats(steps - many * w(HALF))


def _bytes_of(ops: Operations, many: Any, few: Any) -> Any:
    """Bytes, of the sums of both parts."""
    n = ops.number
    whole = many + ops.floor(few / n(HALF))
    whole = ops.floor((whole + n(HALF / 2)) / n(HALF))
    return ops.lower(ops.higher(whole, n(0)), n(255))
