"""Networks of one channel, as people train them on digits: they get the luma of the pixels, through every door."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
import making
from headstart.core.types import ImageSpec
from headstart.engines.registry import keras_engine

keras_engine()

import keras  # noqa: E402
import torch  # noqa: E402
from keras import layers  # noqa: E402
from torch import nn  # noqa: E402

from headstart.train.recipe import preset  # noqa: E402
from headstart.workflows import finetune_data  # noqa: E402
from referee import photos as some_photos  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras when it saves

SIZE = 28
SPEC = ImageSpec(SIZE, (0.13,) * 3, (0.31,) * 3)
LUMA = (0.299, 0.587, 0.114)


def keras_maps() -> Any:
    keras.utils.set_random_seed(0)
    steps = [layers.Conv2D(6, 3, 2, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(10)]
    return keras.Sequential([keras.Input((SIZE, SIZE, 1)), layers.Rescaling(1 / 255), *steps])


def keras_rows() -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((SIZE, SIZE)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(8), layers.Dense(10)]
    )


def torch_maps() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)
    ).eval()


def torch_rows() -> Any:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, 8), nn.ReLU(), nn.Linear(8, 10)).eval()


MAKERS = {"keras maps": keras_maps, "keras rows": keras_rows, "torch maps": torch_maps, "torch rows": torch_rows}


def settings(kind: str) -> dict[str, Any]:
    return {"spec": SPEC} if kind.startswith("torch") else {}


def features_of(kind: str, images: Any) -> Any:
    """By hand: luma, the network's own pixels, all but its last layer."""
    grey = images @ np.array(LUMA)
    model = MAKERS[kind]()
    if kind.startswith("keras"):
        whole = keras.Model(model.inputs[0], model.layers[-2].output)
        return whole(grey if kind == "keras rows" else grey[..., None]).numpy()
    pixels = torch.tensor((grey / 255 - 0.13) / 0.31, dtype=torch.float32)[:, None]
    with torch.no_grad():
        return model[:-1](pixels).numpy()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return making.folder(tmp_path_factory.mktemp("grey") / "photos", count=8)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_network_of_one_channel_is_fitted_on_saved_opened_and_trained_further(
    kind: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune_data, "ENOUGH", 1)
    model = hs.fit(data, backbone=MAKERS[kind](), cache=False, **settings(kind))
    images = some_photos(3, SIZE)
    expected = features_of(kind, images)
    found = model.network.forward(images, "features")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    model.save(tmp_path / "model")
    live = {"module": MAKERS[kind]()} if kind.startswith("torch") else {}
    opened = hs.load(tmp_path / "model", **live)
    np.testing.assert_allclose(opened.predict_proba(list(images)), model.predict_proba(list(images)), atol=1e-5)
    recipe = replace(preset("full"), epochs=1, batch_size=8, patience=0)
    tuned = opened.finetune(data, recipe=recipe, cache=False, refit=False)
    assert tuned.record.finetune is not None
    assert tuned.record.finetune.cut == ""


def test_a_file_of_keras_with_one_channel_is_opened(data: Path, tmp_path: Path) -> None:
    keras_maps().save(tmp_path / "digits.keras")
    model = hs.fit(data, backbone=str(tmp_path / "digits.keras"), cache=False)
    images = some_photos(2, SIZE)
    expected = features_of("keras maps", images)
    np.testing.assert_allclose(model.network.forward(images, "features"), expected, rtol=1e-4, atol=1e-5)
    given = images.astype(np.float32)
    np.testing.assert_allclose(model.to_keras()(given).numpy(), model.network.forward(images), rtol=1e-3, atol=1e-3)


def test_a_module_of_one_channel_goes_to_torch(data: Path) -> None:
    model, images = hs.fit(data, backbone=torch_maps(), cache=False, spec=SPEC), some_photos(2, SIZE)
    with torch.no_grad():
        found = model.to_torch()(torch.tensor(images)).numpy()
    np.testing.assert_allclose(found, model.network.forward(images), rtol=1e-4, atol=1e-4)


def test_a_module_of_other_channels_says_what_it_was_given(data: Path) -> None:
    module = nn.Sequential(nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    with pytest.raises(hs.UsageError, match=r"given as a tensor of shape \(2, 3, 28, 28\)"):
        hs.fit(data, backbone=module, spec=SPEC, cache=False)
