"""How a network is trained: the recipe, its presets, and the same as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from headstart.core.arguments import Rule, check_fields, expanded, instance, number, one_of, whole
from headstart.core.errors import UsageError, did_you_mean, reason_of
from headstart.core.regular_file import read_regular

OPTIMISERS = ("sgd", "momentum", "adam", "adamw")
SCHEDULES = ("constant", "step", "cosine", "one_cycle")
AVERAGES = ("none", "ema", "snapshots")
AUGMENTATIONS = ("none", "flips", "light", "strong")
INITIALISATIONS = ("he", "he_uniform", "xavier", "xavier_uniform", "normal", "uniform")
PRECISIONS = ("fp32", "bf16", "auto")
NORMS = ("frozen", "train")
MOST_RECIPE = 1 << 20  # bytes of its file


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Raises:
        UsageError: a field out of its range, or two that contradict each other.
    """

    epochs: int = 8  # passes over the photos; more when the calibrated validation loss still falls at the end
    batch_size: int = 32  # images a step; smaller where memory is short, with a smaller rate
    optimiser: str = "adamw"  # "sgd" to compare frameworks, "momentum" from scratch on many photos
    learning_rate: float = 2e-4  # of the highest layer at the schedule's peak; `find_learning_rate` proposes one
    schedule: str = "cosine"  # how the rate changes over the steps
    warm_up: float = 0.1  # share of the steps over which the rate rises from zero
    layer_decay: float = 0.6  # the rate of each stage below is so many times that of the one above
    weight_decay: float = 0.01  # pulls kernels to zero; more where training error is far below validation error
    dropout: float = 0.0  # share of features dropped in each step; more in the same case
    label_smoothing: float = 0.0  # share of the target spread over all classes; for noisy labels
    augmentation: str = "flips"  # of the training photos
    views: int = 2  # augmented copies of a photo that are kept where the lower layers stay frozen
    clip: float = 1.0  # largest norm of the gradient; 0 for none
    patience: int = 0  # epochs without a better calibrated validation loss that end it; 0 for never
    averaging: str = "ema"  # which weights count: the last, a moving average, or the mean of several snapshots
    precision: str = "auto"  # of forward and backward passes
    initialisation: str = "he"  # of random starting weights
    unfreeze: str = "top"  # "head", "top" (the upper third of the stages), "all", or the lowest node or stage
    batch_norm: str = "frozen"  # "train" lets its statistics follow the photos: from scratch, or many photos
    adversarial: float = 0.0  # trains on photos attacked by up to so many levels of 255 a pixel; 0 for none
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, _RULES, "Recipe")
        self._check_together()

    def _check_together(self) -> None:
        if self.averaging == "snapshots" and self.epochs < 2:
            raise UsageError(
                "Recipe: averaging 'snapshots' needs at least 2 epochs, the first to come near. Received: epochs 1."
            )
        if self.schedule == "one_cycle" and self.warm_up == 0:
            raise UsageError(
                "Recipe: schedule 'one_cycle' rises before it falls: expected warm_up above 0, say 0.3. "
                "Received: warm_up 0."
            )
        if self.batch_norm == "train" and self.unfreeze == "head":
            raise UsageError(
                "Recipe: batch_norm 'train' moves statistics below the head, unfreeze 'head' keeps all there as it is. "
                "Expected batch_norm 'frozen', or more that is unfrozen."
            )

        if self.adversarial and self.unfreeze in ("head", "top"):
            raise UsageError(
                "Recipe: adversarial changes pixels, which every layer must see again. Expected unfreeze 'all'. "
                f"Received: unfreeze {self.unfreeze!r}."
            )

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """What `to_json` gave, or a part of it; ``preset`` names what the rest is taken from.

        Raises:
            UsageError: an unknown field or preset, with the nearest; a value out of its range.
        """
        known = {field.name for field in fields(cls)}
        for name in data:
            if name != "preset" and name not in known:
                raise UsageError(f"A recipe has no field '{name}'. {did_you_mean(str(name), known)}")
        base = preset(str(data.get("preset", "careful")))
        return replace(base, **{name: value for name, value in data.items() if name != "preset"})


def open_recipe(recipe: str | os.PathLike[str] | Mapping[str, Any] | Recipe) -> Recipe:
    """A preset by its name, a JSON file, the same as a dictionary, or a recipe as it is.

    Raises:
        UsageError: neither, or a file that is no recipe.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return Recipe.from_json(recipe)
    name = expanded(recipe)
    if not name.endswith(".json"):
        return preset(name)
    try:
        data = json.loads(read_regular(name, MOST_RECIPE).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"'{name}' is no recipe: {reason_of(error)}. Expected a JSON object of fields.") from error
    if not isinstance(data, dict):
        raise UsageError(f"'{name}' is no recipe: expected a JSON object of fields. Received: {type(data).__name__}.")
    return Recipe.from_json(data)


RECIPE = instance(
    "the name of a preset, a JSON file, a dictionary of fields, or a Recipe", str, os.PathLike, Mapping, Recipe
)


def preset(name: str) -> Recipe:
    """The recipe called ``name``."""
    if name not in PRESETS:
        raise UsageError(f"There is no recipe '{name}'. {did_you_mean(name, PRESETS)}")
    return PRESETS[name]


def _named(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return str(value)


_RULES = {
    "epochs": whole(1, 10_000),
    "batch_size": whole(1, 65_536),
    "optimiser": one_of(*OPTIMISERS),
    "learning_rate": number(0, 10, above=True),
    "schedule": one_of(*SCHEDULES),
    "warm_up": number(0, 0.9),
    "layer_decay": number(0, 1, above=True),
    "weight_decay": number(0, 1),
    "dropout": number(0, 0.9),
    "label_smoothing": number(0, 0.5),
    "augmentation": one_of(*AUGMENTATIONS),
    "views": whole(1, 64),
    "clip": number(0, 1e6),
    "patience": whole(0, 10_000),
    "averaging": one_of(*AVERAGES),
    "precision": one_of(*PRECISIONS),
    "initialisation": one_of(*INITIALISATIONS),
    "unfreeze": Rule("'head', 'top', 'all', or the name of a node or stage", _named),
    "batch_norm": one_of(*NORMS),
    "adversarial": number(0, 64),
    "seed": whole(0, 2**32 - 1),
}


PRESETS: dict[str, Recipe] = {
    "careful": Recipe(),
    "fast": Recipe(epochs=4),
    "full": Recipe(learning_rate=1e-4, unfreeze="all", layer_decay=0.8),
    "robust": Recipe(learning_rate=1e-4, unfreeze="all", layer_decay=0.8, adversarial=1.0),
    "scratch": Recipe(
        epochs=30,
        batch_size=64,
        learning_rate=5e-4,
        schedule="one_cycle",
        warm_up=0.3,
        layer_decay=1.0,
        dropout=0.3,
        label_smoothing=0.1,
        augmentation="light",
        averaging="none",
        unfreeze="all",
        batch_norm="train",
    ),
    "table": Recipe(  # an epoch of table rows is short
        epochs=60,
        learning_rate=0.1,
        schedule="one_cycle",
        warm_up=0.3,
        layer_decay=1.0,
        label_smoothing=0.05,
        augmentation="none",
        unfreeze="all",
        batch_norm="train",
    ),
}
