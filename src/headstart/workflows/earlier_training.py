"""What a training needs to know of the one that it goes on from: weights, classes, photos that were seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from headstart.core.counts import counted
from headstart.core.display import names_in_short
from headstart.core.errors import DataError, UsageError
from headstart.core.types import ImageDataset
from headstart.data.fingerprints import Fingerprints
from headstart.data.split import Split, make_split, split_beside
from headstart.model.classifier import Classifier
from headstart.model.records import ScratchRecord, TabularRecord
from headstart.model.tabular_classifier import TabularClassifier


def scratch_record(start: Classifier) -> ScratchRecord:
    """How the network of a classifier was trained from random weights.

    Raises:
        UsageError: it was not.
    """
    if start.record.scratch is None:
        raise UsageError(
            "Only a model that train made can be trained longer so. This one has a pretrained network: "
            "headstart finetune MODEL PHOTOS trains more of it."
        )
    return start.record.scratch


def check_nothing_else(start: Classifier | TabularClassifier | None, folds: int, **given: object) -> None:
    """Refuse settings that are those of the model that a training goes on from."""
    if start is None:
        return
    if folds:  # in every fold there would be photos of its training set
        raise UsageError(
            "--folds: a model that was trained before has seen what it would be measured on. Leave it out."
        )
    for name, value in given.items():
        if value is not None:
            typed = "colours" if (name, value) == ("grey", False) else name
            raise UsageError(f"--{typed}: the model that the training goes on from has its own. Leave it out.")


def split_for(
    start: Classifier | None, dataset: ImageDataset, fingerprints: Fingerprints, holdout: float, seed: int
) -> Split:
    """The split of a training, where it goes on from a model with nothing in the test set that this was trained on.

    Raises:
        DataError: the classes are not those of the model.
    """
    if start is None:
        return make_split(dataset, fingerprints, holdout, seed)
    split, _ = split_beside(dataset, fingerprints, holdout, seed, start.fitted_on)
    check_classes(split.classes, start.classes)
    return split


def check_classes(found: Sequence[str], known: Sequence[str]) -> None:
    """Refuse data of other classes than the model's."""
    if tuple(found) == tuple(known):
        return
    new, missing = sorted(set(found) - set(known)), sorted(set(known) - set(found))
    why = f"'{new[0]}' is none of them" if new else f"None or too few are of '{missing[0]}'"
    raise DataError(
        f"A model is trained longer on data of the classes that it knows: {names_in_short(known)}. "
        f"Received: {names_in_short(found)}. {why}. For other classes train anew, without --from MODEL."
    )


def epochs_of(record: ScratchRecord | TabularRecord) -> int:
    """The epochs that its weights were trained for, in all."""
    return record.epochs_before + record.best + 1


def known_to_validate(validation: Collection[bytes], train: Collection[bytes], seen: Collection[bytes]) -> str:
    """A sentence where a model was trained on photos that its further training is validated with; "" where not.

    The same photos with the same seed have the validation set that they had.
    """
    known = sum(key in seen for key in validation)
    if not known or set(train) == set(seen):
        return ""
    return (
        f"The photos are not those of the first training: {known} of the {counted(len(validation), 'photo')} to "
        "validate with may have been trained on then. So the probabilities may be too sure; the test set is new."
    )
