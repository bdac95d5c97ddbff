"""What is not what the images show, and predicts their class all the same, is found; and nothing where nothing does."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from headstart.core.errors import DataError
from headstart.core.types import ImageDataset, Sample
from headstart.data.file_headers import FileHeader, header_of
from headstart.data.opened_image import Raw
from headstart.diagnose import shortcuts as module
from headstart.diagnose.records import Shortcut
from headstart.diagnose.shortcuts import judge, neighbours_vote, shortcuts

Labels = NDArray[np.int_]
LABELS: Labels = np.arange(60) % 2
KINDS = ("size", "file type", "brightness", "border")


def saved(width: int, height: int, kind: str = "PNG", mode: str = "RGB", **settings: int) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, kind, **settings)
    return file.getvalue()


def noise(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16), np.uint8)


def asked(raws: list[Raw], thumbnails: NDArray[np.uint8], labels: Labels = LABELS) -> dict[str, Shortcut]:
    samples = [Sample(f"{row}.png", str(label)) for row, label in enumerate(labels)]
    dataset = ImageDataset("", samples, lambda row: raws[row])
    rows = np.arange(len(labels))
    found = shortcuts(dataset, rows, labels, rows, thumbnails)
    assert tuple(each.what for each in found) == KINDS
    return {each.what: each for each in found}


def those_of(found: dict[str, Shortcut]) -> list[str]:
    return [what for what, each in found.items() if each.is_one]


def test_a_size_that_tells_the_class_is_found() -> None:
    """Cats stand, dogs lie; the files are alike, and the thumbnails are noise."""
    raws: list[Raw] = [saved(240, 320) if label else saved(320, 240) for label in LABELS]
    found = asked(raws, noise(60))
    assert those_of(found) == ["size"]
    assert (found["size"].accuracy, found["size"].chance, found["size"].images) == (1.0, 0.5, 60)
    assert found["file type"].accuracy == found["file type"].chance == 0.5


def test_a_size_between_two_others_tells_as_well() -> None:
    """No line divides the classes."""
    raws: list[Raw] = [saved(200, 200) if label else saved(*((100, 100), (400, 400))[row % 4 // 2])
                       for row, label in enumerate(LABELS)]  # fmt: skip
    assert those_of(asked(raws, noise(60))) == ["size"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (saved(64, 64, "PNG"), saved(64, 64, "JPEG")),
        (saved(64, 64, "JPEG", quality=95), saved(64, 64, "JPEG", quality=60)),
        (saved(64, 64, "PNG", "L"), saved(64, 64, "PNG")),
        (np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.uint8)),
    ],
)
def test_a_file_type_that_tells_the_class_is_found(one: Raw, other: Raw) -> None:
    assert those_of(asked([other if label else one for label in LABELS], noise(60))) == ["file type"]


def test_a_file_type_that_tells_a_little_is_found_by_the_votes_of_all_files_of_it() -> None:
    """Seven in ten: a few neighbours of the hundreds that are equally near would answer less well."""
    labels = np.repeat([0, 1], 200)
    raws: list[Raw] = [saved(8, 8, "PNG" if (row % 10 < 7) == label else "BMP") for row, label in enumerate(labels)]
    found = asked(raws, noise(400), labels)
    assert those_of(found) == ["file type"]
    assert found["file type"].accuracy == pytest.approx(0.7)


def test_brightness_and_borders_that_tell_the_class_are_found() -> None:
    same: list[Raw] = [saved(64, 64)] * 60
    bright = noise(60) // 2 + (LABELS * 80)[:, None, None].astype(np.uint8)
    assert those_of(asked(same, bright)) == ["brightness", "border"]
    framed = noise(60)
    framed[LABELS == 1, 0] = 127  # a grey line above, of the mean brightness
    assert those_of(asked(same, framed)) == ["border"]


def test_nothing_is_found_where_nothing_tells_the_class() -> None:
    rng = np.random.default_rng(1)
    raws: list[Raw] = [saved(int(rng.integers(50, 400)), 99, ("PNG", "BMP")[rng.integers(2)]) for _ in range(60)]
    assert those_of(asked(raws, noise(60))) == []


@pytest.mark.parametrize(("count", "classes"), [(30, 2), (300, 2), (200, 10)])
def test_chance_is_not_taken_for_a_shortcut(count: int, classes: int) -> None:
    rng = np.random.default_rng(0)
    draws = [(rng.normal(size=(count, 3)).round(place % 3), np.arange(count) % classes) for place in range(100)]
    assert (
        sum(judge("size", columns, rng.permutation(labels), 4).is_one for columns, labels in draws) <= 1
    )  # 0.25 expected


def test_a_gain_that_is_sure_but_small_is_none() -> None:
    """Of 4000 images 2 % more than chance, beyond doubt, but of no matter."""
    labels = np.repeat([0, 1], [2400, 1600])
    column = np.zeros((4000, 1))
    column[-80:] = 1
    found = judge("size", column, labels, 4)
    assert (found.accuracy, found.chance, found.is_one) == (0.62, 0.6, False)


def test_what_says_nothing_gets_the_most_frequent_class() -> None:
    """Though the row that is left out is of the other, of which there are as many."""
    assert neighbours_vote(np.zeros((60, 2)), LABELS).tolist() == [0] * 60


def test_near_copies_do_not_find_each_other() -> None:
    """Ten copies of each of six photos of random brightness: what they tell of each other is nothing."""
    levels = np.repeat(np.arange(0, 240, 4), 10)
    thumbnails = np.repeat(levels, 256).reshape(600, 16, 16).astype(np.uint8)
    labels = np.random.default_rng(3).integers(0, 2, 60).repeat(10)
    dataset = ImageDataset("", [Sample("a", "b")] * 600, lambda _: saved(8, 8))
    rows = np.arange(600)
    alone = {each.what: each for each in shortcuts(dataset, rows, labels, rows, thumbnails)}
    together = {each.what: each for each in shortcuts(dataset, rows, labels, rows // 10, thumbnails)}
    assert those_of(alone) == ["brightness", "border"]
    assert those_of(together) == []
    assert together["brightness"].images == 60


def test_of_many_images_some_are_looked_at_and_of_few_none(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def reading(row: int) -> bytes:
        read.append(row)
        return saved(8, 8)

    dataset = ImageDataset("", [Sample("a", "b")] * 60, reading)
    rows = np.arange(60)
    monkeypatch.setattr(module, "MOST", 25)
    assert {each.images for each in shortcuts(dataset, rows, LABELS, rows, noise(60))} == {25}
    assert (len(read), min(read), max(read)) == (25, 0, 59)
    assert shortcuts(dataset, rows[:19], LABELS, rows, noise(60)) == ()


def test_a_photo_that_is_gone_is_named() -> None:
    raws: list[Raw] = [*[saved(8, 8)] * 59, b""]
    with pytest.raises(DataError, match=r"'59\.png' could be read before, and now cannot"):
        asked(raws, noise(60))


def test_headers() -> None:
    assert header_of(saved(30, 20)) == FileHeader(30, 20, "PNG RGB", 0)
    assert header_of(np.zeros((20, 30, 3), np.uint8)) == FileHeader(30, 20, "array uint8 (3,)", 0)
    fine, coarse = (header_of(saved(30, 20, "JPEG", quality=quality)) for quality in (95, 50))
    assert (fine.kind, coarse.kind) == ("JPEG RGB", "JPEG RGB")
    assert 0 < fine.compression < coarse.compression


def test_a_border_must_tell_more_than_a_size() -> None:
    """Sky above a ship is a part of what a photo shows; four in ten more than chance are a fault of files alone."""
    labels = np.repeat([0, 1], 200)
    column = np.where(np.arange(400) % 10 < 7, labels, 1 - labels)[:, None].astype(float)
    found = {what: judge(what, column, labels, 4) for what in KINDS}
    assert {each.accuracy for each in found.values()} == {0.7}
    assert those_of(found) == ["size", "file type"]


def test_real_photos_have_none(shared: Path) -> None:
    """Leaves of one kind fill more of their photo, which is no fault: borders tell 0.67 against 0.45."""
    from headstart.data.fingerprints import take_fingerprints
    from headstart.data.sources import open_source

    for name in ("cats_dogs/train", "apple_leaves"):
        dataset = open_source(shared / "data" / name)
        prints = take_fingerprints(dataset)
        labels = np.unique([sample.label for sample in dataset.samples], return_inverse=True)[1]
        found = shortcuts(dataset, np.arange(len(labels)), labels, prints.copies(), prints.thumbnails)
        assert [each.what for each in found if each.is_one] == []
    assert found[-1].accuracy > found[-1].chance + 0.15
