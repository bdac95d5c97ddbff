"""Batches depend on seed, epoch and step alone; photos are augmented with nothing but their own pixels."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from headstart.core.errors import DataError, UnreadableImageError, UsageError
from headstart.core.types import ImageDataset, ImageSpec, Sample
from headstart.data.augment import MARGIN, STRENGTHS, augment, margin_of
from headstart.data.load import decode
from headstart.data.sources import open_source
from headstart.train import batches as module
from headstart.train.batches import ArrayBatches, PhotoBatches, draw
from headstart.train.protocol import Batch
from headstart.train.recipe import AUGMENTATIONS, Recipe

SPEC = ImageSpec(24, crop=0.8)
Pixels = NDArray[np.uint8]


def numbered(count: int, views: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows that say which they are: (row, view)."""
    rows = np.arange(count, dtype=np.float64)
    seen = np.stack([np.stack([rows, np.full(count, view)], -1) for view in range(views or 1)])
    return seen if views else seen[0], rows.astype(np.uint8) % 3


def same(first: Sequence[Batch], second: Sequence[Batch]) -> bool:
    """Whether two lists of batches are equal, bit by bit."""
    pairs = zip(first, second, strict=True)
    return all(np.array_equal(a.x, b.x) and np.array_equal(a.y, b.y) for a, b in pairs)


# --- arrays -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(count=st.integers(1, 40), size=st.integers(1, 12), epoch=st.integers(0, 5), start=st.integers(0, 45))
def test_an_epoch_has_every_image_once_and_goes_on_anywhere(count: int, size: int, epoch: int, start: int) -> None:
    x, y = numbered(count)
    batches = ArrayBatches(x, y, size, seed=1)
    whole = list(batches.epoch(epoch))
    assert len(whole) == batches.steps == max(-(-count // size) - (count % size == 1 < size), 1)
    assert [len(batch.y) for batch in whole[:-1]] == [size] * (len(whole) - 1)
    assert len(whole[-1].y) > 1 or 1 in (size, count)  # a batch norm has no statistics of a single image
    assert sorted(np.concatenate([batch.x[:, 0] for batch in whole]).astype(int)) == list(range(batches.images))
    assert all((batch.y == batch.x[:, 0].astype(int) % 3).all() for batch in whole)
    assert same(list(batches.epoch(epoch, start)), whole[start:])
    assert same(list(ArrayBatches(x, y, size, seed=1).epoch(epoch)), whole)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    x, y = numbered(50)
    orders = {tuple(ArrayBatches(x, y, 50, seed).order(epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert ArrayBatches(x, y, 8, shuffle=False).order(3).tolist() == list(range(50))


def test_no_two_places_share_their_draws() -> None:
    """NumPy seeds (1,) and (1, 0) alike."""
    places = [(1,), (1, 0), (1, 0, 0), (0, 1), (2, 1)]
    assert len({draw(purpose, *place).random() for place in places for purpose in (1, 2)}) == 10


def test_each_epoch_sees_another_view_and_every_view_in_turn() -> None:
    x, y = numbered(60, views=4)
    batches = ArrayBatches(x, y, 7, seed=2, views=True)
    assert batches.images == 60
    seen = np.empty((8, 60), int)
    for epoch in range(8):
        for batch in batches.epoch(epoch):
            seen[epoch, batch.x[:, 0].astype(int)] = batch.x[:, 1]
    assert (np.arange(4) == np.sort(seen[:4], axis=0).T).all()
    assert (seen[4:] == seen[:4]).all()
    assert min(np.bincount(seen[0], minlength=4)) > 5  # views are mixed within an epoch
    plain = list(ArrayBatches(x, y, 7, shuffle=False, views=True).epoch(3))
    assert not any(batch.x[:, 1].any() for batch in plain)


def test_types_are_what_trainers_take(tmp_path: Path) -> None:
    y = np.array([0, 1, 1])
    for kind, expected in {"u1": "u1", "f2": "f4", "f4": "f4", "f8": "f4", "i8": "f4"}.items():
        (batch,) = ArrayBatches(np.ones((3, 2, 2), kind), y, 5).epoch(0)
        assert (batch.x.dtype, batch.y.dtype) == (np.dtype(expected), np.dtype(np.int64))
    mapped = np.memmap(tmp_path / "views", np.float16, "w+", shape=(2, 3, 4))
    mapped[:] = np.arange(24).reshape(2, 3, 4)
    (batch,) = ArrayBatches(mapped, y, 5, views=True).epoch(0)
    assert not isinstance(batch.x, np.memmap)
    assert {tuple(row) for row in batch.x} <= {tuple(row) for row in np.arange(24.0).reshape(6, 4)}


@pytest.mark.parametrize(
    ("x", "y", "size", "message"),
    [
        (np.ones((3, 2)), np.array([0, 1]), 4, r"a label for each. Received: shapes \(3, 2\) and \(2,\)"),
        (np.ones((3, 2)), np.array([0.0, 1, 2]), 4, "Labels are the numbers of classes, from 0. Received: float64"),
        (np.ones((3, 2)), np.array([0, -1, 2]), 4, "Received: int64 from -1"),
        (np.ones((0, 2)), np.array([], int), 4, "There are no images"),
        (np.ones(3), np.array([0, 1, 1]), 4, "Expected images or rows"),
        (np.ones((3, 2)), np.array([0, 1, 1]), 0, "batch_size: expected at least 1. Received: 0"),
    ],
)
def test_what_is_no_set_of_batches_is_refused(x: Any, y: Any, size: int, message: str) -> None:
    with pytest.raises((DataError, UsageError), match=message):
        ArrayBatches(x, y, size)


# --- augmentation -----------------------------------------------------------------------------------------------------


def photo(seed: int = 0, size: int = 40) -> Pixels:
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin((seed + 3) * x + k) * np.cos((seed + 2) * y - k) for k in range(3)]
    return np.asarray(128 + 110 * np.stack(waves, -1)).astype(np.uint8)


def test_strengths_are_those_of_the_recipe() -> None:
    assert tuple(STRENGTHS) == AUGMENTATIONS
    assert {name: margin_of(name) for name in STRENGTHS} == {"none": 1, "flips": 1, "light": MARGIN, "strong": MARGIN}


def test_without_augmentation_nothing_changes_and_flips_only_mirror() -> None:
    image = photo()
    assert np.array_equal(augment(image, draw(9, 0), "none"), image)
    mirrored = [augment(Image.fromarray(image), draw(9, seed), "flips") for seed in range(200)]
    count = sum(np.array_equal(each, image[:, ::-1]) for each in mirrored)
    assert 70 < count < 130
    assert all(np.array_equal(each, image) or np.array_equal(each, image[:, ::-1]) for each in mirrored)


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_no_pixel_comes_from_beyond_the_photo(strength: str) -> None:
    """Of a bright photo none of the views has a dark corner; colours are set back for it."""
    allowed = STRENGTHS[strength].colour
    for seed in range(150):
        seen = augment(np.full((40, 40, 3), 120, np.uint8), draw(9, seed), strength, 32, 0.9)
        assert seen.shape == (32, 32, 3)
        assert seen.min() >= 120 * (1 - allowed) - 2
        assert int(seen.max()) - int(seen.min()) <= 1


@pytest.mark.parametrize(("strength", "least"), [("light", 0.8), ("strong", 0.5)])
def test_a_view_is_as_large_as_it_may_be(strength: str, least: float) -> None:
    """Measured on ramps: how much of the photo is seen, how far turned, and that nothing is sheared."""
    y, x = np.mgrid[:200, :200] / 199
    ramps = (20 + 215 * np.stack([x, y, x], -1)).astype(np.uint8)
    chosen = STRENGTHS[strength]
    shares, turns, mirrored = [], [], 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STRENGTHS, strength, replace(chosen, colour=0.0))
        for seed in range(200):
            seen = augment(ramps, draw(9, seed), strength, 100, 1 / MARGIN).astype(float) / 215
            across, down = (seen[:, -1] - seen[:, 0]).mean(axis=0)[:2], (seen[-1] - seen[0]).mean(axis=0)[:2]
            assert abs(across @ down) < 0.01
            assert np.hypot(*across) == pytest.approx(np.hypot(*down), abs=0.02)
            shares.append(np.hypot(*down) * MARGIN)
            turns.append(np.degrees(np.arctan2(down[0], down[1])))
            mirrored += across[0] < 0
    assert least * 0.97 < min(shares) < least * 1.06
    assert max(shares) < 1.12
    assert chosen.turn * 0.9 < max(np.abs(turns)) < chosen.turn * 1.1
    assert abs(np.mean(turns)) < chosen.turn / 5
    assert 70 < mirrored < 130


def test_colours_are_what_pillow_makes_of_them() -> None:
    from PIL import ImageEnhance

    image = Image.fromarray(photo()).point(lambda value: 60 + value // 2)  # nothing is clipped on the way
    from headstart.data.augment import _colours

    for factors in [(1.0, 1.0, 1.0), (1.1, 1.0, 1.0), (1.0, 0.8, 1.0), (1.0, 1.0, 0.3), (0.9, 1.1, 1.2)]:
        expected = ImageEnhance.Color(image).enhance(factors[2])
        expected = ImageEnhance.Contrast(expected).enhance(factors[1])
        expected = ImageEnhance.Brightness(expected).enhance(factors[0])
        difference = np.abs(np.asarray(_colours(image, *factors)).astype(int) - np.asarray(expected))
        assert difference.max() <= 4, factors  # Pillow rounds after each


@pytest.mark.parametrize("image", [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8)])
def test_what_is_no_square_of_colours_is_refused(image: Any) -> None:
    with pytest.raises(UsageError, match="Expected a"):
        augment(image, draw(9, 0), "light")
    with pytest.raises(UsageError, match=r"no augmentation 'lite'\. Did you mean light"):
        augment(photo(), draw(9, 0), "lite")


# --- photos -----------------------------------------------------------------------------------------------------------


def dataset(count: int = 25, reads: list[int] | None = None) -> ImageDataset:
    """Photos in memory, of which each reading is noted."""

    def read(row: int) -> Pixels:
        if reads is not None:
            reads.append(row)
        return photo(row, 40 + row)

    return ImageDataset("memory", [Sample(f"{row}.png", "abc"[row % 3]) for row in range(count)], read)


RECIPE = Recipe(batch_size=4, augmentation="strong", seed=5)


def test_a_view_is_drawn_from_seed_epoch_and_row_alone() -> None:
    rows = range(3, 23)
    batches = PhotoBatches(dataset(), rows, SPEC, RECIPE)
    first = [list(batches.epoch(epoch)) for epoch in (0, 1)]
    assert (batches.images, batches.steps) == (20, 5)
    again = PhotoBatches(dataset(), rows, SPEC, RECIPE, keep=0)
    assert same(list(again.epoch(1, 2)), first[1][2:])  # nothing kept, and from the middle
    assert same(list(batches.epoch(0)), first[0])
    order = batches.order(0)
    place = int(order[6])
    one = PhotoBatches(dataset(), [rows[place]], SPEC, RECIPE)  # the same photo in other company
    assert np.array_equal(next(one.epoch(0)).x[0], first[0][1].x[2])
    assert first[0][1].y[2] == rows[place] % 3
    assert not np.array_equal(first[0][1].x[2], np.concatenate([b.x for b in first[1]])[batches.order(1) == place][0])


@pytest.mark.parametrize("augmentation", ["none", "flips"])
def test_without_augmentation_a_photo_is_what_prediction_sees(augmentation: str) -> None:
    source = dataset()
    expected = np.stack([decode(source.read(row), SPEC) for row in range(25)])
    batches = PhotoBatches(source, range(25), SPEC, replace(RECIPE, augmentation=augmentation))
    seen = np.concatenate([batch.x for batch in batches.epoch(0)])[np.argsort(batches.order(0))]
    mirrored = (seen == expected[:, :, ::-1]).all(axis=(1, 2, 3))
    assert ((seen == expected).all(axis=(1, 2, 3)) | mirrored).all()
    assert (augmentation == "flips") == mirrored.any()
    plain = PhotoBatches(source, range(25), SPEC, RECIPE, train=False)
    assert np.array_equal(np.concatenate([batch.x for batch in plain.epoch(4)]), expected)
    assert np.concatenate([batch.y for batch in plain.epoch(4)]).tolist() == [row % 3 for row in range(25)]


def test_the_middle_view_is_what_prediction_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """A photo is kept wider than it is looked at; a view with nothing drawn is the usual one but for resampling."""
    monkeypatch.setitem(STRENGTHS, "light", replace(STRENGTHS["light"], flip=False, turn=0, colour=0, smallest=0.9999))
    monkeypatch.setattr(module, "draw", lambda *_: np.random.default_rng(0))

    class Middle:
        def random(self, count: int) -> Any:
            return np.array([0.9, 0.0, *[0.5] * (count - 2)])

    large = ImageSpec(96, crop=0.8)
    photos = ImageDataset("memory", [Sample("0.png", "a")], lambda _: photo(1, 300))
    batches = PhotoBatches(photos, [0], large, replace(RECIPE, augmentation="light"))
    monkeypatch.setattr(module, "draw", lambda purpose, *_: Middle())
    monkeypatch.setattr(PhotoBatches, "order", lambda self, epoch: np.arange(1))
    (batch,) = batches.epoch(0)
    assert np.abs(batch.x[0].astype(int) - decode(photo(1, 300), large)).max() <= 3


def test_photos_are_decoded_once_as_far_as_memory_allows() -> None:
    reads: list[int] = []
    side = round(24 * MARGIN)
    batches = PhotoBatches(dataset(25, reads), range(25), SPEC, RECIPE, keep=10 * 3 * side**2 + 5)
    assert batches.memory == 10 * 3 * side**2
    for epoch in range(3):
        list(batches.epoch(epoch))
    assert len(reads) == 25 + 2 * 15
    assert sum(pixels.nbytes for pixels in batches._kept.values()) == batches.memory
    assert PhotoBatches(dataset(), range(25), SPEC, RECIPE).memory == 25 * 3 * side**2


def test_classes_are_counted_as_the_model_counts_them() -> None:
    batches = PhotoBatches(dataset(), range(3), SPEC, RECIPE, train=False, classes=("c", "x", "a", "b"))
    assert next(batches.epoch(0)).y.tolist() == [2, 3, 0]
    with pytest.raises(DataError, match=r"^'.+' is labelled 'b', which is no class of the model"):
        PhotoBatches(dataset(), range(3), SPEC, RECIPE, classes=("a", "c"))
    with pytest.raises(DataError, match="There are no images"):
        PhotoBatches(dataset(), [], SPEC, RECIPE)


def test_a_photo_that_is_gone_is_named_and_no_thread_stays() -> None:
    def read(row: int) -> Pixels:
        if row == 7:
            raise UnreadableImageError("truncated", "it ends early")
        return photo(row)

    photos = ImageDataset("memory", [Sample(f"{row}.png", "a") for row in range(60)], read)
    with pytest.raises(DataError, match=r"'7\.png' could be read before, and now cannot: it ends early"):
        list(PhotoBatches(photos, range(60), SPEC, RECIPE).epoch(0))
    stopped = PhotoBatches(photos, range(8, 60), SPEC, RECIPE).epoch(0)
    next(stopped)
    stopped.close()  # type: ignore[attr-defined]  # a generator
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("headstart")]


def test_a_folder_of_photos(photos: Path) -> None:
    source = open_source(str(photos))
    batches = PhotoBatches(source, range(len(source)), ImageSpec(32), Recipe(batch_size=10))
    seen = list(batches.epoch(0))
    assert [len(batch.y) for batch in seen] == [10, 10, 10, 6]
    assert np.bincount(np.concatenate([batch.y for batch in seen])).tolist() == [12, 12, 12]
    assert {batch.x.shape[1:] for batch in seen} == {(32, 32, 3)}
