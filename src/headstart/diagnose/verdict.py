"""The verdict: one table of rules, of which the first that applies decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headstart.core.types import Z
from headstart.diagnose.records import Verdict

LEAKED, TIMES = 0.02, 2  # share of test images with a copy in the training set; of what is usual within the latter
STRANGE = 4.0  # standard errors by which a test set may be easier than the training set
SURE = 3.0  # standard errors of a comparison of two classifiers
LIKELY, PERHAPS = 2.0, 1.0
KNOWN = 0.1  # half of the interval of an accuracy that says something
WORTH, MUCH = 0.02, 0.03  # of accuracy: less is not worth advice; and what is, where it is less sure
FITTED = 0.5  # of the error of guessing: a training set with fewer errors was learned
WRONG, MOST = 0.1, 0.5  # share of labels that are probably wrong; where it seems to be most, it is not the labels
MIXED_UP = 0.25  # share of sure mistakes: a half where labels were mixed up, less where classes overlap


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules look at. Accuracies and errors are shares; z is a difference in standard errors."""

    images: int  # of the training set
    accuracy: float  # of training images left out in turn
    accuracy_se: float  # its standard error
    train_error: float
    chance: float  # the accuracy where the labels mean nothing
    copied: float = 0.0  # share of the test images that have a near copy in the training data
    copies_within: float = 0.0  # share of the training images that have a near copy among them
    test_z: float = 0.0  # by how much the test set is easier than training images left out in turn
    flexible: float = 0.0  # gain in accuracy of a classifier with bends
    flexible_z: float = 0.0
    stiffer: float = 0.0  # gain in accuracy of the best strength of regularisation
    stiffer_z: float = 0.0
    from_half: float = 0.0  # gain in accuracy from half of the images to all
    from_half_z: float = 0.0
    more: float = 0.0  # gain in accuracy that twice the images are expected to bring
    wrong_labels: float = 0.0  # share
    shortcut: float = 0.0  # gain in accuracy over chance by the size or the kind of the file alone, where it is one
    sure_mistakes: float = 0.0  # share of the mistakes that are surer than half of the right answers

    @property
    def half_width(self) -> float:
        """Of the 95 % interval of the accuracy."""
        return Z * self.accuracy_se

    @property
    def needed(self) -> int:
        """Training images with which the accuracy would be known well enough."""
        return -int(-self.images * (self.half_width / KNOWN) ** 2 // 1)


def more_helps(facts: Facts) -> bool:
    """Whether more images are worth it: a test set that is small is seldom sure, so a large gain needs less."""
    sure = facts.from_half_z
    return (sure > LIKELY and facts.more > WORTH) or (sure > PERHAPS and facts.more > MUCH)


def mixed_up(facts: Facts) -> bool:
    """Whether the labels of the training set explain most of the mistakes."""
    share = facts.wrong_labels
    return max(WRONG, 0.5 * (1 - facts.accuracy)) < share < MOST and facts.sure_mistakes > MIXED_UP


@dataclass(frozen=True, slots=True)
class Rule:
    """When a verdict is given, and what it says."""

    kind: str
    applies: Callable[[Facts], bool]
    sentence: str  # filled in with the facts
    next_step: str


RULES = (
    Rule(
        "suspicious data",
        lambda f: f.copied > max(LEAKED, TIMES * f.copies_within),
        "{copied:.1%} of the test images have a near copy among the training images. They were kept apart here, but "
        "accuracies that were measured with them before are too good.",
        "Find out how the two parts were made, and divide them by object or by day: headstart check DATA lists the "
        "copies.",
    ),
    Rule(
        "suspicious data",
        lambda f: f.shortcut > 0,
        "The size or the kind of the files alone gives {shortcut:.1%} more right answers than guessing. A network may "
        "learn that in place of what the images show, and then fails on other files.",
        "Take the images of all classes from the same sources, in one size and format.",
    ),
    Rule(
        "too little data",
        lambda f: f.half_width > KNOWN,
        "{images} training images say little: left out in turn, {accuracy:.1%} are right, give or take "
        "{half_width:.1%}.",
        "Add images: with about {needed} to train on, the accuracy would be known to 10 points.",
    ),
    Rule(
        "suspicious data",
        lambda f: f.test_z > STRANGE and not mixed_up(f),
        "The test set is easier than the training set: {test_z:.1f} standard errors above the accuracy of training "
        "images left out in turn ({accuracy:.1%}).",
        "Look at where the test images come from: they are not like those of the training set, or were chosen.",
    ),
    Rule(
        "underfitting",
        lambda f: f.flexible_z > SURE and f.flexible > max(WORTH, 0.1 * (1 - f.accuracy)),
        "A classifier with bends gets {flexible:.1%} more images right than the linear head on the same features "
        "({flexible_z:.1f} standard errors).",
        "Train more than the head: headstart finetune MODEL DATA, or try other backbones: headstart compare DATA.",
    ),
    Rule(
        "overfitting",
        lambda f: f.accuracy < f.chance + SURE * f.accuracy_se and f.train_error < FITTED * (1 - f.chance),
        "Left out in turn, {accuracy:.1%} of the images are right, no more than with labels that mean nothing "
        "({chance:.1%}); in training {train_error:.1%} are wrong. The head learned its images by heart.",
        "Look at whether the labels belong to the images: the report shows those whose label is least probable.",
    ),
    Rule(
        "suspicious data",
        lambda f: f.accuracy < f.chance + SURE * f.accuracy_se,
        "Left out in turn, {accuracy:.1%} of the images are right, no more than with labels that mean nothing "
        "({chance:.1%}).",
        "Look at whether the labels belong to the images, and whether a person could tell the classes apart.",
    ),
    Rule(
        "overfitting",
        lambda f: f.stiffer_z > LIKELY and f.stiffer > WORTH,
        "Another strength of regularisation gets {stiffer:.1%} more images right ({stiffer_z:.1f} standard errors).",
        "Fit with the other kind of head, and compare: headstart fit DATA --head ridge.",
    ),
    Rule(
        "suspicious data",
        mixed_up,
        "About {wrong_labels:.1%} of the labels are probably wrong: of the mistakes, {sure_mistakes:.1%} are surer "
        "than half of the right answers.",
        "Look at the suspected labels in the report, the first ones first, correct what is wrong, and fit again.",
    ),
    Rule(
        "too little data",
        more_helps,
        "From half of the training images to all, the accuracy rose by {from_half:.1%} ({from_half_z:.1f} standard "
        "errors), and twice as many are expected to bring {more:.1%} more.",
        "Add images, of the classes that are most often mistaken first.",
    ),
    Rule(
        "underfitting",
        lambda f: f.train_error > FITTED * (1 - f.chance),
        "Even of the training images {train_error:.1%} are wrong, where guessing gets {wrong_guesses:.1%} wrong.",
        "Train more than the head: headstart finetune MODEL DATA, or try other backbones: headstart compare DATA.",
    ),
)  # fmt: skip
HEALTHY = Rule(
    "healthy",
    lambda _: True,
    "Left out in turn, {accuracy:.1%} of the {images} training images are right; no rule found a fault.",
    "Use it: headstart predict MODEL PHOTO …",
)


def words_of(facts: Facts) -> dict[str, float]:
    """What sentences are filled in with."""
    figures = {name: getattr(facts, name) for name in Facts.__slots__}
    also = {"wrong_guesses": 1 - facts.chance, "half_width": facts.half_width, "needed": facts.needed}
    return figures | also


def verdict_on(facts: Facts) -> Verdict:
    """The verdict of the first rule that applies."""
    figures = {name: float(getattr(facts, name)) for name in Facts.__slots__}
    rule = next((rule for rule in RULES if rule.applies(facts)), HEALTHY)
    words = words_of(facts)
    return Verdict(rule.kind, rule.sentence.format(**words), rule.next_step.format(**words), figures)
