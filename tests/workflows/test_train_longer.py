"""Training a model longer that was trained from random weights: from its weights, with its split, on its pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
from headstart.core.types import ImageDataset
from headstart.data.named_sets import digits
from headstart.model.classifier import Classifier
from headstart.train.recipe import preset
from headstart.train.training_run import TrainingRun
from headstart.workflows.train_images import train_photos
from headstart.workflows.train_tables import train_rows
from making import Shell
from trainers import one_thread  # noqa: F401

pytest.importorskip("torch")
pytest.importorskip("sklearn")

SHORT = replace(preset("scratch"), epochs=3, batch_size=16, augmentation="none", learning_rate=5e-3)
TABLE = replace(preset("table"), epochs=3)


def few_digits(each: int = 24) -> ImageDataset:
    found = digits()
    of_class = [[row for row, sample in enumerate(found.samples) if sample.label == str(k)] for k in range(10)]
    return found.part([row for rows in of_class for row in rows[:each]])


def training(model: Any) -> Any:
    return model.record.scratch


@pytest.fixture(scope="module")
def begun() -> Classifier:
    return train_photos(few_digits(), network="mlp", hidden=(16,), recipe=SHORT, seed=3, holdout=0.25)


def test_it_begins_where_the_first_training_ended(begun: Classifier) -> None:
    still = replace(SHORT, learning_rate=1e-12)
    same = train_photos(few_digits(), start=begun, recipe=still)
    images = np.stack([few_digits().read(row) for row in range(40)])
    assert same.predict_proba(images) == pytest.approx(begun.predict_proba(images), abs=0.02)  # calibrated again
    assert same.spec == begun.spec


def test_it_gets_better_and_counts_its_epochs(begun: Classifier) -> None:
    longer = train_photos(few_digits(), start=begun, recipe=SHORT)
    assert training(longer).epochs[0].val_loss < training(begun).epochs[0].val_loss
    assert training(longer).epochs_before == training(begun).best + 1
    assert (training(longer).network, training(longer).hidden) == ("mlp", (16,))
    again = train_photos(few_digits(), start=longer, recipe=SHORT)
    assert training(again).epochs_before == training(begun).best + 1 + training(longer).best + 1


def test_the_test_set_stays_what_it_was(begun: Classifier) -> None:
    longer = train_photos(few_digits(), start=begun, recipe=SHORT)
    assert (longer.record.seed, longer.record.holdout) == (3, 0.25)
    assert longer.fitted_on == begun.fitted_on
    assert longer.record.test == begun.record.test


def test_with_more_photos_nothing_known_is_in_the_test_set(begun: Classifier) -> None:
    said: list[str] = []
    data = few_digits(each=40)
    longer = train_photos(data, start=begun, recipe=SHORT, seed=9, trainer=TrainingRun("pytorch", say=said.append))
    assert longer.fitted_on >= begun.fitted_on
    assert longer.record.test > 0
    fresh = longer.evaluate(data)  # passes over what either was fitted on
    assert fresh.accuracy.images == longer.record.test
    assert any("may have been trained on then" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"network": "mlp"}, "network: the model that the training goes on from has its own"),
        ({"hidden": (4,)}, "hidden: the model"),
        ({"pixels": 16}, "pixels: the model"),
        ({"grey": False}, "grey=False: the model"),
        ({"grey": True}, "grey: the model"),
        ({"folds": 3}, "folds: a model that was trained before"),
    ],
)
def test_what_the_model_has_already_is_not_to_be_said(begun: Classifier, more: Any, match: str) -> None:
    with pytest.raises(hs.UsageError, match=match):
        train_photos(few_digits(), start=begun, recipe=SHORT, **more)


def test_other_classes_are_a_sentence(begun: Classifier) -> None:
    data = few_digits()
    some = data.part([row for row, sample in enumerate(data.samples) if sample.label != "7"])
    with pytest.raises(hs.DataError, match=r"knows: 10 classes .*Received: 9 classes .*None or too few are of '7'"):
        train_photos(some, start=begun, recipe=SHORT)


def test_a_model_of_a_pretrained_network_is_a_sentence() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), np.uint8)
    fitted = hs.fit(pictures, ["a", "b"] * 6, pixels=64, holdout=0, cache=False)
    with pytest.raises(hs.UsageError, match=r"hs\.finetune\(MODEL, PHOTOS\) trains more"):
        train_photos(pictures, ["a", "b"] * 6, start=fitted)


def test_finetune_says_how_such_a_model_is_trained_longer(begun: Classifier) -> None:
    with pytest.raises(hs.UsageError, match=r"longer: hs\.train_photos\(DATA, start=MODEL\)"):
        begun.finetune(few_digits())


def test_rows_go_on_as_well() -> None:
    first = train_rows("wine", recipe=TABLE, seed=2)
    longer = train_rows("wine", start=first, recipe=TABLE)
    assert longer.record.epochs[0].train_loss < first.record.epochs[0].train_loss
    assert longer.record.epochs_before == first.record.best + 1
    assert (longer.record.seed, longer.record.test) == (2, first.record.test)
    assert np.array_equal(longer.scale.mean, first.scale.mean)
    with pytest.raises(
        hs.DataError, match=r"knows: 3 classes \(class_0, .*Received: 2 classes \(benign, .*without start=MODEL"
    ):
        train_rows("breast_cancer", start=first)


def test_other_columns_are_a_sentence() -> None:
    first = train_rows("wine", recipe=TABLE)
    values = np.random.default_rng(0).normal(size=(30, 4))
    with pytest.raises(hs.DataError, match="give data with its columns, in their order: alcohol"):
        train_rows(values, [("class_0", "class_1", "class_2")[k % 3] for k in range(30)], start=first)


def test_the_command(shell: Shell, tmp_path: Path) -> None:
    recipe = tmp_path / "short.json"
    recipe.write_text('{"preset": "scratch", "epochs": 2, "augmentation": "none"}', encoding="utf-8")
    first, second = tmp_path / "first", tmp_path / "second"
    done = shell("train", "digits", "--network", "mlp", "--hidden", "none", "--recipe", recipe, "--out", first)
    assert done.code == 0
    done = shell("train", "digits", "--from", first, "--recipe", recipe, "--out", second, "--json")
    found = json.loads(done.out)
    assert found["epochs_before"] == 2
    assert found["moving"] == 8 * 8 * 10 + 10
    rows, more = tmp_path / "rows", tmp_path / "more"
    recipe.write_text('{"preset": "table", "epochs": 2}', encoding="utf-8")
    assert shell("train", "iris", "--recipe", recipe, "--out", rows).code == 0
    assert shell("train", "iris", "--from", rows, "--recipe", recipe, "--out", more).code == 0
    done = shell("train", "digits", "--from", rows, "--out", tmp_path / "third")
    assert f"'{rows}' is a model of rows of numbers, and the data are photos." in " ".join(done.err.split())
    done = shell("train", "iris", "--from", first, "--out", tmp_path / "third")
    assert done.code == 2
    assert f"'{first}' is a model of photos, and the data are rows of numbers." in " ".join(done.err.split())
