"""Bias and variance: they add up to the loss, and are those of a plain bootstrap."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnosed import Labels, blobs, fitted
from headstart.diagnose import bias_variance as module
from headstart.diagnose.bias_variance import RESAMPLES, bias_and_variance
from headstart.diagnose.diagnose import FittedHead
from headstart.diagnose.records import BiasVariance
from headstart.diagnose.refits import Refits
from headstart.learn.calibrate import softmax
from headstart.learn.regularisation_path import Matrix

pytestmark = pytest.mark.usefixtures("half_of_the_cores")

CLASSES = ("ants", "bees", "crabs")


def certain(found: BiasVariance | None) -> BiasVariance:
    assert found is not None
    return found


def refits_of(head: FittedHead) -> Refits:
    return Refits(head.design(head.train), head.split.labels[head.train], len(head.split.classes), head.fit)


def heads_on(
    refits: Refits, z: Matrix, groups: Labels, seed: int = 0
) -> tuple[list[Labels], list[Matrix], list[Labels]]:
    """Answers and probabilities of the head of each resample, fitted on repeated rows, and how often rows were drawn.

    It draws as the module does, so that both have the same resamples.
    """
    rng = np.random.default_rng(seed)
    rng.permutation(len(z))
    answers, probabilities, drawn = list[Labels](), list[Matrix](), list[Labels]()
    for _ in range(RESAMPLES):
        weights = module._resample(refits.labels, groups, rng)
        logits = refits.head(refits.sums(np.repeat(np.arange(len(weights)), weights))).logits(z)
        answers.append(logits.argmax(axis=1))
        probabilities.append(softmax(logits))
        drawn.append(weights)
    return answers, probabilities, drawn


@settings(deadline=None, max_examples=100)
@given(count=st.integers(1, 40), heads=st.integers(1, 30), flat=st.floats(0.1, 5), seed=st.integers(0, 10**6))
def test_the_loss_is_bias_and_variance(count: int, heads: int, flat: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.dirichlet(np.full(3, flat), (heads, count)), rng.integers(3, size=count)
    votes = np.stack([(probabilities.argmax(axis=2) == k).mean(axis=0) for k in range(3)], axis=1)
    found = module._decomposed(
        votes, probabilities.mean(axis=0), (probabilities**2).mean(axis=0), labels, CLASSES, True
    )
    for each in (found.zero_one, found.squared, *found.per_class.values()):
        assert each.loss == pytest.approx(each.bias + each.variance, abs=1e-9)
        assert -1e-12 <= each.bias <= 2
    assert found.zero_one.loss == pytest.approx((probabilities.argmax(axis=2) != labels).mean())
    assert found.zero_one.bias == pytest.approx((votes.argmax(axis=1) != labels).mean())
    truth = np.eye(3)[labels]
    assert found.squared.loss == pytest.approx(((probabilities - truth) ** 2).sum(axis=2).mean())
    assert found.squared.variance == pytest.approx(probabilities.var(axis=0).sum(axis=1).mean(), abs=1e-9)
    shares = np.bincount(labels, minlength=3) / count
    whole = sum(shares[CLASSES.index(name)] * np.array(astuple(each)) for name, each in found.per_class.items())
    assert whole[0] == pytest.approx(found.zero_one.loss)
    kohavi = 0.5 * ((truth - votes) ** 2).sum(axis=1).mean(), 0.5 * (1 - (votes**2).sum(axis=1)).mean()
    assert whole[1:] == pytest.approx(kohavi)
    assert {*found.per_class} == {CLASSES[k] for k in labels}


def test_on_a_test_set_it_is_the_plain_bootstrap() -> None:
    x, labels = blobs(160, 5, 1.2, classes=3)
    head = fitted(x, labels, np.arange(160) >= 100)
    refits, test = refits_of(head), head.split.labels[head.test]
    z = refits.project(head.design(head.test))
    found = certain(bias_and_variance(refits, CLASSES, groups=np.arange(100), test=(z, test)))
    answers, probabilities, _ = heads_on(refits, z, np.arange(100))
    wrong = np.mean([each != test for each in answers], axis=0)
    main = np.array([np.bincount([each[row] for each in answers], minlength=3).argmax() for row in range(60)])
    assert found.zero_one.loss == pytest.approx(wrong.mean())
    assert found.zero_one.bias == pytest.approx((main != test).mean())
    assert found.zero_one.variance == pytest.approx(wrong.mean() - (main != test).mean())
    brier = np.mean([((each - np.eye(3)[test]) ** 2).sum(axis=1).mean() for each in probabilities])
    assert found.squared.loss == pytest.approx(brier, rel=1e-3)
    assert (found.images, found.judged_on, found.resamples) == (60, "test set", RESAMPLES)


def test_without_one_images_are_judged_where_they_were_left_out() -> None:
    x, labels = blobs(90, 5, 1.2, classes=3)
    head = fitted(x, labels)
    refits = refits_of(head)
    found = certain(bias_and_variance(refits, CLASSES, groups=np.arange(90)))
    answers, probabilities, drawn = heads_on(refits, refits.z, np.arange(90))
    judged = np.array(drawn) == 0
    wrong = np.where(judged, np.array(answers) != labels, np.nan)
    assert 0.3 < judged.mean() < 0.45  # of a resample about 37 % are left out
    assert found.zero_one.loss == pytest.approx(np.nanmean(wrong, axis=0).mean())
    brier = np.where(judged, ((np.array(probabilities) - np.eye(3)[labels]) ** 2).sum(axis=2), np.nan)
    assert found.squared.loss == pytest.approx(np.nanmean(brier, axis=0).mean(), rel=1e-3)
    assert (found.images, found.judged_on) == (90, "left out of the resample")


def test_a_resample_has_as_many_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [20, 3, 40])
    for seed in range(20):
        drawn = module._resample(labels, np.arange(63), np.random.default_rng(seed))
        assert [int(drawn[labels == k].sum()) for k in range(3)] == [20, 3, 40]
        assert (drawn == 0).any()


def test_near_copies_are_drawn_together() -> None:
    """Otherwise most images would be judged by heads that know a copy of them."""
    labels, groups = np.repeat(np.arange(60) % 2, 3), np.repeat(np.arange(60), 3)
    drawn = module._resample(labels, groups, np.random.default_rng(0)).reshape(60, 3)
    assert (drawn == drawn[:, :1]).all()
    assert drawn.sum() == 180
    rng = np.random.default_rng(1)
    x = np.repeat(rng.standard_normal((60, 150)), 3, axis=0) + 0.01 * rng.standard_normal((180, 150))
    refits = refits_of(fitted(x, labels))
    together = certain(bias_and_variance(refits, CLASSES[:2], groups=groups)).zero_one
    apart = certain(bias_and_variance(refits, CLASSES[:2], groups=np.arange(180))).zero_one
    assert together.loss > 0.25
    assert apart.loss < 0.15


def test_where_each_class_is_one_group_there_is_nobody_to_judge() -> None:
    x, labels = blobs(40, 5, 2.0)
    assert bias_and_variance(refits_of(fitted(x, labels)), CLASSES[:2], groups=labels) is None


def test_flexible_heads_vary_and_stiff_ones_are_biased() -> None:
    """Few images in many dimensions, against many in few where the classes overlap."""
    test = np.arange(700) >= 100
    x, labels = blobs(700, 80, 1.5)
    wide = fitted(x, labels, test)
    refits = refits_of(wide)
    z = refits.project(wide.design(wide.test))
    found = certain(bias_and_variance(refits, CLASSES[:2], groups=np.arange(100), test=(z, labels[test])))
    assert found.zero_one.variance > 0.04
    x, labels = blobs(700, 3, 1.0)
    easy = fitted(x, labels, test)
    refits = refits_of(easy)
    z = refits.project(easy.design(easy.test))
    found = certain(bias_and_variance(refits, CLASSES[:2], groups=np.arange(100), test=(z, labels[test])))
    assert found.zero_one.variance < 0.02
    assert found.zero_one.bias > 0.15


def test_at_most_so_many_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JUDGED", 50)
    monkeypatch.setattr(module, "WIDTH", 4)
    x, labels = blobs(120, 8, 1.5, classes=3)
    refits = refits_of(fitted(x, labels))
    found = certain(bias_and_variance(refits, CLASSES, groups=np.arange(120)))
    assert found.images == 50
    assert found == bias_and_variance(refits, CLASSES, groups=np.arange(120))
    assert found != bias_and_variance(refits, CLASSES, groups=np.arange(120), seed=1)
