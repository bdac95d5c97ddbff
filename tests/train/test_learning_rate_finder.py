"""The finder on a loss of which it is known which rates are too high."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.core.errors import DivergedError, UsageError
from headstart.train.batches import ArrayBatches
from headstart.train.learning_rate_finder import EXPLODED, RateSearch, find_learning_rate, find_rate
from headstart.train.protocol import Batch


class Quadratic:
    """Gradient descent on sum(curvatures · w²) / 2 + 1, which is stable below the rate 2 / max(curvatures)."""

    def __init__(self, curvatures: NDArray[np.float64], noise: float = 0.0) -> None:
        self.curvatures, self.w = curvatures, np.ones(len(curvatures))
        self.noise, self.rng = noise, np.random.default_rng(0)

    def step(self, rate: float) -> float:
        loss = float((self.curvatures * self.w**2).sum() / 2 + 1 + self.noise * self.rng.normal())
        self.w = self.w - rate * self.curvatures * self.w
        return loss


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("steepest", [3.0, 30.0, 300.0])
def test_the_proposal_is_below_where_a_quadratic_blows_up(steepest: float, noise: float) -> None:
    limit = 2 / steepest
    found = find_rate(Quadratic(np.geomspace(steepest / 100, steepest, 8), noise * steepest).step, highest=10)
    assert found.exploded
    assert limit < found.rates[-1] < 10 * limit  # seen soon after the limit
    assert found.suggestion is not None
    assert limit / 200 < found.suggestion < limit
    assert len(found.rates) == len(found.losses) < 60
    assert found.losses[-1] > EXPLODED * min(found.losses) >= EXPLODED
    assert f"exploded near {found.rates[-1]:.2g}" in found.sentence


def test_the_proposal_lets_the_quadratic_fall() -> None:
    curvatures = np.geomspace(0.3, 30, 8)
    found = find_rate(Quadratic(curvatures).step, highest=10)
    assert found.suggestion is not None
    trained, tenth = Quadratic(curvatures), Quadratic(curvatures)
    after = [[each.step(rate) for _ in range(100)] for each, rate in ((trained, found.suggestion), (tenth, 1e-4))]
    assert after[0][-1] - 1 < 0.1 * (after[0][0] - 1)
    assert after[0][-1] < after[1][-1]


def test_rates_grow_evenly_and_where_nothing_explodes_the_steepest_is_taken() -> None:
    asked: list[float] = []

    def step(rate: float) -> float:
        asked.append(rate)
        return float(2 - 1 / (1 + (1e-3 / rate) ** 3))  # falls fastest at 1e-3

    found = find_rate(step, lowest=1e-6, highest=1.0, steps=61)
    assert asked == pytest.approx(np.geomspace(1e-6, 1, 61).tolist())
    assert (found.rates, found.exploded) == (tuple(asked), False)
    assert found.suggestion is not None
    assert 0.5e-3 < found.suggestion < 6e-3  # smoothing lags
    assert "never exploded" in found.sentence


def test_the_luck_of_the_first_batches_is_no_slope() -> None:
    """A first batch that is much harder than the others is followed by the steepest fall of all, at the lowest rate."""
    noise = iter([1.5, 0.2, 0.6, *[0.0] * 57])
    found = find_rate(lambda rate: 2 - 1 / (1 + (1e-3 / rate) ** 3) + next(noise))
    assert found.losses[0] - found.losses[1] > 0.5
    assert found.suggestion is not None
    assert 0.5e-3 < found.suggestion < 6e-3


@pytest.mark.parametrize("end", [float("inf"), float("nan"), DivergedError("")])
def test_a_loss_that_is_no_number_ends_the_search(end: float | Exception) -> None:
    taken = 0

    def step(rate: float) -> float:
        nonlocal taken
        taken += 1
        if taken == 40 and isinstance(end, Exception):
            raise end
        return float(end) if taken == 40 and not isinstance(end, Exception) else 3.0 - 0.05 * taken

    found = find_rate(step)
    assert taken == 40
    assert found.exploded
    assert len(found.rates) == 39
    assert found.suggestion == pytest.approx(found.rates[-1] / 10, rel=1)


def test_a_loss_that_never_falls_gets_no_proposal() -> None:
    found = find_rate(lambda rate: 1 + rate)
    assert found.suggestion is None
    assert "No learning rate between 1e-06 and 1 made the loss fall" in found.sentence
    assert find_rate(lambda rate: float("nan")) == RateSearch((), (), True, None)
    assert "never a number" in find_rate(lambda rate: float("nan")).sentence


@pytest.mark.parametrize("wrong", [{"lowest": 0}, {"lowest": 2.0}, {"highest": float("inf")}, {"steps": 5}])
def test_rates_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="Expected rates 0 < lowest < highest"):
        find_rate(lambda rate: 1.0, **wrong)


class Straight:
    """What the finder takes of a stepper: least squares by gradient descent."""

    steps, steps_done = 10, 0

    def __init__(self) -> None:
        self.w = np.zeros(3)
        self.batches: list[int] = []

    def step(self, batch: Batch, rate: float | None = None) -> float:
        assert rate is not None
        wrong = batch.x @ self.w - batch.y
        self.batches.append(len(batch.y))
        self.w = self.w - rate * batch.x.T @ wrong / len(wrong)
        self.steps_done += 1
        return float((wrong**2).mean() / 2)

    def state(self) -> dict[str, Any]:
        return {"w": self.w, "steps_done": np.array(self.steps_done)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.w, self.steps_done = state["w"], int(state["steps_done"])


def test_a_network_in_training_is_afterwards_as_it_was() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3))
    batches = ArrayBatches(x, (x @ [1, 2, 3] > 0).astype(int) * 4, 8)
    stepper: Any = Straight()
    found = find_learning_rate(stepper, batches, highest=100)
    assert (stepper.steps_done, stepper.w.tolist()) == (0, [0, 0, 0])
    assert stepper.batches[:7] == [8, 8, 4, 8, 8, 4, 8]  # epoch after epoch
    assert found.suggestion is not None
    assert 1e-3 < found.suggestion < 2

    class Broken(Straight):
        def step(self, batch: Batch, rate: float | None = None) -> float:
            super().step(batch, rate)
            if self.steps_done == 5:
                raise KeyboardInterrupt
            return 1.0

    broken: Any = Broken()
    with pytest.raises(KeyboardInterrupt):
        find_learning_rate(broken, batches)
    assert (broken.steps_done, broken.w.tolist()) == (0, [0, 0, 0])


def test_batches_are_drawn_as_they_are_needed() -> None:
    drawn = 0

    class Counting(ArrayBatches):
        def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
            nonlocal drawn
            for batch in super().epoch(number, start):
                drawn += 1
                yield batch

    stepper: Any = Straight()
    find_learning_rate(stepper, Counting(np.ones((8, 3)), np.ones(8, int), 2), steps=12, highest=0.1)
    assert drawn == 12
