"""The network in training as a stepper sees it, whatever framework it is in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.train.dropout import dropout_mask, dropped
from headstart.train.protocol import Array, Task
from headstart.train.recipe import Recipe


class BaseTrainableNetwork(ABC):
    """A network of which a part is trained, in evaluation mode but for batch norms whose statistics are updated.

    What follows the features is computed in fp32, whatever the precision.
    """

    parameters: Mapping[str, Any]  # weights that the optimiser changes, by their names in the blueprint

    def __init__(self, task: Task, recipe: Recipe) -> None:
        self.task, self.recipe = task, recipe
        self.dropped = dropped(task.blueprint) if recipe.dropout else ()
        self._shapes = task.shapes
        self._updated = task.rates.keys() if recipe.batch_norm == "train" else set[str]()

    @property
    @abstractmethod
    def statistics(self) -> dict[str, Any]:
        """Means and variances of batch norms that training changes."""

    @property
    def trained(self) -> dict[str, Any]:
        """All that training changes, by their names in the blueprint."""
        return {**self.parameters, **self.statistics}

    @cached_property
    def least(self) -> int:
        """Images that a pass in training takes at least: of one value a channel batch norm has no variance.

        What shapes the norms inside a module see is not known.
        """
        nodes = [self.task.blueprint[name] for name in self._updated] if self.statistics else []
        pixels = {node.name: math.prod(self._shapes[node.name][1:]) for node in nodes if node.op == "norm"}
        return 2 if 1 in pixels.values() or any(node.op == "module" for node in nodes) else 1

    def masks(self, step: int, images: int) -> dict[str, NDArray[np.float32]]:
        """The dropout masks of a step, for a whole batch, laid out as in the blueprint."""
        return {name: dropout_mask(self.recipe, step, name, (images, *self._shapes[name])) for name in self.dropped}

    @contextmanager
    def with_weights(self, others: Mapping[str, Any]) -> Iterator[None]:
        """For a while, other values in place of those that are trained."""
        trained = self.trained
        own = self.copies({name: trained[name] for name in others})
        self.put(others)
        try:
            yield
        finally:
            self.put(own)

    @abstractmethod
    def only_last_batch_counts(self) -> AbstractContextManager[None]:
        """Within it, the statistics that training changes become those of the last batch alone."""

    @abstractmethod
    def copies(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Copies that `put` takes back."""

    @abstractmethod
    def put(self, values: Mapping[str, Any]) -> None:
        """Copy values, laid out as here, over those that are trained."""

    @abstractmethod
    def outward(self, name: str, value: Any) -> Array:
        """A copy of a value, laid out as that weight is here, as the blueprint has it."""

    @abstractmethod
    def inward(self, name: str, array: Array) -> Any:
        """The reverse of `outward`."""

    @abstractmethod
    def weights(self, instead: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
        """A copy of all weights by their names in the blueprint, with some others ``instead``."""
