"""The simulation of many workers: it is what it says, whatever the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmark_modules import benchmark


@pytest.fixture(scope="module")
def stragglers() -> Iterator[ModuleType]:
    with benchmark("stragglers") as found:
        yield found


@pytest.fixture(scope="module")
def few(stragglers: ModuleType) -> Any:
    """Forty workers on ten machines, and units of about a second."""
    return replace(
        stragglers.USUAL, images=400_000, unit=1000, rate=1000, workers=40, machine=4, missed=2, start=3, fixed=0
    )


@pytest.mark.parametrize("ahead", [1, 2])
def test_without_failures_it_takes_the_ideal_time_and_the_last_units(
    stragglers: ModuleType, few: Any, ahead: int
) -> None:
    found = stragglers.simulate(replace(few, ahead=ahead))
    assert found.ideal <= found.seconds <= found.ideal + ahead * found.longest
    assert (found.failures, found.again) == (0, 0)


def test_units_of_one_length_take_whole_rounds(stragglers: ModuleType, few: Any) -> None:
    assert stragglers.simulate(replace(few, spread=0)).seconds == pytest.approx(10)
    assert stragglers.simulate(replace(few, spread=0, images=401_000)).seconds == pytest.approx(11)
    assert stragglers.simulate(replace(few, spread=0, fixed=0.5)).seconds == pytest.approx(15)
    assert stragglers.simulate(replace(few, spread=0, hand=1)).seconds == pytest.approx(401)  # one after the other


@pytest.mark.parametrize("seed", range(5))
def test_every_unit_is_done_once_whatever_fails(stragglers: ModuleType, few: Any, seed: int) -> None:
    found = stragglers.simulate(replace(few, hours=20 / 3600, slow=0.2), seed)
    assert found.failures > 0
    assert found.again > 0
    np.testing.assert_array_equal(found.done, 1)


def test_the_same_seed_gives_the_same(stragglers: ModuleType, few: Any) -> None:
    rough = replace(few, hours=20 / 3600, slow=0.2)
    one, again, other = (stragglers.simulate(rough, seed) for seed in (3, 3, 4))
    assert (one.seconds, one.again, one.failures) == (again.seconds, again.again, again.failures)
    assert one.seconds != other.seconds


def test_more_failures_cost_more(stragglers: ModuleType, few: Any) -> None:
    costs = [
        np.mean([stragglers.simulate(replace(few, hours=seconds / 3600), seed).cost for seed in range(5)])
        for seconds in (float("inf"), 100, 10)
    ]
    assert costs[0] + 0.05 < costs[1]
    assert costs[1] + 0.2 < costs[2]


def test_a_slow_machine_is_felt_at_the_end_and_less_with_small_units(stragglers: ModuleType, few: Any) -> None:
    slow = replace(few, slow=0.2)
    costs = [stragglers.simulate(each).cost for each in (few, slow, replace(slow, unit=100))]
    assert costs[0] < costs[1]
    assert costs[2] < costs[1] / 2
