"""Gradients of convolutions and max poolings on OpenVINO, with respect to their input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.ops import Node, Shape, padding_of
from headstart.engines.fast.graph import grouped


@dataclass(frozen=True)
class Windows:
    """The windows of a convolution or max pooling on its padded input; pairs are (down, across)."""

    kernel: tuple[int, int]
    stride: int
    before: tuple[int, int]  # padding
    after: tuple[int, int]
    incoming: tuple[int, int]  # height and width
    outgoing: tuple[int, int]

    @classmethod
    def of(cls, node: Node, incoming: Shape, outgoing: Shape) -> Self:
        """Those of a node, of the shapes of its input and output."""
        _, height, width = incoming
        top, bottom, left, right = padding_of(node, height, width)
        _, down, across = outgoing
        return cls(node["kernel"], node["stride"], (top, left), (bottom, right), (height, width), (down, across))

    def blocks(self, axis: int) -> int:
        """Of the blocks of stride pixels that the padded input is cut into, how many reach the input's last pixel."""
        return -(-(self.before[axis] + self.incoming[axis]) // self.stride)


def conv_gradient(op: Any, node: Node, kernel: NDArray[np.float32], g: Any, at: Windows) -> Any:
    """From the gradient ``g`` of a convolution's output that of its input.

    Where the kernel has several pixels and one group, it is computed as a convolution, which OpenVINO does faster than
    its transpose. The padded input is cut into blocks of stride × stride pixels. The pixels in row a, column b of their
    blocks meet the kernel's rows a, a + stride, … and columns b, b + stride, … alone: their gradients are those of the
    output, convolved with that part of the kernel, turned by 180°.
    """
    (rows, columns), stride = at.kernel, at.stride
    deep, wide = -(-rows // stride), -(-columns // stride)  # of a part of the kernel
    before = [size - 1 - pad // stride for size, pad in zip((deep, wide), at.before, strict=True)]
    after = [at.blocks(axis) - at.outgoing[axis] for axis in (0, 1)]
    if node["groups"] > 1 or rows == columns == 1 or min(*before, *after) < 0:
        return _transposed(op, node, kernel, g, at)
    filters, channels = kernel.shape[:2]
    whole = np.zeros((filters, channels, deep * stride, wide * stride), np.float32)
    whole[:, :, :rows, :columns] = kernel
    parts = whole.reshape(filters, channels, deep, stride, wide, stride)[:, :, ::-1, :, ::-1]
    turned = np.ascontiguousarray(parts.transpose(3, 5, 1, 0, 2, 4)).reshape(-1, filters, deep, wide)
    blocks = op.convolution(g, op.constant(turned), [1, 1], before, after, [1, 1])
    return _put_together(op, blocks, at, [pad % stride for pad in at.before])


def _transposed(op: Any, node: Node, kernel: NDArray[np.float32], g: Any, at: Windows) -> Any:
    """As `conv_gradient`, by a transposed convolution."""
    reached = [(out - 1) * at.stride + size for out, size in zip(at.outgoing, at.kernel, strict=True)]
    padded = [sum(sizes) for sizes in zip(at.before, at.incoming, at.after, strict=True)]
    beyond = [size - end for size, end in zip(padded, reached, strict=True)]  # pixels that no window reaches
    places = [at.stride] * 2, None, [*at.before], [*at.after], [1, 1]
    if node["groups"] == 1:
        return op.convolution_backprop_data(g, op.constant(kernel), *places, output_padding=beyond)
    return op.group_convolution_backprop_data(g, op.constant(grouped(node, kernel)), *places, output_padding=beyond)


def largest(op: Any, x: Any, y: Any, at: Windows) -> Any:
    """Of every window of a max pooling ``x`` → ``y`` the place of its largest value; the first if there are several."""
    rows, columns = at.kernel
    x = op.pad(x, [0, 0, *at.before], [0, 0, *at.after], "constant", np.float32(-np.inf))
    place: Any = op.constant(np.float32(rows * columns - 1))
    for start in reversed([*np.ndindex(rows, columns)][:-1]):
        stop = [first + (out - 1) * at.stride + 1 for first, out in zip(start, at.outgoing, strict=True)]
        seen = op.slice(x, *(np.array(each) for each in (start, stop, [at.stride] * 2, [2, 3])))
        place = op.select(op.equal(seen, y), np.float32(start[0] * columns + start[1]), place)
    return place


def max_pool_gradient(op: Any, place: Any, g: Any, at: Windows) -> Any:
    """From the gradient ``g`` of a max pooling's output that of its input; ``place`` is of `largest`.

    Gradients are collected for each pixel of a block of stride × stride, as `conv_gradient` does it.
    """
    (rows, columns), stride = at.kernel, at.stride
    size = [max(at.blocks(axis), at.outgoing[axis] + (at.kernel[axis] - 1) // stride) for axis in (0, 1)]
    blocks: list[Any] = [op.constant(np.float32(0))] * stride**2
    for i, j in np.ndindex(rows, columns):
        part = op.select(op.equal(place, np.float32(i * columns + j)), g, np.float32(0))
        start = [i // stride, j // stride]
        end = [size[axis] - at.outgoing[axis] - start[axis] for axis in (0, 1)]
        part = op.pad(part, [0, 0, *start], [0, 0, *end], "constant", np.float32(0))
        pixel = i % stride * stride + j % stride
        blocks[pixel] = op.add(blocks[pixel], part)
    shape = op.shape_of(blocks[0])
    return _put_together(op, op.concat([op.broadcast(block, shape) for block in blocks], 1), at, at.before)


def _put_together(op: Any, blocks: Any, at: Windows, start: Any) -> Any:
    """The blocks, whose pixels are channels here, side by side; the input is what lies from ``start``."""
    whole = op.depth_to_space(blocks, "blocks_first", at.stride) if at.stride > 1 else blocks
    stop = [first + size for first, size in zip(start, at.incoming, strict=True)]
    return op.slice(whole, *(np.array(each) for each in (start, stop, [1, 1], [2, 3])))
