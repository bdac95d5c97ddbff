"""Files of Keras as networks: opened without running what is in them, refused where it would run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
from headstart.backbones.weights import weights_digest
from headstart.core.errors import UsageError
from headstart.engines.registry import keras_engine
from making import Shell, record_of

keras_engine()

import h5py  # noqa: E402  # behind the guard, as all that follows
import keras  # noqa: E402
from keras import layers  # noqa: E402

from headstart.engines.keras.models import wrap  # noqa: E402
from keras_examples import (  # noqa: E402
    SPEC,
    Scale,
    ending,
    functional,
    make,
    network_for,
    photos,
    pooled,
)

# Keras 3.15 turns its variables into arrays in a way that NumPy 2 is going to drop
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as people have it: trained, with a loss of their own."""
    model = make("nested")
    model.compile("adam", loss=_loss)
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    model.save(path)
    return path


@keras.saving.register_keras_serializable("mine")  # type: ignore[untyped-decorator]
def _loss(truth: Any, answer: Any) -> Any:
    return keras.ops.mean((truth - answer) ** 2)


def test_a_file_gives_what_the_model_gives(saved: Path) -> None:
    for source in (str(saved), make("nested")):
        trunk = wrap(source, spec=SPEC).trunk
        assert weights_digest(trunk.weights) == weights_digest(wrap(make("nested")).trunk.weights)
    np.testing.assert_array_equal(
        network_for(str(saved)).forward(photos()), network_for(make("nested")).forward(photos())
    )


def rewritten(saved: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a file with another architecture."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config)
                data = json.dumps(config).encode()
            new.writestr(name, data)
    return target


def evil(marker: Path) -> dict[str, dict[str, Any]]:
    """Entries of a configuration that would run code, were they built."""
    loud = layers.Lambda(eval(f"lambda x: __import__('pathlib').Path({str(marker)!r}).touch() or x"), name="innocent")
    return {
        "lambda": keras.saving.serialize_keras_object(loud),
        "pickle": {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "gASV"}},
        "saved": {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": str(marker)}},
        "foreign": {"module": "os", "class_name": "system", "config": {"command": f"touch {marker}"}},
        "function": {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
        "gadget": {"module": "keras.utils", "class_name": "function", "config": "get_file", "registered_name": None},
        "registered": {"module": "keras.layers", "class_name": "Dense", "config": {}, "registered_name": "mine>Scale"},
        "custom": {"module": "mine", "class_name": "Scale", "config": {}, "registered_name": "mine>Scale"},
        "legacy": {"class_name": "Dense", "config": {"units": 3}},
        "spec": {
            "class_name": "__typespec__",
            "spec_name": "system",
            "module": "os",
            "config": [],
            "registered_name": "",
        },
        "odd": {"module": ["os"], "class_name": "Dense", "config": {}},
    }


def test_an_archive_whose_weights_begin_where_hdf5_may_begin_is_opened(saved: Path, tmp_path: Path) -> None:
    """HDF5 is looked for at 512, 1024, 2048 … bytes, and an archive of Keras has a whole such file inside."""
    target, weights = tmp_path / "aligned.keras", "model.weights.h5"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(target, "w") as new:
        for name in sorted(old.namelist(), key=lambda name: name == weights):
            if name == weights:
                new.writestr("pad", b" " * (2**16 - new.start_dir - 30 - len("pad") - 30 - len(name)))
            new.writestr(name, old.read(name))
    assert h5py.is_hdf5(target)
    assert weights_digest(wrap(str(target)).trunk.weights) == weights_digest(wrap(str(saved)).trunk.weights)


@pytest.mark.parametrize(
    "what",
    ["lambda", "pickle", "saved", "foreign", "function", "gadget", "registered", "custom", "legacy", "spec", "odd"],
)
@pytest.mark.parametrize("where", ["layer", "deep", "build", "argument"])
def test_a_file_that_would_run_code_is_refused_before_keras_sees_it(
    what: str, where: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, entry = tmp_path / "ran", evil(tmp_path / "ran")[what]

    def change(config: dict[str, Any]) -> None:
        steps = config["config"]["layers"]
        if where == "layer":
            steps[-1]["config"]["activation"] = entry
        elif where == "deep":
            wrapper = keras.saving.serialize_keras_object(layers.TimeDistributed(layers.Dense(2), name="outer"))
            wrapper["config"]["layer"]["config"]["kernel_regularizer"] = {"list": [[entry]]}
            steps[2]["config"]["layers"].append(wrapper)
        elif where == "build":
            config["build_config"] = {"input_shape": entry}
        else:
            steps[-1]["inbound_nodes"][0]["kwargs"] = {"mask": entry}

    monkeypatch.setattr(keras.saving, "deserialize_keras_object", lambda *_, **__: pytest.fail("Keras saw it"))
    with pytest.raises(UsageError, match=r"is not opened, for it could run foreign code: .{20}"):
        wrap(str(rewritten(saved, tmp_path / "evil.keras", change)))
    assert not marker.exists()


def test_keras_itself_would_run_it_if_told_to(tmp_path: Path) -> None:
    """The marker of the test above is one that can appear."""
    built = keras.saving.deserialize_keras_object(evil(tmp_path / "ran")["lambda"], safe_mode=False)
    assert not (tmp_path / "ran").exists()
    built(np.zeros((1, 2), np.float32))
    assert (tmp_path / "ran").exists()


def test_the_refusal_names_the_layer(tmp_path: Path) -> None:
    model = ending(layers.Lambda(lambda x: x, name="odd_one"), pooled(), layers.Dense(2))
    model.save(tmp_path / "odd.keras")
    with pytest.raises(UsageError, match=r"the layer 'odd_one' is a Lambda, which runs Python code that it brings"):
        wrap(str(tmp_path / "odd.keras"))
    functional(Scale()).save(tmp_path / "own.keras")
    with pytest.raises(
        UsageError, match=r"the layer 'scale\w*' is or holds a '\w+\.mine>Scale', which is none of Keras' own"
    ):
        wrap(str(tmp_path / "own.keras"))


def test_what_is_for_training_alone_is_passed_over(saved: Path, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["compile_config"] = {"loss": evil(tmp_path / "ran")["lambda"]}

    wrap(str(rewritten(saved, tmp_path / "compiled.keras", change)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "damage", ["cut", "flipped", "empty", "no weights", "no json", "list", "deep", "nonsense", "h5"]
)
def test_a_damaged_file_is_refused_in_a_sentence(damage: str, saved: Path, tmp_path: Path) -> None:
    path, data = tmp_path / "bad.keras", saved.read_bytes()
    if damage in ("cut", "flipped", "empty", "h5"):
        place = data.index(b"\x89HDF") + 3000
        flipped = data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :]
        path.write_bytes(
            {"cut": data[: len(data) // 2], "flipped": flipped, "empty": b"", "h5": b"\x89HDF\r\n"}[damage]
        )
    else:
        texts = {"no json": "{", "list": "[1]", "deep": "[" * 100_000, "nonsense": '{"class_name": "Functional"}'}
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", texts.get(damage, zipfile.ZipFile(saved).read("config.json")))
            if damage != "no weights":
                archive.writestr("model.weights.h5", b"")
    with pytest.raises(
        UsageError, match=r"bad\.keras' (is truncated or damaged|is damaged|is not opened|is no \.keras file)"
    ):
        wrap(str(path))


def test_a_file_that_is_not_there_or_would_unfold_to_much(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.keras': expected a \.keras file, there is none"):
        wrap(str(tmp_path / "none.keras"))
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(UsageError, match="received a folder"):
        wrap(str(tmp_path / "folder.keras"))
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", " " * (20 << 20))
    with pytest.raises(UsageError, match=r"config\.json would expand to 20971520 bytes"):
        wrap(str(tmp_path / "bomb.keras"))


@pytest.mark.parametrize("how", ["soft", "external"])
def test_weights_that_lie_elsewhere_are_refused(how: str, saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        archive.extractall(tmp_path)
    with h5py.File(tmp_path / "model.weights.h5", "a") as file:
        group = file["layers/dense/vars"]
        shape = group["0"].shape
        del group["0"]
        if how == "soft":
            group["0"] = h5py.SoftLink("/layers/dense/vars/1")
        else:
            group.create_dataset("0", shape, "f4", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])
    with zipfile.ZipFile(tmp_path / "linked.keras", "w") as archive:
        for name in ("config.json", "model.weights.h5"):
            archive.write(tmp_path / name, name)
    with pytest.raises(UsageError, match=r"The weights were refused: .*'0'"):
        wrap(str(tmp_path / "linked.keras"))


def test_a_keras_file_is_a_backbone_of_the_commands(saved: Path, photos: Path, tmp_path: Path, shell: Shell) -> None:
    answer = shell("fit", photos, "--backbone", saved, "--pixels", 40, "--out", tmp_path / "model", "--json")
    assert answer.code == 0, answer.err
    assert record_of(hs.load(tmp_path / "model"))["backbone"] == "keras-model:functional"
    refused = shell("predict", saved, next(photos.rglob("*.png")))
    assert refused.code == 2
    assert "alone is no classifier" in refused.err
    compared = shell("compare", photos, "--backbones", f"{saved},keras/nothing", "--json")
    assert [row["backbone"] for row in compared.json["rows"]] == [str(saved)]
    assert "keras.applications has no model 'nothing'" in compared.json["skipped"][0]["why"]


def test_a_file_that_was_exported_is_a_backbone_of_the_commands(photos: Path, tmp_path: Path, shell: Shell) -> None:
    """It has two outputs, logits and probabilities, and scales its pixels itself."""
    hs.fit(str(photos), backbone=make("nested"), spec=SPEC, cache=False).save(tmp_path / "model")
    exported = shell("export", tmp_path / "model", "--to", "keras", "--out", tmp_path / "mine.keras")
    assert exported.code == 0, exported.err
    answer = shell("fit", photos, "--backbone", tmp_path / "mine.keras", "--out", tmp_path / "other", "--json")
    assert answer.code == 0, answer.err
    assert "assumed" not in answer.json


def changed(file: Path, target: Path, layer: str, **settings: object) -> Path:
    """A copy of a file whose architecture asks for something else; its weights stay."""
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(target, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json":
                config = json.loads(content)
                (found,) = [each["config"] for each in config["config"]["layers"] if each["config"]["name"] == layer]
                found |= settings
                content = json.dumps(config).encode()
            copy.writestr(name, content)
    return target


@pytest.mark.parametrize(
    ("layer", "settings", "sentence"),
    [
        ("wide", {"units": 2_000_000_000}, "its layers have more weights than the file holds"),
        ("seen", {"filters": 1_000_000_000}, "its layers have more weights than the file holds"),
        ("around", {"padding": [[9000, 9000], [9000, 9000]]}, r"layer '.*' gives 9[\d,]+ values for one image"),
    ],
)
def test_a_small_file_that_asks_for_much_is_refused_before_it_is_built(
    layer: str, settings: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    """And the process may not take as much as it asks for."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)), layers.ZeroPadding2D(1, name="around"), layers.Conv2D(4, 3, name="seen"),
            layers.GlobalAveragePooling2D(), layers.Dense(8, name="wide"), layers.Dense(2),
        ]
    )  # fmt: skip
    model.save(tmp_path / "small.keras")
    wrap(str(tmp_path / "small.keras"))
    with pytest.raises(UsageError, match=sentence):
        wrap(str(changed(tmp_path / "small.keras", tmp_path / "large.keras", layer, **settings)))
