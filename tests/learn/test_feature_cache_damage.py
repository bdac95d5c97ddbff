"""The feature cache: damaged files."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_caches import Rows, cache, files, fill, make, mounted, sound


def damaged_copy(source: Path, home: Path, change: dict[int, int], keep: int | None, ending: str) -> None:
    """A copy of a cache: bytes of the file with this ending are XORed, and what follows ``keep`` bytes is cut off."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(source, home)
    (path,) = (home / "features").glob(f"*{ending}")
    data = bytearray(path.read_bytes())
    for position, flip in change.items():
        data[position] ^= flip
    path.write_bytes(data[:keep])


def survives(home: Path, rows: Rows) -> int:
    """Nothing wrong is read, nothing is raised, what is missing can be written again. How many rows were found."""
    keys, features, thumbnails = rows
    before: list[int] = []
    set_aside = False
    while before[-1:] != [len(keys)]:
        with cache(home) as opened:
            found = sound(opened, rows)
            assert not before or set_aside or found.all()  # writing some rows spoils no others of the same file
            (name,) = (path.name for path in (home / "features").glob("*.sqlite"))
            missing = np.flatnonzero(~found)
            again = [keys[i] for i in missing], features[missing], thumbnails[missing]
            opened.write(*again)
            assert sound(opened, again).all()
            assert opened.problem is None
        assert len(files(home)) == 1
        set_aside = files(home) != [name]
        before.append(int(found.sum()))
    assert len(before) <= 3  # twice to be filled, where the database was set aside only when it was to be written
    return before[0]


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of caches are opened in it, and each waits for the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    home = tmp_path_factory.mktemp("pristine")
    return home, fill(home, 230)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    """As a killed process leaves it: half of the rows are in the write-ahead log only."""
    home, copy = tmp_path_factory.mktemp("alive"), tmp_path_factory.mktemp("interrupted")
    fill(home, 50)
    with cache(home) as opened:
        for start in range(50, 120, 10):
            opened.write(*make(range(start, start + 10)))
        shutil.copytree(home, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*-shm"))
    assert len(files(copy)) == 2
    return copy, make(range(120))


def test_a_flipped_byte_anywhere_in_the_database(pristine: tuple[Path, Rows], ram: Path) -> None:
    source, rows = pristine
    (path,) = (source / "features").iterdir()
    draw = random.Random(0)
    size = path.stat().st_size
    header = [(position, 1 << draw.randrange(8)) for position in range(108)]
    anywhere = [(draw.randrange(size), draw.randrange(1, 256)) for _ in range(150)]
    used = [position for position, byte in enumerate(path.read_bytes()) if byte]  # without the empty space of pages
    content = [(draw.choice(used), draw.randrange(1, 256)) for _ in range(150)]
    found = []
    for position, flip in header + anywhere + content:
        damaged_copy(source, ram / "home", {position: flip}, None, ".sqlite")
        found.append(survives(ram / "home", rows))
    assert found.count(len(rows[0]) - 1) > 100  # most flips cost one row only


def test_a_flipped_byte_anywhere_in_the_log(interrupted: tuple[Path, Rows], ram: Path) -> None:
    source, rows = interrupted
    (path,) = (source / "features").glob("*-wal")
    draw = random.Random(0)
    positions = [*range(0, 60, 3), *(draw.randrange(path.stat().st_size) for _ in range(60))]
    found = []
    for position in positions:
        damaged_copy(source, ram / "home", {position: draw.randrange(1, 256)}, None, "-wal")
        found.append(survives(ram / "home", rows))
    assert min(found) >= 50  # what came before the log stays
    assert max(found) > min(found)


@pytest.mark.parametrize("ending", [".sqlite", "-wal"])
def test_a_file_cut_off_anywhere(interrupted: tuple[Path, Rows], ram: Path, ending: str) -> None:
    source, rows = interrupted
    (path,) = (source / "features").glob(f"*{ending}")
    draw = random.Random(0)
    size = path.stat().st_size
    for keep in [0, 1, 15, 16, 99, 100, 4096, 32768, 65536, size - 1, *(draw.randrange(size) for _ in range(30))]:
        damaged_copy(source, ram / "home", {}, keep, ending)
        survives(ram / "home", rows)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_many_flipped_bytes_in_a_shortened_file(pristine: tuple[Path, Rows], ram: Path, data: st.DataObject) -> None:
    source, rows = pristine
    (path,) = (source / "features").iterdir()
    size = path.stat().st_size
    change = data.draw(st.dictionaries(st.integers(0, size - 1), st.integers(1, 255), max_size=20))
    damaged_copy(source, ram / "home", change, data.draw(st.none() | st.integers(0, size)), ".sqlite")
    survives(ram / "home", rows)


@pytest.mark.parametrize("junk", [b"", b"not a database", b"\0" * 70000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_junk_in_place_of_the_database(home: Path, junk: bytes) -> None:
    rows = fill(home, 20)
    (path,) = (home / "features").iterdir()
    path.write_bytes(junk)
    assert survives(home, rows) == 0


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE rows SET features = (SELECT features FROM rows WHERE rowid = 2) WHERE rowid = 1",
        "UPDATE rows SET thumb = (SELECT thumb FROM rows WHERE rowid = 2) WHERE rowid = 1",
        "UPDATE rows SET features = substr(features, 3) WHERE rowid = 1",
        "UPDATE rows SET thumb = NULL WHERE rowid = 1",
        "UPDATE rows SET features = CAST(features AS TEXT) || 'é', crc = 'x' WHERE rowid = 1",
        "UPDATE rows SET crc = crc + 1 WHERE rowid = 1",
        "UPDATE rows SET features = CAST(features || substr(thumb, 1, 2) AS BLOB), thumb = substr(thumb, 3)"
        " WHERE rowid = 1",
        "DELETE FROM rows WHERE rowid = 1",
    ],
)
def test_a_row_that_does_not_match_its_checksum_is_absent(home: Path, change: str) -> None:
    rows = fill(home, 20)
    (path,) = (home / "features").iterdir()
    connection = sqlite3.connect(path)
    connection.execute(change)
    connection.commit()
    connection.close()
    with cache(home) as opened:
        assert sound(opened, rows).tolist() == [False] + [True] * 19
    assert survives(home, rows) == 19


def test_a_schema_that_is_no_text_any_more(home: Path) -> None:
    rows = fill(home, 20)
    (path,) = (home / "features").iterdir()
    data = path.read_bytes()
    position = data.index(b"rowsrows") + 2
    path.write_bytes(data[:position] + bytes([data[position] ^ 0x80]) + data[position + 1 :])
    assert survives(home, rows) == 0


@pytest.mark.parametrize("first", ["read", "write"])
def test_damage_under_an_open_store(home: Path, first: str) -> None:
    rows = fill(home, 3000, 500)  # more than SQLite's own cache holds
    with cache(home, 500) as opened:
        (path,) = (home / "features").glob("*.sqlite")
        path.write_bytes(os.urandom(path.stat().st_size))
        if first == "read":
            assert not sound(opened, rows).all()
        opened.write(*rows)
        assert sound(opened, rows).all()
        assert opened.problem is None
    with cache(home, 500) as opened:
        assert sound(opened, rows).all()
    assert len(files(home)) == 1


def test_a_home_without_permission_and_a_damaged_file(pristine: tuple[Path, Rows], tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=8m", "tmpfs") as disk:
        for position in [18, 40, 100, 40000, 120000]:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            damaged_copy(pristine[0], disk / "home", {position: 0x55}, None, ".sqlite")
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            with cache(disk / "home") as opened:
                sound(opened, pristine[1])
                opened.write(*pristine[1])
                sound(opened, pristine[1])
                assert opened.problem is not None
