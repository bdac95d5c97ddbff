"""Small frozen records that all rooms share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from headstart.core.arguments import check_fields, exactly, instance, number, one_of, share, whole
from headstart.core.counts import counted
from headstart.core.display import Described, line_of, names_in_short
from headstart.core.errors import UsageError
from headstart.core.labels import TEXT, in_order
from headstart.core.text import shortened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Z = 1.959963984540054  # standard deviations on either side that hold 95 % of a normal distribution

UNKNOWN = "unknown"  # stands for the label of an image that is unlike the training photos

# kinds of a `Problem` with one image; a check may define more
PROBLEMS = (
    "empty",
    "unreadable",
    "truncated",
    "bomb",
    "memory",
    "missing",
    "wrong name",
    "no label",
    "no image",
    "left out",
)
UNREADABLE = frozenset(
    ("empty", "unreadable", "truncated", "bomb", "memory", "missing")
)  # those of a file without an image


_HALF, _CROP, _RESAMPLE = (0.5, 0.5, 0.5), 0.875, "bicubic"
_COLOURS = exactly(3, number(-math.inf), "three numbers, of red, green and blue")
_OF_SPEC = {
    "size": replace(whole(1), expected="a whole number of pixels"),
    "mean": _COLOURS,
    "std": _COLOURS,
    "crop": share(0, 1, above=True),
    "resample": one_of("bicubic", "bilinear"),
    "levels": exactly(2, number(-math.inf), "two numbers, of black and of white"),
}


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """The input of a network, and how a photo is turned into it.

    An image is uint8 NHWC RGB outside a network; the network itself computes ``(x / 255 - mean) / std``.
    """

    size: int  # height and width, pixels
    mean: tuple[float, float, float] = _HALF
    std: tuple[float, float, float] = _HALF
    crop: float = _CROP  # share of the photo's shorter side that the centred square keeps
    resample: str = _RESAMPLE
    levels: tuple[float, float] | None = None  # that are black and white in images of more than 8 bits; None: a guess

    def __post_init__(self) -> None:
        check_fields(self, _OF_SPEC, "ImageSpec")
        check_colours(self.mean, self.std)

    def as_json(self) -> dict[str, Any]:
        """Plain values, without what there is nothing to say of."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def beside(self, known: ImageSpec) -> ImageSpec:
        """This one; where it says no mean and std, as ``ImageSpec(160)``, with what is ``known`` of the network."""
        if self.mean is not _HALF or self.std is not _HALF:  # the default itself, not values that equal it
            return self
        found = replace(self, mean=known.mean, std=known.std)
        if (self.crop, self.resample) == (_CROP, _RESAMPLE):
            found = replace(found, crop=known.crop, resample=known.resample)
        return found


@dataclass(frozen=True, slots=True)
class Normalisation:
    """The mean and standard deviation of the pixels alone, of red, green and blue from 0 to 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: None = None  # the network's own

    def __post_init__(self) -> None:
        check_fields(self, _OF_SPEC, "Normalisation")
        check_colours(self.mean, self.std)

    def beside(self, known: ImageSpec) -> ImageSpec:
        """What is ``known`` of a network, with this mean and standard deviation."""
        return replace(known, mean=self.mean, std=self.std)


SPEC = instance("an hs.ImageSpec, such as hs.ImageSpec(160)", ImageSpec, Normalisation)


def check_colours(mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse a mean and a standard deviation that pixels from 0 to 1 cannot have.

    Raises:
        UsageError: such as those of pixels from 0 to 255.
    """
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        raise UsageError(
            f"Mean and standard deviation are of pixels from 0 to 1. Received: {_listed(mean)} and {_listed(std)}. "
            "Divide those of pixels from 0 to 255 by 255: 127.5 is 0.5."
        )


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image, by name; its content is read when it is needed."""

    name: str  # in messages: a path relative to the root, or "train.parquet#17"
    label: str
    split: str = ""  # "train", "val" or "test", or "" where the source does not say
    group: str = ""  # samples of one group stay on one side of every split (a patient, a burst of photos)


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with one image."""

    name: str
    kind: str  # one of PROBLEMS, or a kind that a check defines
    detail: str


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """All samples of a source, and a function that reads one.

    ``read(i)`` returns the bytes of the file, or an array (uint8 or uint16, HW or HWC) where the source holds pixels.
    It is called from several threads at once and raises `errors.UnreadableImageError` or `OSError`.
    """

    root: str
    samples: Sequence[Sample]
    read: Callable[[int], bytes | NDArray[np.generic]]
    problems: tuple[Problem, ...] = ()  # images that the source left out
    label_kind: str = TEXT  # what the labels were when they were given, see `core.labels`
    files: Sequence[str] | None = None  # the path or address of the file of each sample, which is read as it is,
    spans: tuple[Sequence[int], Sequence[int]] | None = None  # or so many bytes of it: where each begins, and how many
    classes: tuple[str, ...] = field(init=False)  # sorted once, never derived again

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", in_order((sample.label for sample in self.samples), self.label_kind))
        if self.files is not None and len(self.files) != len(self.samples):  # a copy with other samples
            object.__setattr__(self, "files", None)
            object.__setattr__(self, "spans", None)

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        where, left_out = shortened(self.root or "in memory", 60), len(self.problems)
        facts = [where, counted(len(self), "image"), names_in_short(self.classes)]
        return line_of(type(self).__name__, [*facts, f"{left_out} left out"] if left_out else facts)

    def part(self, rows: Sequence[int]) -> ImageDataset:
        """The data set of some of the samples, in this order."""
        rows = list(rows)
        samples = [self.samples[row] for row in rows]
        files = None if self.files is None else [self.files[row] for row in rows]
        spans = self.spans and ([self.spans[0][row] for row in rows], [self.spans[1][row] for row in rows])
        return replace(self, samples=samples, read=lambda index: self.read(rows[index]), files=files, spans=spans)

    @property
    def place(self) -> str:
        """Where it is, for a sentence."""
        return f"'{self.root}'" if self.root else "memory"

    @property
    def own_test(self) -> str:
        """The test set of the source: "test", else "val"; "" where it has none, or no "train"."""
        splits = {sample.split for sample in self.samples}
        return next((name for name in ("test", "val") if name in splits and "train" in splits), "")


Table = ImageDataset  # its name in the first version


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of right answers with its 95 % interval (Wilson 1927)."""

    value: float
    low: float
    high: float
    images: int
    groups: int | None = None  # of images that are alike (of a patient, a video), where the interval counts those

    @classmethod
    def of(cls, right: int, images: int, worth: float | None = None, groups: int | None = None) -> Accuracy:
        """Count ``right`` out of ``images`` (at least one), which tell as much as ``worth`` independent ones."""
        n = images if worth is None else worth
        p, z2n = right / images, Z**2 / n
        centre = (p + z2n / 2) / (1 + z2n)
        half = Z / (1 + z2n) * math.sqrt(p * (1 - p) / n + z2n / (4 * n))
        # in exact numbers the value is never beyond a bound; rounded, it may be by the last digit
        return cls(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), images, groups)

    def in_words(self, thing: str) -> str:
        """The accuracy with its interval, and on how many images, or other things."""
        interval = f"({100 * self.low:.1f} to {100 * self.high:.1f})"
        return f"accuracy {self.value:.1%} {interval} on {counted(self.images, thing)}"


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often images of the class ``truth`` were given the label ``label``."""

    truth: str
    label: str
    images: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image that got a wrong label."""

    name: str
    truth: str
    label: str
    probability: float  # of the label
    of_truth: float  # of the class that it is of


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Images of similar confidence: a bar of the reliability diagram."""

    confidence: float  # mean probability of the label
    accuracy: float
    low: float  # 95 % interval of the accuracy
    high: float
    images: int


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """The accuracy on the most typical images, where all others are called unknown."""

    coverage: float  # share of the images that get an answer
    accuracy: float


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation(Described):
    """The results of a classifier on a test set."""

    accuracy: Accuracy
    macro_f1: float  # mean over the classes that have images
    nll: float  # mean negative log-likelihood, nats
    calibration_error: float  # expected, over at most 15 bins of equal counts (Naeini et al. 2015)
    unknown: float  # share called unknown
    confusions: tuple[Confusion, ...]  # most frequent first
    per_class: dict[str, Accuracy]
    passed_over: int = 0  # images not counted, because they are in the training set
    unreadable: int = 0
    left_out: tuple[Problem, ...] | None = None  # images not counted for other reasons
    wrong: tuple[Mistake, ...] | None = None  # the surest first; None where names were not asked for
    calibration_noise: float | None = None  # the calibration error that a perfectly calibrated classifier would read
    reliability: tuple[ReliabilityBin, ...] | None = None  # the least confident first
    coverage: tuple[CoveragePoint, ...] | None = None  # from few to all, with those that are not called unknown

    @property
    def known_accuracy(self) -> float | None:
        """The accuracy on the images that are not called unknown; None where there are none, or it was not kept."""
        share = 1 - self.unknown
        return next((each.accuracy for each in self.coverage or () if math.isclose(each.coverage, share)), None)

    def calibration_in_words(self) -> str:
        """The calibration error, and what a perfectly calibrated classifier would read."""
        chance = "" if self.calibration_noise is None else f" (chance alone gives {self.calibration_noise:.1%})"
        return f"{self.calibration_error:.1%}{chance}"

    def unknown_in_words(self, things: str) -> str:
        """How many are unknown, and how many of the others are right."""
        known = self.known_accuracy if self.unknown else None
        others = "" if known is None else f"; of the others {known:.1%} are right"
        return f"{self.unknown:.1%} of the {things}{others}"

    def facts(self) -> dict[str, str]:
        """What is said of it in one line, and in a notebook."""
        return {
            "test set": self.accuracy.in_words("image"),
            "loss": f"NLL {self.nll:.3f}",
            "probabilities": f"calibration error {self.calibration_in_words()}",
        }


@dataclass(frozen=True, slots=True)
class Prediction:
    """The result of a classifier for one image."""

    path: str
    label: str
    probability: float
    unknown: bool  # unlike the training set: the label is a guess
