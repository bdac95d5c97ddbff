"""What `headstart show` says of networks of Keras: by name, in a file, and in saved models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import headstart as hs
from headstart.backbones.catalogue import find_backbone
from headstart.engines.registry import keras_engine, summary_of
from making import Shell
from terminals import COLUMNS, on_a_terminal

keras_engine()

import keras  # noqa: E402
from keras import layers  # noqa: E402

# Keras 3.15 turns its variables into arrays in a way that NumPy 2 is going to drop
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def test_the_sums_are_those_of_the_same_network_in_the_catalogue() -> None:
    """Without its weights: nothing is fetched in a test."""
    summary, blueprint = summary_of("keras/MobileNetV2", 96), find_backbone("mobilenet_v2").blueprint()
    assert sum(layer.parameters for layer in summary.layers) == sum(blueprint.parameters().values())
    assert sum(layer.multiply_adds or 0 for layer in summary.layers) == sum(blueprint.multiply_adds(96).values())
    model = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3))
    assert len(summary.layers) == len(model.layers)
    assert [layer.shape for layer in summary.layers if layer.name == "Conv_1"] == [(3, 3, 1280)]


def separable(parts: bool) -> Any:
    """A separable convolution, or the two that it stands for; then a shared layer."""
    x = images = keras.Input((16, 16, 3))
    if parts:
        x = layers.Conv2D(8, 1)(layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, use_bias=False)(x))
    else:
        x = layers.SeparableConv2D(8, 3, strides=2, depth_multiplier=2)(x)
    shared = layers.Dense(8)
    x = layers.GlobalAveragePooling2D()(shared(shared(x)))
    return keras.Model(images, layers.Dense(4, name="top")(keras.Sequential([layers.Dense(5, name="inner")])(x)))


def test_a_file_of_ones_own(tmp_path: Path, shell: Shell) -> None:
    """Whose models within are opened, and whose shared layers are counted once."""
    sums = []
    for parts in (True, False):
        file = tmp_path / f"own{parts}.keras"
        separable(parts).save(file)
        answer = shell("show", file, "--json").json
        sums.append((answer["parameters"], answer["multiply_adds"], answer["pixels"]))
        names = [row["name"] for row in answer["layers"]]
        assert names[-2:] == ["inner", "top"]
    work = 49 * (6 * 9 + 6 * 8) + 2 * 49 * 64 + 8 * 5 + 5 * 4
    assert sums == [(6 * 9 + 6 * 8 + 8 + 8 * 9 + 5 * 9 + 4 * 6, work, 16)] * 2
    assert shell("show", file, "--pixels", 32, "--json").json["layers"][1]["shape"] == [15, 15, 8]


def Toy(include_top: bool = True, weights: str | None = None, input_shape: Any = None) -> keras.Model:
    """As those of keras.applications, with a head on a flattened map."""
    x = images = keras.Input(input_shape or (32, 32, 3))
    x = layers.MultiHeadAttention(2, 4, name="mixed")(x := layers.Conv2D(4, 3, name="conv")(x), x)
    if include_top:
        x = layers.Dense(7, name="predictions")(layers.Flatten()(x))
    return keras.Model(images, x)


def test_a_head_for_one_size_alone_is_left_out_at_another(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.applications, "Toy", Toy, raising=False)
    native, other = (shell("show", "keras/Toy", *size, "--json").json for size in ((), ("--pixels", 40)))
    assert [answer["layers"][-1]["name"] for answer in (native, other)] == ["predictions", "mixed"]
    assert (native["pixels"], other["pixels"], other["layers"][-1]["shape"]) == (32, 40, [38, 38, 4])
    assert other["layers"][-1]["multiply_adds"] is None
    assert any("head fits images of another size than 40 pixels" in note for note in other["notes"])
    assert not any("head" in note for note in native["notes"])


@pytest.mark.slow
def test_the_table_fits_on_a_terminal() -> None:
    code, raw, lines = on_a_terminal("show", "keras/MobileNet", "--pixels", 64)
    assert code == 0
    assert max(map(len, lines)) <= COLUMNS
    assert "…" not in raw
    assert ["conv1", "Conv2D", "3×3", "/", "2", "32×32×32", "864", "884,736"] in [line.split() for line in lines]
    assert "maps as height × width × channels" in " ".join(lines)


def test_a_saved_model_shows_the_layers_inside(photos: Path, shell: Shell, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    fitted = hs.fit(str(photos), backbone=separable(False), cache=False, progress=False)
    fitted.save(tmp_path / "model")
    answer = shell("show", tmp_path / "model", "--json").json
    assert [row["op"] for row in answer["layers"]][:2] == ["input", "SeparableConv2D"]
    assert [row["op"] for row in answer["layers"]][-2:] == ["module", "dense"]
    assert answer["parameters"] == sum(fitted.blueprint.parameters().values())


def test_what_cannot_be_shown_is_told(shell: Shell, tmp_path: Path) -> None:
    said = shell("show", "keras/MobileNet", "--graph", tmp_path / "net.svg")
    assert (said.code, said.out, [*tmp_path.iterdir()]) == (2, "", [])
    assert "without --graph its layers are listed" in said.err
    assert "Did you mean MobileNetV2" in shell("show", "keras/mobilenetv2", "--json").err
    assert "There is no model 'nothing.keras'" in shell("show", "nothing.keras").err
