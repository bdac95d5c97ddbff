"""The picture of a calibration: every bin and every point of the coverage is in it, whatever the figures."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core.types import Evaluation
from headstart.learn.evaluate import evaluate
from headstart.plots.calibration import draw_calibration


def result(images: int, right: float) -> Evaluation:
    """Of two classes; a share is right, and every tenth image is unknown."""
    sure, margin = np.linspace(0.5, 1, images), np.where(np.arange(images) % 10, 1.0, -1.0)
    truth = (np.random.default_rng(0).random(images) >= right).astype(int)
    return evaluate(np.stack([sure, 1 - sure], axis=1), truth, ("a", "b"), margin)


@pytest.mark.parametrize(("images", "right", "bins"), [(1, 1.0, 1), (12, 0.0, 1), (280, 1.0, 11), (5000, 0.7, 15)])
def test_every_bin_and_every_point_is_inside(images: int, right: float, bins: int) -> None:
    found = result(images, right)
    left, coverage = draw_calibration(found).axes
    (dots,) = left.containers
    middle = [bar.accuracy for bar in found.reliability or ()]
    assert np.asarray(dots[0].get_ydata()) == pytest.approx(100 * np.array(middle))
    assert len(middle) == bins
    low, high = left.get_ylim()
    assert low < 100 * min(bar.low for bar in found.reliability or ()) < 100 < high
    curve = coverage.lines[-1]
    points = found.coverage or ()
    assert np.asarray(curve.get_xdata()) == pytest.approx([100 * point.coverage for point in points])
    assert np.asarray(curve.get_ydata()) == pytest.approx([100 * point.accuracy for point in points])
    assert coverage.get_ylim()[0] < 100 * min(point.accuracy for point in points)
    assert found.calibration_in_words() in left.get_title()
