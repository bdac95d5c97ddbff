"""Images of more than 8 bits: as bright as they are, in every file of a set, and the same once the model is saved."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

import headstart as hs
from headstart.core.errors import UnreadableImageError
from headstart.core.types import ImageSpec
from headstart.data.check import check
from headstart.data.depth import common_levels
from headstart.data.load import decode
from headstart.data.sources import from_arrays, open_source
from making import Shell, picture

SPEC = ImageSpec(64, crop=1.0, resample="bilinear")
RAMP = np.linspace(0, 65535, 64 * 64).reshape(64, 64)


def grey(raw: bytes | NDArray[Any], levels: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    return decode(raw, ImageSpec(64, crop=1.0, resample="bilinear", levels=levels))[..., 0]


def tiff(pixels: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_a_camera_of_fewer_bits_in_a_file_of_sixteen(bits: int) -> None:
    pixels = (RAMP / 2 ** (16 - bits)).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    for raw in (pixels, tiff(pixels), file.getvalue()):
        assert np.abs(grey(raw).astype(float) - RAMP / 257).mean() < 2


PLANES = {
    "colours by planes": lambda g: tiff(np.stack([g, g // 2, g // 4]), photometric="rgb", planarconfig="separate"),
    "colours": lambda g: tiff(np.stack([g, g // 2, g // 4], 2), photometric="rgb"),
}


@pytest.mark.parametrize("name", PLANES)
def test_sixteen_bits_of_each_colour(name: str) -> None:
    found = decode(PLANES[name](RAMP.astype(np.uint16)), SPEC).astype(float)
    for channel, share in enumerate((1, 2, 4)):
        assert np.abs(found[..., channel] - RAMP / 257 / share).mean() < 2


def png(pixels: NDArray[np.uint16]) -> bytes:
    """A PNG file of 16 bits for each of three or four channels, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


COLOURS: dict[str, Callable[[NDArray[Any]], bytes | NDArray[Any]]] = {
    "PNG": png,
    "PNG, opaque": lambda pixels: png(np.concatenate([pixels, np.full_like(pixels[..., :1], 65535)], 2)),
    "TIFF": lambda pixels: tiff(pixels, photometric="rgb"),
    "TIFF, deflate": lambda pixels: tiff(pixels, photometric="rgb", compression="zlib"),
    "TIFF by planes": lambda pixels: tiff(np.moveaxis(pixels, -1, 0), photometric="rgb", planarconfig="separate"),
    "array": lambda pixels: pixels,
}


@pytest.mark.parametrize("kind", COLOURS)
def test_colours_of_fewer_bits_in_a_file_of_sixteen(kind: str) -> None:
    """As bright as they are, and all files of a set on one scale; where Pillow would give the upper 8 bits."""
    g = (RAMP / 16).astype(np.uint16)
    raw = COLOURS[kind](np.stack([g, g // 2, g // 4], 2))
    found = decode(raw, SPEC).astype(float)
    for channel, share in enumerate((1, 2, 4)):
        assert np.abs(found[..., channel] - RAMP / 257 / share).mean() < 2
    dark = COLOURS[kind](np.full((8, 8, 3), 500, np.uint16))
    samples = [hs.Sample(str(n), "a") for n in range(2)]
    assert common_levels(hs.ImageDataset("", samples, [dark, raw].__getitem__)) == (0, 4095)


def test_a_compression_that_tifffile_does_not_know_costs_bits_and_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(raw: bytes) -> None:
        raise ValueError("requires the 'imagecodecs' package")

    pixels = np.stack([RAMP] * 3, 2).astype(np.uint16)
    monkeypatch.setattr("headstart.data.pixels.open_tiff", unknown)
    assert np.abs(grey(tiff(pixels, photometric="rgb")).astype(float) - RAMP / 257).mean() < 2


def test_transparency_has_all_bits_whatever_the_colours_have() -> None:
    g = (RAMP / 16).astype(np.uint16)
    half = np.stack([g, g, g, np.full_like(g, 32768)], 2)
    assert np.abs(grey(png(half)).astype(float) - (RAMP / 257 + 255) / 2).mean() < 2
    whole = np.stack([g, g, g, np.full_like(g, 4095)], 2)  # with as few bits as the colours
    assert np.abs(grey(png(whole)).astype(float) - RAMP / 257).mean() < 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("photometric", "extra"), [("rgb", 1), ("minisblack", 3)])
def test_a_fourth_band_that_is_not_called_transparency_is_left_out(dtype: type, photometric: str, extra: int) -> None:
    """Near infrared beside red, green and blue, as satellites and drones give it."""
    g: NDArray[Any] = (RAMP / (257 if dtype == np.uint8 else 1)).astype(dtype)
    bands = np.stack([g, g // 2, g // 4, g[::-1]], 2)
    raw = tiff(bands, photometric=photometric, planarconfig="contig", extrasamples=["unspecified"] * extra)
    found = decode(raw, SPEC).astype(float)
    for channel, share in enumerate((1, 2, 4)):
        assert np.abs(found[..., channel] - RAMP / 257 / share).mean() < 2
    clear = tiff(np.stack([g, g, g, np.zeros_like(g)], 2), photometric="rgb", extrasamples=["unassalpha"])
    assert (decode(clear, SPEC) == 255).all()


def test_of_more_bands_the_colours_must_be_known() -> None:
    g = RAMP.astype(np.uint16)
    bands = np.stack([g, g // 2, g // 4, g, g], 2)
    for extra in (["unspecified", "unspecified"], ["unassalpha", "unspecified"]):
        bands[..., 3] = 65535 if "unassalpha" in extra else 7
        raw = tiff(bands, photometric="rgb", extrasamples=extra)
        assert np.abs(grey(raw).astype(float) - RAMP / 257).mean() < 2
    with pytest.raises(UnreadableImageError, match="5 bands, and nothing says which are red, green and blue"):
        decode(tiff(bands, photometric="minisblack", planarconfig="contig"), SPEC)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_inks_are_no_colours(dtype: type) -> None:
    """Cyan, magenta, yellow and black: as Pillow turns those of 8 bits into colours."""
    rng = np.random.default_rng(0)
    inks = np.kron(rng.integers(0, 256, (8, 8, 4), np.uint8), np.ones((8, 8, 1), np.uint8))
    expected = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB")).astype(float)
    pixels: NDArray[Any] = inks if dtype == np.uint8 else inks.astype(np.uint16) * 257
    found = decode(tiff(pixels, photometric="separated"), SPEC).astype(float)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_may_be_zero(dtype: type) -> None:
    pixels: NDArray[Any] = (RAMP / (257 if dtype == np.uint8 else 1)).astype(dtype)
    assert np.abs(grey(tiff(pixels, photometric="miniswhite")).astype(float) - (255 - RAMP / 257)).mean() < 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_of_any_size(dtype: type) -> None:
    assert np.abs(grey(tiff((RAMP / 65535).astype(dtype))).astype(float) - RAMP / 257).mean() < 2


def test_a_tiff_file_that_is_cut_is_refused_as_such() -> None:
    raw = tiff(np.stack([RAMP.astype(np.uint16)] * 3), photometric="rgb", planarconfig="separate")
    for share in (0.01, 0.5, 0.9):
        with pytest.raises(hs.DataError):
            decode(raw[: int(len(raw) * share)], SPEC)


def test_one_grey_level_more_makes_no_jump_between_the_files_of_a_set() -> None:
    dark, light = (np.full((8, 8), value, np.uint16) for value in (1000, 1030))
    levels = common_levels(from_arrays([dark, light, np.full((8, 8), 4000, np.uint16)], list("abc")))
    assert levels == (0, 4095)
    one, other = (int(grey(each, levels)[0, 0]) for each in (dark, light))
    assert 0 < other - one < 4
    assert grey(np.full((8, 8), 60_000, np.uint16), levels).max() == 255  # of another set: clipped, not wrapped round


def test_what_is_black_and_white_in_floats() -> None:
    def of(*values: float) -> tuple[float, float] | None:
        files = {f"{n}": tiff(np.full((4, 4), value, np.float32)) for n, value in enumerate(values)}
        samples = [hs.Sample(name, "a") for name in files]
        return common_levels(hs.ImageDataset("", samples, lambda row: files[str(row)]))

    assert of(0.2, 0.9) == (0, 1)
    assert of(280, 310.5) == (280, 310.5)  # kelvin
    assert of(-3, 4) == (-3, 4)
    assert of(0.5, float("nan")) == (0, 1)  # such a file cannot be read, and says nothing of the others
    assert of(float("nan")) is None


def test_ordinary_photos_have_none(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(picture("bars", 1)).save(tmp_path / "a" / "1.jpg")
    (tmp_path / "a" / "2.jpg").write_bytes(b"")
    assert common_levels(open_source(tmp_path)) is None


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """Two classes of 12-bit pictures that differ in brightness alone."""
    r = np.random.default_rng(0)
    for kind, brightness in (("dim", 0.35), ("bright", 0.7)):
        (tmp_path / "deep" / kind).mkdir(parents=True)
        for seed in range(12):
            field = picture("waves", seed, 64).mean(axis=2) / 255 * brightness * r.uniform(0.9, 1.1) * 4095
            Image.fromarray(field.astype(np.uint16)).save(tmp_path / "deep" / kind / f"{seed}.png")
    return tmp_path / "deep"


def test_a_model_keeps_the_levels_of_its_training_set(deep: Path, tmp_path: Path, shell: Shell) -> None:
    model = hs.fit(str(deep), pixels=32, cache=False)
    assert model.spec.levels == (0, 4095)
    assert model.record.result is not None
    assert model.record.result.accuracy.value == 1
    model.save(tmp_path / "model")
    again = hs.load(tmp_path / "model")
    assert again.spec == model.spec
    np.testing.assert_allclose(again.predict_proba(deep / "dim"), model.predict_proba(deep / "dim"), atol=1e-3)
    assert check(str(deep)).levels == (0, 4095)
    assert "more than 8 bits: 0 is black and 4095 is white" in shell("check", deep).out
