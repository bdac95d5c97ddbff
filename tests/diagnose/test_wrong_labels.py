"""Suspected labels: the flipped ones come first, and the count of them is that of the published definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from diagnosed import Labels, Values, blobs
from headstart.diagnose.records import WrongLabels
from headstart.diagnose.wrong_labels import FEWEST, LISTED, confident_joint, ranked, sure_mistakes, wrong_labels
from headstart.learn.calibrate import softmax
from headstart.learn.heads import fit_head

pytestmark = pytest.mark.usefixtures("half_of_the_cores")

NAMES = ("ants", "bees", "crabs")


def left_out(x: Values, labels: Labels, classes: int) -> Values:
    fit = fit_head(x, labels, classes)
    return softmax(fit.logits).astype(np.float64)


def found(probabilities: Values, labels: Labels) -> WrongLabels:
    names = [f"{row}.jpg" for row in range(len(labels))]
    return wrong_labels(probabilities, labels, NAMES[: probabilities.shape[1]], names)


def flipped(share: float, classes: int, seed: int) -> tuple[Values, Labels, NDArray[np.int_]]:
    """Left-out probabilities on labels of which some were changed, and which."""
    x, labels = blobs(450, 8, 5.0, seed, classes=classes)
    rng = np.random.default_rng(seed)
    wrong = np.sort(rng.permutation(len(labels))[: round(share * len(labels))])
    labels = labels.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return left_out(x, labels, classes), labels, wrong


@pytest.mark.parametrize(("share", "classes"), [(0.05, 2), (0.08, 3)])
def test_flipped_labels_come_first(share: float, classes: int) -> None:
    probabilities, labels, wrong = flipped(share, classes, 0)
    listed = [int(suspect.name.removesuffix(".jpg")) for suspect in found(probabilities, labels).suspects]
    first = listed[: len(wrong)]
    assert len(set(first) & set(wrong.tolist())) >= 0.95 * len(wrong)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.3])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_share_is_that_of_the_flipped_labels(share: float, classes: int) -> None:
    probabilities, labels, _ = flipped(share, classes, 1)
    result = found(probabilities, labels)
    assert result.share == pytest.approx(share, abs=0.025)
    assert result.images == 450


def test_a_suspect_has_both_labels_and_their_probabilities() -> None:
    probabilities, labels, _ = flipped(0.05, 3, 2)
    suspects = found(probabilities, labels).suspects
    for suspect in suspects:
        row = int(suspect.name.removesuffix(".jpg"))
        assert suspect.label == NAMES[labels[row]]
        assert suspect.suggested == NAMES[probabilities[row].argmax()] != suspect.label
        assert suspect.of_label == probabilities[row, labels[row]]
        assert suspect.of_suggested == probabilities[row].max() > suspect.of_label
    assert [suspect.of_label for suspect in suspects] == sorted(suspect.of_label for suspect in suspects)


def naive(probabilities: Values, labels: Labels, classes: int) -> Values:
    """Northcutt et al. 2021, equations 1 to 3, an image at a time."""
    thresholds = {j: np.mean(probabilities[labels == j, j]) for j in range(classes) if (labels == j).any()}
    counts = np.zeros((classes, classes))
    for row, label in enumerate(labels.tolist()):
        confident = [j for j in thresholds if probabilities[row, j] >= thresholds[j]]
        if confident:
            counts[label, max(confident, key=lambda j: probabilities[row, j])] += 1
    for i in range(classes):
        if counts[i].sum():
            counts[i] *= (labels == i).sum() / counts[i].sum()
    return counts


@settings(deadline=None, max_examples=80)
@given(count=st.integers(1, 60), classes=st.integers(2, 6), flat=st.floats(0.2, 3), seed=st.integers(0, 10**6))
def test_the_joint_is_the_published_one(count: int, classes: int, flat: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.dirichlet(np.full(classes, flat), count), rng.integers(classes, size=count)
    np.testing.assert_allclose(
        confident_joint(probabilities, labels, classes), naive(probabilities, labels, classes), rtol=1e-9
    )


@settings(deadline=None, max_examples=80)
@given(count=st.integers(2, 80), classes=st.integers(2, 3), seed=st.integers(0, 10**6))
def test_an_image_whose_label_is_the_most_probable_is_never_listed(count: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.dirichlet(np.ones(classes), count), rng.integers(classes, size=count)
    result = found(probabilities, labels)
    rows = [int(suspect.name.removesuffix(".jpg")) for suspect in result.suspects]
    assert all(probabilities[row].argmax() != labels[row] for row in rows)
    assert len(set(rows)) == len(rows) <= np.ceil(LISTED * count)
    assert 0 <= result.share <= 1
    order = ranked(probabilities, labels)
    assert sorted(order.tolist()) == list(range(count))


def test_mistakes_are_sure_where_labels_were_mixed_up_and_not_where_classes_overlap() -> None:
    for classes in (2, 3):
        probabilities, labels, _ = flipped(0.2, classes, 4)
        assert 0.4 < sure_mistakes(probabilities, labels) < 0.6
        x, labels = blobs(1200, 8, 1.2, 4, classes=classes)
        probabilities = left_out(x, labels, classes)
        assert found(probabilities, labels).share > 0.08  # confident learning alone takes the overlap for wrong labels
        assert sure_mistakes(probabilities, labels) < 0.2


def test_sure_mistakes_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.15, 0.85], [0.25, 0.75], [0.4, 0.6]])
    labels = np.array([0, 0, 0, 0, 0, 0])
    assert sure_mistakes(probabilities, labels) == pytest.approx(1 / 3)  # 0.85, and neither 0.75 nor 0.6, against 0.8
    assert sure_mistakes(probabilities[:3], labels[:3]) == sure_mistakes(probabilities[3:], labels[3:]) == 0


def test_at_most_five_hundred_are_listed() -> None:
    probabilities = np.tile([0.3, 0.7], (9000, 1))
    assert len(found(probabilities, np.zeros(9000, int)).suspects) == 500
    assert len(found(probabilities[:45], np.zeros(45, int)).suspects) == np.ceil(LISTED * 45)


def test_a_handful_of_images_tells_no_share() -> None:
    probabilities, labels = np.tile([0.1, 0.9], (FEWEST, 1)), np.zeros(FEWEST, int)
    labels[-2:] = 1
    assert found(probabilities, labels).share == pytest.approx(0.8)
    assert found(probabilities[1:], labels[1:]).share == 0
