"""Builds a blueprint node by node, so that a family's code is like the table in its paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headstart.backbones.blueprint import INPUT, LOGITS, POOLED, Blueprint
from headstart.backbones.ops import Node


class Builder:
    """Collects nodes; each method adds one and returns its name.

    ``padding`` is "same" (TensorFlow's), the pixels at every edge, or (top, bottom, left, right).
    """

    def __init__(self, channels: int = 3) -> None:
        self.nodes = [Node(INPUT, "input", (), {"channels": channels})]
        self._channels = {INPUT: channels}

    def conv(
        self,
        x: str,
        name: str,
        filters: int,
        kernel: int,
        stride: int = 1,
        *,
        padding: Any = "same",
        groups: int = 1,
        bias: bool = False,
    ) -> str:
        """A convolution with a square kernel."""
        attrs = {"filters": filters, "kernel": (kernel, kernel), "stride": stride, "padding": _padding(padding)}
        return self._add(name, "conv", (x,), filters, **attrs, groups=groups, bias=bias)

    def norm(self, x: str, name: str, epsilon: float) -> str:
        """Batch norm."""
        return self._add(name, "norm", (x,), epsilon=epsilon)

    def act(self, x: str, name: str, kind: str) -> str:
        """An activation, one of `ops.ACTIVATIONS`."""
        return self._add(name, "act", (x,), kind=kind)

    def max_pool(self, x: str, name: str, kernel: int, stride: int, *, padding: Any = 0, ceil: bool = False) -> str:
        """The largest value of each window; with ``ceil`` the last may be incomplete, as in torch's ceil mode."""
        attrs = {"kernel": (kernel, kernel), "stride": stride, "padding": _padding(padding), "ceil": ceil}
        return self._add(name, "max_pool", (x,), **attrs)

    def average(self, x: str, name: str = POOLED) -> str:
        """The global average of each channel."""
        return self._add(name, "pool", (x,), kind="global_average")

    def add(self, x: str, y: str, name: str) -> str:
        """The sum of two nodes."""
        return self._add(name, "add", (x, y))

    def scale(self, x: str, gate: str, name: str) -> str:
        """Each channel of ``x`` times its number in the vector ``gate``."""
        return self._add(name, "scale", (x, gate))

    def concat(self, xs: Sequence[str], name: str) -> str:
        """Nodes concatenated along the channels."""
        return self._add(name, "concat", tuple(xs), sum(map(self.channels, xs)))

    def pad_channels(self, x: str, name: str, before: int, after: int) -> str:
        """Channels of zeros before and after those of ``x``."""
        return self._add(name, "pad_channels", (x,), before + self.channels(x) + after, before=before, after=after)

    def luma(self, x: str, name: str = "luma") -> str:
        """The grey of red, green and blue."""
        return self._add(name, "luma", (x,), 1)

    def flatten(self, x: str, name: str = "flatten") -> str:
        """A vector of all values, channel by channel."""
        return self._add(name, "flatten", (x,))

    def dropout(self, x: str, name: str, rate: float) -> str:
        """Dropout; only active in training."""
        return self._add(name, "dropout", (x,), rate=rate)

    def dense(self, x: str, name: str, units: int) -> str:
        """A fully connected layer, with bias."""
        return self._add(name, "dense", (x,), units, units=units)

    def classifier(self, x: str, classes: int, dropout: float) -> str:
        """Global average pooling, dropout, a dense layer ``logits``."""
        return self.dense(self.dropout(self.average(x), "dropout", dropout), LOGITS, classes)

    def build(self, name: str, size: int) -> Blueprint:
        """The checked blueprint."""
        return Blueprint(name, tuple(self.nodes), size)

    def channels(self, x: str) -> int:
        """The number of channels (or features) of a node added before."""
        return self._channels[x]

    def _add(self, node: str, op: str, inputs: tuple[str, ...], channels: int | None = None, /, **attrs: Any) -> str:
        self.nodes.append(Node(node, op, inputs, attrs))
        self._channels[node] = self._channels[inputs[0]] if channels is None else channels
        return node


def _padding(padding: Any) -> Any:
    return (padding,) * 4 if isinstance(padding, int) else padding
