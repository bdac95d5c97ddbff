"""What a diagnosis says: frozen records, which a model keeps and its report shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from headstart.core.display import Described
from headstart.core.types import Accuracy
from headstart.data.check import Repeat

KINDS = ("healthy", "too little data", "overfitting", "underfitting", "suspicious data")
OF_TRAININGS = ("diverging", "too early to say")  # kinds that the curves of a training have beside


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first rule of `verdict.RULES` that applies; of a training, what its curves say."""

    kind: str  # one of KINDS or OF_TRAININGS
    sentence: str  # what was found, with its figures
    next_step: str  # the one thing to do
    figures: dict[str, float] = field(default_factory=dict)  # all that the rules looked at, by name


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Heads that were fitted on so many training images: means over the draws."""

    images: int
    train_error: float  # on those images
    error: float  # on held-out images
    low: float  # 95 % interval of the error
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """The accuracy to expect of more training images, with a 95 % interval."""

    images: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Error against the size of the training set."""

    points: tuple[CurvePoint, ...]  # from few images to all
    draws: int  # of which each point but the last is the mean
    held_out: int  # images that the errors were measured on
    judged_on: str  # which those are: "test set", or "held out in turn"
    from_half: float  # by how much the error of half of the images is above that of all
    from_half_z: float  # the same in standard errors
    twice: Forecast  # with twice the training images
    sentence: str


@dataclass(frozen=True, slots=True)
class ComplexityPoint:
    """A head of one strength of regularisation."""

    strength: float  # of the mean eigenvalue; a small one makes a flexible head
    train_error: float
    error: float  # left out in turn
    nll: float  # left out in turn, calibrated, nats


@dataclass(frozen=True, slots=True)
class ComplexityCurve:
    """Error along the regularisation path."""

    points: tuple[ComplexityPoint, ...]  # from the most flexible head to the stiffest
    chosen: float  # strength
    images: int  # that were left out in turn


@dataclass(frozen=True, slots=True)
class Decomposition:
    """A mean loss, and the bias and variance that it is the sum of."""

    loss: float
    bias: float
    variance: float


@dataclass(frozen=True, slots=True)
class BiasVariance:
    """Heads of bootstrap resamples of this training set, judged on the same images.

    The bias holds the noise of the labels too, and is that of this training set: of fresh ones it would be smaller.
    """

    resamples: int
    images: int  # that were judged
    judged_on: str  # "test set", or "left out of the resample"
    zero_one: Decomposition  # of the error; variance is the net one (Domingos 2000)
    squared: Decomposition  # of the Brier score
    per_class: dict[str, Decomposition]  # of the error (Kohavi and Wolpert 1996)


@dataclass(frozen=True, slots=True)
class Suspect:
    """An image whose label is probably wrong."""

    name: str
    label: str
    suggested: str
    of_label: float  # probability of its label, by a head that was fitted without it
    of_suggested: float


@dataclass(frozen=True, slots=True)
class WrongLabels:
    """Labels that are probably wrong, by confident learning (Northcutt et al. 2021)."""

    share: float  # estimated, of the training set
    images: int  # that were judged
    suspects: tuple[Suspect, ...]  # the least probable label first


@dataclass(frozen=True, slots=True)
class Outlier:
    """An image of the training set that is unlike all others."""

    name: str
    label: str
    typical: float  # share of the training set that is less typical still


@dataclass(frozen=True, slots=True)
class Shortcut:
    """How well something that is not what the images show predicts their class."""

    what: str  # "size", "file type", "brightness" or "border"
    accuracy: float  # left out in turn
    chance: float  # of answering with the most frequent class
    images: int
    is_one: bool  # whether it is more than chance


@dataclass(frozen=True, slots=True)
class Corrupted:
    """The accuracy on images that were made worse in one way."""

    kind: str  # "noise", "blur", "JPEG", "brightness" or "rotation"
    strength: int  # 1 (little) to 5
    accuracy: Accuracy


@dataclass(frozen=True, slots=True)
class ImageNetDistance:
    """How far the images are from those that the backbone was trained on."""

    distance: float  # see `diagnose.distance`; 0 for the same statistics
    images: int
    sentence: str  # beside the distances of well-known sets of images


@dataclass(frozen=True, slots=True)
class FromScratch:
    """A small network that was trained from random weights on the same split."""

    network: str
    accuracy: Accuracy
    frozen: Accuracy  # of the classifier
    sentence: str


@dataclass(frozen=True, repr=False)
class Diagnosis(Described):
    """What is known of a classifier and its training set beyond the accuracy."""

    verdict: Verdict
    learning_curve: LearningCurve | None = None
    complexity: ComplexityCurve | None = None
    bias_variance: BiasVariance | None = None
    wrong_labels: WrongLabels | None = None
    look_alikes: tuple[Repeat, ...] = ()  # near copies with different labels, or across the parts
    outliers: tuple[Outlier, ...] = ()
    shortcuts: tuple[Shortcut, ...] = ()
    seconds: float = 0.0

    def facts(self) -> dict[str, str]:
        """What is said of it in one line, and in a notebook."""
        facts = {"verdict": f"{self.verdict.kind}: {self.verdict.sentence}", "next": self.verdict.next_step}
        return facts | ({"learning curve": self.learning_curve.sentence} if self.learning_curve else {})
