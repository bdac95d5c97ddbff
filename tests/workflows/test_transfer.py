"""A small network from random weights beside a classifier: on its training photos, measured on its test photos."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import headstart as hs
from headstart.core.types import Sample
from headstart.data.named_sets import digits
from headstart.model.held_out import held_out
from headstart.workflows import transfer as module
from headstart.workflows.transfer import in_words
from making import folder, packed, picture
from trainers import one_thread  # noqa: F401

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model(small_bundle: Path) -> hs.Classifier:
    return hs.load(small_bundle)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[[], hs.Classifier]:
    """The small network of the latest comparison."""
    kept: list[hs.Classifier] = []

    def keep(*args: Any, **kwargs: Any) -> hs.Classifier:
        kept.append(hs.train_photos(*args, **kwargs))
        return kept[-1]

    monkeypatch.setattr(module, "train_photos", keep)
    return lambda: kept[-1]


def test_both_have_the_same_training_and_test_photos(
    model: hs.Classifier, photos: Path, trained: Callable[[], hs.Classifier]
) -> None:
    stages: list[str] = []
    found = hs.from_scratch(model, photos, epochs=1, progress=lambda stage, _, of: stages.append(stage))
    small, measured = trained(), model.evaluate(photos, progress=False).accuracy
    assert small.fitted_on == model.fitted_on
    assert (found.network, found.frozen) == ("small_cnn", measured)
    assert (found.accuracy.images, small.record.test) == (measured.images, measured.images)
    assert small.record.result is not None
    assert found.accuracy.value == small.record.result.accuracy.value
    assert small.record.scratch is not None
    assert (small.spec.size, small.record.scratch.recipe["epochs"]) == (32, 1)
    assert stages[0] == "reading"
    assert "training" in stages
    assert f"{found.frozen.value:.1%} against {found.accuracy.value:.1%}" in found.sentence


def test_a_test_part_of_the_source_stays_one(tmp_path: Path, trained: Callable[[], hs.Classifier]) -> None:
    folder(tmp_path / "train", 8)
    folder(tmp_path / "test", 3, start=300)
    folder(tmp_path / "train", 1, start=300)  # each is in the test part too
    (tmp_path / "train" / "bars" / "both.png").write_bytes(packed(picture("waves", 700)))
    (tmp_path / "train" / "waves" / "both.png").write_bytes(packed(picture("waves", 700)))
    (tmp_path / "test" / "bars" / "broken.png").write_bytes(b"no photo")
    model = hs.fit(tmp_path, pixels=32, cache=False, progress=False)
    found = hs.from_scratch(model, tmp_path, epochs=1, progress=False)
    assert trained().fitted_on == model.fitted_on
    assert found.accuracy.images == found.frozen.images == model.evaluate(tmp_path, progress=False).accuracy.images > 5


def test_what_is_trained_on_names_no_file_of_another_photo(tmp_path: Path) -> None:
    """In a tar each is a part of one file, and the training and test photos are in another order."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for k in range(4):
            (info := tarfile.TarInfo(f"{'ab'[k % 2]}/{k}.jpg")).size = 1
            tar.addfile(info, io.BytesIO(b"%d" % k))
    dataset = hs.open_source(tmp_path / "a.tar")
    held: Any = SimpleNamespace(photos=dataset.part([0]))
    found = module._split_alike(dataset, np.array([3, 1, 2]), held)
    assert [found.read(k) for k in range(4)] == [b"3", b"1", b"2", b"0"]
    assert (found.files, found.spans) == (None, None)


def test_small_pictures_are_trained_on_as_they_are(trained: Callable[[], hs.Classifier]) -> None:
    every = digits()
    few = every.part([row for k in "01" for row in np.flatnonzero([s.label == k for s in every.samples])[:20].tolist()])
    model = hs.fit(few, pixels=32, cache=False, progress=False)
    hs.from_scratch(model, few, progress=False)
    scratch = trained().record.scratch
    assert scratch is not None
    assert (trained().spec.size, scratch.recipe["augmentation"], scratch.recipe["epochs"]) == (8, "none", 30)


def test_many_photos_take_few_epochs(
    model: hs.Classifier, photos: Path, trained: Callable[[], hs.Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VIEWS", 4 * len(model.fitted_on) + 1)
    hs.from_scratch(model, photos, progress=False)
    scratch = trained().record.scratch
    assert scratch is not None
    assert scratch.recipe["epochs"] == 4


def test_a_photo_that_the_small_network_cannot_know_counts_as_wrong(model: hs.Classifier, photos: Path) -> None:
    """Its classes may be fewer, where near copies leave one too few; none of its answers is another class's place."""
    few = model.evaluate(photos, progress=False).accuracy.images
    held = held_out(model, hs.open_source(photos), 99, 0)
    other = hs.fit(hs.open_source(photos).part([*range(24)]), pixels=32, cache=False, progress=False)
    assert other.classes == ("bars", "discs")
    found = module.compared(model.network, other, held)
    waves = sum(sample.label == "waves" for sample in held.photos.samples)
    assert found.accuracy.images == few
    assert waves > 0
    assert found.accuracy.value <= 1 - waves / few


def test_other_photos_than_those_of_the_fit_are_refused(model: hs.Classifier, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(hs.DataError, match=r"Received: 0 of those \d+ in .*Give the photos that it was fitted on\."):
        hs.from_scratch(model, folder(tmp_path, 3, start=500), progress=False)
    with pytest.raises(hs.DataError, match="Expected the photos that the model was fitted on"):
        hs.from_scratch(model, hs.open_source(photos).part([*range(30)]), progress=False)


def test_a_model_from_scratch_is_refused(photos: Path) -> None:
    recipe = {"preset": "scratch", "epochs": 1}
    small = hs.train_photos(photos, network="mlp", hidden=(), pixels=8, recipe=recipe, progress=False)
    with pytest.raises(hs.UsageError, match="itself trained from random weights"):
        hs.from_scratch(small, photos)


def test_words() -> None:
    figures = "98.6% against 71.0% of a small network trained from random weights on the same photos"
    assert in_words(0.986, 0.71, 0.001) == f"The transfer worked: {figures}."
    assert in_words(0.986, 0.71, 0.3) == f"The transfer makes no clear difference: {figures}."
    assert in_words(0.6, 0.71, 0.001).startswith("The transfer did not work: 60.0% against 71.0%")


def test_a_sample_keeps_its_group(model: hs.Classifier, photos: Path) -> None:
    dataset = hs.open_source(photos)
    rows, found = module.trained_on(model, dataset), held_out(model, dataset, 99, 0)
    grouped = [Sample(sample.name, sample.label, group="one") for sample in found.photos.samples]
    object.__setattr__(found.photos, "samples", grouped)
    both = module._split_alike(dataset, rows, found)
    assert [sample.split for sample in both.samples] == ["train"] * len(rows) + ["test"] * len(grouped)
    assert {sample.group for sample in both.samples[len(rows) :]} == {"one"}
    assert both.read(len(rows)) == dataset.read([s.name for s in dataset.samples].index(grouped[0].name))
    assert both.own_test == "test"
