"""The accuracy on photos that were made worse: of the photos that `evaluate` counts, the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import headstart as hs
from headstart.data.sources import open_source
from headstart.diagnose.corruptions import CORRUPTIONS, corrupt
from headstart.model.held_out import held_out
from making import folder, picture


@pytest.fixture(scope="module")
def model(small_bundle: Path) -> hs.Classifier:
    return hs.load(small_bundle)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("others"), 6, start=300)


def test_each_kind_is_measured_at_each_strength_on_the_photos_of_evaluate(
    model: hs.Classifier, others: Path, photos: Path
) -> None:
    seen: list[tuple[str, int, int]] = []
    found = hs.corrupted(model, others, strengths=(5, 1), progress=lambda *done: seen.append(done))
    assert [(each.kind, each.strength) for each in found] == [(kind, level) for kind in CORRUPTIONS for level in (1, 5)]
    measured = model.evaluate(others, progress=False).accuracy
    assert {(each.accuracy.images, each.accuracy.groups) for each in found} == {(measured.images, measured.groups)}
    assert measured.groups is not None
    assert [each for each in seen if each[0] == "corruptions"] == [("corruptions", k + 1, 10) for k in range(10)]
    again = hs.corrupted(model, photos, strengths=1, progress=False)
    assert {each.accuracy.images for each in again} == {model.evaluate(photos, progress=False).accuracy.images}


def test_the_answers_are_those_for_the_photos_made_worse(model: hs.Classifier, others: Path) -> None:
    found = {each.kind: each for each in hs.corrupted(model, others, strengths=5, seed=3, progress=False)}
    photos = held_out(model, open_source(others), 99, 3)
    for kind in ("noise", "rotation"):
        worse = np.stack([corrupt(kind, image, 5, 3) for image in photos.images])
        right = model.predict_proba(worse, crop=False).argmax(axis=1) == photos.labels
        assert found[kind].accuracy.value == right.mean()
    assert found["noise"].accuracy.value < found["rotation"].accuracy.value  # strong noise at 32 pixels


def test_a_few_photos_are_a_share_of_each_class(model: hs.Classifier, others: Path) -> None:
    assert hs.corrupted(model, others, images=3, strengths=1, progress=False)[0].accuracy.images == 3


def test_photos_of_the_training_set_alone_are_a_sentence(model: hs.Classifier, photos: Path) -> None:
    trained = [sample.name for sample in open_source(photos).samples]
    rest = {*held_out(model, open_source(photos), 99, 0).names}
    names = [name for name in trained if name not in rest]
    with pytest.raises(hs.DataError, match="can be counted"):
        hs.corrupted(model, [photos / name for name in names], [Path(name).parts[0] for name in names])


def test_labels_of_another_type_are_the_models() -> None:
    pictures = np.stack([picture(kind, seed, size=32) for seed in range(12) for kind in ("bars", "discs")])
    model = hs.fit(pictures, np.arange(24) % 2, pixels=32, holdout=0, cache=False, progress=False)
    new = np.stack([picture(kind, seed, size=32) for seed in range(300, 304) for kind in ("bars", "discs")])
    (found, *_) = hs.corrupted(model, new, np.arange(8) % 2 * 1.0, strengths=1, progress=False)
    assert found.accuracy.images > 0
