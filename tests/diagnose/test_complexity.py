"""The complexity curve: the path of the fit, with the error of heads of every strength on their own images."""

from __future__ import annotations

import numpy as np
import pytest

from diagnosed import blobs, fitted
from head_data import PATHS
from headstart.diagnose import complexity as module
from headstart.diagnose.complexity import complexity_curve
from headstart.diagnose.records import ComplexityCurve
from headstart.diagnose.refits import Refits
from headstart.learn.heads import STRENGTHS
from headstart.learn.regularisation_path import Design

pytestmark = pytest.mark.usefixtures("half_of_the_cores")


def curve_of(count: int, width: int, apart: float, kind: str = "lda", classes: int = 2) -> ComplexityCurve:
    head = fitted(*blobs(count, width, apart, classes=classes), kind=kind)
    return complexity_curve(Refits(head.design(head.train), head.split.labels, classes, head.fit), head.fit)


@pytest.mark.parametrize("kind", ["lda", "ridge"])
def test_the_points_are_those_of_the_path(kind: str) -> None:
    x, labels = blobs(150, 12, 1.0, classes=3)
    head = fitted(x, labels, kind=kind)
    fit = head.fit
    curve = complexity_curve(Refits(head.design(head.train), labels, 3, fit), fit)
    assert (curve.chosen, curve.images) == (fit.strength, 150)
    assert [(point.strength, point.nll) for point in curve.points] == [*fit.path]
    path = PATHS[kind](Design(head.features), labels, 3)
    left_out = path.left_out(np.arange(150), STRENGTHS).argmax(axis=2)
    for place, point in enumerate(curve.points):
        weight, bias = path.solve(point.strength)
        answers = (head.features @ weight.T + bias).argmax(axis=1)
        assert point.train_error == pytest.approx((answers != labels).mean(), abs=1.5 / 150)
        assert point.error == pytest.approx((left_out[place] != labels).mean(), abs=1.5 / 150)


def test_a_flexible_head_learns_its_images_by_heart() -> None:
    first, *_, last = curve_of(120, 200, 1.0).points
    assert first.strength < last.strength
    assert first.train_error == 0
    assert first.error > 0.25
    assert last.error > last.train_error


def test_in_few_dimensions_training_and_left_out_agree() -> None:
    for point in curve_of(800, 3, 1.5).points:
        assert point.error == pytest.approx(point.train_error, abs=0.01)


def test_of_many_images_some_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = curve_of(600, 8, 1.0).points
    monkeypatch.setattr(module, "ROWS", 100)
    part = curve_of(600, 8, 1.0).points
    assert {round(100 * point.train_error, 6) % 1 for point in part} == {0}
    assert [point.error for point in part] == [point.error for point in whole]
    assert [point.train_error for point in part] != [point.train_error for point in whole]
