"""What a model remembers of how it was made, and how it did: frozen, and JSON at one edge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from headstart.core.counts import counted
from headstart.core.display import line_of
from headstart.core.types import Accuracy, Evaluation
from headstart.data.split import SplitRecord
from headstart.diagnose.records import Diagnosis
from headstart.train.training_record import TrainingRecord

OPTIONAL = (
    "scratch",
    "finetune",
    "validation",
    "settled",
    "groups",
    "left_out",
    "wrong",
    "tuned_loss",
    "assumed",
    "diagnosis",
    "gap",
    "calibration_noise",
    "reliability",
    "coverage",
)  # left out of JSON where there is none
SEE = "all of it: vars(record)"
T = TypeVar("T")


@dataclass(frozen=True)
class HeadRecord:
    """How the head was fitted."""

    kind: str  # "lda", "ridge", or "trained" by gradient descent
    prior: str
    strength: float
    temperature: float
    path: tuple[tuple[float, float], ...] = ()  # (strength, held-out NLL after calibration)
    settled: dict[str, str] | None = None  # kind and prior of the closed form that a trained head began with


@dataclass(frozen=True)
class LeftOneOut:
    """Training images, each judged by a head that was fitted without it."""

    accuracy: float
    images: int


@dataclass(frozen=True)
class ValidationRecord:
    """How a trained network did on its validation set, calibrated on it too."""

    accuracy: float
    nll: float
    images: int


@dataclass(frozen=True)
class ChoiceRecord:
    """The automatic choice of a backbone."""

    sentence: str
    images: int  # that each was tried on
    rows: tuple[dict[str, Any], ...]  # the candidates, as `compare --json` has them


@dataclass(frozen=True)
class PartCounts:
    """Rows of each part."""

    train: int
    validation: int


@dataclass(frozen=True)
class ImageCounts(PartCounts):
    """Images of each part."""

    test: int


@dataclass(frozen=True)
class Side:
    """One of two models on the test set; None of each where there is none."""

    accuracy: float | None
    interval: tuple[float, float] | None
    nll: float | None
    val_calibrated: float  # calibrated loss on photos held out from training


@dataclass(frozen=True)
class ViewsRecord:
    """The activations that were computed once and trained on."""

    count: int  # of each image; 0: every step went through the whole network
    mb: float


@dataclass(frozen=True, kw_only=True)
class FinetuneRecord(TrainingRecord):
    """How a fine-tuning went."""

    chosen: str
    kept: int  # epochs; 0: the given model was better
    before: Side
    after: Side
    tuned_loss: float | None = None  # calibrated, on held-out photos, also where it was worse; None: no epoch was good
    p: float | None  # of McNemar's test between the two
    images: ImageCounts
    folds: int = 1  # trainings, each of which held out others; 1: a validation set
    refit: bool
    cut: str  # the node below all that was trained, "" for the whole network
    views: ViewsRecord
    seconds: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ScratchRecord(TrainingRecord):
    """How a training from random weights went."""

    images: ImageCounts
    network: str = ""
    hidden: tuple[int, ...] = ()
    epochs_before: int = 0  # of the trainings that it goes on from
    folds: tuple[Accuracy, ...] = ()


class Keyed:
    """A record whose fields are also found by the keys that they have in JSON."""

    def __getitem__(self, key: str) -> Any:
        """A field in plain values, as `config.json` and `--json` have it: ``record["result"]["accuracy"]``."""
        return to_json(self)[key]


@dataclass(frozen=True, kw_only=True, repr=False)
class FitRecord(Keyed, SplitRecord):
    """How a classifier of images was fitted, and how it did."""

    images: int = 0
    train: int = 0
    test: int = 0
    data: str = "in memory"
    backbone: str = ""
    licence: str = ""
    assumed: str | None = None  # on the weights or the pixels of the backbone, where nothing tells it
    pixels: int = 0
    precision: str = ""
    holdout: float = 0.0
    seed: int = 0
    head: HeadRecord | None = None
    result: Evaluation | None = None  # on the test set
    left_one_out: LeftOneOut | None = None
    validation: ValidationRecord | None = None
    choice: ChoiceRecord | None = None
    computed: int = 0  # images whose features were computed, and
    from_store: int = 0  # those whose features were kept from before
    store_problem: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    scratch: ScratchRecord | None = None
    finetune: FinetuneRecord | None = None
    diagnosis: Diagnosis | None = None

    def __repr__(self) -> str:
        how = f"{self.backbone or 'a network'} at {self.pixels} pixels", counted(self.images, "image")
        return line_of(
            type(self).__name__, [*how, measured(self.result.accuracy if self.result else None, "image"), SEE]
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class TabularRecord(Keyed, TrainingRecord):
    """How a classifier of rows of numbers was trained, and how it did."""

    parts: PartCounts
    temperature: float
    data: str = "rows"
    images: int = 0  # rows in all
    result: Evaluation | None = None
    accuracy: Accuracy | None = None
    test: int = 0
    folds: tuple[Accuracy, ...] = ()
    hidden: tuple[int, ...] = ()
    epochs_before: int = 0  # of the trainings that it goes on from
    holdout: float = 0.0
    seed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        how = counted(self.images, "row"), counted(len(self.epochs), "epoch")
        return line_of(type(self).__name__, [*how, measured(self.accuracy, "row"), SEE])


def measured(accuracy: Accuracy | None, thing: str) -> str:
    """The accuracy in words, and also where there is none."""
    return accuracy.in_words(thing) if accuracy else "accuracy not measured"


def to_json(record: Any) -> dict[str, Any]:
    """Plain values, without what there is nothing to say of."""
    return asdict(
        record,
        dict_factory=lambda pairs: {key: value for key, value in pairs if value is not None or key not in OPTIONAL},
    )


def from_json(kind: type[T], values: Any) -> T:
    """A record of what `to_json` gave, by this version or an earlier one; unknown keys are passed over.

    Raises:
        TypeError: values that are none of such a record.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"expected an object, received {values!r:.40}")
    kinds = KINDS[kind]
    return kind(**{name: _value(kinds[name], value) for name, value in values.items() if name in kinds})


def _value(kind: Any, value: Any) -> Any:
    """A value of JSON as what the type hint ``kind`` asks for."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is UnionType:  # of something and None
        return None if value is None else _value(next(each for each in inside if each is not NoneType), value)
    if origin is tuple and isinstance(value, list):
        each = inside[:1] * len(value) if inside[-1] is Ellipsis else inside
        return tuple(_value(one, part) for one, part in zip(each, value, strict=True))
    if origin is dict and isinstance(value, Mapping):
        return {name: _value(inside[1], part) for name, part in value.items()}
    if kind in KINDS:
        return from_json(kind, value)
    if kind is float and type(value) is int:
        return float(value)
    if kind is not Any and type(value) is not kind:
        raise TypeError(f"expected {kind}, received {value!r:.40}")
    return value


def _kinds(kind: Any, found: dict[type, dict[str, Any]]) -> dict[type, dict[str, Any]]:
    """The types of the fields of a record, and of the records inside it."""
    if is_dataclass(kind) and isinstance(kind, type) and kind not in found:
        found[kind] = get_type_hints(kind)
        for inside in found[kind].values():
            _kinds(inside, found)
    for inside in get_args(kind):
        _kinds(inside, found)
    return found


KINDS = _kinds(FitRecord | TabularRecord, {})
