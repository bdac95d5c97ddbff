"""Damaged images, content keys, and images on threads."""

from __future__ import annotations

import struct
import threading
import time
import zlib
from collections.abc import Callable, Container, Iterator
from itertools import islice
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import headstart as hs
from headstart.core.errors import UnreadableImageError
from headstart.core.processors import AHEAD, CHUNK, threads_of_network
from headstart.core.types import PROBLEMS, ImageDataset, ImageSpec, Sample
from headstart.data import load
from headstart.data.formats import FORMATS, HEAD, HEIF, SUFFIXES, sniff
from headstart.data.load import (
    SMALL,
    THUMBNAIL,
    Decoded,
    content_key,
    decode,
    decode_with_thumbnail,
    in_chunks,
    load_images,
)
from making import Shell
from raw_images import SPEC, packed, photo


def kind_of(raw: bytes) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(raw, SPEC)
    assert caught.value.kind in PROBLEMS
    return caught.value.kind


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
        b"BM but only a text",
        b"\0" * 100,
    ],
    ids=lambda raw: repr(raw[:6]),
)
def test_no_known_format(raw: bytes) -> None:
    assert kind_of(raw) == "unreadable"
    assert sniff(raw[:HEAD]) == ""


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
    known = {**Image.registered_extensions(), ".avifs": "AVIF", ".dib": "BMP", ".mpo": "JPEG"}
    named = {known[suffix] for suffix in SUFFIXES if suffix in known}
    assert named == {*FORMATS} - {HEIF.name}


def table_of(read: Callable[[int], bytes], count: int) -> ImageDataset:
    return ImageDataset("", [Sample(str(index), "a") for index in range(count)], read)


def flat(index: int) -> bytes:
    return packed(np.full((8, 8, 3), index, np.uint8), "PNG")


def stream(
    dataset: ImageDataset, spec: ImageSpec, known: Container[bytes] = (), threads: int | None = None
) -> Iterator[Decoded]:
    return in_chunks(lambda chunk: load_images(dataset, chunk, spec, known), range(len(dataset)), threads)


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


def noise(side: int) -> bytes:
    return packed(np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8), "PNG")


def test_small_images_are_decoded_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at_work, most, lock = 0, 0, threading.Lock()

    def decoded(raw: bytes, spec: ImageSpec) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.002)
        with lock:
            at_work -= 1
        return decode_with_thumbnail(raw, spec)

    monkeypatch.setattr(load, "decode_with_thumbnail", decoded)
    raw = noise(16)
    assert len(raw) <= SMALL
    assert len([*stream(table_of(lambda _: raw, 10 * CHUNK), SPEC, threads=4)]) == 10 * CHUNK
    assert most == 1


def test_larger_images_are_decoded_by_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3)

    def decoded(raw: bytes, spec: ImageSpec) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        together.wait(10)  # fails where there are fewer
        return decode_with_thumbnail(raw, spec)

    monkeypatch.setattr(load, "decode_with_thumbnail", decoded)
    raw = noise(64)
    assert len(raw) > SMALL
    items = [*stream(table_of(lambda _: raw, 3 * CHUNK), SPEC, threads=3)]
    assert [item.size for item in items] == [len(raw)] * 3 * CHUNK


def test_small_and_large_images_stay_in_their_order() -> None:
    raws = [noise(64 if index % 3 else 16) for index in range(20)]
    items = [*stream(table_of(lambda index: raws[index], 20), SPEC)]
    assert [item.index for item in items] == list(range(20))
    assert all(np.array_equal(item.pixels, decode(raws[item.index], SPEC)) for item in items if item.pixels is not None)
    assert all(item.error is None for item in items)


@pytest.mark.parametrize(
    ("processors", "wanted", "threads"),
    [(1, "", 1), (2, "", 4), (8, "", 10), (8, "1", 1), (8, "2", 2), (8, "8", 10), (8, "99", 10), (2, " ", 4)],
)
def test_some_threads_to_spare_but_of_a_part_of_the_processors_none(
    processors: int, wanted: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.core.processors._processors", lambda: processors)
    monkeypatch.setenv("HEADSTART_THREADS", wanted)
    assert threads_of_network() == threads


@pytest.mark.parametrize("wanted", ["0", "x", "-1", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(
    wanted: str, bundle: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_THREADS", wanted)
    with pytest.raises(hs.UsageError, match=f"HEADSTART_THREADS: expected a whole number above 0.*'{wanted}'"):
        hs.load(bundle)
    answer = shell("predict", bundle, bundle)
    assert answer.code == 2
    assert "HEADSTART_THREADS" in answer.err
