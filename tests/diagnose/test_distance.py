"""The distance to ImageNet: 0 for the statistics that the network keeps, whether of few images or of many."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import headstart as hs
from headstart.backbones.families.squeezenet import squeezenet
from headstart.core.types import ImageDataset
from headstart.data.inputs import unlabelled_dataset
from headstart.diagnose.distance import (
    IMAGES,
    LAYERS,
    REFERENCES,
    Moments,
    distance_to_imagenet,
    in_words,
    layer_distance,
    norms_of,
)
from headstart.engines.protocol import Network
from headstart.engines.registry import get_engine

MEAN, VAR = np.array([0.5, -1, 3], np.float32), np.array([1, 4, 0.25], np.float32)


def seen(count: int, seed: int, mean: object = MEAN, var: object = VAR) -> Moments:
    """What a layer of 5 × 5 sees of images whose channels have this mean and variance; half of it between images."""
    rng, deviation = np.random.default_rng(seed), np.sqrt(np.asarray(var) / 2)
    between = np.asarray(mean) + rng.normal(size=(count, 1, 3)) * deviation
    values = between + rng.normal(size=(count, 25, 3)) * deviation
    return Moments(values.mean(axis=1), (values**2).mean(axis=1))


def test_the_same_statistics_are_0_whatever_the_number_of_images() -> None:
    for count in (8, 16, 64):
        found = [layer_distance(seen(count, seed), MEAN, VAR, 0.0) for seed in range(300)]
        error = np.std(found) / np.sqrt(300)
        assert abs(np.mean(found)) < max(4 * error, 0.004), count


def test_other_statistics_have_the_divergence_of_two_normal_distributions() -> None:
    """By the formula of Kullback and Leibler, worked out by hand."""
    twice = np.mean([layer_distance(seen(64, seed, var=2 * VAR), MEAN, VAR, 0.0) for seed in range(50)])
    assert twice == pytest.approx((2 - 1 - np.log(2)) / 2, abs=0.02)
    shifted = np.mean([layer_distance(seen(64, seed, MEAN + np.sqrt(VAR)), MEAN, VAR, 0.0) for seed in range(50)])
    assert shifted == pytest.approx(0.5, abs=0.04)


def test_a_channel_that_is_always_0_does_not_divide_by_0() -> None:
    dead = Moments(np.zeros((5, 3)), np.zeros((5, 3)))
    assert layer_distance(dead, np.zeros(3, np.float32), np.zeros(3, np.float32), 1e-3) == 0
    assert np.isfinite(layer_distance(dead, MEAN, VAR, 1e-3))


@pytest.fixture(scope="module")
def network() -> Network:
    return hs.pretrained("efficientnet_lite0", pixels=64, progress=False).network


def noise(count: int) -> ImageDataset:
    return unlabelled_dataset(np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8))


def test_the_layers_are_spread_from_the_first_to_the_last(network: Network) -> None:
    names = [*norms_of(network.blueprint)]
    every = [node.name for node in network.blueprint.nodes if node.op == "norm"]
    assert len(names) == LAYERS
    assert (names[0], names[-1]) == (every[0], every[-1])
    assert [every.index(name) for name in names] == sorted(every.index(name) for name in names)


def test_of_many_images_some_are_looked_at_and_of_few_none(network: Network) -> None:
    found = distance_to_imagenet(noise(80), np.arange(80), network)
    assert found is not None
    assert found.images == IMAGES
    assert found.distance > 0.3
    assert "where 0 is as near" in found.sentence  # the references are of 224 pixels
    assert distance_to_imagenet(noise(80), np.arange(3), network) is None


def test_an_image_that_cannot_be_read_is_passed_over(network: Network) -> None:
    rows, good = np.arange(6), noise(6)
    broken = replace(good, read=lambda row: b"no image" if row == 2 else good.read(row))
    found, without = distance_to_imagenet(broken, rows, network), distance_to_imagenet(good, rows[rows != 2], network)
    assert found is not None
    assert without is not None
    assert found.images == 5
    assert found.distance == pytest.approx(without.distance)
    assert distance_to_imagenet(broken, rows[:4], network) is None


def test_a_network_without_batch_norm_has_none() -> None:
    blueprint = squeezenet("squeezenet1_1", "1.1")
    weights = {name: np.zeros(shape, np.float32) for name, shape in blueprint.weight_shapes().items()}
    network = get_engine("fast", blueprint, weights, hs.ImageSpec(64), "fp32")
    assert distance_to_imagenet(noise(8), np.arange(8), network) is None


def test_words() -> None:
    known = {"photos": 0.1, "noise": 0.5}
    assert in_words(0.3, known) == "0.30: farther from ImageNet's photos than photos (0.10), nearer than noise (0.50)."
    assert in_words(-0.001, known) == "0.00: nearer to ImageNet's photos than photos (0.10)."
    assert in_words(0.7, known) == "0.70: farther from ImageNet's photos than noise (0.50)."
    assert in_words(0.11, known) == "0.11: about as far from ImageNet's photos as photos."
    for values in REFERENCES.values():
        assert [*values.values()] == sorted(values.values())


def test_the_references_are_those_of_the_benchmark_and_a_fitted_model_has_the_same(shared: Path) -> None:
    import json

    results = Path(__file__).parents[2] / "benchmarks" / "results" / "distance.json"
    measured = json.loads(results.read_text(encoding="utf-8"))
    for name, value in REFERENCES[measured["backbone"]].items():
        assert round(measured["distances"][name]["of 64"], 3) == value
    leaves = hs.open_source(shared / "data" / "apple_leaves")
    few = leaves.part([*range(0, len(leaves), 30)])
    found = distance_to_imagenet(few, np.arange(len(few)), hs.fit(few, cache=False, progress=False).network)
    assert found is not None
    assert found.distance == pytest.approx(0.189, abs=0.04)
    assert found.sentence.startswith("0.1")
