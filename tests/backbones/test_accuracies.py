"""The accuracies that the list of networks shows are their publishers'."""

from __future__ import annotations

import pytest
import torchvision

from headstart.backbones.accuracies import TOP1
from headstart.backbones.catalogue import BACKBONES


def test_each_is_of_a_network() -> None:
    assert {*TOP1} <= {*BACKBONES}
    assert all(50 < value < 90 for value in TOP1.values())


@pytest.mark.parametrize("name", [name for name in TOP1 if BACKBONES[name].weights.origin == "torchvision"])
def test_torchvision_says_so_of_the_same_file(name: str) -> None:
    model = BACKBONES[name].architecture
    found = [each for each in torchvision.models.get_model_weights(model) if each.url == BACKBONES[name].weights.url]
    assert [each.meta["_metrics"]["ImageNet-1K"]["acc@1"] for each in found] == [TOP1[name]]
