"""An explanation held against what needs no network: a blob in the middle, another class, random weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from headstart.core.arguments import PROGRESS, checks, instance, several
from headstart.core.progress import Shown, function_of, shows_progress
from headstart.core.text import two_decimals
from headstart.explain.explain import Explanation, explain_photos
from headstart.explain.faithfulness import average_drop, centre_blob, insertion_deletion, road
from headstart.explain.randomisation import complexity_rise, other_classes, random_logit, randomised, rank_correlation
from headstart.model.classifier import Classifier
from headstart.model.given import CLASSIFIER

SAME = 0.005  # difference of two scores below which they count as the same
UNCHANGED = 0.8  # rank correlation with the map of random weights from which on a map counts as unchanged


@dataclass(frozen=True, eq=False)
class ExplanationCheck:
    """The figures of one explanation; None where its map is empty and there is nothing to measure."""

    blob: float  # insertion − deletion of a blob in the middle
    road_blob: float  # ``road`` of the same blob
    warnings: tuple[str, ...]  # sentences on where the explanation fails
    insertion: float | None = None  # area under the curve; more is better
    deletion: float | None = None  # less is better
    road: float | None = None  # probability that is left without the strongest pixels, 20 to 80 %; less is better
    drop: float | None = None  # share of the probability lost where only what the map shows is kept
    increase: bool | None = None  # whether it rose instead
    random_logit: float | None = None  # similarity to the map of another class; 1 is the same map
    complexity_rise: float | None = None  # with random weights (efficient MPRT); above 0 is right
    unchanged: float | None = None  # rank correlation with the map of random weights; near 0 is right

    @property
    def score(self) -> float | None:
        """Insertion − deletion; below ``blob`` it is worth nothing."""
        return None if self.insertion is None or self.deletion is None else self.insertion - self.deletion


@checks(
    classifier=CLASSIFIER,
    found=several(instance("an explanation", Explanation), "explanations, which hs.explain_photos makes"),
    progress=PROGRESS,
)
@shows_progress
def check_explanations(
    classifier: Classifier, found: Sequence[Explanation] | Explanation, *, progress: Shown = True
) -> list[ExplanationCheck]:
    """Test each explanation of a classifier, or one: is it faithful, and does it depend on class and weights?

    About a second each on two cores. ``progress`` is as for `fit`.

    Raises:
        UsageError: no classifier of photos, or no explanations.
    """
    report, explanations = function_of(progress), cast("tuple[Explanation, ...]", found)
    done: list[ExplanationCheck] = []
    for check in checked(classifier, explanations):
        done.append(check)
        if report:
            report("tests", len(done), len(explanations))
    return done


def checked(classifier: Classifier, found: Sequence[Explanation]) -> Iterator[ExplanationCheck]:
    """As `check_explanations`, one by one."""
    others = other_classes(np.array([each.index for each in found], np.intp), len(classifier.classes))
    stranger = randomised(classifier)
    for each, other in zip(found, others, strict=True):
        of_other = _again(classifier, each, classifier.classes[other])
        yield _check(classifier, each, of_other, _again(stranger, each, each.label))


def _again(classifier: Classifier, given: Explanation, label: str) -> Explanation:
    """The same explanation of another class, or by other weights."""
    (found,) = explain_photos(
        classifier, [given.pixels], label, method=given.method, at=given.at, crop=False, progress=False
    )
    return found


def _check(
    classifier: Classifier, given: Explanation, of_other: Explanation, of_random: Explanation
) -> ExplanationCheck:
    size = len(given.pixels)
    network, images, classes = classifier.network, np.stack([given.pixels] * 2), np.array([given.index] * 2)
    maps = np.stack([given.at_size(size), centre_blob(size)])
    pixels = insertion_deletion(network, images, maps, classes)
    insertion, deletion = pixels.insertion, pixels.deletion
    removed = road(network, images, maps, classes).probability.mean(1)
    blob = float(insertion[1] - deletion[1])
    if given.empty:
        return ExplanationCheck(blob=blob, road_blob=float(removed[1]), warnings=given.warnings)
    drop, increase = average_drop(network, images[:1], maps[:1], classes[:1])
    of_this, random = maps[:1], of_random.at_size(size)[None]
    similar = _number(random_logit(of_this, of_other.at_size(size)[None]))
    unchanged = rank_correlation(of_this, random)
    score = float(insertion[0] - deletion[0])
    return ExplanationCheck(
        insertion=float(insertion[0]),
        deletion=float(deletion[0]),
        blob=blob,
        road=float(removed[0]),
        road_blob=float(removed[1]),
        drop=float(drop[0]),
        increase=bool(increase[0]),
        random_logit=similar,
        complexity_rise=_number(complexity_rise(of_this, random)),
        unchanged=unchanged,
        warnings=(*given.warnings, *_warnings(score, blob, unchanged)),
    )


def _warnings(score: float, blob: float, unchanged: float) -> Iterator[str]:
    if score - blob < SAME:
        yield (
            "The map is no better than a blob in the middle of the photo "
            f"({two_decimals(score)} against {two_decimals(blob)}): it has not been shown to explain this answer."
        )
    if unchanged >= UNCHANGED:
        yield (
            f"The map stays nearly the same with random weights (rank correlation {unchanged:.2f}): it shows the "
            "photo, not what the network has learned."
        )


def _number(values: NDArray[np.float64]) -> float | None:
    return float(values[0]) if np.isfinite(values[0]) else None
