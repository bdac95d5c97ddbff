"""One step of training in PyTorch: forward, backward, clip, move. For a loop of one's own, and for both trainers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from headstart.core.errors import DivergedError
from headstart.engines.torch.network import choose_device
from headstart.train.protocol import Array, Batch, Judged, Task, check_batch
from headstart.train.recipe import Recipe
from headstart.train.stepper import BaseStepper, Sums, judge, parts
from headstart.train.torch.network import MovingNetwork
from headstart.train.torch.optimiser import Average, build_optimiser, clip

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # what devices say

Backward = Callable[[Tensor], None]


class TorchStepper(BaseStepper):
    """A network in training on PyTorch, a `Stepper`.

    Nodes without a rate stay as they are, in evaluation mode; the statistics of batch norm move only if the recipe says
    so. Weight decay is decoupled with "adamw" (Loshchilov & Hutter 2019), else added to the clipped gradient.

    Args:
        steps: of the whole training, which the schedule is laid over.
        say: told, in a sentence, when memory ran out and batches are taken in parts.
    """

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        steps: int,
        device: str = "auto",
        *,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(task, recipe, steps, say)
        self.network = MovingNetwork(task, recipe, choose_device(device))
        shares = {name: task.rates[self.network.node_of(name)] for name in self.network.parameters}
        self.optimiser = build_optimiser(self.network.parameters, shares, recipe)
        self.average = Average(recipe, steps)
        self.rank, self.ranks = 0, 1  # of several processes that share every batch, see `gradients`
        self.total: Callable[[Sums], Sums] = lambda sums: sums  # adds up what the processes have

    def step(self, batch: Batch, rate: float | None = None) -> float:
        """One step of the optimiser at the schedule's rate, or at ``rate``; returns the loss before it.

        Raises:
            DivergedError: the loss is not a number; the weights are those before the step.
            UsageError: a batch that the network does not take, or of which not one image fits into memory.
        """
        loss = self.gradients(batch, rate)
        self.optimiser.step()
        self.moved()
        return loss

    def gradients(self, batch: Batch, rate: float | None = None, backward: Backward = Tensor.backward) -> float:
        """The first half of a step: afterwards the clipped gradients are in place, and the optimiser has its rate.

        Of ``ranks`` processes each takes its share of the batch, and ``backward`` averages their gradients.
        """
        check_batch(self.task, batch)
        self.optimiser.zero_grad()
        for group in self.optimiser.param_groups:
            group["lr"] = group["share"] * (self.rate() if rate is None else rate)
        before = {name: value.clone() for name, value in self.network.statistics.items()}
        try:
            with self._exactly():
                while (sums := self._try(batch, backward)) is None:
                    self._undo(before)
            sums = self.total(sums)
            loss = float(sums[0]) / len(batch.y)
            norm = clip(self.network.parameters.values(), self.recipe.clip)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise DivergedError(self.diverged(batch, loss))
        except BaseException:
            self._undo(before)
            raise
        self._seen += sums[1:]
        return loss

    def moved(self) -> None:
        """The second half of a step, after the optimiser's."""
        self.optimiser.zero_grad()
        self.average.update(self.steps_done, self.network.moving)
        self.steps_done += 1

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def evaluate(self, batches: Iterable[Batch]) -> Judged:
        """How the weights that would be kept do, in evaluation mode."""
        classes = self.task.classes
        scores, labels = [np.zeros((0, classes))], [np.zeros(0, np.int64)]
        with self._exactly(), self.network.with_weights(self.average.values):
            for number, batch in enumerate(batches):
                check_batch(self.task, batch)
                scores.append(np.zeros((len(batch.y), classes)))
                labels.append(batch.y)
                for part in parts(len(batch.y), self.at_a_time) if number % self.ranks == self.rank else ():
                    scores[-1][part] = self.network.logits(batch.x[part]).cpu().numpy()
        return judge(self.total(np.concatenate(scores)), np.concatenate(labels))  # the others' rows are zero here

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The weights that would be kept: the averaged ones, where the recipe averages."""
        return self.network.weights(self.average.values)

    def state(self) -> dict[str, Array]:
        """All that `load_state` needs to go on bit by bit; of the weights, those that move."""
        found = {f"weight/{name}": value for name, value in self.network.moving.items()}
        found |= {f"average/{name}": value for name, value in self.average.values.items()}
        for name, parameter in self.network.parameters.items():
            memory = self.optimiser.state.get(parameter, {})
            found |= {f"optimiser/{name}/{key}": value for key, value in memory.items() if value is not None}
        return {
            **{name: value.detach().cpu().numpy().copy(order="C") for name, value in found.items()},
            "mass": np.array(self.average.mass),
            **self._counts(),
        }

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Go on from what `state` gave.

        Raises:
            UsageError: it is the state of another network, or of other rates.
        """
        moving, parameters = self.network.moving, self.network.parameters
        self._check_state(state, {name: tuple(value.shape) for name, value in moving.items()})
        self.network.put({name: torch.tensor(state[f"weight/{name}"]) for name in moving})
        averaged = [name for name in moving if f"average/{name}" in state]
        self.average.values = {name: _like(moving[name], state[f"average/{name}"]) for name in averaged}
        self.average.mass = float(state["mass"])
        self.optimiser.state.clear()
        for path, value in state.items():
            if path.startswith("optimiser/"):
                name, key = path.removeprefix("optimiser/").rsplit("/", 1)
                self.optimiser.state[parameters[name]][key] = _like(parameters[name], value)
        self._load_counts(state)

    def _undo(self, statistics: Mapping[str, Tensor]) -> None:
        """As before a pass, which moves statistics and leaves gradients."""
        self.optimiser.zero_grad()
        self.network.put(statistics)

    def _try(self, batch: Batch, backward: Backward) -> Sums | None:
        """As `_pass`; None: memory ran out, and from now on half as many images are taken at a time."""
        try:
            return self._pass(batch, backward)
        except RuntimeError as error:
            # of several processes, the others would wait for gradients that do not come
            if self.ranks > 1 or not out_of_memory(error):
                raise
            self.halve(self.at_a_time or len(batch.y), error)
        if self.network.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _pass(self, batch: Batch, backward: Backward) -> Sums:
        """Forward and backward; returns sums over images: loss as minimised, loss, errors, and how many they are."""
        count, smoothing = len(batch.y), self.recipe.label_smoothing
        masks = self.network.masks(self.steps_done, count)
        idle = self.rank >= count  # more processes than images: the others wait for its gradients all the same
        sums = np.zeros(4)
        for part in [slice(0, 1)] if idle else parts(count, self.at_a_time, self.rank, self.ranks):
            logits = self.network.logits(batch.x[part], {name: mask[part] for name, mask in masks.items()})
            labels = self._labels(batch, part)
            loss = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
            backward(loss * (0 if idle else self.ranks / count))
            if not idle:
                sums += (float(loss.detach()), *_sums(logits.detach(), labels))
        return sums

    def _labels(self, batch: Batch, part: slice) -> Tensor:
        return torch.tensor(batch.y[part].astype(np.int64), device=self.network.device)

    def _exactly(self) -> AbstractContextManager[object]:
        """In fp32, without TF32, which cuDNN takes for the same unless it is told otherwise."""
        if self.network.low or self.network.device.type != "cuda":
            return nullcontext()
        return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)  # type: ignore[no-any-return]


def _sums(logits: Tensor, labels: Tensor) -> Sums:
    """Sums over images: cross-entropy, errors, and how many images they are."""
    loss = functional.cross_entropy(logits, labels, reduction="sum")
    errors = (logits.argmax(1) != labels).sum()
    return np.array([*torch.stack([loss, errors.float()]).tolist(), len(labels)])


def out_of_memory(error: RuntimeError) -> bool:
    """Whether that is what an error of PyTorch means."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


def _like(tensor: Tensor, array: Array) -> Tensor:
    """An array as a tensor, if of another's shape then laid out in memory as that one, so that sums stay the same."""
    if array.shape != tensor.shape:
        return torch.tensor(array)
    return torch.empty_like(tensor, requires_grad=False).copy_(torch.tensor(array))
