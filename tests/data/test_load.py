"""Decoding: formats, depths, transparency, orientation."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from headstart.core.errors import UnreadableImageError
from headstart.core.types import ImageSpec
from headstart.data import load, pixels
from headstart.data.formats import HEAD, sniff
from headstart.data.load import DRAFT, decode
from raw_images import SPEC, Pixels, packed, photo


def reference(pixels: Pixels, spec: ImageSpec = SPEC) -> Pixels:
    """The centred square, by Pillow alone."""
    image = Image.fromarray(pixels)
    side = min(image.size) * spec.crop
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((spec.size, spec.size), Image.Resampling.BICUBIC, box=box).convert("RGB"))


def difference(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


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
    assert sniff(raw[:HEAD]) == kind


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
        "import sys; from headstart.data.load import DRAFT, decode; from headstart.core.types import ImageSpec; "
        "sys.stdout.buffer.write(decode(sys.stdin.buffer.read(), ImageSpec(32, crop=1.0)).tobytes())"
    )
    ran = subprocess.run([sys.executable, "-c", script], input=raw, capture_output=True, check=True)
    assert ran.stderr == b""
    assert difference(np.frombuffer(ran.stdout, np.uint8).reshape(32, 32, 3), reference(photo())) < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_exif_block_that_is_none_costs_nothing(kind: str) -> None:
    exact = {"lossless": True} if kind == "WEBP" else {}
    assert difference(decode(packed(photo(), kind, exif=b"garbage", **exact), SPEC), reference(photo())) == 0


@pytest.mark.parametrize("factor", [9.3, 18, 37.1, 60])
@pytest.mark.parametrize("turned", [1, 3, 6])
def test_draft_is_close_to_the_full_decode(factor: float, turned: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sides that no fraction divides: the centre of what is decoded lies beside that of the photo."""
    exif = Image.Exif()
    exif[0x0112] = turned
    raw = packed(photo(int(32 * factor), int(50 * factor)), "JPEG", quality=92, exif=exif)
    spy = Mock(side_effect=pixels.rgb_parts)
    monkeypatch.setattr(load, "rgb_parts", spy)
    drafted = decode(raw, SPEC)
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *_: None)
    assert difference(drafted, decode(raw, SPEC)) < 0.3
    small, full = (min(call.args[0].size) for call in spy.call_args_list)
    assert DRAFT * 32 <= small < full  # really drafted, and never below what is needed


@pytest.mark.parametrize("factor", [1, 2.2, 4.4, 7.9])
def test_what_is_not_much_too_large_is_decoded_whole(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a photo, its array and its copy without loss give the same answer."""
    raw = packed(photo(int(32 * factor), int(50 * factor)), "JPEG", quality=92)
    again = packed(np.asarray(Image.open(io.BytesIO(raw))), "PNG")
    np.testing.assert_array_equal(decode(raw, SPEC), decode(again, SPEC))


@pytest.mark.parametrize(
    "head", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xc5\xd0\xd3\xc6", b"%PDF-1.4\n", b"<svg/>"]
)
@pytest.mark.parametrize("known", [b"", b"II*\0"])
def test_no_image_starts_a_program(head: bytes, known: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would give PostScript to Ghostscript."""

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    for name in ("Popen", "run", "check_call", "call"):
        monkeypatch.setattr(subprocess, name, started)
    with pytest.raises(UnreadableImageError):
        decode(known + head + b"%%EndComments\nshowpage\n" * 30, SPEC)


def damaged_tiffs() -> dict[str, bytes]:
    """Each makes libtiff, tifffile or Pillow print something."""
    grey = Image.fromarray(photo()).convert("L")
    whole = {kind: packed(grey, "TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_adobe_deflate")}
    whole["group4"] = packed(grey.convert("1"), "TIFF", compression="group4")
    found = {f"cut-{kind}": content[: len(content) * 2 // 3] for kind, content in whole.items()}
    for kind, content in whole.items():
        noise = bytes((7 * place) % 251 for place in range(200))
        found[f"noise-{kind}"] = content[:100] + noise + content[300:]
    plain = packed(grey, "TIFF")
    first = int.from_bytes(plain[4:8], "little")
    found["type-of-a-tag"] = plain[: first + 4] + b"\x99\x99" + plain[first + 6 :]
    return found


def test_libraries_print_nothing_about_damaged_files(tmp_path: Path) -> None:
    """In a fresh process: what they print comes from C, and from logs that nobody handles."""
    damaged = damaged_tiffs()
    for name, content in damaged.items():
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"{name}.tif").write_bytes(content)
    loud = "import sys; from PIL import Image; Image.open(sys.argv[1]).load()"
    noisy = tmp_path / "a" / "noise-tiff_adobe_deflate.tif"
    done = subprocess.run([sys.executable, "-c", loud, noisy], check=False, capture_output=True, text=True)
    assert "ZIPDecode: Decoding error" in done.stderr
    command = [sys.executable, "-m", "headstart", "check", "--json", str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    unreadable = {each["name"]: each["detail"] for each in json.loads(done.stdout)["unreadable"]}
    assert {f"a/{name}.tif" for name in damaged} - {*unreadable} == {"a/noise-group4.tif"}  # of which something is left
    said = "its pixels are damaged, or compressed in a way that is not known (decoder error -2)"
    assert unreadable["a/noise-tiff_adobe_deflate.tif"] == said
