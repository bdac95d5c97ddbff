"""What an image is made for: found by name, and as an objective with its derivative."""

from __future__ import annotations

import numpy as np
import pytest

import headstart as hs
from headstart.backbones.imagenet import class_names
from headstart.imagine.target import Target, channel_target, class_target, cotangent_of, values_of
from headstart.learn.calibrate import log_softmax


@pytest.fixture(scope="module")
def network() -> hs.Classifier:
    """The default backbone with its own head, at few pixels."""
    return hs.pretrained("efficientnet_lite0", pixels=64, engine="torch")


@pytest.mark.parametrize("name", ["tabby", "Tabby", "tabby, tabby cat", "TABBY"])
def test_a_class_is_found_by_its_name_in_any_capitals_and_among_synonyms(name: str) -> None:
    assert class_target(name, class_names()) == Target("tabby", "logits", 281)


def test_a_name_as_it_is_written_comes_first() -> None:
    assert class_target("a", ("A", "a", "b, a")).channel == 1
    assert class_target("b, a", ("A", "a", "b, a")).channel == 2
    assert class_target(7, ("5", "7")).name == "7"


def test_an_unknown_class_names_those_that_are_near() -> None:
    with pytest.raises(hs.UsageError, match=r"no class 'tabby cat'.*Did you mean.*tabby"):
        class_target("tabby cat", class_names())
    with pytest.raises(hs.UsageError, match=r"no class '7'\. Known: cat, dog"):
        class_target(7, ("cat", "dog"))


def test_channels_are_counted_from_0(network: hs.Classifier) -> None:
    layer = "blocks.3.2.bn2.act"
    channels = network.network.shape(layer)[0]
    assert channel_target(layer, channels - 1, network.network).channel == channels - 1
    for wrong in (channels, -1):
        with pytest.raises(hs.UsageError, match=rf"has the channels 0 to {channels - 1}\. Received: {wrong}"):
            channel_target(layer, wrong, network.network)


def test_an_unknown_layer_names_those_that_are_near(network: hs.Classifier) -> None:
    with pytest.raises(hs.UsageError, match=r"no layer 'blocks.3.2.bn2.atc'. Did you mean blocks.3.2.bn2.act"):
        channel_target("blocks.3.2.bn2.atc", 0, network.network)
    with pytest.raises(hs.UsageError, match="'input' is the image itself"):
        channel_target("input", 0, network.network)


@pytest.mark.parametrize("others", [0.0, 0.5, 1.0])
def test_the_derivative_of_a_class_s_objective(others: float) -> None:
    logits = np.random.default_rng(0).standard_normal((2, 5))
    targets = [Target("b", "logits", 1), Target("e", "logits", 4)]
    assert np.array_equal(values_of(logits, targets), logits[[0, 1], [1, 4]])

    def objective(values: np.ndarray) -> float:
        normaliser = values - log_softmax(values)  # the logarithm of the sum of all exponentials, in each column
        return float(values[0, 1] + values[1, 4] - others * normaliser[:, 0].sum())

    slope = cotangent_of(logits, targets, others)
    for row, column in np.ndindex(2, 5):
        shift = np.zeros_like(logits)
        shift[row, column] = 1e-6
        measured = (objective(logits + shift) - objective(logits - shift)) / 2e-6
        assert slope[row, column] == pytest.approx(measured, abs=1e-6)


def test_a_channel_s_objective_is_its_mean() -> None:
    maps = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    targets = [Target("x channel 2", "x", 2), Target("x channel 0", "x", 0)]
    assert values_of(maps, targets) == pytest.approx([maps[0, 2].mean(), maps[1, 0].mean()])
    slope = cotangent_of(maps, targets, 0.5)
    assert (slope[0, 2] == 1 / 20).all()
    assert slope.sum() == pytest.approx(2)
