"""Fine-tuning on photos: judged on photos held out, the test photos unseen, the cut the same as the whole."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
import making
from headstart.backbones.families.small import mlp
from headstart.core.errors import DataError, UsageError
from headstart.data.load import content_key
from headstart.train.callbacks import BaseCallback
from headstart.train.protocol import Epoch, History, Task, Trained
from headstart.train.recipe import Recipe, preset
from headstart.train.training_run import TrainingRun
from headstart.workflows import cross_fit, finetune_data
from headstart.workflows.cross_fit import CrossFit, Judgement, mean_history
from headstart.workflows.finetune import _epochs_to_take
from headstart.workflows.finetune_data import FinetuneData
from making import record_of

PIXELS = 32
TASK = Task(mlp(2, (), 2), {}, {})
QUICK = replace(preset("careful"), epochs=3, batch_size=16, views=2, learning_rate=1e-3, patience=0)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return making.folder(tmp_path_factory.mktemp("many") / "photos", count=20)


@pytest.fixture(scope="module")
def given(many: Path) -> hs.Classifier:
    """Not to be changed."""
    return hs.fit(many, pixels=PIXELS, precision="fp32", seed=3, cache=False)


@pytest.fixture(autouse=True)
def enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """One validation set of few photos; tests of folds ask for `in_folds`."""
    monkeypatch.setattr(finetune_data, "ENOUGH", 1)


@pytest.fixture
def in_folds(enough: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune_data, "ENOUGH", 100)


class Heard(BaseCallback):
    """Takes note of epochs, and ends the process, as it were, at a step."""

    def __init__(self, end_at: int = -1) -> None:
        self.epochs: list[Epoch] = []
        self.end_at = end_at

    def step(self, number: int, of: int, loss: float) -> str | None:
        if number == self.end_at:
            raise KeyboardInterrupt
        return None

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        self.epochs.append(history[-1])
        return None


def same(one: hs.Classifier, other: hs.Classifier) -> bool:
    return all(np.array_equal(array, other.weights[name]) for name, array in one.weights.items())


def unsettle(monkeypatch: pytest.MonkeyPatch, given: hs.Classifier) -> None:
    """One validation set, a start from a head that knows nothing, so that every epoch is better, and a verdict for it.

    The given classifier makes no mistake on these photos, so nothing would come of any fine-tuning.
    """
    blank = {name: array * (not name.startswith("logits")) for name, array in given.weights.items()}
    monkeypatch.setattr(FinetuneData, "with_closed_form_head", lambda *_: blank)
    monkeypatch.setattr(Judgement, "better", property(lambda _: True))


def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Trained]:
    """What every training ends with from now on, before an epoch is chosen."""
    ended: list[Trained] = []
    train = TrainingRun.train

    def listening(self: Any, *arguments: Any) -> Any:
        found = train(self, *arguments)
        ended.append(found[0])
        return found

    monkeypatch.setattr(TrainingRun, "train", listening)
    return ended


# --- what comes back --------------------------------------------------------------------------------------------------


def test_it_comes_back_better_and_says_how(
    given: hs.Classifier, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsettle(monkeypatch, given)
    heard, said, stages = Heard(), list[str](), dict[str, tuple[int, int]]()
    found = given.finetune(
        many,
        recipe=QUICK,
        trainer=TrainingRun(callbacks=[heard], say=said.append),
        progress=lambda stage, done, of: stages.update({stage: (done, of)}),
    )
    story = record_of(found)["finetune"]
    assert story["chosen"] == f"fine-tuned, epoch {story['kept']}"
    assert [epoch["val_loss"] for epoch in story["epochs"]] == [epoch.val_loss for epoch in heard.epochs]
    assert story["after"]["val_calibrated"] == story["tuned_loss"]
    calibrated = record_of(found)["validation"]["nll"]
    assert calibrated == pytest.approx(heard.epochs[story["kept"] - 1].val_calibrated, abs=1e-3)
    assert story["folds"] == 1
    assert story["images"] == {"train": 42, "validation": 6, "test": 12}
    assert story["cut"] == "blocks.4.2.add"
    assert story["views"]["count"] == 2
    assert story["trainer"] == "pytorch"
    assert story["recipe"] == QUICK.to_json()
    assert story["moving"] == sum(
        array.size for name, array in found.weights.items()
        if not np.array_equal(array, given.weights[name])
    )  # fmt: skip
    assert said[0].startswith("2 views of 48 photos where the frozen part ends take")
    assert len(said) == 1
    assert set(stages) == {"features", "views", "refit", "measuring"}
    assert all(done == of for done, of in stages.values())

    assert record_of(found)["result"]["accuracy"]["value"] == story["after"]["accuracy"]
    assert found.evaluate(many).accuracy.value == pytest.approx(story["after"]["accuracy"])
    assert given.evaluate(many).accuracy.value == pytest.approx(story["before"]["accuracy"])
    probabilities = found.predict_proba(many)
    found.save(tmp_path / "model")
    again = hs.load(tmp_path / "model")
    np.testing.assert_allclose(again.predict_proba(many), probabilities, atol=1e-5)
    assert record_of(again)["finetune"] == story
    settled = {part: record_of(given)["head"][part] for part in ("kind", "prior")}
    assert record_of(again)["head"]["settled"] == settled != {part: record_of(again)["head"][part] for part in settled}
    second = again.finetune(many, recipe=QUICK, trainer=TrainingRun(say=said.append))
    assert any("trained before on 6 of the 6 photos that it is judged by" in sentence for sentence in said)
    assert record_of(second)["head"]["settled"] == settled  # what a second one begins with too
    assert "fine-tun" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8").lower()


def test_what_is_frozen_stays_bit_by_bit(given: hs.Classifier, many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unsettle(monkeypatch, given)
    found = given.finetune(many, recipe=QUICK)
    moved = {name for name, array in found.weights.items() if not np.array_equal(array, given.weights[name])}
    assert moved
    assert all(name.startswith(("blocks.5.", "blocks.6.", "conv_head.", "bn2.", "logits.")) for name in moved)
    assert not any(name.endswith((".mean", ".var")) for name in moved)


def test_it_is_never_worse_than_what_was_given(given: hs.Classifier, many: Path) -> None:
    ruin = replace(QUICK, optimiser="sgd", learning_rate=10, clip=0.0, warm_up=0.0)
    found = given.finetune(many, recipe=ruin)
    story = record_of(found)["finetune"]
    assert story["chosen"] == "the given model"
    assert story["kept"] == 0
    assert story["before"] == story["after"]
    assert story["p"] == 1
    assert same(found, given)
    assert record_of(found)["result"] == record_of(given)["result"]
    assert "finetune" not in record_of(given)


def test_the_test_photos_are_never_trained_on(given: hs.Classifier, many: Path) -> None:
    found = given.finetune(many, recipe=replace(QUICK, epochs=1))
    assert found.fitted_on == given.fitted_on
    assert record_of(found)["test"] == record_of(given)["test"]


def test_photos_of_a_fit_are_never_tested_on_whatever_the_seed(given: hs.Classifier, many: Path) -> None:
    keys = {content_key(path.read_bytes()) for path in many.rglob("*.png")}
    story = record_of(given.finetune(many, recipe=replace(QUICK, epochs=1), seed=4))["finetune"]
    unseen = len(keys - given.fitted_on)
    assert 0 < story["images"]["test"] <= unseen


def test_other_photos_of_the_same_classes_may_be_trained_on(given: hs.Classifier, tmp_path: Path) -> None:
    more = making.folder(tmp_path / "more", count=12, start=100)
    found = given.finetune(more, recipe=replace(QUICK, epochs=1, learning_rate=1e-4))
    assert record_of(found)["finetune"]["images"]["test"] == 6
    if record_of(found)["finetune"]["kept"]:
        assert found.fitted_on > given.fitted_on


def test_a_head_alone_is_trained_on_its_features(given: hs.Classifier, many: Path) -> None:
    story = record_of(given.finetune(many, recipe=replace(QUICK, unfreeze="head")))["finetune"]
    assert story["cut"] == "features"
    assert story["moving"] == 3 * 2432 + 3


# --- the cut is the whole ---------------------------------------------------------------------------------------------


def test_from_the_cut_or_through_the_whole_the_weights_are_the_same(
    given: hs.Classifier, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = replace(
        QUICK, optimiser="sgd", learning_rate=0.01, augmentation="none", precision="fp32", averaging="none",
        weight_decay=0.0,
    )  # fmt: skip
    unsettle(monkeypatch, given)
    ended = trainings(monkeypatch)
    cut = given.finetune(many, recipe=plain, refit=False)
    monkeypatch.setattr(finetune_data, "cut_at", lambda blueprint, rates: "input")
    whole = given.finetune(many, recipe=plain, refit=False)
    assert (record_of(cut)["finetune"]["cut"], record_of(whole)["finetune"]["cut"]) == ("blocks.4.2.add", "")
    ours, theirs = (record_of(each)["finetune"]["epochs"] for each in (cut, whole))
    assert [e["val_loss"] for e in ours] == pytest.approx([e["val_loss"] for e in theirs], rel=2e-3)
    upper, all_of_it = (each.last for each in ended)
    assert upper is not None
    assert all_of_it is not None
    trunk = [name for name in upper if "logits" not in name]
    step = max(np.abs(all_of_it[name] - given.weights[name]).max() for name in trunk)
    apart = max(np.abs(all_of_it[name] - upper[name]).max() for name in trunk)
    assert apart < 0.05 * step  # activations are kept in float16


def test_the_validation_photos_are_trained_on_in_the_end(
    given: hs.Classifier, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the given weights on, as long as the first training, which tells how sure it may be."""
    seen: list[tuple[int, float, int]] = []
    train = TrainingRun.train

    def listening(self: Any, task: Any, batches: Any, validation: Any, *more: Any) -> Any:
        found = train(self, task, batches, validation, *more)
        seen.append((batches.images, len(found[0].history.losses) / batches.steps, found[1].epochs))
        return found

    unsettle(monkeypatch, given)
    monkeypatch.setattr(TrainingRun, "train", listening)
    recipe = replace(QUICK, epochs=1)  # of which the last is the best
    again = given.finetune(many, recipe=recipe)
    once = given.finetune(many, recipe=recipe, refit=False)
    assert seen == [(42, 1, 1), (48, 1, 1), (42, 1, 1)]
    assert (record_of(again)["finetune"]["refit"], record_of(once)["finetune"]["refit"]) == (True, False)
    assert record_of(again)["validation"] == pytest.approx(record_of(once)["validation"], rel=1e-6)
    assert record_of(again)["head"]["temperature"] == pytest.approx(record_of(once)["head"]["temperature"], rel=1e-6)
    assert not same(again, once)


def test_it_is_trained_once_more_only_as_long_as_was_good(
    given: hs.Classifier, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here to the epoch after which a callback has enough: the schedule is laid over as many."""
    seen: list[tuple[int, int]] = []
    train = TrainingRun.train

    def listening(self: Any, *task: Any) -> Any:
        trained, recipe = train(self, *task)
        seen.append((recipe.epochs, len(trained.history.epochs)))
        return trained, recipe

    class Enough(BaseCallback):
        def epoch(self, history: Sequence[Epoch]) -> str | None:
            return "Enough." if len(history) == 2 else None

    unsettle(monkeypatch, given)
    monkeypatch.setattr(TrainingRun, "train", listening)
    story = record_of(given.finetune(many, recipe=replace(QUICK, epochs=4), trainer=TrainingRun(callbacks=[Enough()])))[
        "finetune"
    ]
    best = story["best"] + 1
    assert best > 0
    assert seen == [(4, 2), (best, best)]
    assert story["chosen"] == f"fine-tuned, epoch {best}"


@pytest.mark.parametrize("loss", [None, "rises"])
def test_a_refit_that_diverges_is_said_and_the_first_training_counts(
    loss: str | None, given: hs.Classifier, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, said = TrainingRun.train, list[str]()

    def second_diverges(self: Any, *arguments: Any) -> Any:
        found, recipe = train(self, *arguments)
        if not self.quiet:
            return found, recipe
        if loss is None:  # it ended in no numbers, before an epoch was over
            return replace(
                found, last=None, history=replace(found.history, epochs=(), stopped="Step 2: no number.")
            ), recipe
        rising = tuple(Epoch(n, 0.1 + n, 0.5, float("nan"), 0.5, 1e-3, 1.0) for n in range(6))
        return replace(found, history=replace(found.history, epochs=rising)), recipe

    unsettle(monkeypatch, given)
    monkeypatch.setattr(TrainingRun, "train", second_diverges)
    recipe = replace(QUICK, epochs=1)
    found = given.finetune(many, recipe=recipe, trainer=TrainingRun(say=said.append))
    assert any("went wrong; the first training counts" in sentence for sentence in said)
    assert record_of(found)["finetune"]["refit"] is False
    assert same(found, given.finetune(many, recipe=recipe, refit=False))


def trained(*losses: float, start: float = 1.0, best: int) -> Trained:
    """A training by the calibrated validation losses of its epochs."""
    epochs = tuple(Epoch(n, 0.1, 0.1, loss, 0.1, 1e-3, 1.0, loss) for n, loss in enumerate(losses))
    weights = ({"of": np.float32(number) * np.ones(1, np.float32)} for number in (best, len(losses) - 1))
    return Trained(next(weights), History("", epochs, (), best, "", start), next(weights))


@pytest.mark.parametrize(
    ("fits", "again", "epochs"),
    [
        ([trained(0.9, 0.7, 0.72, best=1)], True, 3),
        ([trained(0.9, 0.7, 0.72, best=1)], False, 2),
        ([trained(0.9, 0.7, 1.2, best=1)], True, 2),  # the last is worse than the start
        ([trained(1.2, 1.3, best=-1)], False, 0),
        ([replace(trained(0.9, 0.7, 0.72, best=1), last=None)], True, 2),  # it ended in no numbers
        ([trained(0.9, 0.7, 1.2, best=1)] * 2, True, 3),  # few photos do not choose among the epochs
        ([trained(0.9, 0.7, 1.2, best=1)] * 2, False, 3),
        ([trained(0.9, 0.7, best=1), trained(0.5, 0.9, 1.9, best=0)], True, 2),  # as far as both went
        ([replace(trained(0.9, 0.7, 0.8, best=1), last=None)] * 2, True, 2),
    ],
)
def test_the_last_epoch_counts_where_it_went_well(fits: list[Trained], again: bool, epochs: int) -> None:
    history = mean_history(fits, [30] * len(fits))
    found = CrossFit(tuple(fits), history, QUICK)
    record = TrainingRun().record(replace(fits[0], history=history), QUICK, TASK, 60, 3)
    assert _epochs_to_take(found, record, again=again) == epochs
    kept = found.weights_after(epochs)
    if kept is not None and epochs:
        assert [each["of"].tolist() for each in kept] == [[epochs - 1]] * len(fits)


def test_the_mean_of_several_trainings_is_weighted_by_what_they_held_out() -> None:
    one, other = trained(0.9, 0.6, 0.3, start=1.0, best=2), trained(0.5, 1.0, start=2.0, best=0)
    mean = mean_history([one, other], [30, 10])
    assert [epoch.val_loss for epoch in mean.epochs] == pytest.approx([0.8, 0.7])
    assert [epoch.seconds for epoch in mean.epochs] == [2, 2]
    assert (mean.start, mean.best) == (1.25, 1)
    assert mean_history([one], [30]) is one.history
    stopped = replace(other, history=replace(other.history, stopped="Enough."))
    assert mean_history([one, stopped], [1, 1]).stopped == "Enough."


# --- few photos -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_folds")
def test_few_photos_are_all_held_out_in_turn(given: hs.Classifier, many: Path) -> None:
    """Temperature and threshold come from all 48 photos, each of which one training has not seen."""
    seen: list[tuple[str, int, int]] = []
    found = given.finetune(many, recipe=replace(QUICK, epochs=1), progress=lambda *what: seen.append(what))
    story = record_of(found)["finetune"]
    assert story["folds"] == 5
    assert story["images"] == {"train": 48, "validation": 48, "test": 12}
    assert {stage for stage, _, _ in seen} >= {"features", "views", "folds", "measuring"}
    bar = [(done, of) for stage, done, of in seen if stage == "folds"]
    assert bar == [(done, len(bar)) for done in range(1, len(bar) + 1)]  # one bar for the four after the first
    assert len(bar) % 4 == 0
    assert story["tuned_loss"] is not None


@pytest.mark.usefixtures("in_folds")
def test_no_training_sees_what_it_holds_out(given: hs.Classifier, many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a head is fitted without it, groups stay whole, and the given classifier is asked of the same photos."""
    data = FinetuneData.of(given, many, cache=False)
    assert len(data.folds) == 5
    train = np.flatnonzero(data.split.train)
    assert sorted(data.held_out.tolist()) == train.tolist()
    fitted: list[np.ndarray[Any, Any]] = []
    closed_form = FinetuneData.closed_form

    def spy(self: Any, classifier: Any, rows: Any) -> Any:
        fitted.append(rows)
        return closed_form(self, classifier, rows)

    monkeypatch.setattr(FinetuneData, "closed_form", spy)
    for fold in data.folds:
        beside = data.beside(fold)
        assert not set(beside) & set(fold)
        assert not set(data.split.groups[beside]) & set(data.split.groups[fold])
        assert np.bincount(data.split.labels[beside]).min() >= 2
        data.with_closed_form_head(given, fold)
        assert fitted.pop().tolist() == beside.tolist()


def test_as_many_are_held_out_as_are_enough(given: hs.Classifier, many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for enough, folds in ((7, 1), (9, 1), (19, 2), (48, 5), (1000, 5)):  # 6 photos in a validation set, 9 in a fold
        monkeypatch.setattr(finetune_data, "ENOUGH", enough)
        data = FinetuneData.of(given, many)
        assert len(data.folds) == folds, enough
        assert len(data.held_out) >= min(enough, 48)
    monkeypatch.setattr(finetune_data, "ENOUGH", 6)
    assert len(FinetuneData.of(given, many).held_out) == 6


@pytest.mark.usefixtures("in_folds")
def test_three_photos_of_a_class_are_held_out_in_three_folds(given: hs.Classifier, tmp_path: Path) -> None:
    few = making.folder(tmp_path / "few", count=12, start=300)
    for seed in range(304, 312):
        (few / making.SHAPES[1] / f"{seed}.png").unlink()
    data = FinetuneData.of(given, few)
    rows = np.flatnonzero(data.split.train & (data.split.labels == 1))
    assert len(rows) == 3
    assert len(data.folds) == 3
    assert [len(np.intersect1d(rows, fold)) for fold in data.folds] == [1, 1, 1]


@pytest.mark.usefixtures("in_folds")
@pytest.mark.parametrize(("given_loss", "chosen"), [(9.0, "fine-tuned, epoch 2"), (1e-9, "the given model")])
def test_what_does_better_on_held_out_photos_is_chosen(
    given_loss: float, chosen: str, given: hs.Classifier, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, given_loss])
    monkeypatch.setattr(cross_fit, "nll_of", lambda *_: next(losses))
    found = given.finetune(many, recipe=replace(QUICK, epochs=2))
    story = record_of(found)["finetune"]
    assert (story["chosen"], story["before"]["val_calibrated"]) == (chosen, given_loss)
    assert story["tuned_loss"] == 1.0
    assert story["after"]["val_calibrated"] == min(1.0, given_loss)
    assert same(found, given) == (chosen == "the given model")
    assert story["refit"] == (chosen != "the given model")
    if story["kept"]:
        assert record_of(found)["validation"]["images"] == 48
        assert found.unknown is not None
        assert len(found.unknown.sure) == len(found.unknown.near) == 48


@pytest.mark.slow
def test_trainings_that_went_wrong_are_done_again_in_as_many_epochs_as_were_good(
    given: hs.Classifier, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune_data, "ENOUGH", 19)  # which two folds of five hold out
    said: list[str] = []
    seen: list[tuple[int, int]] = []
    train = TrainingRun.train

    def overfitting(self: Any, task: Any, batches: Any, validation: Any, recipe: Any, *more: Any) -> Any:
        found, recipe = train(self, task, batches, validation, recipe, *more)
        seen.append((recipe.epochs, batches.images))
        if validation is None or recipe.epochs < 8:
            return found, recipe
        rising = enumerate((0.5, 0.2, 0.6, 0.9, 1.3, 1.7, 2.0, 2.3))
        epochs = tuple(Epoch(n, 1 / (n + 1), 0.1 / (n + 1), loss, 0.1, 1e-3, 1.0, loss) for n, loss in rising)
        return replace(found, history=replace(found.history, epochs=epochs, start=1.0, best=0)), recipe

    monkeypatch.setattr(TrainingRun, "train", overfitting)
    monkeypatch.setattr(Judgement, "better", property(lambda _: True))
    found = given.finetune(many, recipe=replace(QUICK, epochs=8), trainer=TrainingRun(say=said.append))
    story = record_of(found)["finetune"]
    assert [epochs for epochs, _ in seen] == [8] * 2 + [2] * 2 + [2]
    assert seen[-1] == (2, 48)
    assert story["chosen"] == "fine-tuned, epoch 2"
    assert story["verdict"]["kind"] == "overfitting"
    assert sum("Overfitting" in sentence for sentence in said) == 1


def test_full_moves_all_and_needs_no_views(given: hs.Classifier, many: Path) -> None:
    full = replace(preset("full"), epochs=1, batch_size=16, augmentation="flips")
    said: list[str] = []
    story = record_of(given.finetune(many, recipe=full, trainer=TrainingRun(say=said.append)))["finetune"]
    assert (story["cut"], story["views"]["count"]) == ("", 0)
    assert story["moving"] == sum(given.blueprint.parameters().values())
    assert not any("view" in sentence for sentence in said)


@pytest.mark.slow
def test_a_model_that_is_to_be_robust_is_judged_under_attack(
    given: hs.Classifier, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The given one makes no mistake on the photos as they are, but does where they are attacked."""
    robust = replace(preset("robust"), epochs=2, batch_size=16, augmentation="none", adversarial=8.0)
    ended = trainings(monkeypatch)
    found = given.finetune(many, recipe=robust, refit=False)
    story, first = found.record.finetune, ended[0].history
    assert story is not None
    assert story.before.val_calibrated == first.start
    assert story.tuned_loss == first.epochs[story.kept - 1].val_calibrated < first.start
    assert story.recipe["adversarial"] == 8.0
    clean = given.finetune(many, recipe=replace(robust, adversarial=0.0), refit=False).record.finetune
    assert clean is not None
    assert clean.before.val_calibrated < first.start


@pytest.mark.parametrize("trainer", ["lightning", pytest.param("tensorflow", marks=pytest.mark.slow), "keras"])
def test_every_trainer_comes_to_the_same(
    trainer: str, given: hs.Classifier, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held against each other before an epoch is chosen: by six photos, rounding would choose."""
    ended = trainings(monkeypatch)
    exact = replace(QUICK, epochs=2, precision="fp32")
    one, other = (given.finetune(many, recipe=exact, trainer=each, refit=False) for each in ("pytorch", trainer))
    assert record_of(other)["finetune"]["trainer"] == trainer
    for ours, theirs in zip(*(record_of(each)["finetune"]["epochs"] for each in (one, other)), strict=True):
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=0.05, abs=2e-3)  # AdamW magnifies rounding
    said = [
        replace(given, weights={**given.weights, **each.last}).predict_proba(many)
        for each in ended
        if each.last is not None
    ]
    np.testing.assert_allclose(said[1], said[0], atol=0.02)


# --- interruptions and rates ------------------------------------------------------------------------------------------


def test_a_resumed_fine_tuning_is_the_uninterrupted_one(given: hs.Classifier, many: Path, tmp_path: Path) -> None:
    whole = given.finetune(many, recipe=QUICK)
    with pytest.raises(KeyboardInterrupt):
        given.finetune(many, recipe=QUICK, trainer=TrainingRun(folder=tmp_path / "run", callbacks=[Heard(end_at=7)]))
    with pytest.raises(UsageError, match="unfinished training"):
        given.finetune(many, recipe=QUICK, trainer=TrainingRun(folder=tmp_path / "run"))
    with pytest.raises(UsageError, match="epochs 3 there, 4 here"):
        given.finetune(many, recipe=replace(QUICK, epochs=4), trainer=TrainingRun(folder=tmp_path / "run", resume=True))
    resuming = TrainingRun(folder=tmp_path / "run", resume=True)
    with pytest.raises(UsageError, match="training: seed 3 there, 1 here, hence another split"):
        given.finetune(many, recipe=QUICK, trainer=resuming, seed=1)
    with pytest.raises(UsageError, match="training: trainer 'pytorch' there, 'lightning' here"):
        given.finetune(many, recipe=QUICK, trainer=replace(resuming, trainer="lightning"))
    fewer = shutil.copytree(many, tmp_path / "fewer")
    next(fewer.rglob("*.png")).unlink()
    with pytest.raises(UsageError, match="training: other photos or labels, hence another split"):
        given.finetune(fewer, recipe=QUICK, trainer=resuming)
    scaled = {name: np.asarray(array) * np.float32(1.01) for name, array in given.weights.items()}
    with pytest.raises(UsageError, match="training: another model to begin with"):
        replace(given, weights=scaled).finetune(many, recipe=QUICK, trainer=resuming)
    heard = Heard()
    found = given.finetune(
        many, recipe=QUICK, trainer=TrainingRun(folder=tmp_path / "run", resume=True, callbacks=[heard])
    )
    assert [epoch.number for epoch in heard.epochs] == [2]
    assert same(found, whole)
    assert (tmp_path / "run" / "training-2.csv").read_text(encoding="utf-8").count("\n") == 4


@pytest.mark.slow
def test_the_rate_may_be_looked_for_first(given: hs.Classifier, many: Path) -> None:
    said: list[str] = []
    found = given.finetune(many, recipe=replace(QUICK, epochs=1), trainer=TrainingRun(find_rate=True, say=said.append))
    story = record_of(found)["finetune"]
    assert any(sentence.startswith(f"Learning rate {story['rate']:.2g}: the loss falls fastest") for sentence in said)
    assert story["recipe"]["learning_rate"] == story["rate"] != QUICK.learning_rate


# --- what is wrong ----------------------------------------------------------------------------------------------------


def test_what_was_not_fitted_has_nothing_to_begin_with(many: Path) -> None:
    with pytest.raises(UsageError, match=r"Fit one first: hs\.fit\(PHOTOS\)"):
        hs.pretrained("efficientnet_lite0", pixels=64).finetune(many)


def test_other_classes_are_refused(given: hs.Classifier, tmp_path: Path) -> None:
    two = making.folder(tmp_path / "two", kinds=making.SHAPES[:2])
    with pytest.raises(DataError, match=f"3 classes.*Received: 2 classes, too few of '{making.SHAPES[2]}'"):
        given.finetune(two)
    four = making.folder(tmp_path / "four")
    (four / making.SHAPES[0]).rename(four / "crosses")
    with pytest.raises(DataError, match="'crosses', which it does not know"):
        given.finetune(four)


def test_a_class_without_a_validation_photo_is_named(given: hs.Classifier, tmp_path: Path) -> None:
    few = making.folder(tmp_path / "few", count=10, start=200)
    for seed in range(202, 210):
        (few / making.SHAPES[1] / f"{seed}.png").unlink()
    with pytest.raises(DataError, match=f"Class '{making.SHAPES[1]}' has no photo to validate with: two are needed"):
        given.finetune(few)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"recipe": "carefull"}, "no recipe 'carefull'. Did you mean careful"),
        ({"trainer": "torch"}, "no trainer 'torch'"),
        ({"trainer": TrainingRun("pytorch", devices=2)}, "Several are Lightning's"),
        ({"trainer": TrainingRun(devices=0)}, "at least one device"),
        ({"trainer": TrainingRun(resume=True)}, "name the folder of its checkpoints"),
        ({"trainer": TrainingRun(device="tpu")}, "tpu"),
        ({"recipe": Recipe(unfreeze="blocks.9")}, "no layer or stage 'blocks.9'"),
        ({"holdout": 2.0}, "expected a share from 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: Any, said: str, given: hs.Classifier, many: Path) -> None:
    with pytest.raises(UsageError, match=said):
        given.finetune(many, **settings)
