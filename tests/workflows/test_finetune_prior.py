"""Fine-tuning on classes of unequal size: what the classifier expected of them before, it expects after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import headstart as hs
import making
from headstart.train.recipe import preset
from headstart.train.training_run import TrainingRun
from headstart.workflows import finetune_data
from headstart.workflows.cross_fit import FinetuneJob
from headstart.workflows.finetune_data import BIAS, FinetuneData, FinetuneStart, upper_part

RECIPE = replace(preset("fast"), epochs=1, views=1)
FEW, MANY = 8, 24


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = making.folder(tmp_path_factory.mktemp("unequal") / "photos", count=MANY)
    for photo in sorted((path / "bars").iterdir())[FEW:]:
        photo.unlink()
    return path


@pytest.mark.parametrize(("head", "prior"), [("lda", "flat"), ("lda", "empirical"), ("ridge", "flat")])
def test_a_training_is_given_the_shares_of_the_classes_and_loses_them_in_the_end(
    unequal: Path, head: str, prior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune_data, "ENOUGH", 1)  # one validation set, one training
    given = hs.fit(unequal, pixels=32, precision="fp32", head=head, prior=prior, holdout=0, cache=False)
    photos = FinetuneData.of(given, unequal, None, cache=False)
    counts = np.bincount(photos.split.labels)
    shares = np.log(counts / counts.sum()) if (head, prior) == ("lda", "flat") else np.zeros(3)
    np.testing.assert_allclose(photos.weights_to_train(given)[BIAS] - given.weights[BIAS], shares, atol=1e-5)
    apart = photos.with_closed_form_head(given, photos.folds[0])[BIAS]
    plain = photos.closed_form(given, photos.beside(photos.folds[0])).head.bias
    np.testing.assert_allclose(apart - plain, shares, atol=1e-5)

    inputs = upper_part(photos, FinetuneStart.of(given, RECIPE), cache=False, say=lambda _: None, progress=None)
    job = FinetuneJob(given, photos, inputs, TrainingRun.of("pytorch"))
    np.testing.assert_allclose(
        np.asarray(job.network(dict(inputs.task.weights)).weights[BIAS]), np.asarray(given.weights[BIAS]), atol=1e-5
    )


@pytest.mark.parametrize("prior", ["flat", "empirical"])
def test_the_record_has_the_prior_of_the_fit(unequal: Path, prior: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune_data, "ENOUGH", 1)  # one validation set, one training
    monkeypatch.setattr("headstart.workflows.cross_fit.Judgement.better", property(lambda _: True))
    given = hs.fit(unequal, pixels=32, precision="fp32", prior=prior, holdout=0, cache=False)
    head = given.finetune(unequal, recipe=RECIPE, cache=False).record.head
    assert head is not None
    assert (head.kind, head.prior) == ("trained", prior)
