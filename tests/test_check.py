"""A data set's health: bad files cost a line each, copies are found across classes and splits, alike is not a copy."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from headstart.data import copies
from headstart.data.check import check
from headstart.data.copies import Thumbs, near_copies, phash, sample_of
from headstart.data.load import FORMATS
from headstart.errors import UnreadableImageError
from headstart.types import Problem, Sample, Table


def scene(seed: int, width: int = 150, height: int = 110) -> Image.Image:
    """A smooth random picture: a few waves a colour, as much alike as photos are."""
    r = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    pixels = np.zeros((height, width, 3))
    for _ in range(8):
        fx, fy, phase = r.uniform(-4, 4), r.uniform(-4, 4), r.uniform(0, 6.3)
        pixels += np.sin(2 * np.pi * (fx * x + fy * y) + phase)[:, :, None] * r.uniform(0.4, 1, 3)
    pixels -= pixels.min()
    return Image.fromarray((pixels / pixels.max() * 230).astype(np.uint8))


def save(image: Image.Image, format_: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def crop(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 20, height // 20, width - width // 20, height - height // 20))


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "re-encoded": lambda image: save(image, quality=40),
    "shrunk": lambda image: save(image.resize((image.width // 2, image.height // 2)), quality=90),
    "cropped": lambda image: save(crop(image), "PNG"),
    "brightened": lambda image: save(image.point(lambda value: min(255, round(value * 1.25))), "WEBP", quality=90),
}


def table_of(
    files: Mapping[str, bytes | NDArray[Any] | Exception], problems: tuple[Problem, ...] = (), root: str = "photos"
) -> Table:
    """Names like "cat/1.jpg" or "train/cat/1.jpg", and what reading each gives."""
    samples, contents = [], list(files.values())
    for name in files:
        split = name.split("/")[0] if name.count("/") > 1 else ""
        samples.append(Sample(name, name.split("/")[-2], split))

    def read(index: int) -> bytes | NDArray[Any]:
        content = contents[index]
        if isinstance(content, Exception):
            raise content
        return content

    return Table(root, samples, read, problems)


def bomb() -> bytes:
    """A PNG of a few bytes that says it is 40 000 pixels square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def test_each_bad_file_costs_one_line() -> None:
    good = save(scene(1))
    files: dict[str, bytes | NDArray[Any] | Exception] = {
        "cat/good.jpg": good,
        "cat/empty.jpg": b"",
        "cat/text.jpg": b"<html>not found</html>",
        "cat/cut.jpg": good[: len(good) // 2],
        "cat/bomb.png": bomb(),
        "cat/gone.jpg": FileNotFoundError(2, "No such file or directory"),
        "cat/locked.jpg": PermissionError(13, "Permission denied"),
        "cat/source says.jpg": UnreadableImageError("missing", "null in row 6"),
        "dog/good.png": save(scene(2), "PNG"),
        "dog/in truth a png.JPG": save(scene(3), "PNG"),
        "dog/nan.npy": np.full((8, 8), np.nan),
    }
    passed_over = Problem("dog/x.jpg", "unlabelled", "no label"), Problem("dog/z.jpg", "missing", "line 3")
    health = check(table_of(files, passed_over))
    kinds = {problem.name: problem.kind for problem in health.unreadable}
    assert kinds == {
        "cat/empty.jpg": "empty",
        "cat/text.jpg": "unreadable",
        "cat/cut.jpg": "truncated",
        "cat/bomb.png": "bomb",
        "cat/gone.jpg": "missing",
        "cat/locked.jpg": "unreadable",
        "cat/source says.jpg": "missing",
        "dog/nan.npy": "unreadable",
        "dog/z.jpg": "missing",
    }
    assert [problem.name for problem in health.wrong_names] == ["dog/in truth a png.JPG"]
    assert health.wrong_names[0].detail == "a PNG file named .jpg"
    assert health.passed_over == passed_over[:1]
    assert health.images == 11
    assert health.classes == {"cat": 1, "dog": 2}  # the wrongly named one is usable
    assert all(problem.detail for problem in health.unreadable)


@pytest.mark.parametrize("format_", [*FORMATS, "progressive JPEG"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_cut_file_never_passes(format_: str, share: float) -> None:
    big = scene(4, 1200, 900)  # large enough that a JPEG is decoded at a fraction of its size
    whole = save(big, "JPEG", progressive=True) if format_ == "progressive JPEG" else save(big, format_)
    health = check(table_of({"a/whole.x": whole, "a/cut.x": whole[: int(len(whole) * share)]}))
    assert [problem.name for problem in health.unreadable] == ["a/cut.x"]
    assert health.unreadable[0].kind in ("truncated", "unreadable")


@pytest.mark.parametrize(
    ("name", "format_", "right"),
    [
        ("a/x.jpeg", "JPEG", True),
        ("a/x.JFIF", "JPEG", True),
        ("a/x.tif", "TIFF", True),
        ("a/x.gif", "WEBP", False),
        ("a/x.png", "JPEG", False),
        ("a/set.parquet#17", "PNG", True),  # a row has no ending of its own
        ("a/no ending", "BMP", True),
    ],
)
def test_wrong_names(name: str, format_: str, right: bool) -> None:
    assert (check(table_of({name: save(scene(5), format_)})).wrong_names == ()) == right


def test_exact_copies_and_what_they_mean() -> None:
    photos = [save(scene(seed)) for seed in range(5)]
    health = check(
        table_of(
            {
                "train/cat/0.jpg": photos[0],
                "train/cat/0 again.jpg": photos[0],
                "train/cat/1.jpg": photos[1],
                "test/cat/1.jpg": photos[1],
                "train/cat/2.jpg": photos[2],
                "test/dog/2.jpg": photos[2],
                "train/dog/3.jpg": photos[3],
                "train/dog/4.jpg": photos[4],
            }
        )
    )
    assert [(repeat.relation, repeat.names) for repeat in health.duplicates] == [
        ("across classes", ("train/cat/2.jpg", "test/dog/2.jpg")),
        ("across splits", ("train/cat/1.jpg", "test/cat/1.jpg")),
        ("same class", ("train/cat/0.jpg", "train/cat/0 again.jpg")),
    ]
    assert health.duplicates[0].splits == ("test", "train")  # a leak besides
    assert health.near_duplicates == ()
    assert health.splits == {"test": {"cat": 1, "dog": 1}, "train": {"cat": 4, "dog": 2}}


def test_near_copies_are_found_and_others_are_not() -> None:
    photos = {f"a/{seed}.png": save(scene(seed), "PNG") for seed in range(60)}
    made = {f"b/{seed} {kind}": copy(scene(seed)) for seed in range(15) for kind, copy in COPIES.items()}
    health = check(table_of({**photos, **made}))
    assert health.duplicates == ()
    found = {repeat.names[0]: set(repeat.names[1:]) for repeat in health.near_duplicates}
    expected = {f"a/{seed}.png": {f"b/{seed} {kind}" for kind in COPIES} for seed in range(15)}
    assert found == expected
    assert {repeat.relation for repeat in health.near_duplicates} == {"across classes"}


def test_a_near_copy_names_the_exact_ones_too() -> None:
    photos = {f"train/a/{seed}.png": save(scene(seed), "PNG") for seed in range(30)}
    again = {"train/a/twin.png": photos["train/a/3.png"], "test/a/small.jpg": COPIES["shrunk"](scene(3))}
    health = check(table_of({**photos, **again}))
    assert [repeat.names for repeat in health.duplicates] == [("train/a/3.png", "train/a/twin.png")]
    names = ("train/a/3.png", "train/a/twin.png", "test/a/small.jpg")
    assert [(repeat.names, repeat.relation) for repeat in health.near_duplicates] == [(names, "across splits")]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_photo_turned_by_exif_is_the_same_photo(orientation: int) -> None:
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that a viewer undoes
    stored = scene(7).transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    files: dict[str, bytes | NDArray[Any] | Exception] = {f"a/{n}.png": save(scene(n), "PNG") for n in range(12)}
    health = check(table_of({**files, "a/turned.jpg": save(stored, exif=exif)}))
    assert [repeat.names for repeat in health.near_duplicates] == [("a/7.png", "a/turned.jpg")]


def test_pixels_and_odd_modes_are_looked_at_too() -> None:
    grey = np.asarray(scene(1).convert("L"))
    deep = grey.astype(np.uint16) * 257
    rgba = scene(2).convert("RGBA")
    files: dict[str, bytes | NDArray[Any] | Exception] = {
        "a/grey": grey,
        "a/deep": deep,
        "a/deep.png": save(Image.fromarray(deep), "PNG"),
        "b/rgba.png": save(rgba, "PNG"),
        "b/cmyk.jpg": save(scene(2).convert("CMYK"), quality=95),
        "b/palette.gif": save(scene(2).quantize(256), "GIF"),
        **{f"c/{seed}.jpg": save(scene(seed)) for seed in range(3, 20)},
    }
    health = check(table_of(files))
    assert health.unreadable == ()
    expected = [("a/grey", "a/deep", "a/deep.png"), ("b/rgba.png", "b/cmyk.jpg", "b/palette.gif")]
    assert [repeat.names for repeat in health.near_duplicates] == expected


def test_blank_pictures_are_not_copies_of_one_another() -> None:
    blank = {f"a/{value}.png": save(Image.new("RGB", (40, 30), (value,) * 3), "PNG") for value in range(0, 200, 9)}
    assert check(table_of(blank)).near_duplicates == ()


def test_thin_and_unequal_classes() -> None:
    tiny = np.zeros((4, 4), np.uint8)
    counts = {"many": 101, "ten": 10, "nine": 9}
    pixels = {f"{label}/{n}": tiny + n for label, count in counts.items() for n in range(count)}
    health = check(table_of({**pixels, "none/0.jpg": b""}))
    assert health.tiny_classes == ("nine", "none")
    assert health.imbalance == pytest.approx(101 / 9)
    assert health.imbalanced
    assert not check(table_of({f"{c}/{n}": tiny + n for c, k in (("a", 20), ("b", 2)) for n in range(k)})).imbalanced


def test_what_json_gets_is_plain() -> None:
    photos = {f"train/{'ab'[n % 2]}/{n} ü\n.jpg": save(scene(n // 2)) for n in range(8)}
    health = check(table_of({**photos, "test/a/x.jpg": b""}))
    plain = health.as_json()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["images"] == 9
    assert plain["classes"] == {"a": 4, "b": 4}
    assert plain["unreadable"] == [{"name": "test/a/x.jpg", "kind": "empty", "detail": "0 bytes"}]
    repeats = plain["duplicates"]
    assert isinstance(repeats, list)
    assert len(repeats) == 4
    assert repeats[0]["relation"] == "across classes"
    assert repeats[0]["images"] == ["train/a/0 ü\n.jpg", "train/b/1 ü\n.jpg"]


def test_progress_and_no_images() -> None:
    calls: list[tuple[int, int]] = []
    check(table_of({f"a/{n}": np.full((5, 5), n, np.uint8) for n in range(30)}), lambda *call: calls.append(call))
    assert calls == [(done, 30) for done in range(1, 31)]
    empty = check(table_of({}))
    assert (empty.images, empty.classes, empty.near_duplicates, empty.imbalance) == (0, {}, (), 1.0)


def test_the_hash_ignores_brightness_and_contrast() -> None:
    grey = np.asarray(scene(9).convert("L").resize((32, 32)), np.float64)[None]
    assert phash(grey) == phash(grey * 0.5 + 40)
    assert np.bitwise_count(phash(grey))[0] == 32
    assert np.bitwise_count(phash(grey) ^ phash(grey[:, :, ::-1]))[0] > 10


def test_thumbnail_correlation_equals_numpy() -> None:
    r = np.random.default_rng(0)
    pixels = r.integers(0, 256, (6, 16, 16)).astype(np.uint8)
    pixels[1], pixels[5] = 255 - pixels[0], 77
    thumbs = Thumbs(pixels)
    expected = np.ones((6, 6))
    expected[:5, :5] = 1 - np.corrcoef(pixels[:5].reshape(5, 256).astype(float))
    i, j = (index.ravel() for index in np.indices((6, 6)))
    np.testing.assert_allclose(thumbs.apart(i, thumbs, j), expected.ravel(), atol=1e-12)
    np.testing.assert_allclose(thumbs.all_apart(np.arange(6), thumbs), expected, atol=1e-12)


def planted(seed: int) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Random hashes and thumbnails of two views, with copies of every degree among them."""
    r = np.random.default_rng(seed)
    count = int(r.integers(2, 70))
    bits = (r.random(64) < 0.5) ^ (r.random((count, 2, 64)) < (0.5 if seed % 2 else 0.1))  # strangers, or all alike
    thumbs = r.integers(0, 256, (count, 2, 16, 16)).astype(float)
    for row in range(1, count):
        if r.random() < 0.5:
            other, mine, its = r.integers(0, row), r.integers(0, 2), r.integers(0, 2)
            bits[row, mine] = bits[other, its] ^ (r.random(64) < r.uniform(0, 0.25))
            thumbs[row, mine] = thumbs[other, its] + r.normal(scale=r.uniform(0, 60), size=(16, 16))
    hashes = np.packbits(bits, axis=2).view(np.uint64)[:, :, 0]
    return hashes, thumbs.clip(0, 255).astype(np.uint8)


def all_pairs(hashes: NDArray[np.uint64], thumbs: NDArray[np.uint8]) -> set[frozenset[int]]:
    """The rule of `near_copies`, pair by pair."""
    count = len(hashes)
    bits = np.array([[[[(int(a) ^ int(b)).bit_count() for b in y] for y in hashes] for a in x] for x in hashes])
    flat = thumbs.reshape(2 * count, 256).astype(float)
    thumb = (1 - np.corrcoef(flat)).reshape(count, 2, count, 2).transpose(0, 2, 1, 3)
    bits = bits.transpose(0, 2, 1, 3)  # (row, row, view, view)
    fifths: list[list[float]] = [[], []]
    for row in range(count):
        others = thumb[row, :, 0, 0] >= 0.01
        for values, distance in zip(fifths, (bits, thumb), strict=True):
            values.append(sorted(distance[row, others, 0, 0])[4] if others.sum() > 4 else np.inf)
    units = [min(max(float(np.median(v)), top / 20), top) for v, top in zip(fifths, (22, 0.5), strict=True)]
    graph: defaultdict[int, set[int]] = defaultdict(set)
    for i in range(count):
        for j in range(count):
            for a, b in ((0, 0), (0, 1), (1, 0)):
                d, t = bits[i, j, a, b], thumb[i, j, a, b]
                if i != j and d <= min(10, 0.6 * units[0]) and t < 0.1 and (d + 1) / units[0] * t / units[1] < 0.05:
                    graph[i].add(j)
                    graph[j].add(i)
    found = set()
    for start in list(graph):
        reached, edge = {start}, {start}
        while edge:
            edge = set().union(*(graph[i] for i in edge)) - reached
            reached |= edge
        found.add(frozenset(reached))
    return found


@pytest.mark.parametrize("seed", range(12))
def test_the_search_equals_all_pairs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_ROWS": 5, "_COLUMNS": 11, "_PAIRS": 3}.items():  # every border of a tile is crossed
        monkeypatch.setattr(copies, name, value)
    hashes, thumbs = planted(seed)
    found: defaultdict[int, set[int]] = defaultdict(set)
    for index, group in enumerate(near_copies(hashes, thumbs)):
        assert group <= index
        found[int(group)].add(index)
    assert {frozenset(group) for group in found.values() if len(group) > 1} == all_pairs(hashes, thumbs)


def test_sets_of_many_copies_of_each_photo() -> None:
    r = np.random.default_rng(3)  # then the 5th neighbour is a copy too, and says nothing about other photos
    bits, thumbs = r.random((30, 1, 64)) < 0.5, r.integers(0, 256, (30, 1, 16, 16)).astype(float)
    copied = bits.repeat(8, axis=0) ^ (r.random((240, 1, 64)) < 0.03)
    noisy = (thumbs.repeat(8, axis=0) + r.normal(scale=6, size=(240, 1, 16, 16))).clip(0, 255).astype(np.uint8)
    hashes = np.packbits(copied, axis=2).view(np.uint64)[:, :, 0]
    group_of = near_copies(hashes.repeat(2, axis=1), noisy.repeat(2, axis=1))
    np.testing.assert_array_equal(group_of, np.arange(240) // 8 * 8)


def test_a_sample_is_chosen_by_content() -> None:
    thumbs = np.random.default_rng(4).integers(0, 256, (50, 16, 16)).astype(np.uint8)
    order = np.random.default_rng(5).permutation(50)
    np.testing.assert_array_equal(sample_of(thumbs, 9), order[sample_of(thumbs[order], 9)])
    np.testing.assert_array_equal(sample_of(thumbs, 50), np.arange(50))


def test_the_order_of_the_listing_changes_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "SAMPLE", 20)
    hashes, thumbs = (np.concatenate(part) for part in zip(*(planted(seed) for seed in range(4)), strict=True))
    first = near_copies(hashes, thumbs)
    assert (first != np.arange(len(hashes))).sum() > 10
    order = np.random.default_rng(1).permutation(len(hashes))
    again = near_copies(hashes[order], thumbs[order])
    same = first[:, None] == first
    np.testing.assert_array_equal(same[np.ix_(order, order)], again[:, None] == again)


def test_thousands_of_the_same_picture_stay_small_in_memory() -> None:
    r = np.random.default_rng(0)
    hashes = np.repeat(r.integers(0, 2**63, (1, 2)).astype(np.uint64), 5000, axis=0)
    thumbs = np.repeat(r.integers(0, 256, (1, 2, 16, 16)).astype(np.uint8), 5000, axis=0)
    tracemalloc.start()
    group_of = near_copies(hashes, thumbs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (group_of == 0).all()
    assert peak < 100e6  # 12 million pairs would be 200 MB as indices alone


def test_real_photos(shared: Path) -> None:
    paths = sorted((shared / "data" / "oxford_pets").glob("*/*.jpg"))[::3]
    photos = {f"a/{n}.jpg": path.read_bytes() for n, path in enumerate(paths)}
    made = {
        f"b/{n} {kind}": copy(Image.open(path).convert("RGB"))
        for n, path in enumerate(paths[:30])
        for kind, copy in COPIES.items()
    }
    health = check(table_of({**photos, **made}))
    assert health.unreadable == health.wrong_names == ()
    group = {name: set(repeat.names) for repeat in health.near_duplicates for name in repeat.names}
    found = [f"a/{name.split()[0][2:]}.jpg" in group.get(name, ()) for name in made]
    assert np.mean(found) >= 0.98
    assert not any(len({name.split(".")[0].split()[0][2:] for name in names}) > 1 for names in group.values())


def test_real_photos_that_are_merely_alike(shared: Path) -> None:
    from headstart.data.sources import open_source

    digits = open_source(shared / "data" / "mnist")
    few = Table(digits.root, list(digits.samples)[:1500], digits.read)
    touched = sum(len(repeat.names) for repeat in check(few).near_duplicates)
    assert touched < 0.05 * len(few)  # a fixed distance of 10 bits touches nine digits in ten
