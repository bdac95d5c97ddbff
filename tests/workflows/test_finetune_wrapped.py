"""Fine-tuning on modules and Keras models: what is frozen runs once, and the trainer is of the network's framework."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
import making
from headstart.core.errors import UsageError
from headstart.engines.registry import keras_engine

keras_engine()

import keras  # noqa: E402
import torch  # noqa: E402
from keras import layers  # noqa: E402
from torch import nn  # noqa: E402

from headstart.train.protocol import Task  # noqa: E402
from headstart.train.recipe import preset  # noqa: E402
from headstart.train.torch.stepper import TorchStepper  # noqa: E402
from headstart.train.training_run import TrainingRun  # noqa: E402
from headstart.workflows import finetune_data  # noqa: E402
from headstart.workflows.finetune_data import FinetuneData  # noqa: E402

ALL = replace(preset("full"), epochs=1, batch_size=16, patience=0, precision="fp32")
HEAD = replace(ALL, unfreeze="head")


class Net(nn.Module):  # type: ignore[misc]
    """Weights of every kind: of a layer deep inside, running statistics, a table, a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.register_buffer("table", torch.linspace(0.5, 1, 6)[:, None, None])
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Any) -> Any:
        return self.fc((self.stem(x) * self.table).mean((2, 3)))


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net()


def keras_net() -> Any:
    keras.utils.set_random_seed(0)
    steps = [layers.Conv2D(6, 3, 2), layers.BatchNormalization(), layers.ReLU(), layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), *steps, layers.Dense(4)])
    model.layers[1].trainable = False  # as people freeze a part: it is learned all the same
    return model


BACKBONES: dict[str, tuple[Any, dict[str, Any]]] = {"torch": (net, {"pixels": 32}), "keras": (keras_net, {})}
LEARNED = (3 * 6 * 9 + 6) + 2 * 6  # of both: the convolution, and weight and bias of the batch norm


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return making.folder(tmp_path_factory.mktemp("some") / "photos", count=8)


@pytest.fixture(scope="module")
def fitted(photos: Path) -> dict[str, hs.Classifier]:
    return {
        name: hs.fit(photos, backbone=make(), cache=False, holdout=0.25, **more)
        for name, (make, more) in BACKBONES.items()
    }


@pytest.fixture(autouse=True)
def one_validation_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune_data, "ENOUGH", 1)


def finetuned(given: hs.Classifier, photos: Path, **more: Any) -> Any:
    record = given.finetune(photos, cache=False, refit=False, **more).record.finetune
    assert record is not None
    return record


@pytest.mark.parametrize("framework", BACKBONES)
def test_what_is_learned_and_what_is_a_statistic_is_told_by_the_network(
    framework: str, fitted: dict[str, hs.Classifier]
) -> None:
    classifier = fitted[framework]
    head = 6 * len(classifier.classes) + len(classifier.classes)
    assert classifier.blueprint.parameters() == {"features": LEARNED, "logits": head}


@pytest.mark.parametrize("framework", BACKBONES)
def test_below_a_head_that_is_trained_alone_the_module_runs_once(
    framework: str, fitted: dict[str, hs.Classifier], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Any:
        raise AssertionError("every step would go through the whole network")

    monkeypatch.setattr("headstart.workflows.finetune.whole_network", refused)
    story = finetuned(fitted[framework], photos, recipe=HEAD)
    classes = len(fitted[framework].classes)
    assert (story.cut, story.moving) == ("features", 6 * classes + classes)


@pytest.mark.parametrize("framework", BACKBONES)
def test_that_top_is_the_head_alone_is_said(framework: str, fitted: dict[str, hs.Classifier], photos: Path) -> None:
    said: list[str] = []
    run = hs.TrainingRun(say=said.append)
    found = fitted[framework].finetune(str(photos), recipe=replace(ALL, unfreeze="top"), trainer=run)
    assert found.record.finetune is not None
    assert found.record.finetune.cut == "features"
    assert any("only the head is trained. To train all of it: the recipe full" in each for each in said)


@pytest.mark.parametrize("framework", BACKBONES)
def test_all_of_a_module_is_trained_and_counted(framework: str, fitted: dict[str, hs.Classifier], photos: Path) -> None:
    story = finetuned(fitted[framework], photos, recipe=ALL)
    assert (story.cut, story.moving) == ("", sum(fitted[framework].blueprint.parameters().values()))


@pytest.mark.parametrize(("framework", "trainer"), [("torch", "pytorch"), ("keras", "tensorflow")])
@pytest.mark.parametrize("recipe", [HEAD, ALL])
def test_the_trainer_is_of_the_networks_framework_unless_one_is_named(
    framework: str, trainer: str, recipe: Any, fitted: dict[str, hs.Classifier], photos: Path
) -> None:
    said: list[str] = []
    story = finetuned(fitted[framework], photos, recipe=recipe, trainer=TrainingRun(say=said.append))
    assert story.trainer == trainer
    chosen = "'keras-model:sequential' is a Keras model, so the trainer is tensorflow."
    assert (chosen in said) == (framework == "keras")


def test_a_training_that_was_interrupted_goes_on_with_the_same_trainer(
    fitted: dict[str, hs.Classifier], photos: Path, tmp_path: Path
) -> None:
    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    stop: Any = type("Stop", (), {"step": end, "epoch": end})()
    with pytest.raises(KeyboardInterrupt):
        finetuned(fitted["keras"], photos, recipe=ALL, trainer=TrainingRun(folder=tmp_path, callbacks=[stop]))
    story = finetuned(fitted["keras"], photos, recipe=ALL, trainer=TrainingRun(folder=tmp_path, resume=True))
    assert (story.trainer, len(story.epochs)) == ("tensorflow", 1)


@pytest.mark.parametrize(
    ("framework", "trainer", "said"),
    [
        ("keras", "pytorch", r"is a Keras model: expected the trainer tensorflow or keras\. Received: pytorch"),
        ("keras", "lightning", r"is a Keras model: expected the trainer tensorflow or keras\. Received: .*lightning"),
        ("torch", "keras", r"is a PyTorch module: expected the trainer pytorch or lightning\. Received: .*keras"),
    ],
)
def test_a_trainer_of_another_framework_trains_the_head_alone(
    framework: str,
    trainer: str,
    said: str,
    fitted: dict[str, hs.Classifier],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert finetuned(fitted[framework], photos, recipe=HEAD, trainer=trainer).trainer == trainer
    monkeypatch.setattr(FinetuneData, "of", lambda *_, **__: pytest.fail("the photos were looked at first"))
    with pytest.raises(UsageError, match=said):
        finetuned(fitted[framework], photos, recipe=ALL, trainer=trainer)


def test_a_loop_of_ones_own_says_it_too(fitted: dict[str, hs.Classifier]) -> None:
    classifier = fitted["keras"]
    rates = dict.fromkeys(classifier.blueprint.parameters(), 1.0)
    task = Task(classifier.blueprint, classifier.weights, rates, classifier.spec)
    with pytest.raises(UsageError, match="expected the trainer tensorflow or keras"):
        TorchStepper(task, ALL, 1, "cpu")
