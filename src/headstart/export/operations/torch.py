"""The operations in PyTorch, so that `torch.export` can trace them for photos of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class TorchOperations:
    """`protocol.Operations` on tensors."""

    kind: type = np.float64

    def __init__(self) -> None:
        import torch

        self.torch: Any = torch

    def number(self, value: float) -> Any:
        return self.torch.tensor(value, dtype=self.torch.float32)

    def wide(self, value: float) -> Any:
        return self.torch.tensor(value, dtype=self.torch.float64)

    def constant(self, array: NDArray[Any]) -> Any:
        return self.torch.from_numpy(np.array(array))

    def length(self, value: Any, axis: int) -> Any:
        return self.torch.scalar_tensor(value.shape[axis], dtype=self.torch.float64)

    def line(self, value: Any, axis: int, start: Any, stop: Any) -> tuple[Any, Any]:
        """The whole axis: a traced program cannot have a part whose size depends on numbers."""
        return value, self.torch.arange(value.shape[axis], dtype=self.torch.float64)

    def floats(self, value: Any) -> Any:
        return value.float()

    def single(self, value: Any) -> Any:
        return value.float().double()

    def as_bytes(self, value: Any) -> Any:
        return value.to(self.torch.uint8)

    def turned(self, value: Any, axes: tuple[int, ...]) -> Any:
        return value.permute(axes)

    def ratio(self, value: Any, other: Any) -> Any:
        return value / other

    def floor(self, value: Any) -> Any:
        return self.torch.floor(value)

    def absolute(self, value: Any) -> Any:
        return self.torch.abs(value)

    def root(self, value: Any) -> Any:
        return self.torch.sqrt(value)

    def log(self, value: Any) -> Any:
        return self.torch.log(value)

    def lower(self, value: Any, other: Any) -> Any:
        return self.torch.minimum(value, other)

    def higher(self, value: Any, other: Any) -> Any:
        return self.torch.maximum(value, other)

    def below(self, value: Any, other: Any) -> Any:
        return value < other

    def where(self, condition: Any, value: Any, other: Any) -> Any:
        return self.torch.where(condition, value, other)

    def product(self, value: Any, other: Any) -> Any:
        return self.torch.matmul(value, other)

    def total(self, value: Any) -> Any:
        return value.sum(-1, keepdim=True)

    def largest(self, value: Any, count: int) -> Any:
        return self.torch.topk(value, count, dim=-1).values

    def place_of_largest(self, value: Any) -> Any:
        return value.argmax(-1)

    def flat(self, value: Any) -> Any:
        return value.reshape(-1)
