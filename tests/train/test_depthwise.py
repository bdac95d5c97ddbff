"""Depthwise convolutions in bf16: values and gradients are those of `conv2d`, rounded."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from headstart.train.torch.depthwise import depthwise

ROUNDING = 2**-8  # of bf16, relative to the greatest
CHANNELS = 8


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    more=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_gradients_are_those_of_conv2d(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], more: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    height, width = (size + extra for size, extra in zip(kernel, more, strict=True))
    drawn = torch.randn(3, CHANNELS, height, width), torch.randn(CHANNELS, 1, *kernel), torch.randn(CHANNELS)
    ours = [each.bfloat16().float().requires_grad_() for each in drawn]
    exact = [each.detach().double().requires_grad_() for each in ours]
    x, weight, bias = ours
    found = depthwise(x, weight, bias, stride=stride, padding=padding, groups=CHANNELS)
    wanted = functional.conv2d(*exact, stride=stride, padding=padding, groups=CHANNELS)
    assert found.dtype == torch.bfloat16
    assert_close(found, wanted)
    gradient = torch.randn(found.shape).bfloat16()
    found.backward(gradient)
    wanted.backward(gradient.double())
    for mine, theirs in zip(ours, exact, strict=True):
        assert_close(mine.grad, theirs.grad)


def test_only_what_is_wanted_is_computed() -> None:
    x, weight = torch.randn(2, 4, 9, 9), torch.randn(4, 1, 5, 5, requires_grad=True)
    depthwise(x, weight, None, stride=(2, 2), padding=(2, 2), groups=4).sum().backward()
    assert x.grad is None
    assert weight.grad.shape == weight.shape


def assert_close(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    found, wanted = found.detach().double(), wanted.detach()
    # a processor without bf16 adds up in parts, each of them rounded
    assert float((found - wanted).abs().max()) <= 4 * ROUNDING * max(float(wanted.abs().max()), 1e-3)
