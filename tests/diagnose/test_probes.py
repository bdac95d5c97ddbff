"""Probes: the classifier with bends against plain refits, and labels that mean nothing."""

from __future__ import annotations

import numpy as np
import pytest

from diagnosed import Labels, Values, blobs, fitted, xor
from headstart.diagnose import probes
from headstart.diagnose.probes import Pair, flexible_head, permuted_accuracy
from headstart.diagnose.refits import Refits
from headstart.learn.significance import discordance

pytestmark = pytest.mark.usefixtures("half_of_the_cores")


def pair(x: Values, labels: Labels, groups: Labels | None = None) -> Pair:
    head = fitted(x, labels)
    refits = Refits(head.design(head.train), labels, int(labels.max()) + 1, head.fit)
    return flexible_head(refits, head.fit, np.arange(len(labels)) if groups is None else groups)


@pytest.mark.parametrize(("classes", "seed"), [(2, 3), (3, 3), (2, 12), (3, 26)])  # the last two: narrow is better
def test_leaving_out_equals_refits(classes: int, seed: int) -> None:
    """Kernel ridge regression, fitted anew without each of twelve rows, at every width and strength."""
    x, labels = blobs(12, 3, 1.0, seed, classes=classes)
    distances = ((x[:, None] - x) ** 2).sum(axis=2)
    usual = np.median(distances[np.triu_indices(12, 1)])
    truth = np.eye(classes)[labels] - np.bincount(labels) / 12
    best = np.zeros(12, bool)
    for width in probes.WIDTHS:
        kernel = np.exp(-distances / (width * usual))
        for strength in probes.STRENGTHS:
            right = np.zeros(12, bool)
            for row in range(12):
                rest = np.delete(np.arange(12), row)
                weights = np.linalg.solve(kernel[np.ix_(rest, rest)] + strength * np.eye(11), truth[rest])
                right[row] = (kernel[row, rest] @ weights).argmax() == labels[row]
            best = right if right.sum() > best.sum() else best
    assert 4 < best.sum() < 12
    assert probes._kernel_ridge(x.astype(np.float32), labels, classes).tolist() == best.tolist()


def test_bends_are_found() -> None:
    found = pair(*xor(300, 1))
    assert found.gain > 0.3
    assert found.z > 8
    assert found.flexible.mean() > 0.85


def test_no_bends_are_found_where_there_are_none() -> None:
    for seed in range(3):
        found = pair(*blobs(300, 6, 2.0, seed))
        assert abs(found.gain) < 0.02


def test_of_many_rows_some_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "ROWS", 200)
    found = pair(*xor(900, 1))
    assert len(found.linear) == len(found.flexible) == 200
    assert found.gain > 0.25
    few = pair(*blobs(260, 5, 2.0, classes=130))  # in a sample of 200 some class has not two images
    assert few.gain == few.z == 0


def test_only_images_without_a_near_copy_are_judged() -> None:
    x, labels = xor(100, 2)
    twins = np.concatenate([np.arange(100), np.arange(40)])
    found = pair(np.concatenate([x, x[:40]]), np.concatenate([labels, labels[:40]]), twins)
    assert len(found.linear) == 60
    everyone = pair(np.concatenate([x, x]), np.concatenate([labels, labels]), np.tile(np.arange(100), 2))
    assert len(everyone.linear) == 200  # where all have one, there is no other way


def test_discordance_is_mcnemars() -> None:
    first, second = np.zeros(20, bool), np.zeros(20, bool)
    first[:2], second[1:9] = True, True
    assert discordance(first, second) == pytest.approx((7 - 1) / 8**0.5)
    assert discordance(second, first) == -discordance(first, second)
    assert discordance(first, first) == 0


@pytest.mark.parametrize(("classes", "kind"), [(2, "lda"), (4, "lda"), (4, "ridge")])
def test_permuted_labels_are_guessed(classes: int, kind: str) -> None:
    head = fitted(*blobs(800, 12, 3.0, classes=classes), kind=kind)
    refits = Refits(head.design(head.train), head.split.labels, classes, head.fit)
    assert permuted_accuracy(refits) == pytest.approx(1 / classes, abs=0.05)
    assert permuted_accuracy(refits, 1) == permuted_accuracy(refits, 1) != permuted_accuracy(refits)


def test_the_chance_of_unequal_classes_is_that_of_a_head_that_knows_it() -> None:
    x, _ = blobs(800, 12, 3.0)
    labels = (np.arange(800) % 10 == 0).astype(int)
    head = fitted(x, labels, kind="ridge")
    refits = Refits(head.design(head.train), labels, 2, head.fit)
    assert permuted_accuracy(refits) == pytest.approx(0.9, abs=0.03)
