"""The scripts of the page in Node: the same pixels, turns and scores as Headstart's own, to the last bit or nearly."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporting import of_bundle
from headstart.core.types import ImageSpec
from headstart.data.load import decode
from headstart.export.web.page import _about
from web_pages import in_node, packed

SHAPES = (  # height, width, pixels, share, filter
    (300, 400, 224, 0.875, "bicubic"),
    (400, 300, 224, 0.875, "bilinear"),
    (1, 5, 32, 0.875, "bicubic"),
    (5, 1, 32, 1.0, "bilinear"),
    (1, 1, 7, 0.5, "bicubic"),
    (224, 224, 224, 1.0, "bicubic"),
    (224, 100, 224, 0.875, "bicubic"),
    (225, 100, 224, 1.0, "bicubic"),
    (377, 300, 224, 0.875, "bicubic"),
    (500, 333, 224, 0.875, "bicubic"),
    (900, 40, 64, 0.9, "bilinear"),
    (31, 77, 224, 0.95, "bicubic"),
    (257, 129, 96, 0.9655, "bilinear"),
    (605, 703, 64, 0.875, "bicubic"),
)
SQUARE = """
cases => cases.map(({pixels, width, height, about, orientation}) => {
  const bytes = bytesOf(pixels);
  const rows = (top, count) => {
    const found = new Uint8ClampedArray(count * width * 4);
    for (let k = 0, at = top * width * 3; k < count * width; k++, at += 3) found.set(bytes.subarray(at, at + 3), k * 4);
    return found;
  };
  return Buffer.from(squareOf({width, height, rows}, about, orientation)).toString("base64");
})
"""


def about_of(bundle: Path, **changes: Any) -> dict[str, Any]:
    return _about(of_bundle(bundle)) | changes


@pytest.mark.parametrize("orientation", [1, 6])
def test_pixels_are_those_of_the_classifier_to_the_last_bit(orientation: int, bundle: Path) -> None:
    rng, exif, cases, expected = np.random.default_rng(0), Image.Exif(), [], []
    exif[0x0112] = orientation
    for height, width, pixels, crop, resample in SHAPES:
        image, file = rng.integers(0, 256, (height, width, 3), np.uint8), io.BytesIO()
        Image.fromarray(image).save(file, "PNG", exif=exif)
        about = about_of(bundle, pixels=pixels, crop=crop, resample=resample)
        case = {"pixels": packed(image.tobytes()), "width": width, "height": height}
        cases.append({**case, "about": about, "orientation": orientation})
        expected.append(decode(file.getvalue(), ImageSpec(pixels, crop=crop, resample=resample)))
    for shape, found, square in zip(SHAPES, in_node(("resample",), SQUARE, cases), expected, strict=True):
        received = np.frombuffer(base64.b64decode(found), np.uint8).reshape(square.shape)
        np.testing.assert_array_equal(received, square, str(shape))


def photo_with(orientation: int, kind: str) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x010F], exif[0x0112] = "a maker", orientation
    Image.new("RGB", (3, 2)).save(file, kind, exif=exif)
    return file.getvalue()


def big_endian(orientation: int) -> bytes:
    """A JPEG whose EXIF block is in the other order of bytes, behind another block."""
    plain = io.BytesIO()
    Image.new("RGB", (3, 2)).save(plain, "JPEG")
    entry = b"\x01\x12\0\3\0\0\0\1" + orientation.to_bytes(2, "big") + b"\0\0"
    block = b"Exif\0\0MM\0*\0\0\0\x08\0\1" + entry + b"\0\0\0\0"
    return plain.getvalue()[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + plain.getvalue()[2:]


def test_the_way_a_camera_was_held_is_read_as_pillow_reads_it() -> None:
    photos = [photo_with(turn, kind) for kind in ("JPEG", "PNG", "WEBP") for turn in range(1, 9)]
    photos += [big_endian(turn) for turn in range(1, 9)]
    expected = [Image.open(io.BytesIO(photo)).getexif().get(0x0112, 1) for photo in photos]
    assert expected == [*range(1, 9)] * 4
    damaged = [photo[:length] for photo in photos[::8] for length in range(0, len(photo), 7)]
    damaged += [big_endian(0), big_endian(9), b"", b"GIF89a", photo_with(6, "GIF")]
    code = "photos => photos.map(photo => unturned(null, bytesOf(photo)).orientation)"
    assert in_node(("exif",), code, [packed(photo) for photo in photos]) == expected
    assert set(in_node(("exif",), code, [packed(photo) for photo in damaged])) <= {1}


def test_what_the_browser_decodes_is_not_turned_any_more() -> None:
    photos = [photo_with(6, kind) for kind in ("JPEG", "PNG", "WEBP")] + [big_endian(6)]
    code = """async photos => Promise.all(photos.map(async photo => {
      const {file} = unturned(null, bytesOf(photo));
      return Buffer.from(await file.arrayBuffer()).toString("base64");
    }))"""
    for before, after in zip(photos, in_node(("exif",), code, [packed(photo) for photo in photos]), strict=True):
        was, now = Image.open(io.BytesIO(before)), Image.open(io.BytesIO(base64.b64decode(after)))
        assert (was.getexif().get(0x0112, 1), now.getexif().get(0x0112, 1)) == (6, 1)
        np.testing.assert_array_equal(np.asarray(was), np.asarray(now))


def test_a_square_is_turned_as_pillow_turns_it(bundle: Path) -> None:
    square = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    spec, code = ImageSpec(6, crop=1.0), "({square, turn}) => [...turned(bytesOf(square), 6, turn)]"
    for turn in range(1, 9):
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112] = turn
        Image.fromarray(square).save(file, "PNG", exif=exif)
        found = in_node(("resample",), code, {"square": packed(square.tobytes()), "turn": turn})
        np.testing.assert_array_equal(np.reshape(found, square.shape), decode(file.getvalue(), spec), str(turn))
