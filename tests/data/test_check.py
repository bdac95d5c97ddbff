"""A data set's health: bad files cost a line each, copies are found across classes and splits, alike is not a copy."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from headstart.core.errors import UnreadableImageError
from headstart.core.types import ImageDataset, Problem, Sample
from headstart.data.check import check
from headstart.data.fingerprints import take_fingerprints
from headstart.data.split import make_split


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


WRITTEN = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "DDS", "SGI", "QOI", "TGA", "PCX")


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
    "mirrored": lambda image: save(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG"),
}


def table_of(
    files: Mapping[str, bytes | NDArray[Any] | Exception], problems: tuple[Problem, ...] = (), root: str = "photos"
) -> ImageDataset:
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

    return ImageDataset(root, samples, read, problems)


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


@pytest.mark.parametrize("format_", [*WRITTEN, "progressive JPEG"])
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
    plain = json.loads(json.dumps(health.as_json()))
    assert plain["images"] == 9
    assert plain["classes"] == {"a": 4, "b": 4}
    assert plain["unreadable"] == [{"name": "test/a/x.jpg", "kind": "empty", "detail": "0 bytes"}]
    repeats = plain["duplicates"]
    assert isinstance(repeats, list)
    assert len(repeats) == 4
    assert repeats[0]["relation"] == "across classes"
    assert repeats[0]["images"] == ["train/a/0 ü\n.jpg", "train/b/1 ü\n.jpg"]


def test_progress_and_no_images() -> None:
    calls: list[tuple[str, int, int]] = []
    many = {f"a/{n}": np.full((5, 5), n, np.uint8) for n in range(30)}
    check(table_of(many), progress=lambda *call: calls.append(call))
    assert calls == [*(("images", done, 30) for done in range(1, 31)), ("near copies", 0, 1), ("near copies", 1, 1)]
    empty = check(table_of({}))
    assert (empty.images, empty.classes, empty.near_duplicates, empty.imbalance) == (0, {}, (), 1.0)


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
    few = ImageDataset(digits.root, list(digits.samples)[:1500], digits.read)
    touched = sum(len(repeat.names) for repeat in check(few).near_duplicates)
    assert touched < 0.05 * len(few)  # a fixed distance of 10 bits touches nine digits in ten


def test_a_split_never_tears_what_check_joins(shared: Path) -> None:
    """On photos with copies of every kind among them, mirrored ones too."""
    paths = sorted((shared / "data" / "oxford_pets").glob("*/*.jpg"))[::5]
    files: dict[str, bytes | NDArray[Any] | Exception] = {
        f"{n % 2}/{n}.jpg": p.read_bytes() for n, p in enumerate(paths)
    }
    for n, path in enumerate(paths[:12]):
        for kind, copy in COPIES.items():
            files[f"{n % 2}/{n} {kind}"] = copy(Image.open(path).convert("RGB"))
    dataset = table_of(files)
    joined = check(dataset).near_duplicates
    assert sum(len(repeat.names) for repeat in joined) >= 60
    split = make_split(dataset, take_fingerprints(dataset), 0.3, seed=1)
    held_out = {sample.name for sample, out in zip(dataset.samples, split.test, strict=True) if out}
    assert held_out
    assert all(len({name in held_out for name in repeat.names}) == 1 for repeat in joined)
