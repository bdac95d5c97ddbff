"""Training from nothing: tables and pictures through the same trainers, measured on what was never trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import headstart as hs
from headstart.backbones.families.small import mlp
from headstart.core.errors import DataError, UsageError
from headstart.core.types import ImageDataset, ImageSpec
from headstart.data.named_sets import digits
from headstart.data.rows import rows_from_arrays
from headstart.model.classifier import Classifier
from headstart.model.tabular_classifier import load_rows
from headstart.train.batches import ArrayBatches
from headstart.train.callbacks import BaseCallback
from headstart.train.protocol import Epoch
from headstart.train.recipe import PRESETS, Recipe, preset
from headstart.train.training_run import TrainingRun
from headstart.workflows import train_tables
from headstart.workflows.from_scratch import ScratchSettings
from headstart.workflows.picture_statistics import are_grey, own_size
from headstart.workflows.train_images import train_photos
from headstart.workflows.train_tables import _Job, train_rows
from making import Shell, folder, packed, picture, record_of
from trainers import one_thread  # noqa: F401

pytest.importorskip("torch")
pytest.importorskip("sklearn")

QUICK = replace(preset("scratch"), epochs=4, batch_size=16, augmentation="none", learning_rate=5e-3)
QUICK_TABLE = replace(preset("table"), epochs=15)


def few_digits(each: int = 24) -> ImageDataset:
    """So many of three digits."""
    whole = digits()
    rows = [row for k in "017" for row in np.flatnonzero([s.label == k for s in whole.samples])[:each].tolist()]
    return whole.part(rows)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A perceptron for three digits. Not to be changed."""
    return train_photos(few_digits(), network="mlp", hidden=(32,), recipe=QUICK)


# --- rows of numbers --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_iris_in_ten_folds() -> None:
    model = train_rows("iris", folds=10)
    record = record_of(model)
    folds = [fold["value"] for fold in record["folds"]]
    assert [fold["images"] for fold in record["folds"]] == [15] * 10
    assert np.mean(folds) >= 0.95
    assert record["result"]["accuracy"]["images"] == 150
    assert record["result"]["accuracy"]["value"] == pytest.approx(np.mean(folds))
    assert record["parts"]["train"] + record["parts"]["validation"] == 150  # the model itself is trained on all


@pytest.mark.parametrize("trainer", ["lightning", "tensorflow", "keras"])
def test_every_trainer_learns_a_table(trainer: str) -> None:
    pytest.importorskip("tensorflow" if trainer in ("tensorflow", "keras") else "lightning")
    model = train_rows("iris", hidden=(8,), recipe=QUICK_TABLE, trainer=trainer)
    plain = train_rows("iris", hidden=(8,), recipe=QUICK_TABLE)
    values = np.array([[5.0, 3.4, 1.5, 0.2], [6.0, 2.8, 4.5, 1.4]])
    np.testing.assert_allclose(model.predict_proba(values), plain.predict_proba(values), atol=2e-3)
    assert record_of(model)["trainer"] == trainer
    assert record_of(model)["result"]["accuracy"]["value"] >= 0.85


def test_rows_are_scaled_by_the_part_that_is_trained_on() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(100, 1, (30, 2)), rng.normal(104, 1, (30, 2))]) * [1, 1e6]
    model = train_rows(values, ["low"] * 30 + ["high"] * 30, recipe=QUICK_TABLE)
    assert record_of(model)["parts"] == {"train": 40, "validation": 8}
    assert record_of(model)["test"] == 12
    assert record_of(model)["result"]["accuracy"]["value"] >= 0.9
    assert not np.allclose(model.scale.mean, values.mean(axis=0))  # that of 40 rows, not of 60
    assert model.predict(np.array([[100, 100e6], [104, 104e6]])).tolist() == ["low", "high"]


def test_no_fold_has_seen_the_rows_it_is_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    class Noted(ArrayBatches):
        def __init__(self, x: NDArray[Any], y: NDArray[Any], *more: Any, **named: Any) -> None:
            super().__init__(x, y, *more, **named)
            counts.append(self.images)

    monkeypatch.setattr(train_tables, "ArrayBatches", Noted)
    record = record_of(train_rows("iris", recipe=replace(QUICK_TABLE, epochs=1), folds=4))
    in_all = [counts[k] + counts[k + 1] for k in range(0, len(counts), 2)]  # trained on and chosen by
    assert in_all == [*(150 - fold["images"] for fold in record["folds"]), 150]
    assert sum(fold["images"] for fold in record["folds"]) == 150


@pytest.mark.parametrize("seed", range(6))
def test_equal_rows_are_never_on_both_sides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.repeat(rng.normal(0, 1, (20, 3)), 3, axis=0)
    rows = rows_from_arrays(values, rng.integers(0, 2, 60))
    job = _Job.of(rows, mlp(3, (), 2), QUICK_TABLE, ScratchSettings(seed=seed))
    test = job.held_out(np.ones(60, bool), 0.4)
    assert 15 <= test.sum() <= 33
    assert (test.reshape(20, 3) == test.reshape(20, 3)[:, :1]).all()


def test_probabilities_are_calibrated_by_the_validation_part(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[int, ...], int]] = []

    def thrice(scores: NDArray[Any], labels: NDArray[Any]) -> tuple[float, float]:
        asked.append((scores.shape, len(labels)))
        return 3.0, 0.0

    values = np.array([[5.5, 3.0, 3.5, 1.0]])
    monkeypatch.setattr(train_tables, "fit_inverse_temperature", lambda scores, labels: (1.0, 0.0))
    plain = np.log(train_rows("iris", recipe=QUICK_TABLE).predict_proba(values))
    monkeypatch.setattr(train_tables, "fit_inverse_temperature", thrice)
    sharp = np.log(train_rows("iris", recipe=QUICK_TABLE).predict_proba(values))
    np.testing.assert_allclose(np.diff(sharp), 3 * np.diff(plain), rtol=1e-4)
    assert asked == [((18, 3), 18)]  # 15 % of the 120 that are not held out


def test_too_few_rows_of_a_class_are_refused() -> None:
    values = np.arange(24.0).reshape(12, 2)
    with pytest.raises(DataError, match=r"class 'b' has 3 rows that are not alike\. Expected 4 at least"):
        train_rows(values, ["a"] * 9 + ["b"] * 3)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_perceptron_learns_digits(trained: Classifier) -> None:
    record = record_of(trained)
    assert trained.spec.size == 8  # their own
    assert trained.spec.crop == 1
    seen = np.stack([np.asarray(few_digits().read(row)) for row in range(72)]) / 255
    assert trained.spec.mean == pytest.approx([seen.mean()] * 3, abs=0.02)
    assert trained.spec.std == pytest.approx([seen.std()] * 3, abs=0.02)
    assert record["result"]["accuracy"]["value"] >= 0.8
    assert sum(record["scratch"]["images"].values()) == 72
    assert min(record["scratch"]["images"].values()) >= 9
    assert [epoch["number"] for epoch in record["scratch"]["epochs"]] == [0, 1, 2, 3]


def test_a_bundle_of_it_says_the_same(trained: Classifier, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    table = few_digits(6)
    again = hs.load(tmp_path / "model", precision="fp32")
    expected = hs.load(tmp_path / "model", engine="torch", precision="fp32").predict_proba(table)
    np.testing.assert_allclose(again.predict_proba(table), expected, atol=1e-4)
    assert "headstart train DATA --network mlp --hidden 32" in (tmp_path / "model" / "README.md").read_text()


def test_a_convolutional_network_learns_photos_in_colour(tmp_path: Path) -> None:
    data = folder(tmp_path / "photos", 14, kinds=("bars", "discs"))
    model = train_photos(str(data), pixels=16, recipe=replace(QUICK, augmentation="light", epochs=8))
    assert model.spec.size == 16
    assert model.spec.crop < 1
    assert record_of(model)["result"]["accuracy"]["value"] >= 0.5
    assert record_of(model)["scratch"]["recipe"]["augmentation"] == "light"
    assert record_of(model)["backbone"] == "small_cnn"


def test_the_test_photos_are_those_of_fit(photos: Path) -> None:
    fitted = hs.fit(str(photos), seed=3)
    model = train_photos(str(photos), network="mlp", hidden=(), pixels=8, recipe=replace(QUICK, epochs=1), seed=3)
    assert model.fitted_on == fitted.fitted_on
    assert record_of(model)["test"] == record_of(fitted)["test"] > 0


def test_digits_are_not_mirrored_unless_the_recipe_is_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    short = replace(preset("scratch"), epochs=1)
    monkeypatch.setitem(PRESETS, "scratch", short)
    plain = train_photos(few_digits(8), network="mlp", hidden=(), trainer=TrainingRun(say=said.append))
    assert record_of(plain)["scratch"]["recipe"]["augmentation"] == "none"
    assert any("mirrored" in sentence for sentence in said)
    own = train_photos(few_digits(8), network="mlp", hidden=(), recipe=short)
    assert record_of(own)["scratch"]["recipe"]["augmentation"] == short.augmentation != "none"


def test_size_and_colour_are_looked_at() -> None:
    def table_of(*images: Any) -> ImageDataset:
        return ImageDataset("", [], list(images).__getitem__)

    grey, colour = np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8)
    colour[0, 0, 1] = 9
    as_rgb = packed(np.full((8, 8, 3), 7, np.uint8))
    rows = np.arange(2)
    spec = ImageSpec(8, crop=1.0)
    assert own_size(table_of(grey, as_rgb), rows) == 8
    assert own_size(table_of(grey, grey[:, :7]), rows) == own_size(table_of(grey[:, :7], grey[:, :7]), rows) == 0
    assert own_size(table_of(*[np.zeros((65, 65), np.uint8)] * 2), rows) == 0
    assert own_size(table_of(grey, b"no image"), rows) == 8
    assert are_grey(table_of(grey, as_rgb), rows, spec)
    assert are_grey(table_of(grey, b"no image"), rows, spec)
    assert not are_grey(table_of(grey, colour), rows, spec)
    assert not are_grey(table_of(b"no image", b"none"), rows, spec)


def test_grey_pictures_are_one_channel_for_the_network() -> None:
    """A perceptron of one layer has a weight for each pixel and class, as every text book counts them."""
    short = replace(QUICK, epochs=1)
    grey = train_photos(few_digits(8), network="mlp", hidden=(), recipe=short)
    assert grey.weights["logits.weight"].shape == (3, 8 * 8)
    assert grey.record.scratch is not None
    assert grey.record.scratch.moving == 8 * 8 * 3 + 3
    colour = train_photos(few_digits(8), network="mlp", hidden=(), recipe=short, grey=False)
    assert colour.weights["logits.weight"].shape == (3, 3 * 8 * 8)
    cnn = train_photos(few_digits(8), recipe=short)
    assert cnn.weights["conv1.weight"].shape[1] == 1


def test_of_coloured_pictures_the_luma_may_be_asked_for() -> None:
    """A grey network gives a coloured picture and its luma the same answer."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (24, 8, 8, 3), np.uint8)
    labels = ["dark" if k % 2 else "light" for k in range(24)]
    model = train_photos(pictures, labels, network="mlp", hidden=(), recipe=replace(QUICK, epochs=1), grey=True)
    as_grey = np.asarray(pictures @ (0.299, 0.587, 0.114)).round().astype(np.uint8)[..., None].repeat(3, axis=-1)
    assert model.predict_proba(as_grey) == pytest.approx(model.predict_proba(pictures), abs=5e-3)
    assert model.spec.mean == pytest.approx([as_grey.mean() / 255] * 3, abs=0.02)
    assert (
        train_photos(pictures, labels, network="mlp", hidden=(), recipe=QUICK).weights["logits.weight"].shape[1] == 192
    )


def test_no_fold_has_seen_what_it_is_measured_on() -> None:
    """Noise with labels by chance: who has seen a picture knows it by heart, who has not can but guess."""
    rng = np.random.default_rng(5)
    pictures, labels = rng.integers(0, 256, (48, 8, 8, 3), np.uint8), [str(k) for k in rng.integers(0, 2, 48)]
    heart = replace(QUICK, epochs=25, dropout=0.0, label_smoothing=0.0)
    model = train_photos(pictures, labels, network="mlp", hidden=(64,), recipe=heart, folds=2)
    assert 0.2 < record_of(model)["result"]["accuracy"]["value"] < 0.8


def test_folds_measure_every_picture_once() -> None:
    model = train_photos(few_digits(), network="mlp", hidden=(16,), recipe=replace(QUICK, epochs=2), folds=3)
    record = record_of(model)
    assert sum(fold["images"] for fold in record["scratch"]["folds"]) == record["result"]["accuracy"]["images"] == 72
    right = sum(round(fold["value"] * fold["images"]) for fold in record["scratch"]["folds"])
    assert record["result"]["accuracy"]["value"] == pytest.approx(right / 72)
    assert len(model.fitted_on) == 72
    assert record["test_part"] == "cross-validation"


class Stopping(BaseCallback):
    """Ends a training as a system does that runs out of patience."""

    def __init__(self, after: int) -> None:
        self.after = after

    def epoch(self, history: Any) -> str | None:
        """Once so many are done."""
        if len(history) == self.after:
            raise KeyboardInterrupt
        return None


def test_what_was_cut_off_goes_on_bit_by_bit(tmp_path: Path) -> None:
    recipe = replace(QUICK_TABLE, epochs=6, dropout=0.2)
    whole = train_rows("iris", hidden=(8,), recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        train_rows("iris", hidden=(8,), recipe=recipe, trainer=TrainingRun(folder=tmp_path, callbacks=[Stopping(3)]))
    with pytest.raises(UsageError, match="resume=True"):
        train_rows("iris", hidden=(8,), recipe=recipe, trainer=TrainingRun(folder=tmp_path))
    resuming = TrainingRun(folder=tmp_path, resume=True)
    for said, change in (
        ("training: seed 0 there, 1 here, hence another split", {"seed": 1}),
        ("training: holdout 0.2 there, 0.3 here, hence another split", {"holdout": 0.3}),
        ("training: trainer 'pytorch' there, 'lightning' here", {"trainer": replace(resuming, trainer="lightning")}),
        ("training: other rows, columns or labels, hence another split", {"data": "wine"}),
        ("training: another network", {"hidden": (9,)}),
    ):
        with pytest.raises(UsageError, match=said):
            train_rows(**{"data": "iris", "hidden": (8,), "recipe": recipe, "trainer": resuming, **change})  # type: ignore[arg-type]
    resumed = train_rows("iris", hidden=(8,), recipe=recipe, trainer=TrainingRun(folder=tmp_path, resume=True))
    for name, array in whole.weights.items():
        np.testing.assert_array_equal(resumed.weights[name], array, err_msg=name)
    assert [Epoch(**e).val_loss for e in record_of(resumed)["epochs"]] == [
        e["val_loss"] for e in record_of(whole)["epochs"]
    ]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"network": "small_cn"}, "no network 'small_cn' to train from scratch. Did you mean small_cnn"),
        ({"recipe": "careful"}, "Recipe, unfreeze: a training from random weights trains all of the network.*preset"),
        ({"recipe": replace(QUICK, batch_norm="frozen")}, "Recipe, batch_norm: a network with random weights"),
        ({"pixels": 4}, "pixels: from scratch, expected 5 to 512"),
        ({"validation": 0.0}, "validation: expected a share above 0"),
        ({"folds": 1}, "folds: expected 2 to 1000"),
        ({"folds": 3, "trainer": TrainingRun("lightning", devices=2)}, "folds trains on one device"),
        ({"holdout": 2.0}, "holdout"),
        ({"trainer": "jax"}, "no trainer 'jax'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(settings: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=complaint):
        train_photos(str(tmp_path / "not looked at"), **settings)


def test_a_class_without_a_photo_to_validate_with_is_refused(tmp_path: Path) -> None:
    data = folder(tmp_path / "photos", 12, kinds=("bars", "discs"))
    (data / "waves").mkdir()
    for seed in range(2):
        (data / "waves" / f"{seed}.png").write_bytes(packed(picture("waves", seed)))
    with pytest.raises(DataError, match="Class 'waves' has no photo to validate with"):
        train_photos(str(data), pixels=8, recipe=QUICK)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_trains_a_table(tmp_path: Path, shell: Shell) -> None:
    rng = np.random.default_rng(2)
    lines = [f"{rng.normal(4 * (k % 2)):.3f},{rng.normal():.3f},{'ab'[k % 2]}" for k in range(60)]
    data = tmp_path / "rows.csv"
    data.write_text("\n".join(["x,y,kind", *lines]) + "\n")
    recipe = tmp_path / "own.json"
    recipe.write_text(json.dumps({"preset": "table", "epochs": 8}))
    out = tmp_path / "model"
    done = shell("train", data, "--recipe", recipe, "--hidden", "4", "--folds", 3, "--out", out, "--json")
    assert done.code == 0, done.err
    answer = done.json
    assert answer["accuracy"] >= 0.8
    assert answer["tested_on"] == answer["images"] == 60
    assert len(answer["folds"]) == 3
    assert len(answer["epochs"]) == 8
    assert answer["hidden"] == [4]
    assert answer["classes"] == ["a", "b"]
    assert record_of(load_rows(out))["folds"] == record_of(load_rows(answer["model"]))["folds"]
    assert not list(Path(answer["log"]).glob("checkpoint-*"))
    said = shell("predict", out, data)
    assert said.code == 0
    assert len(said.out.splitlines()) == 60
    screen = shell("train", data, "--recipe", recipe, "--out", out, "--overwrite")
    assert screen.code == 0, screen.err
    for word in ("accuracy", "95 % interval", "kept", "curves", f"headstart predict {out} ROWS.csv"):
        assert word in screen.out


def test_the_command_trains_pictures(tmp_path: Path, shell: Shell) -> None:
    data = tmp_path / "digits"
    table = few_digits(12)
    for row, sample in enumerate(table.samples):
        (data / sample.label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(table.read(row))).save(data / sample.label / f"{row}.png")
    recipe = tmp_path / "own.json"
    recipe.write_text(json.dumps({"preset": "scratch", "epochs": 2, "augmentation": "none"}))
    out = tmp_path / "model"
    done = shell(
        "train", data, "--network", "mlp", "--hidden", "none", "--recipe", recipe, "--out", out, "--json"
    )  # fmt: skip
    assert done.code == 0, done.err
    answer = done.json
    assert answer["parts"]["train"] + answer["parts"]["validation"] + answer["tested_on"] == answer["images"] == 36
    assert answer["interval"][0] <= answer["accuracy"] <= answer["interval"][1]
    assert answer["network"] == "mlp"
    assert answer["verdict"]["kind"] == "too early to say"
    said = shell("predict", out, data / "0", "--json")
    assert [json.loads(line)["label"] in "017" for line in said.out.splitlines()] == [True] * 12


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["iris", "--network", "small_cnn"], "table of numbers, which an mlp is trained on"),
        (["iris", "--pixels", "8"], "has no pixels"),
        (["digits", "--label", "x"], "--label names a column"),
        (["digits", "--hidden", "64"], "Add: --network mlp"),
        (["iris", "--hidden", "64,x"], "--hidden: expected units"),
        (["iris", "--hidden", ""], "--hidden: expected one value, or several with commas"),
        (["iris", "--hidden", "8,,4"], "--hidden: expected one value, or several with commas"),
        (["iris", "--recipe", "tabel"], "no recipe 'tabel'. Did you mean table"),
        (["nowhere"], "No such file or folder"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], complaint: str, shell: Shell, tmp_path: Path) -> None:
    done = shell("train", *options, "--out", tmp_path / "model")
    assert done.code == 2
    assert complaint in done.err
    assert not (tmp_path / "model").exists()


def test_presets_for_nothing_move_everything() -> None:
    for name in ("scratch", "table"):
        recipe: Recipe = preset(name)
        assert recipe.unfreeze == "all"
