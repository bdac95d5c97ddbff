"""Listings: folders, patterns and lists of names, in order; what is no image keeps its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headstart.core.errors import UsageError
from headstart.data.listing import Listing, list_images, names_in, stamp_of
from making import folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder(tmp_path / "photos", 2, ("bars", "discs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_short(listing: Listing) -> list[str]:
    return [path.replace(os.sep, "/").removeprefix("photos/") for path in listing.paths]


def test_a_pattern_stands_for_what_a_shell_puts_there(here: Path) -> None:
    everything = ["bars/0.png", "bars/1.png", "discs/0.png", "discs/1.png"]
    for pattern in ("photos/*", "photos/*/*", "photos/*/?.png", "photos/**/*.png", "photos/**", "photo*"):
        assert in_short(list_images([pattern])) == everything, pattern
    assert in_short(list_images(["photos/[bc]*", "photos/discs/1.png"])) == [*everything[:2], "discs/1.png"]
    (here / "photos" / "b[1]").mkdir()
    (here / "photos" / "bars" / "0.png").rename(here / "photos" / "b[1]" / "a[0].png")
    assert in_short(list_images(["photos/b[1]"])) == ["b[1]/a[0].png"]
    assert in_short(list_images(["photos/b[1]/a[0].png"])) == ["b[1]/a[0].png"]
    with pytest.raises(UsageError, match="No file matches the pattern"):
        list_images(["photos/*.jpg"])


def test_what_is_no_image_keeps_its_place(here: Path) -> None:
    (here / "photos" / "c.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    listing = list_images(["photos"])
    assert in_short(listing) == ["bars/0.png", "bars/1.png", "c.mp4", "discs/0.png", "discs/1.png"]
    assert [*listing.problems] == [2]
    assert listing.samples[2].name == os.path.join("photos", "c.mp4")
    with listing.opened() as dataset:
        assert dataset.read(1) == (here / "photos" / "bars" / "1.png").read_bytes()
    assert listing.stamps.tolist()[1] == listing.stamps_now()[1] != 0
    assert listing.stamps.tolist()[3] == 0  # not read


def test_a_stamp_changes_with_the_file(here: Path) -> None:
    path = "photos/bars/0.png"
    before = stamp_of(path, os.stat(path))
    assert stamp_of(path, os.stat(path)) == before
    assert stamp_of("photos/bars/1.png", os.stat(path)) != before
    assert stamp_of(os.path.abspath(path), os.stat(path)) == before
    os.utime(path, ns=(0, os.stat(path).st_mtime_ns + 1000))
    assert stamp_of(path, os.stat(path)) != before


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"a\nb", ["a", "b"]),
        (b"a\r\n\r\n b \r\n", ["a", " b "]),
        (b"\xef\xbb\xbfa\n", ["a"]),
        (b"a\nb\0\0c\r\0", ["a\nb", "c\r"]),
        (b"caf\xe9.jpg\n", ["caf\udce9.jpg"]),
        (b"", []),
    ],
)
def test_names_of_a_list(content: bytes, names: list[str]) -> None:
    assert names_in(content) == names
