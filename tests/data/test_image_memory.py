"""Images that take much memory: bounded for all threads together, and never called unreadable for it."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import headstart as hs
from headstart.core.errors import UnreadableImageError
from headstart.core.processors import AHEAD, CHUNK
from headstart.core.types import ImageSpec
from headstart.data import load, memory, opened_image, pixels
from headstart.data.load import decode, decode_whole
from headstart.data.memory import Memory, bytes_to_decode, once_more_alone
from making import packed, picture

SPEC = ImageSpec(32, crop=0.875)
WIDE, HIGH = 150, 90


def of_mode(mode: str) -> Image.Image:
    image = Image.fromarray(picture("waves", 3)).resize((WIDE, HIGH))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200)
    if mode == "RGBA":
        image = image.convert("RGBA")
        image.putalpha(image.convert("L"))
        return image
    return image.convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def tiff16() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.asarray(of_mode("RGB")).astype(np.uint16) * 99, photometric="rgb")
    return file.getvalue()


FILES: dict[str, Callable[[], Any]] = {
    **{mode: lambda mode=mode: saved(of_mode(mode), "PNG") for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "I;16")},  # type: ignore[misc]
    "F": lambda: saved(of_mode("F"), "TIFF"),
    "CMYK": lambda: saved(of_mode("CMYK"), "TIFF"),
    "JPEG": lambda: saved(of_mode("RGB"), "JPEG", exif=turned(6)),
    "16 bits": tiff16,
    "array": lambda: np.asarray(of_mode("RGBA")).astype(np.float32) / 200,
}


@pytest.mark.parametrize("kind", FILES)
def test_an_image_that_is_taken_in_bands_gives_the_same_pixels(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = FILES[kind]()
    whole, seen = decode(raw, SPEC), decode_whole(raw, 50)
    monkeypatch.setattr(pixels, "BAND", 7 * WIDE)
    np.testing.assert_array_equal(decode(raw, SPEC), whole)
    np.testing.assert_array_equal(decode_whole(raw, 50), seen)


def test_threads_hold_no_more_than_is_allowed_together() -> None:
    shared, now, highest, lock = Memory(100), [0], [0], threading.Lock()

    def work(count: int) -> None:
        with shared.hold(count):
            with shared.hold(5):  # it has its share already
                pass
            with lock:
                now[0] += count
                highest[0] = max(highest[0], now[0])
            with lock:
                now[0] -= count

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [1, 30, 60, 100, 7, 45] * 40))
    assert 60 <= highest[0] <= 100
    with pytest.raises(UnreadableImageError, match=r"decoding takes .* shrink it") as refused, shared.hold(101):
        pass
    assert refused.value.kind == "bomb"


def test_what_fails_for_lack_of_memory_is_tried_again_alone() -> None:
    calls = list[int]()

    @once_more_alone
    def decodes(failures: int) -> str:
        calls.append(failures)
        if len(calls) <= failures:
            raise MemoryError
        return "decoded"

    assert decodes(1) == "decoded"
    calls.clear()
    with pytest.raises(UnreadableImageError, match="not enough memory") as error:
        decodes(2)
    assert error.value.kind == "memory"


@pytest.mark.parametrize("said", [MemoryError(), OSError("decoder error -9: out of memory error when reading")])
def test_a_photo_without_memory_is_named_and_the_others_are_read(
    said: Exception, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(packed(picture("bars", ord(name))))
    starved = (tmp_path / "b.png").read_bytes()
    real = pixels.deep_pixels

    def deep(raw: bytes, image: Image.Image) -> Any:
        if raw == starved:
            raise said
        return real(raw, image)

    monkeypatch.setattr("headstart.data.opened_image.deep_pixels", deep)
    found = list(hs.load(bundle).predictions(sorted(map(str, tmp_path.iterdir()))))
    problems = [item for item in found if isinstance(item, hs.Problem)]
    assert len(found) == 3
    assert [(Path(each.name).name, each.kind) for each in problems] == [("b.png", "memory")]


def test_nor_is_one_that_cannot_be_read_for_lack_of_memory() -> None:
    def read(row: int) -> bytes:
        if row:
            raise MemoryError
        return saved(of_mode("RGB"), "PNG")

    dataset = hs.ImageDataset("", [hs.Sample("a", "a"), hs.Sample("b", "a")], read)
    whole, starved = load.load_images(dataset, range(2), SPEC)
    assert whole.error is None
    assert starved.error is not None
    assert starved.error.kind == "memory"


def test_a_large_jpeg_2000_is_decoded_at_a_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = saved(Image.fromarray(picture("discs", 1)).resize((600, 400)), "JPEG2000")
    whole = decode(raw, SPEC).astype(int)
    monkeypatch.setattr(opened_image, "MEMORY", Memory(len(raw) + 300 * 200 * 20))
    assert np.abs(decode(raw, SPEC).astype(int) - whole).mean() < 4
    monkeypatch.setattr(opened_image, "MEMORY", Memory(len(raw) + 70 * 50 * 20))
    with pytest.raises(UnreadableImageError, match="decoding takes"):
        decode(raw, SPEC)


def test_a_jpeg_in_several_passes_takes_the_whole_image() -> None:
    once, twice = (saved(of_mode("RGB"), "JPEG", progressive=passes) for passes in (False, True))
    for raw, least in ((once, 0), (twice, 2 * 3 * WIDE * HIGH)):
        image = Image.open(io.BytesIO(raw))
        assert bytes_to_decode(image, (10, 6), image.size, raw) == len(raw) + 10 * 6 * 4 + least


MEASURED = """
import io, sys
import numpy as np
from PIL import Image
from headstart.core.types import ImageSpec
from headstart.data.load import decode
from headstart.data.memory import bytes_to_decode

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

for mode, form in (("P", "PNG"), ("RGBA", "PNG"), ("F", "TIFF"), ("CMYK", "TIFF"), ("RGB", "WEBP"), ("RGB", "JPEG")):
    file = io.BytesIO()
    Image.new(mode, (4000, 3000)).save(file, form, **({"progressive": True} if form == "JPEG" else {}))
    raw = file.getvalue()
    image = Image.open(io.BytesIO(raw))
    decode(raw, ImageSpec(64))
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    decode(raw, ImageSpec(64))
    print(mode, form, status("VmHWM") - before, bytes_to_decode(image, image.size, image.size, raw))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak since a moment")
def test_decoding_takes_no_more_than_was_reckoned() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        mode, form, taken, reckoned = line.split()
        assert int(taken) <= int(reckoned) + 40e6, (mode, form, taken, reckoned)  # and the bands


def test_the_limit_is_below_what_was_promised() -> None:
    assert memory.MEMORY.most <= 1.3e9
    assert AHEAD * CHUNK < 100
