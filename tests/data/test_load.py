"""Decoding: every kind of image file to the same uint8 RGB square, and a reason for each that is none."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Container, Iterator
from itertools import islice
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from headstart.core.errors import UnreadableImageError
from headstart.core.types import PROBLEMS, ImageDataset, ImageSpec, Sample
from headstart.data import load
from headstart.data.load import (
    AHEAD,
    CHUNK,
    SUFFIXES,
    THUMBNAIL,
    Decoded,
    content_key,
    decode,
    decode_with_thumbnail,
    in_chunks,
    load_image,
    sniff,
)

SPEC = ImageSpec(size=32, crop=1.0)
Pixels = NDArray[np.uint8]


def photo(height: int = 48, width: int = 64) -> Pixels:
    """Smooth, coloured, and alike under no turn or mirroring."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * y / height, 255 * x / width, 80 + 60 * (y < height / 3) * (x < width / 3)], -1).astype(
        np.uint8
    )


def packed(image: Image.Image | Pixels, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def reference(pixels: Pixels, spec: ImageSpec = SPEC) -> Pixels:
    """The centred square, by Pillow alone."""
    image = Image.fromarray(pixels)
    side = min(image.size) * spec.crop
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((spec.size, spec.size), Image.Resampling.BICUBIC, box=box).convert("RGB"))


def difference(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def kind_of(raw: bytes) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(raw, SPEC)
    assert caught.value.kind in PROBLEMS
    return caught.value.kind


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 3),
        ("JPEG", {"quality": 95}, 3),
        ("JPEG", {"quality": 95, "progressive": True}, 3),
        ("GIF", {}, 12),
    ],
)
def test_formats(kind: str, options: dict[str, Any], tolerance: float) -> None:
    raw = packed(photo(), kind, **options)
    square = decode(raw, SPEC)
    assert square.dtype == np.uint8
    assert square.shape == (32, 32, 3)
    assert difference(square, reference(photo())) <= tolerance
    assert sniff(raw[:16]) == kind


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP"])
def test_only_the_first_frame_counts(kind: str) -> None:
    red, blue = (Image.new("RGB", (40, 40), colour) for colour in ("red", "blue"))
    square = decode(packed(red, kind, save_all=True, append_images=[blue, blue]), SPEC)
    assert difference(square, np.full((32, 32, 3), (255, 0, 0), np.uint8)) < 2


def test_crop_takes_the_centre() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[25:75, 75:125] = 200
    assert (decode(packed(pixels, "PNG"), ImageSpec(size=20, crop=0.4)) == 200).all()
    assert (decode(packed(pixels, "PNG"), ImageSpec(size=20, crop=1.0))[0] == 0).all()


def test_bilinear_is_not_bicubic() -> None:
    raw = packed(photo(), "PNG")
    assert difference(decode(raw, ImageSpec(32, resample="bilinear")), decode(raw, ImageSpec(32))) > 0


def ramp(top: int, dtype: type[Any]) -> NDArray[Any]:
    return (np.arange(32 * 32).reshape(32, 32) * (top / 1023)).astype(dtype)


RAMP = np.repeat(ramp(255, np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(packed(ramp(255, np.uint8), "PNG"), id="8-bit PNG"),
        pytest.param(packed(Image.fromarray(ramp(65535, np.uint16)), "PNG"), id="16-bit PNG"),
        pytest.param(packed(Image.fromarray(ramp(65535, np.uint16)), "TIFF"), id="16-bit TIFF"),
        pytest.param(
            packed(Image.fromarray(ramp(65535, np.uint16).astype(">u2")), "TIFF"), id="16-bit TIFF, big-endian"
        ),
        pytest.param(packed(Image.fromarray(ramp(65535, np.int32)), "TIFF"), id="32-bit TIFF"),
        pytest.param(packed(Image.fromarray(ramp(10_000_000, np.int32)), "TIFF"), id="32-bit TIFF, its own range"),
        pytest.param(
            packed(Image.fromarray(np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)), "TIFF"), id="float"
        ),
        pytest.param(
            packed(Image.fromarray(np.linspace(-3, 9, 1024, dtype=np.float32).reshape(32, 32)), "TIFF"), id="any float"
        ),
        pytest.param(packed(ramp(255, np.uint8), "JPEG", quality=100), id="grey JPEG"),
    ],
)
def test_grey_of_any_depth(raw: bytes) -> None:
    assert np.abs(decode(raw, SPEC).astype(int) - RAMP).max() <= 3
    assert difference(decode(raw, SPEC), RAMP) <= 1


def test_arrays_decode_as_files_do() -> None:
    expected = decode(packed(photo(), "PNG"), SPEC)
    assert (decode(photo(), SPEC) == expected).all()
    assert (decode(photo().astype(np.uint16) * 257, SPEC) == expected).all()
    assert difference(decode(photo() / 255, SPEC), expected) <= 1
    assert (decode(photo()[:, :, :1], SPEC) == decode(photo()[:, :, 0], SPEC)).all()
    assert (decode(photo().astype(np.int32), SPEC) == expected).all()
    assert set(np.unique(decode(np.eye(32, dtype=bool), SPEC))) == {0, 255}
    assert (decode(np.full((9, 9), 7.5), SPEC) == 0).all()  # constant and out of range: no division by zero


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, 5), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros(7, np.uint8),
        np.full((4, 4), np.nan),
        np.full((4, 4), np.inf),
        np.zeros((4, 4), complex),
        np.full((4, 4), "a"),
    ],
)
def test_arrays_that_are_no_image(pixels: NDArray[Any]) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        decode(pixels, SPEC)
    assert caught.value.kind == "unreadable"


def test_one_bit() -> None:
    square = decode(packed(Image.fromarray(photo()[:, :, 0] > 127), "PNG"), SPEC)
    assert (square[:10] == 0).all()
    assert (square[-10:] == 255).all()


def half_clear() -> Image.Image:
    """Left half black and opaque, right half black and clear: the right half must come out white."""
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (32, 0, 64, 64))
    return image


def colour_key(mode: str, key: Any) -> bytes:
    image = Image.new("RGB", (64, 64), (0, 0, 0))
    image.paste((9, 9, 9), (32, 0, 64, 64))
    return packed(image.convert(mode), "PNG", transparency=key)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(packed(half_clear(), "PNG"), id="RGBA PNG"),
        pytest.param(packed(half_clear(), "WEBP", lossless=True), id="RGBA WebP"),
        pytest.param(packed(half_clear(), "TIFF"), id="RGBA TIFF"),
        pytest.param(packed(half_clear().convert("LA"), "PNG"), id="LA"),
        pytest.param(packed(half_clear().quantize(4), "PNG"), id="palette with alpha"),
        pytest.param(packed(half_clear(), "GIF"), id="GIF"),
        pytest.param(colour_key("RGB", (9, 9, 9)), id="RGB with a colour key"),
        pytest.param(colour_key("L", 9), id="grey with a colour key"),
    ],
)
def test_transparency_is_laid_on_white(raw: bytes) -> None:
    square = decode(raw, SPEC)
    assert (square[:, :14] == 0).all()
    assert (square[:, 18:] == 255).all()


def test_half_transparent_mixes_with_white() -> None:
    square = decode(packed(Image.new("RGBA", (32, 32), (0, 0, 200, 128)), "PNG"), SPEC)
    assert np.abs(square[0, 0].astype(int) - (127, 127, 227)).max() <= 1


def test_palette_without_transparency() -> None:
    image = Image.fromarray(photo()).quantize(256)
    assert "transparency" not in image.info
    assert difference(decode(packed(image, "PNG"), SPEC), reference(photo())) < 12


def test_cmyk_jpeg() -> None:
    raw = packed(Image.fromarray(photo()).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(raw)).mode == "CMYK"
    assert difference(decode(raw, SPEC), reference(photo())) < 4


TURNS: dict[int, Callable[[Pixels], Pixels]] = {  # how a camera stores an upright photo under each orientation
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exact: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    raw = packed(np.ascontiguousarray(TURNS[orientation](photo(96, 128))), kind, exif=exif, **exact.get(kind, {}))
    assert difference(decode(raw, SPEC), reference(photo(96, 128))) < 2
    assert difference(decode(raw, SPEC), reference(photo(96, 128))[:, ::-1]) > 20  # the photo is asymmetrical


@pytest.mark.parametrize(
    "block", [b"MM\0*\0\0\0\x08\0\x7f" + b"\xff" * 60, b"no TIFF header", b""], ids=["cut", "other", "none"]
)
def test_a_damaged_exif_block_costs_nothing(block: bytes) -> None:
    """In a process of its own, since pytest puts its own warning filters above those of the package."""
    raw = packed(photo(), "JPEG", quality=95)
    block = b"Exif\0\0" + block
    raw = raw[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + raw[2:]
    script = (
        "import sys; from headstart.data.load import decode; from headstart.core.types import ImageSpec; "
        "sys.stdout.buffer.write(decode(sys.stdin.buffer.read(), ImageSpec(32, crop=1.0)).tobytes())"
    )
    ran = subprocess.run([sys.executable, "-c", script], input=raw, capture_output=True, check=True)
    assert ran.stderr == b""
    assert difference(np.frombuffer(ran.stdout, np.uint8).reshape(32, 32, 3), reference(photo())) < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_exif_block_that_is_none_costs_nothing(kind: str) -> None:
    exact = {"lossless": True} if kind == "WEBP" else {}
    assert difference(decode(packed(photo(), kind, exif=b"garbage", **exact), SPEC), reference(photo())) == 0


@pytest.mark.parametrize("factor", [2.2, 4.5, 9, 20])
def test_draft_is_close_to_the_full_decode(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = packed(photo(int(32 * factor), int(50 * factor)), "JPEG", quality=92)
    spy = Mock(side_effect=load.to_rgb)
    monkeypatch.setattr(load, "to_rgb", spy)
    drafted = decode(raw, SPEC)
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *_: None)
    assert difference(drafted, decode(raw, SPEC)) < 1.5
    small, full = (min(call.args[0].size) for call in spy.call_args_list)
    assert 32 <= small < full  # really drafted, and never below what is needed


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    raw = packed(noise, kind)
    decode(raw, SPEC)
    for share in (0.3, 0.5, 0.9):
        assert kind_of(raw[: int(len(raw) * share)]) == "truncated"
    assert kind_of(raw[:14]) == "truncated"  # in the header


def test_no_content() -> None:
    assert kind_of(b"") == "empty"


@pytest.mark.parametrize(
    "raw",
    [
        b"this is no photo, whatever it is called",
        b"<html><body>404</body></html>",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        packed(photo(), "EPS"),
        packed(photo(), "PPM"),
        packed(photo(), "ICO"),
        b"BM but only a text",
        b"\0" * 100,
    ],
    ids=lambda raw: repr(raw[:6]),
)
def test_no_known_format(raw: bytes) -> None:
    assert kind_of(raw) == "unreadable"
    assert sniff(raw[:16]) == ""


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_bomb() -> None:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    raw = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")
    assert kind_of(raw) == "bomb"


SEEDS = [packed(photo(16, 20), kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real image with some bytes overwritten, and perhaps cut short."""
    raw = bytearray(draw(st.sampled_from(SEEDS)))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=8)):
        raw[at] = byte
    return bytes(raw[: draw(st.integers(0, len(raw)))] if draw(st.booleans()) else raw)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(max_size=200), damaged()))
def test_any_bytes_decode_or_say_why_not(raw: bytes) -> None:
    try:
        square = decode(raw, SPEC)
    except UnreadableImageError as error:
        failure: UnreadableImageError | None = error
    else:
        failure = None
        assert square.shape == (32, 32, 3)
    assert failure is None or (failure.kind in PROBLEMS and failure.detail)


def test_the_thumb_is_the_same_square_in_grey() -> None:
    square, thumbnail = decode_with_thumbnail(packed(photo(), "PNG"), SPEC)
    assert (square == decode(packed(photo(), "PNG"), SPEC)).all()
    assert thumbnail.shape == (THUMBNAIL, THUMBNAIL)
    grey = square @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey.reshape(THUMBNAIL, 2, THUMBNAIL, 2).mean((1, 3)) - thumbnail).max() < 2


def test_content_keys_tell_contents_apart() -> None:
    pixels = photo()
    keys = [
        content_key(raw)
        for raw in (b"", b"a", b"b", pixels, pixels[::-1], pixels.reshape(-1, 64, 3)[:24], pixels.astype(np.uint16))
    ]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {16}
    assert content_key(pixels[:, ::2]) == content_key(pixels[:, ::2].copy())


def test_suffixes_are_those_of_the_formats() -> None:
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in SUFFIXES} == set(load.FORMATS) - {"MPO"}


def table_of(read: Callable[[int], bytes], count: int) -> ImageDataset:
    return ImageDataset("", [Sample(str(index), "a") for index in range(count)], read)


def flat(index: int) -> bytes:
    return packed(np.full((8, 8, 3), index, np.uint8), "PNG")


def stream(
    dataset: ImageDataset, spec: ImageSpec, known: Container[bytes] = (), threads: int | None = None
) -> Iterator[Decoded]:
    return in_chunks(
        lambda chunk: [load_image(dataset, index, spec, known) for index in chunk], range(len(dataset)), threads
    )


def test_stream_keeps_the_order() -> None:
    def read(index: int) -> bytes:
        time.sleep(0.002 * (index % 3))  # so that later images are ready first
        return flat(index)

    items = list(stream(table_of(read, 60), SPEC, threads=4))
    assert [item.index for item in items] == list(range(60))
    for item in items:
        assert item.pixels is not None
        assert item.thumbnail is not None
        assert (item.pixels == item.index).all()
        assert (item.thumbnail == item.index).all()
        assert item.key == content_key(flat(item.index))
        assert item.error is None


def test_stream_looks_ahead_so_far_and_no_further() -> None:
    reads = 0
    lock = threading.Lock()

    def read(_: int) -> bytes:
        nonlocal reads
        with lock:
            reads += 1
        return flat(1)

    items = stream(table_of(read, 600), SPEC, threads=2)
    for taken in range(1, 601):
        next(items)
        if taken % 100 == 1:  # a slow taker: the threads do all that they may
            ahead = min(AHEAD + taken // CHUNK, 600 // CHUNK) * CHUNK
            for _ in range(500):
                if reads >= ahead:
                    break
                time.sleep(0.01)
            time.sleep(0.02)
            assert reads == ahead
    assert next(items, None) is None


def test_stream_gives_an_item_for_each_bad_image() -> None:
    def read(index: int) -> bytes:
        if index == 1:
            raise FileNotFoundError("gone.jpg")
        if index == 2:
            raise PermissionError("not yours")
        return {3: b"", 4: b"no image"}.get(index, flat(index))

    items = list(stream(table_of(read, 6), SPEC))
    assert [item.error and item.error.kind for item in items] == [
        None, "missing", "unreadable", "empty", "unreadable", None,
    ]  # fmt: skip
    assert all(item.pixels is None for item in items[1:5])


def test_stream_does_not_decode_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {content_key(flat(index)) for index in (0, 2)}
    spy = Mock(side_effect=decode_with_thumbnail)
    monkeypatch.setattr(load, "decode_with_thumbnail", spy)
    items = list(stream(table_of(flat, 4), SPEC, known))
    assert [item.pixels is None for item in items] == [True, False, True, False]
    assert spy.call_count == 2
    assert all(item.error is None and item.key for item in items)


def test_stream_stops_when_its_taker_does() -> None:
    before = threading.active_count()
    go_on = threading.Event()
    reads: list[int] = []

    def read(index: int) -> bytes:
        reads.append(index)
        assert index < CHUNK or go_on.wait(10)
        return flat(1)

    items = stream(table_of(read, 5000), SPEC, threads=2)
    assert len(list(islice(items, 3))) == 3
    alarm = threading.Timer(0.05, go_on.set)  # both threads are at work when the taker leaves
    alarm.start()
    items.close()  # type: ignore[attr-defined]
    alarm.join()
    assert threading.active_count() == before
    assert len(reads) <= 3 * CHUNK  # what was begun is finished, and nothing else begun


def test_stream_of_nothing() -> None:
    assert list(stream(table_of(flat, 0), SPEC)) == []
