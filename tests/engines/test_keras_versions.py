"""Files and bundles of another Keras: named as such, with what to do; what could run code is refused as ever."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
from altered_models import config_of, put_config
from headstart.core.errors import UsageError, VersionError
from headstart.engines.registry import keras_engine
from keras_examples import make

keras_engine()

import h5py  # noqa: E402  # behind the guard, as all that follows
import keras  # noqa: E402

from headstart.engines.keras.config import from_text, to_text  # noqa: E402
from headstart.engines.keras.models import wrap  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

NEWER = "99.1.0"
BOTH = rf"made by Keras 99\.1\.0; Keras {keras.__version__} is here.*pip install keras==99\.1\.0"

Change = Callable[[dict[str, Any]], None]


def entries(value: Any) -> list[dict[str, Any]]:
    """Every object with a class in a configuration."""
    if isinstance(value, list):
        return [found for each in value for found in entries(each)]
    if not isinstance(value, dict):
        return []
    own = [value] if "class_name" in value else []
    return own + [found for each in value.values() for found in entries(each)]


def norm_of(config: Any) -> dict[str, Any]:
    return next(each for each in entries(config) if each["class_name"] == "BatchNormalization")


def with_new_argument(config: dict[str, Any]) -> None:
    norm_of(config)["config"]["of_the_future"] = True


def with_new_layer(config: dict[str, Any]) -> None:
    norm_of(config)["class_name"] = "FutureNormalization"


def with_lambda(config: dict[str, Any]) -> None:
    norm_of(config)["class_name"] = "Lambda"


def with_module_of_keras_2(config: dict[str, Any]) -> None:
    config["module"] = "keras.src.engine.functional"


def with_argument_of_keras_2(config: dict[str, Any]) -> None:
    for entry in entries(config):
        if entry["class_name"] == "InputLayer":
            entry["config"]["batch_input_shape"] = entry["config"].pop("batch_shape")


def unchanged(config: dict[str, Any]) -> None:
    pass


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    make("functional").save(path)
    return path


def rewritten(saved: Path, target: Path, change: Change, version: str | None) -> str:
    """A copy with another architecture, by another Keras, or by one that does not say which."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(target, "w") as new:
        config = json.loads(old.read("config.json"))
        change(config)
        new.writestr("config.json", json.dumps(config))
        new.writestr("model.weights.h5", old.read("model.weights.h5"))
        if version:
            new.writestr("metadata.json", json.dumps({"keras_version": version}))
    return str(target)


@pytest.mark.parametrize("change", [with_new_argument, with_new_layer])
def test_a_file_of_a_newer_keras_is_named_as_such(saved: Path, tmp_path: Path, change: Change) -> None:
    with pytest.raises(VersionError, match=BOTH):
        wrap(rewritten(saved, tmp_path / "new.keras", change, NEWER))


def test_a_file_of_a_newer_keras_with_nothing_new_is_opened(saved: Path, tmp_path: Path) -> None:
    assert wrap(rewritten(saved, tmp_path / "new.keras", unchanged, NEWER)).trunk.weights


@pytest.mark.parametrize("version", [None, keras.__version__])
def test_a_file_that_names_no_other_keras_is_not_said_to_be_of_one(
    saved: Path, tmp_path: Path, version: str | None
) -> None:
    with pytest.raises(UsageError, match=rf"is damaged, or of another version, as Keras {keras.__version__}") as caught:
        wrap(rewritten(saved, tmp_path / "new.keras", with_new_argument, version))
    assert not isinstance(caught.value, VersionError)
    with pytest.raises(UsageError, match=r"could run foreign code.*which is no layer of this Keras"):
        wrap(rewritten(saved, tmp_path / "new.keras", with_new_layer, version))


def test_a_newer_version_excuses_no_code(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"could run foreign code.*Lambda"):
        wrap(rewritten(saved, tmp_path / "new.keras", with_lambda, NEWER))


@pytest.mark.parametrize(
    ("change", "version"),
    [(unchanged, "2.15.0"), (with_lambda, "2.15.0"), (with_module_of_keras_2, None), (with_argument_of_keras_2, None)],
)
def test_a_file_of_keras_2_is_named_as_such(saved: Path, tmp_path: Path, change: Change, version: str | None) -> None:
    with pytest.raises(VersionError, match=r"a file of Keras 2.*pip install tf_keras.*model\.save\(\"model\.keras\"\)"):
        wrap(rewritten(saved, tmp_path / "old.keras", change, version))


def test_keras_2_wrote_hdf5_under_the_same_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "old.keras", "w") as file:
        file.attrs["keras_version"] = "2.4.0"
    with pytest.raises(VersionError, match="a file of Keras 2"):
        wrap(str(tmp_path / "old.keras"))


def test_an_architecture_says_which_keras_made_it() -> None:
    text = to_text(make("functional"))
    assert json.loads(text)["keras_version"] == keras.__version__
    assert from_text(text, "mine").count_params() == make("functional").count_params()


def test_a_bundle_of_a_newer_keras_is_not_damaged(photos: Path, tmp_path: Path) -> None:
    classifier = hs.fit(str(photos), backbone=make("functional"), cache=False)
    classifier.save(tmp_path / "model")
    config = config_of(tmp_path / "model")
    [attrs] = [attrs for _, op, _, attrs in config["blueprint"]["nodes"] if op == "module"]
    inner = json.loads(attrs["config"])
    with_new_argument(inner)
    attrs["config"] = json.dumps({**inner, "keras_version": NEWER})
    put_config(tmp_path / "model", config)
    with pytest.raises(VersionError, match=BOTH) as caught:
        hs.load(tmp_path / "model")
    assert "damaged" not in str(caught.value)
    assert "hold together" not in str(caught.value)
