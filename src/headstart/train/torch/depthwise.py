"""Depthwise convolutions in bf16 whose gradients take processors no longer than their values do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

COLUMNS = 3  # of a kernel, whose gradient oneDNN has fast code for; with more it is 10 to 100 times slower


def depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int], groups: int
) -> Tensor:
    """As `functional.conv2d` where each channel is a group of its own, in bf16; its gradient is not differentiable.

    The gradient of a wide kernel is taken a few columns at a time, that of an image seen in strides without them.
    """
    x, weight = (each.to(torch.bfloat16, memory_format=torch.channels_last) for each in (x, weight))
    bias = None if bias is None else bias.bfloat16()
    return _Depthwise.apply(x, weight, bias, list(stride), list(padding))


class _Depthwise(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight, bias, stride, padding, groups=x.shape[1])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return (
            _of_image(gradient, x, weight, ctx.stride, ctx.padding) if to_x else None,
            _of_kernel(gradient, x, weight, ctx.stride, ctx.padding) if to_weight else None,
            gradient.sum((0, 2, 3), dtype=torch.float32).to(gradient.dtype) if to_bias else None,
            None,
            None,
        )


def _of_image(gradient: Tensor, x: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> Tensor:
    if max(stride) > 1:  # the gradient that an image seen without strides would have, zero at the places left out
        dense = [x.shape[axis + 2] + 2 * padding[axis] - weight.shape[axis + 2] + 1 for axis in (0, 1)]
        spread = gradient.new_zeros((len(x), *dense, x.shape[1])).permute(0, 3, 1, 2)
        spread[..., :: stride[0], :: stride[1]] = gradient
        gradient = spread
    return _backward(gradient, x, weight, [1, 1], padding, (True, False))[0]


def _of_kernel(gradient: Tensor, x: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> Tensor:
    wide = weight.shape[3]
    if wide <= COLUMNS:
        return _backward(gradient, x, weight, stride, padding, (False, True))[1]
    reach = (gradient.shape[3] - 1) * stride[1]  # from the first place of a kernel to its last
    found = []
    for first in range(0, wide, COLUMNS):
        columns = weight[..., first : first + COLUMNS]
        left = padding[1] - first  # what these columns alone see beside the image; below zero, what they do not see
        right = reach + columns.shape[3] - x.shape[3] - left
        seen = functional.pad(x, (left, right)).contiguous(memory_format=torch.channels_last)
        found.append(_backward(gradient, seen, columns, stride, [padding[0], 0], (False, True))[1])
    return torch.cat(found, 3)


def _backward(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: list[int], padding: list[int], wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to the image and the kernel, as far as they are wanted."""
    image, kernel, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, [1, 1], False, [0, 0], x.shape[1], [*wanted, False]
    )
    return image, kernel
