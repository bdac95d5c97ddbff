"""One step of training in PyTorch: forward, backward, clip, update. For a loop of one's own, and for both trainers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from headstart.core.errors import DivergedError
from headstart.engines.torch.network import choose_device, in_fp32
from headstart.train.protocol import Array, Batch
from headstart.train.stepper import Stepper, Sums
from headstart.train.torch.network import TrainableNetwork
from headstart.train.torch.optimiser import Average, build_optimiser, clip, place_memory

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # what devices say

Backward = Callable[[Tensor], None]


class TorchStepper(Stepper):
    """A network in training on PyTorch; see `Stepper`."""

    framework = "torch"
    network: TrainableNetwork
    average: Average

    def _build(self, device: str) -> None:
        self.network = TrainableNetwork(self.task, self.recipe, choose_device(device))
        shares = {name: self.task.rates[self.network.nodes[name]] for name in self.network.parameters}
        self.optimiser = build_optimiser(self.network.parameters, shares, self.recipe)
        self.average = Average(self.recipe, self.steps)

    def gradients(self, batch: Batch, rate: float, backward: Backward = Tensor.backward) -> float:
        """The first half of a step: afterwards the clipped gradients are in place, and the optimiser has its rate.

        Of ``ranks`` processes each takes its share of the batch, and ``backward`` averages their gradients.
        """
        self.check(batch)
        batch = self.attacked(batch, self.steps_done)
        self.optimiser.zero_grad()
        for group in self.optimiser.param_groups:
            group["lr"] = group["share"] * rate
        before = self.network.copies(self.network.statistics)
        try:
            with self._in_fp32():
                while (sums := self._try(batch, backward)) is None:
                    self._undo(before)
            sums = self.total(sums)
            loss = float(sums[0]) / len(batch.y)
            norm = clip(self.network.parameters.values(), self.recipe.clip)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise DivergedError(self.divergence(batch, loss))
        except BaseException:
            self._undo(before)
            raise
        self._seen += sums[1:]
        return loss

    def finish_step(self) -> None:
        """The second half of a step, after the optimiser's."""
        self.optimiser.zero_grad()
        self.average.update(self.steps_done, self.network.trained)
        self.steps_done += 1

    def _step(self, batch: Batch, rate: float) -> float:
        loss = self.gradients(batch, rate)
        self.optimiser.step()
        self.finish_step()
        return loss

    @contextmanager
    def _evaluation(self) -> Iterator[None]:
        with torch.no_grad(), self._in_fp32():
            yield

    def _evaluate(self, x: Array) -> Array:
        return np.asarray(self.network.logits(x).cpu().numpy())

    def _pixel_gradient(self, x: Array, y: NDArray[np.int64]) -> Array:
        pixels = torch.tensor(x, device=self.network.device, requires_grad=True)
        with torch.enable_grad(), self._in_fp32():
            labels = torch.tensor(y, device=self.network.device)
            loss = functional.cross_entropy(self.network.logits(pixels), labels, reduction="sum")
            return np.asarray(torch.autograd.grad(loss, pixels)[0].cpu().numpy())

    def _update_statistics(self, x: Array) -> None:
        self.network.logits(x, {})

    def _memory(self, name: str) -> dict[str, Array]:
        found = self.optimiser.state.get(self.network.parameters[name], {})
        return {key: self.network.outward(name, value) for key, value in found.items() if value is not None}

    def _load_memory(self, memory: Mapping[str, Mapping[str, Array]]) -> None:
        self.optimiser.state.clear()
        for name, parts_of in memory.items():
            for key, array in parts_of.items():
                self.optimiser.state[self.network.parameters[name]][key] = self.network.inward(name, array)
        place_memory(self.optimiser)

    def _undo(self, statistics: Mapping[str, Tensor]) -> None:
        """As before a pass, which changes statistics and leaves gradients."""
        self.optimiser.zero_grad()
        self.network.put(statistics)

    def _try(self, batch: Batch, backward: Backward) -> Sums | None:
        """As `_pass`; None: memory ran out, and from now on half as many images are taken at a time."""
        try:
            return self._pass(batch, backward)
        except RuntimeError as error:
            # other processes would wait for gradients that never come
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
        # what is too few images for all processes, each of them takes whole: the others wait for its gradients
        shared = count >= self.ranks * self.network.least
        rank, ranks = (self.rank, self.ranks) if shared else (0, 1)
        sums = np.zeros(4)
        for part in self.parts(count, rank, ranks):
            logits = self.network.logits(batch.x[part], {name: mask[part] for name, mask in masks.items()})
            labels = self._labels(batch, part)
            loss = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
            backward(loss * (ranks / count))
            sums += (float(loss.detach()), *_sums(logits.detach(), labels))
        return sums * (ranks / self.ranks)

    def _labels(self, batch: Batch, part: slice) -> Tensor:
        return torch.tensor(batch.y[part].astype(np.int64), device=self.network.device)

    def _in_fp32(self) -> AbstractContextManager[object]:
        return in_fp32("" if self.network.low else self.network.device.type)


def _sums(logits: Tensor, labels: Tensor) -> Sums:
    """Sums over images: cross-entropy, errors, and how many images they are."""
    loss = functional.cross_entropy(logits, labels, reduction="sum")
    errors = (logits.argmax(1) != labels).sum()
    return np.array([*torch.stack([loss, errors.float()]).tolist(), len(labels)])


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of PyTorch says so."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)
