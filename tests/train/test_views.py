"""Views where the frozen part ends: what they are, that they are found again, and what happens when something gives."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import making
from headstart.backbones.catalogue import load_pretrained
from headstart.core.errors import DataError, UsageError
from headstart.core.types import ImageDataset
from headstart.data.augment import augment
from headstart.data.sources import open_source
from headstart.engines.fast import FastNetwork
from headstart.engines.registry import get_engine
from headstart.learn.feature_cache import FeatureCache
from headstart.train import views
from headstart.train.views import PLAIN, ViewPlan, compute_views, plan_views

AT, PIXELS = "blocks.4.2.add", 32
SHAPE = (112, 2, 2)
ROWS = (0, 3, 4, 7, 11, 13, 16, 17, 20)


@pytest.fixture(scope="module")
def network() -> FastNetwork:
    trunk = load_pretrained("efficientnet_lite0", None, PIXELS, head=False)
    return get_engine("fast", trunk.blueprint, trunk.weights, trunk.spec, "fp32")  # type: ignore[return-value]


@pytest.fixture
def dataset(photos: Path) -> ImageDataset:
    return open_source(photos)


def viewing(strength: str = "light", count: int = 3, *, keep: bool = True) -> ViewPlan:
    return plan_views(ROWS, SHAPE, strength, count, seed=5, keep=keep)[0]


def test_they_are_what_the_network_makes_of_augmented_photos(dataset: ImageDataset, network: FastNetwork) -> None:
    made: list[np.ndarray[Any, Any]] = []

    def seen(*arguments: Any) -> Any:
        made.append(augment(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "augment", seen)
        patch.setattr(views, "in_chunks", lambda work, places: [each for p in places for each in work([p])])
        found = compute_views(dataset, network, AT, "of these", viewing(keep=False))
    assert found.shape == (3, len(ROWS), *SHAPE)
    expected = network.forward(np.stack(made), AT).reshape(len(ROWS), 3, *SHAPE).swapaxes(0, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert not np.allclose(found[0], found[1], atol=0.1)


def test_without_augmentation_there_is_one_view_and_it_is_the_photo(
    dataset: ImageDataset, network: FastNetwork
) -> None:
    plain = viewing(PLAIN, 4, keep=False)
    assert plain.count == 1
    found = compute_views(dataset, network, AT, "of these", plain)
    pixels = np.stack([views._plain(dataset, row, network) for row in ROWS])
    np.testing.assert_allclose(found[0], network.forward(pixels, AT), rtol=1e-3, atol=1e-3)


def test_a_second_training_finds_them(
    dataset: ImageDataset, network: FastNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[int, int]] = []
    first = compute_views(dataset, network, AT, "of these", viewing(), progress=lambda *d: done.append(d))
    assert done[-1] == (3 * len(ROWS), 3 * len(ROWS))
    monkeypatch.setattr(views, "decode", None)  # so that nothing can be seen again
    np.testing.assert_array_equal(compute_views(dataset, network, AT, "of these", viewing()), first)
    other = dataset.part(list(reversed(range(len(dataset)))))
    turned = replace(viewing(), rows=tuple(len(dataset) - 1 - row for row in ROWS))
    np.testing.assert_array_equal(compute_views(other, network, AT, "of these", turned), first)
    for change in ("other weights", replace(viewing(), seed=6), replace(viewing(), strength="strong")):
        origin, wanted = (change, viewing()) if isinstance(change, str) else ("of these", change)
        with pytest.raises(TypeError, match="not callable"):
            compute_views(dataset, network, AT, origin, wanted)


def test_more_views_are_made_beside_those_that_are_known(dataset: ImageDataset, network: FastNetwork) -> None:
    two = compute_views(dataset, network, AT, "of these", viewing(count=2))
    three = compute_views(dataset, network, AT, "of these", viewing(count=3))
    np.testing.assert_array_equal(three[:2], two)
    np.testing.assert_array_equal(three, compute_views(dataset, network, AT, "of these", viewing(keep=False)))


def test_what_the_store_has_lost_is_computed_again(
    dataset: ImageDataset, network: FastNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compute_views(dataset, network, AT, "of these", viewing())
    read = FeatureCache.read

    def forgetful(self: FeatureCache, keys: Any, features: Any, thumbnails: Any) -> Any:
        sound = read(self, keys, features, thumbnails)
        sound[1::2] = False
        features[1::2] = 7
        return sound

    monkeypatch.setattr(FeatureCache, "read", forgetful)
    np.testing.assert_array_equal(compute_views(dataset, network, AT, "of these", viewing()), first)


def test_a_store_that_cannot_be_written_costs_a_sentence(
    dataset: ImageDataset, network: FastNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: FeatureCache, *_: Any) -> None:
        self.problem = "Nothing more is kept: no space left on device."

    monkeypatch.setattr(FeatureCache, "write", full)
    said: list[str] = []
    found = compute_views(dataset, network, AT, "of these", viewing(), say=said.append)
    assert said == ["Nothing more is kept: no space left on device."]
    np.testing.assert_array_equal(found, compute_views(dataset, network, AT, "of these", viewing(keep=False)))


def test_a_photo_that_is_gone_is_named(tmp_path: Path, network: FastNetwork) -> None:
    dataset = open_source(making.folder(tmp_path / "photos"))
    (tmp_path / "photos" / dataset.samples[4].name).unlink()
    with pytest.raises(DataError, match=rf"{dataset.samples[4].name}' could be read before, and now cannot"):
        compute_views(dataset, network, AT, "of these", viewing(keep=False))


def test_bf16_that_is_too_coarse_is_not_used(
    dataset: ImageDataset, network: FastNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    low = network.at_precision("bf16")
    monkeypatch.setattr("headstart.engines.protocol.TOLERANCE", -1.0)  # also without instructions for bf16
    found = compute_views(dataset, low, AT, "of these", viewing(keep=False))
    assert low.precision == "fp32"
    np.testing.assert_array_equal(found, compute_views(dataset, network, AT, "of these", viewing(keep=False)))


# --- room -------------------------------------------------------------------------------------------------------------


def test_what_they_take_is_said_before() -> None:
    found, sentence = plan_views(range(1000), (112, 14, 14), "light", 4, seed=0)
    assert found.bytes == 2 * 4 * 1000 * 112 * 14 * 14
    assert sentence == (
        "4 views of 1000 photos where the frozen part ends take 176 MB of memory, and as much of the cache for the "
        "next time."
    )
    few = plan_views(range(2), (112, 14, 14), "light", 1, seed=0, keep=False)[1]
    assert few.endswith(" takes less than 1 MB of memory.")


def test_there_are_fewer_where_there_is_less_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_free_memory", lambda: 0)
    monkeypatch.setattr(views, "free_disk", lambda: 250_000_000)
    found, sentence = plan_views(range(1000), (112, 14, 14), "light", 4, seed=0)
    assert (found.count, found.keep) == (4, True)
    monkeypatch.setattr(views, "IN_MEMORY", 0)
    assert not plan_views(range(1000), (112, 14, 14), "light", 4, seed=0)[0].keep  # there is room for one of them
    found, sentence = plan_views(range(1000), (112, 14, 14), "light", 8, seed=0)
    assert (found.count, found.keep) == (5, False)
    assert "take 220 MB of a file of the cache, as there is space for only 5 of 8." in sentence


def test_no_room_at_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_free_memory", lambda: 0)
    monkeypatch.setattr(views, "free_disk", lambda: 1_000_000)
    with pytest.raises(UsageError, match=r"takes 44 MB of disk, 1 MB are free in .*HEADSTART_HOME"):
        plan_views(range(1000), (112, 14, 14), "light", 4, seed=0)


def test_many_lie_in_a_file_that_nobody_has_to_remove(
    dataset: ImageDataset, network: FastNetwork, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    expected = compute_views(dataset, network, AT, "of these", viewing(keep=False))
    monkeypatch.setattr(views, "IN_MEMORY", 0)
    found = compute_views(dataset, network, AT, "of these", viewing(keep=False))
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, expected)
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_a_disk_that_fills_up_is_noticed_before_the_work(
    dataset: ImageDataset, network: FastNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(views, "IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UsageError, match=r"0 MB for views of the photos cannot be allocated .*No space left"):
        compute_views(dataset, network, AT, "of these", viewing(keep=False))
