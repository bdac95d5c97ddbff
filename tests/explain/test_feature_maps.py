"""The strongest channels of layers, and pictures of them and of explanations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import headstart as hs
from headstart.backbones.catalogue import find_backbone
from headstart.explain.explain import explain_photos
from headstart.explain.feature_maps import feature_maps, layers_of, maps_of_photos, stages_of
from headstart.plots.explanation import draw_explanation, draw_features
from making import picture


@pytest.fixture(scope="module")
def classifier(bundle: Path) -> hs.Classifier:
    return hs.load(bundle)


STAGES = ["blocks.1.0.bn1.act", "blocks.2.0.bn1.act", "blocks.3.0.bn1.act", "blocks.5.0.bn1.act", "bn2.act"]


def test_the_strongest_channels_differ_most_from_place_to_place(classifier: hs.Classifier) -> None:
    pixels = picture("bars", 99, 64)
    (found,) = feature_maps(classifier, [pixels], ["blocks.2.0.bn1.act"], channels=5, crop=False)
    (layer,) = found.layers
    values = classifier.network.forward(pixels[None], layer.layer)[0]
    spread = values.std((1, 2))
    assert layer.count == len(values) == 144
    assert sorted(spread[list(layer.channels)]) == pytest.approx(sorted(spread)[-5:], rel=0.02)
    assert (np.diff(spread[list(layer.channels)]) <= 1e-2).all()
    np.testing.assert_allclose(layer.values, values[list(layer.channels)], atol=0.05 * np.abs(values).max())
    assert np.array_equal(found.pixels, pixels)


def test_auto_is_one_layer_a_stage(classifier: hs.Classifier) -> None:
    (found,) = feature_maps(classifier, [picture("bars", 99, 64)])
    assert [layer.layer for layer in found.layers] == STAGES
    sides = [layer.values.shape[1] for layer in found.layers]
    assert sides == [32, 16, 8, 4, 2]


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("vgg16", ["features.3", "features.8", "features.15", "features.22", "features.29", "features.30"]),
        ("resnet18", ["relu", "layer1.1.relu", "layer2.1.relu", "layer3.1.relu", "layer4.1.relu"]),
        ("cifar_resnet20", ["layer1.2.relu", "layer2.2.relu", "layer3.2.relu"]),
    ],
)
def test_the_stages_of_other_families(name: str, stages: list[str]) -> None:
    """The last has no activation where a network ends with a pooling, as VGG does."""
    blueprint = find_backbone(name).blueprint()
    shapes = blueprint.shapes()
    network: Any = SimpleNamespace(blueprint=blueprint, layers=blueprint.layers, shape=shapes.__getitem__)
    assert stages_of(network) == stages


def test_layers_by_name(classifier: hs.Classifier) -> None:
    assert layers_of(classifier, ["bn2.act", "bn2.act", "blocks.2.0.bn1.act"]) == ["bn2.act", "blocks.2.0.bn1.act"]
    assert layers_of(classifier, "bn2.act") == ["bn2.act"]
    with pytest.raises(hs.UsageError, match=r"no layer 'bn3\.act'\. Did you mean bn2\.act"):
        layers_of(classifier, ["bn3.act"])
    with pytest.raises(hs.UsageError, match="'logits' of 'efficientnet_lite0' has no places"):
        layers_of(classifier, ["logits"])
    with pytest.raises(hs.UsageError, match="channels: expected a whole number, 1 or more"):
        feature_maps(classifier, [picture("bars", 1)], channels=0)


def test_one_that_cannot_be_read_is_named(classifier: hs.Classifier, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (problem,) = maps_of_photos(classifier, tmp_path / "empty.png")
    assert isinstance(problem, hs.Problem)
    with pytest.raises(hs.DataError, match=r"empty\.png' cannot be read"):
        feature_maps(classifier, tmp_path / "empty.png")


def test_pictures(classifier: hs.Classifier) -> None:
    pixels = picture("waves", 99, 64)
    (found,) = explain_photos(classifier, [pixels], crop=False)
    whole = draw_explanation(found)
    assert whole.width == 4 * (224 + 8) + 8  # photo, sum, two layers
    (channels,) = feature_maps(classifier, [pixels], channels=9, crop=False)
    grid = draw_features(channels)
    assert grid.width == 8 * (96 + 8) + 8
    assert grid.height > 11 * 96  # the photo, and two rows for each of five layers


def test_what_speaks_against_the_class_is_as_dark_as_what_says_nothing(classifier: hs.Classifier) -> None:
    (found,) = explain_photos(classifier, [np.full((64, 64, 3), 128, np.uint8)], crop=False)
    values = np.zeros((2, 2), np.float32)
    values[0, 0], values[1, 1] = 1, -5
    drawn = np.asarray(draw_explanation(replace(found, values=values, layers=found.layers[:1])))[8:232, 240:464]
    corner = {name: drawn[y, x].astype(int) for name, y, x in (("for", 5, 5), ("against", 218, 218), ("none", 5, 218))}
    assert np.array_equal(corner["against"], corner["none"])
    assert corner["for"].sum() > corner["none"].sum() + 150


def test_one_pixel_does_not_darken_all_others(classifier: hs.Classifier) -> None:
    (found,) = explain_photos(classifier, [np.full((64, 64, 3), 128, np.uint8)], crop=False)
    values = np.zeros((224, 224), np.float32)
    values[:112, :112] = 1
    values[180, 180] = 1e4
    drawn = np.asarray(draw_explanation(replace(found, values=values, layers=(), method="gradient")))[8:232, 240:464]
    assert drawn[50, 50].astype(int).sum() > drawn[60, 180].astype(int).sum() + 150
