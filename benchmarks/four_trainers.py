"""The four trainers on real photos: how far apart, and how fast: python benchmarks/four_trainers.py

Plain SGD in fp32 from the same start on the same batches: the small convolutional network on CIFAR-10, from nothing,
and MobileNetV2 on cats and dogs, from the head that `fit` gives it, the upper third and all of it. Beside them a plain
loop in PyTorch, and the same with the photos of each batch in reverse: these two differ in rounding alone, which a
network with ReLUs multiplies from step to step. Each has a process of its own. Images a second are of the steps after
the second, since the first ones compile. Needs the extras torch and keras.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness import Goal, arguments, finish, in_child, median, shared, spread

if TYPE_CHECKING:
    from headstart.train.batches import PhotoBatches
    from headstart.train.protocol import Task

TOLERANCE = 1e-5
ROUNDING = 5  # times the difference that rounding alone makes, where that is above the tolerance
PLAIN = ("plain loop", "in reverse")


@dataclass(frozen=True)
class Case:
    """What is trained."""

    network: str
    unfreeze: str
    batch: int
    rate: float

    def __str__(self) -> str:
        return f"{self.network}, {self.unfreeze}"


CASES = (  # at larger rates (0.05 and 1e-3) rounding alone parts the curves of real photos within 20 steps
    Case("small_cnn", "all", 64, 0.003),
    Case("mobilenet_v2", "top", 8, 3e-5),
    Case("mobilenet_v2", "all", 8, 3e-5),
)


@dataclass(frozen=True)
class Outcome:
    """What one trainer made of it."""

    losses: tuple[float, ...]
    weights: dict[str, NDArray[np.float32]]
    moved: float  # the farthest that any weight went
    speed: float  # images a second


@dataclass(frozen=True)
class Training:
    """One training, to be run in a process of its own."""

    case: Case
    trainer: str  # or one of `PLAIN`
    steps: int
    model: str  # where the fitted classifier is

    def __call__(self) -> Outcome:
        import headstart as hs
        from headstart.train.batches import PhotoBatches
        from headstart.train.protocol import Task
        from headstart.train.recipe import Recipe
        from headstart.train.schedule import rates_by_layer
        from headstart.train.trainers import get_trainer

        case = self.case
        recipe = Recipe(
            epochs=1, batch_size=case.batch, optimiser="sgd", learning_rate=case.rate, schedule="constant",
            warm_up=0.0, layer_decay=1.0, weight_decay=0.0, dropout=0.0, augmentation="none", clip=0.0, patience=0,
            averaging="none", precision="fp32", unfreeze=case.unfreeze,
        )  # fmt: skip
        blueprint, start, spec = _start(case.network, self.model)
        table = hs.open_source(_data(case.network))
        part = [row for row, sample in enumerate(table.samples) if sample.split == "train"]
        rows = np.random.default_rng(0).choice(part, self.steps * case.batch, replace=False)
        batches = PhotoBatches(table, rows, spec, recipe)
        for _ in batches.epoch(0):  # decoded once, so that the clock runs for the steps alone
            pass
        task, clock = Task(blueprint, start, rates_by_layer(blueprint, recipe), spec), StageTimer()
        if self.trainer in PLAIN:
            losses, weights = _plain(task, batches, case.rate, clock, reverse=self.trainer == PLAIN[1])
        else:
            trained = get_trainer(self.trainer)(task, batches, None, recipe, [clock], device="cpu")
            losses, weights = trained.history.losses, trained.weights
        moved = max(float(np.abs(array - start[name]).max()) for name, array in weights.items())
        return Outcome(losses, weights, moved, clock.speed(case.batch))


class StageTimer:
    """A callback that looks at the time after every step."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def step(self, number: int, of: int, loss: float) -> None:
        """Now."""
        self.stamps.append(time.perf_counter())

    def epoch(self, history: object) -> None:
        """Nothing."""

    def speed(self, batch: int) -> float:
        """Images a second after the second step."""
        return batch * (len(self.stamps) - 2) / (self.stamps[-1] - self.stamps[1])


def _plain(
    task: Task, batches: PhotoBatches, rate: float, clock: StageTimer, *, reverse: bool
) -> tuple[tuple[float, ...], dict[str, NDArray[np.float32]]]:
    """Losses and last weights of an ordinary loop in PyTorch."""
    from headstart.engines.registry import torch_engine

    to_module = torch_engine().to_module
    import torch

    module = to_module(task.blueprint, task.weights, task.spec)
    parameters = dict(module.named_parameters())
    moving = [parameters[key] for name, key in module.keys.items() if key in parameters and _node(name) in task.rates]
    optimiser, losses = torch.optim.SGD(moving, rate), []
    for step, batch in enumerate(batches.epoch(0)):
        x, y = (torch.tensor(each[::-1].copy() if reverse else each) for each in (batch.x, batch.y))
        loss = torch.nn.functional.cross_entropy(module(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        clock.step(step, batches.steps, losses[-1])
    state = module.state_dict()
    return tuple(losses), {name: state[key].numpy() for name, key in module.keys.items()}


def _node(weight: str) -> str:
    return weight.rpartition(".")[0]


@dataclass(frozen=True)
class Fit:
    """Gives MobileNetV2 a head for cats and dogs, in a process of its own."""

    pixels: int
    model: str

    def __call__(self) -> None:
        import headstart as hs

        weights = shared("weights", "mobilenet_v2.timm.safetensors")
        fitted = hs.fit(
            _data("mobilenet_v2"), backbone="mobilenet_v2", weights=weights, pixels=self.pixels, cache=False
        )
        fitted.save(self.model, overwrite=True)


def main() -> None:
    """A table a network."""
    options = _options()
    rows, goals = [], []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            model = f"{folder}/model"
            if case.network == "mobilenet_v2":
                in_child(Fit(options.pixels, model))
            rows.append(_compare(case, 4 if options.quick else options.steps, model, options))
        for what in ("losses", "weights"):
            most = max(TOLERANCE, ROUNDING * rows[-1]["rounding"][what])
            goals.append(Goal(f"{case}: greatest difference of {what}", rows[-1][what], most=most))
    finish("four_trainers", {"trainers": rows}, goals, options)


def _options() -> argparse.Namespace:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pixels", type=int, default=160, help="of the cats and dogs")
    return parser.parse_args()


def _compare(case: Case, steps: int, model: str, options: argparse.Namespace) -> dict[str, Any]:
    from headstart.train.protocol import TRAINERS

    found: dict[str, list[Outcome]] = {name: [] for name in (*TRAINERS, *PLAIN)}
    for _ in range(options.repeats):  # in turn, so that a slow minute of the machine falls on all of them
        for name, outcomes in found.items():
            outcomes.append(in_child(Training(case, name, steps, model)))
    first = {name: outcomes[0] for name, outcomes in found.items()}
    print(f"{case}: {steps} steps of {case.batch} images at rate {case.rate:g}; differences from the {PLAIN[0]}")
    print(f"{'':<13}{'first loss':<12}{'last loss':<12}{'losses':<10}{'weights':<10}{'moved':<10}images/s")
    for name, one in first.items():
        losses, weights = _apart(one, first[PLAIN[0]])
        speed = spread([each.speed for each in found[name]])
        ends = f"{one.losses[0]:<12.6f}{one.losses[-1]:<12.6f}"
        print(f"{name:<13}{ends}{losses:<10.1e}{weights:<10.1e}{one.moved:<10.1e}{speed}", flush=True)
    pairs = [_apart(one, other) for one, other in combinations([first[name] for name in TRAINERS], 2)]
    losses, weights = (max(each) for each in zip(*pairs, strict=True))
    rounding = dict(zip(("losses", "weights"), _apart(*(first[name] for name in PLAIN)), strict=True))
    print(f"greatest difference of any two of the four: losses {losses:.1e}, weights {weights:.1e}\n")
    return {
        "case": vars(case),
        "steps": steps,
        "losses": losses,
        "weights": weights,
        "rounding": rounding,
        "curves": {name: one.losses for name, one in first.items()},
        "moved": {name: one.moved for name, one in first.items()},
        "images_a_second": {name: median([each.speed for each in outcomes]) for name, outcomes in found.items()},
    }


def _apart(one: Outcome, other: Outcome) -> tuple[float, float]:
    """The greatest difference of their losses, and of their weights."""
    losses = np.abs(np.subtract(one.losses, other.losses)).max()
    return float(losses), max(float(np.abs(array - other.weights[name]).max()) for name, array in one.weights.items())


def _start(network: str, model: str) -> tuple[Any, dict[str, NDArray[np.float32]], Any]:
    """Blueprint, weights and pixels that it begins with."""
    import headstart as hs
    from headstart.backbones.families.small import small_cnn
    from headstart.train.initialisation import initial_weights

    if network == "small_cnn":
        blueprint = small_cnn(32, 10)
        spec = hs.ImageSpec(32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), crop=1.0)
        return blueprint, initial_weights(blueprint, "he", 0), spec
    fitted = hs.load(model)
    return fitted.blueprint, dict(fitted.weights), fitted.spec


def _data(network: str) -> Path:
    return shared("data", "cifar10" if network == "small_cnn" else "cats_dogs")


if __name__ == "__main__":
    main()
