"""The forecast: two laws, each found again where the errors follow it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.diagnose.forecast import Errors, _power, forecast

SIZES = np.array([25, 50, 100, 200, 400, 800, 1600])


def course(errors: object, held_out: int = 100_000, sizes: object = SIZES) -> Errors:
    return Errors(np.asarray(sizes), np.asarray(errors, float), held_out)


@pytest.mark.parametrize("power", [0.3, 0.5, 0.8])
def test_a_power_law_goes_on(power: float) -> None:
    expected, deviation = forecast(course(2 * SIZES**-power), 3200)
    truth = 2 * 3200**-power
    assert expected == pytest.approx(truth, rel=0.12, abs=0.003)
    assert abs(expected - truth) <= 1.96 * deviation + 1e-9


def test_a_law_with_a_floor_goes_on() -> None:
    expected, deviation = forecast(course(0.1 + 2 * SIZES**-0.5), 3200)
    truth = 0.1 + 2 * 3200**-0.5
    assert expected == pytest.approx(truth, abs=0.01)
    assert abs(expected - truth) <= 1.96 * deviation + 1e-3


def test_both_laws_agree_where_both_hold() -> None:
    expected, deviation = forecast(course(2 * SIZES**-0.5), 3200)
    assert expected == pytest.approx(2 * 3200**-0.5, rel=1e-6)
    assert deviation == pytest.approx(0, abs=1e-9)


def test_it_is_in_the_middle_of_the_two_laws() -> None:
    """Half of what they differ by is two deviations."""
    errors = 0.1 + 2 * SIZES**-0.5
    expected, deviation = forecast(course(errors), 3200)
    logs = np.polyfit(np.log(SIZES), np.log(errors), 1, w=SIZES**0.5)
    laws = np.exp(np.polyval(logs, np.log(3200))), 0.1 + 2 * 3200**-0.5
    assert expected == pytest.approx(np.mean(laws), rel=1e-6)
    assert 1.96 * deviation == pytest.approx(abs(laws[0] - laws[1]) / 2, rel=1e-3)


def test_large_training_sets_count_more() -> None:
    """Of a course with a bend, the part at its end goes on."""
    errors = np.where(SIZES < 300, 0.3, 0.3 * (SIZES / 300.0) ** -0.5)
    assert forecast(course(errors), 3200)[0] < 0.13


def test_no_errors_stay_none() -> None:
    expected, deviation = forecast(course(np.zeros(7), 50), 3200)
    assert expected == 0
    assert deviation < 0.01
    assert forecast(course([0.4, 0.2, 0.1, 0.02, 0, 0, 0], 50), 3200)[0] == 0


def test_errors_that_rise_are_not_forecast_to_rise() -> None:
    expected, _ = forecast(course(np.linspace(0.1, 0.3, 7)), 3200)
    assert 0.2 < expected <= 0.3


def test_no_error_falls_faster_than_is_known() -> None:
    steep = 1e4 * SIZES**-3.0
    assert _power(SIZES.astype(float), steep, 10**9, 3200) > 2 * 1e4 * 3200**-3.0
    assert forecast(course(steep), 3200)[0] <= steep[-1]


def test_an_error_that_fell_falls_on() -> None:
    """By a third of the last fall at least, also where the laws, which the first errors bend, say less."""
    errors = np.array([0.4, 0.39, 0.38, 0.37, 0.36, 0.3, 0.2])
    expected, _ = forecast(course(errors), 3200)
    assert expected <= 0.2 - (0.3 - 0.2) / 3 + 1e-12


@settings(deadline=None, max_examples=80)
@given(
    errors=st.lists(st.floats(0, 1), min_size=4, max_size=9),
    first=st.integers(4, 1000),
    held_out=st.integers(2, 5000),
)
def test_it_is_never_above_the_last_error(errors: list[float], first: int, held_out: int) -> None:
    sizes = first * 2 ** np.arange(len(errors))
    expected, deviation = forecast(course(errors, held_out, sizes), 2 * int(sizes[-1]))
    assert 0 <= expected <= errors[-1]
    assert np.isfinite(deviation)
    assert deviation >= 0
