"""The feature cache: what is kept comes back exactly or not at all, whatever happens to file, disk or process."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart.core.cache_folder import cache_dir
from headstart.learn import cache_database as database
from headstart.learn.feature_cache import FeatureCache, prune, spaces

WIDTH = 40
ABOUT = {"backbone": "efficientnet_lite0", "pixels": 224, "precision": "bf16"}
Rows = tuple[list[bytes], NDArray[np.float16], NDArray[np.uint8]]

# Rows that any process can make again from their numbers, so that "nothing lost, nothing wrong" can be checked exactly.
MAKE = """
import hashlib, sys
from pathlib import Path
import numpy as np
from headstart.learn.feature_cache import FeatureCache
def make(numbers, width):
    keys = [hashlib.blake2b(str(number).encode(), digest_size=16).digest() for number in numbers]
    noise = b"".join(hashlib.shake_128(key).digest(2 * width + 256) for key in keys)
    noise = np.frombuffer(noise, np.uint8).reshape(len(keys), 2 * width + 256)
    features = noise[:, 256:].copy().view(np.int16).astype(np.float16)
    thumbnails = noise[:, :256].reshape(len(keys), 16, 16)
    return keys, features, thumbnails
"""
_namespace: dict[str, Any] = {}
exec(MAKE, _namespace)


def make(numbers: Iterator[int] | range | list[int], width: int = WIDTH) -> Rows:
    rows: Rows = _namespace["make"](list(numbers), width)
    return rows


def cache(home: Path, width: int = WIDTH) -> FeatureCache:
    return FeatureCache(ABOUT, width, home)


def fill(home: Path, count: int, width: int = WIDTH) -> Rows:
    rows = make(range(count), width)
    with cache(home, width) as opened:
        opened.write(*rows)
        assert opened.problem is None
    return rows


def sound(opened: FeatureCache, rows: Rows) -> NDArray[np.bool_]:
    """Which rows are found; those that are must be right, and the others untouched."""
    keys, features, thumbnails = rows
    out_features, out_thumbnails = np.full_like(features, 77), np.full_like(thumbnails, 77)
    found = opened.read(keys, out_features, out_thumbnails)
    assert np.array_equal(out_features[found], features[found])
    assert np.array_equal(out_thumbnails[found], thumbnails[found])
    assert (out_features[~found] == 77).all()
    assert (out_thumbnails[~found] == 77).all()
    return found


def run(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAKE + script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return out


def files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "features").iterdir())


# --- what is written is read back ---


def test_rows_come_back_in_any_order_and_repeated(home: Path) -> None:
    keys, features, thumbnails = fill(home, 1203)
    order = np.random.default_rng(1).permutation(np.r_[np.arange(1203), np.arange(700)])
    with cache(home) as opened:
        assert opened.known == frozenset(keys)
        assert sound(opened, ([keys[i] for i in order], features[order], thumbnails[order])).all()


def test_unknown_keys_are_not_found_and_nothing_is_an_empty_request(home: Path) -> None:
    fill(home, 10)
    with cache(home) as opened:
        assert sound(opened, make(range(5, 15))).tolist() == [True] * 5 + [False] * 5
        assert sound(opened, make([])).shape == (0,)
        opened.write(*make([]))


def test_known_is_what_was_there_at_opening(home: Path) -> None:
    with cache(home) as opened:
        opened.write(*make(range(3)))
        assert opened.known == frozenset()
        assert sound(opened, make(range(3))).all()


def test_extreme_values_keep_their_bits(home: Path) -> None:
    keys, features, thumbnails = make(range(1))
    features[0, :5] = [np.nan, np.inf, -0.0, 65504, 6e-8]
    with cache(home) as opened:
        opened.write(keys, features, thumbnails)
        out = np.zeros_like(features)
        assert opened.read(keys, out, np.zeros_like(thumbnails)).all()
    assert out.tobytes() == features.tobytes()


def test_writing_again_replaces(home: Path) -> None:
    keys, features, thumbnails = fill(home, 20)
    with cache(home) as opened:
        opened.write(keys, features + 1, thumbnails)
        assert sound(opened, (keys, features + 1, thumbnails)).all()


@pytest.mark.parametrize("other", [{**ABOUT, "pixels": 160}, {**ABOUT, "weights": "57934424"}, {}])
def test_another_space_shares_nothing(home: Path, other: dict[str, object]) -> None:
    rows = fill(home, 20)
    with FeatureCache(other, WIDTH, home) as opened:
        assert opened.known == frozenset()
        assert not sound(opened, rows).any()
    with FeatureCache(dict(reversed(ABOUT.items())), WIDTH, home) as opened:
        assert sound(opened, rows).all()


def test_a_file_renamed_into_another_space_is_not_believed(home: Path) -> None:
    rows = fill(home, 20)
    FeatureCache({}, WIDTH, home).close()
    mine, other = sorted((home / "features").iterdir(), key=lambda path: -path.stat().st_size)
    shutil.copy(mine, other)
    with FeatureCache({}, WIDTH, home) as opened:
        assert not sound(opened, rows).any()


@pytest.mark.parametrize("name", ["two words", "a?mode=memory", "per%41cent", "hash#", "q'uo\"te", "😀", "new\nline"])
def test_homes_with_any_name(tmp_path: Path, name: str) -> None:
    rows = fill(tmp_path / name / "deep", 5)
    assert len(files(tmp_path / name / "deep")) == 1
    with cache(tmp_path / name / "deep") as opened:
        assert sound(opened, rows).all()


def test_wrong_shapes_are_refused(home: Path) -> None:
    keys, features, thumbnails = make(range(4))
    with cache(home) as opened:
        for bad in [
            (keys, features[:, :-1], thumbnails),
            (keys[:-1], features, thumbnails),
            (keys, features, thumbnails[:, :8]),
        ]:
            with pytest.raises(ValueError, match=r"expected shapes \(\(\d, 40\), \(\d, 16, 16\)\)"):
                opened.write(*bad)
            with pytest.raises(ValueError, match="expected shapes"):
                opened.read(*bad)


def test_the_python_memory_of_reading_and_writing_is_bounded(home: Path) -> None:
    rows = make(range(4000), 1280)
    out_features, out_thumbnails = np.empty_like(rows[1]), np.empty_like(rows[2])
    with cache(home, 1280) as opened:
        tracemalloc.start()
        opened.write(*rows)
        found = opened.read(rows[0], out_features, out_thumbnails)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert found.all()
    assert np.array_equal(out_features, rows[1])
    assert peak < 5e6  # of 11 MB of rows


# --- damage ---


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


# --- several at once ---

WRITER = """
home, me, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for turn in range(rounds):
    with FeatureCache({"shared": True}, 40, home) as cache:  # opened and closed while others work
        for part in range(4):
            mine = 1000 * (me + 1) + 100 * turn
            numbers = [*range(100), *range(mine, mine + 25 * (part + 1))]
            rows = make(numbers, 40)
            cache.write(*rows)
            features, thumbnails = np.empty_like(rows[1]), np.empty_like(rows[2])
            found = cache.read(rows[0], features, thumbnails)
            assert cache.problem is None, cache.problem
            assert found.all() and (features == rows[1]).all() and (thumbnails == rows[2]).all()
"""


def test_processes_write_and_read_the_same_space_at_once(home: Path) -> None:
    for process in [run(WRITER, home, me, 4) for me in range(4)]:
        output(process)
    with FeatureCache({"shared": True}, WIDTH, home) as opened:
        everything = [*range(100), *(number for me in range(4) for number in range(1000 * me + 1000, 1000 * me + 1400))]
        assert opened.known == frozenset(make(everything)[0])
        assert sound(opened, make(everything)).all()
    assert len(files(home)) == 1


@pytest.mark.parametrize("shared", [True, False])
def test_threads_write_and_read_at_once(home: Path, shared: bool) -> None:
    one = cache(home)
    failures: list[BaseException] = []

    def work(me: int) -> None:
        opened = one if shared else cache(home)
        try:
            for turn in range(10):
                rows = make([*range(30), *range(1000 * me + 1000, 1000 * me + 1000 + 10 * (turn + 1))])
                opened.write(*rows)
                assert sound(opened, rows).all()
            assert opened.problem is None
        except BaseException as error:
            failures.append(error)
        finally:
            if not shared:
                opened.close()

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.close()
    assert not failures, failures
    with cache(home) as opened:
        everything = [*range(30), *(number for me in range(4) for number in range(1000 * me + 1000, 1000 * me + 1100))]
        assert sound(opened, make(everything)).all()


def test_opening_waits_for_a_process_that_is_just_making_the_file(home: Path) -> None:
    fill(home, 5)
    (path,) = (home / "features").iterdir()
    path.unlink()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE unrelated (x)")
    other.execute("BEGIN IMMEDIATE")  # SQLite does not wait for this one to turn the file to WAL mode
    timer = threading.Timer(0.2, other.execute, ["COMMIT"])
    timer.start()
    with cache(home) as opened:
        timer.join()
        opened.write(*make(range(5)))
        assert opened.problem is None
        assert sound(opened, make(range(5))).all()
    other.close()


def test_two_processes_meet_a_damaged_file(home: Path) -> None:
    FeatureCache({"shared": True}, WIDTH, home).close()
    (path,) = (home / "features").iterdir()
    path.write_bytes(os.urandom(50000))
    for process in [run(WRITER, home, me, 1) for me in range(3)]:
        output(process)
    with FeatureCache({"shared": True}, WIDTH, home) as opened:
        assert sound(opened, make(range(100))).all()
    assert len(files(home)) == 1


ENDLESS = """
with FeatureCache({"killed": True}, 40, Path(sys.argv[1])) as cache:
    for start in range(int(sys.argv[2]), 10**9, 40):
        rows = make(range(start, start + 40), 40)
        cache.write(*rows)
        assert cache.problem is None
        print(start + 40, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_was_written(home: Path) -> None:
    draw = random.Random(0)
    written = 0
    for attempt in range(6):
        process = run(ENDLESS, home, written)
        assert process.stdout is not None
        if attempt < 5:  # the last one at any moment of its start
            process.stdout.readline()
        time.sleep(draw.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        lines = process.communicate(timeout=60)[0].split("\n")
        assert process.returncode == -signal.SIGKILL
        written = max([written + 40 * (attempt < 5), *map(int, filter(None, lines))])
        with FeatureCache({"killed": True}, WIDTH, home) as opened:
            assert opened.problem is None
            assert sound(opened, make(range(written))).all()
            sound(opened, make(range(written, written + 400)))
    assert written > 6 * 40
    assert len(files(home)) == 1


# --- disks that are full, read-only or strange ---

LIMITED = """
import resource
home = Path(sys.argv[1])
rows = make(range(2000), 400)
few = [part[:100] for part in rows]
with FeatureCache({"full": True}, 400, home) as cache:
    cache.write(*few)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
with FeatureCache({"full": True}, 400, home) as cache:
    for start in range(0, 2000, 100):
        cache.write(*[part[start : start + 100] for part in rows])
    features, thumbnails = np.zeros_like(rows[1]), np.zeros_like(rows[2])
    found = cache.read(rows[0], features, thumbnails)
    assert (features[found] == rows[1][found]).all() and (thumbnails[found] == rows[2][found]).all()
    assert found[:100].all() and not found.all()
    print(cache.problem)
"""


def test_a_file_that_may_not_grow(home: Path) -> None:
    sentence = output(run(LIMITED, home)).strip()
    assert (
        sentence == f"Features could not be kept in {home / 'features'}: the disk is full, over its quota or failing."
    )
    rows = make(range(2000), 400)
    with FeatureCache({"full": True}, 400, home) as opened:
        assert sound(opened, rows)[:100].all()
        opened.write(*rows)  # there is room again
        assert sound(opened, rows).all()
        assert opened.problem is None


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", *options, str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


FULL = """
home, kept, wanted = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rows = make(range(wanted), 400)
with FeatureCache({"full": True}, 400, home) as cache:
    for start in range(0, wanted, 100):
        cache.write(*[part[start : start + 100] for part in rows])
    features, thumbnails = np.zeros_like(rows[1]), np.zeros_like(rows[2])
    found = cache.read(rows[0], features, thumbnails)
    assert (features[found] == rows[1][found]).all() and (thumbnails[found] == rows[2][found]).all()
    assert found[:kept].all() and not found.all(), (found.sum(), cache.problem)
    print(cache.problem)
"""


def test_a_full_disk(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=2m", "tmpfs") as disk:
        sentence = output(run(FULL, disk, 100, 3000)).strip()
        assert sentence == f"Features could not be kept in {disk / 'features'}: no space left on the disk."
        with FeatureCache({"full": True}, 400, disk) as opened:
            assert sound(opened, make(range(100), 400)).all()


def test_a_disk_that_was_full_before(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=2m", "tmpfs") as disk:
        with FeatureCache({"full": True}, 400, disk) as opened:
            opened.write(*make(range(200), 400))
        with (disk / "other").open("wb", buffering=0) as other, suppress(OSError):
            while other.write(bytes(4096)):
                pass
        assert "Features could not be kept in" in output(run(FULL, disk, 200, 400))
        assert prune(disk, everything=True) > 0
        (disk / "other").unlink()
        with FeatureCache({"full": True}, 400, disk) as opened:
            opened.write(*make(range(200), 400))
            assert sound(opened, make(range(200), 400)).all()


def test_a_disk_mounted_read_only(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m", "tmpfs") as disk:
        rows = fill(disk, 30)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with cache(disk) as opened:
            assert opened.known == frozenset(rows[0])
            assert sound(opened, rows).all()
            opened.write(*make(range(30, 60)))
            assert opened.problem == f"Features could not be kept in {disk / 'features'}: the folder cannot be written."
            assert not sound(opened, make(range(30, 60))).any()
        assert [info.rows for info in spaces(disk)] == [30]
        assert prune(disk, everything=True) == 0
        with cache(disk, WIDTH + 1) as opened:  # a space that is not there
            assert not sound(opened, make(range(3), WIDTH + 1)).any()
            assert opened.problem is not None


@contextmanager
def no_permission() -> Iterator[Path]:
    """A folder that this process may read and not write, also where the tests run as root."""
    root = os.geteuid() == 0
    folder = Path(tempfile.mkdtemp(prefix="headstart-test-"))
    try:
        fill(folder, 30)
        for path in [*folder.rglob("*"), folder]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        if root:
            os.seteuid(65534)
        yield folder
    finally:
        if root:
            os.seteuid(0)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="permissions as POSIX has them")
def test_a_home_without_permission_to_write() -> None:
    with no_permission() as folder:
        with cache(folder) as opened:
            assert sound(opened, make(range(30))).all()
            opened.write(*make(range(60)))
            assert not sound(opened, make(range(30, 60))).any()
            assert opened.problem is not None
            assert opened.problem.endswith("the folder cannot be written.")
        with cache(folder / "below") as opened:
            opened.write(*make(range(60)))
            assert not sound(opened, make(range(60))).any()
            assert opened.problem is not None
            assert opened.problem.endswith("Permission denied.")


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


@pytest.mark.parametrize("where", ["home", "home/features"])
def test_a_home_that_is_a_file(tmp_path: Path, where: str) -> None:
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / where).write_text("mine")
    with cache(tmp_path / "home") as opened:
        opened.write(*make(range(5)))
        assert opened.known == frozenset()
        assert not sound(opened, make(range(5))).any()
        assert opened.problem is not None
        assert opened.problem.startswith(f"Features could not be kept in {tmp_path / 'home' / 'features'}: ")
    assert spaces(tmp_path / "home") == []
    assert prune(tmp_path / "home", everything=True) == 0
    assert (tmp_path / where).read_text() == "mine"


def test_a_folder_in_place_of_the_database(home: Path) -> None:
    fill(home, 5)
    (path,) = (home / "features").iterdir()
    path.unlink()
    path.mkdir()
    with cache(home) as opened:
        opened.write(*make(range(5)))
        assert not sound(opened, make(range(5))).any()
        assert opened.problem is not None
    assert path.is_dir()


def test_a_file_system_without_shared_memory(home: Path) -> None:
    fill(home, 50)
    (path,) = (home / "features").iterdir()
    shm = path.with_name(path.name + "-shm")
    shm.mkdir()  # where SQLite wants to put its shared memory
    with cache(home) as opened:
        assert sound(opened, make(range(50))).all()
        opened.write(*make(range(100)))
        assert sound(opened, make(range(100))).all()
        assert opened.problem is None
    with cache(home) as opened:
        assert sound(opened, make(range(100))).all()


def test_a_file_system_that_cannot_do_wal(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = database.open_file
    monkeypatch.setattr(database, "open_file", lambda path, mode, *rest: plain(path, mode + "&vfs=unix-dotfile", *rest))
    with cache(home) as one, cache(home) as two:
        for start in range(0, 300, 50):
            one.write(*make(range(start, start + 25)))
            two.write(*make(range(start + 25, start + 50)))
            assert not [name for name in files(home) if name.endswith("-wal")]
        assert sound(one, make(range(300))).all()
        assert sound(two, make(range(300))).all()
        assert one.problem is None
        assert two.problem is None


def test_a_writer_that_waits_too_long_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(home, 5)
    plain = database.open_file
    monkeypatch.setattr(database, "open_file", lambda path, mode: plain(path, mode, 0.05))
    (path,) = (home / "features").iterdir()
    with cache(home) as opened:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        opened.write(*make(range(10)))
        assert opened.problem is not None
        assert "another process held the file" in opened.problem
        assert sound(opened, make(range(10))).tolist() == [True] * 5 + [False] * 5
        other.close()


def test_an_interrupted_write_is_taken_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(list[bytes]):
        def __getitem__(self, index: Any) -> Any:
            if index == 700:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    keys, features, thumbnails = make(range(1000))
    with cache(home) as opened:
        with pytest.raises(KeyboardInterrupt):
            opened.write(Interrupting(keys), features, thumbnails)
        with pytest.raises(KeyboardInterrupt):
            opened.read(Interrupting(keys), features.copy(), thumbnails.copy())
        assert (
            sound(opened, (keys, features, thumbnails)).sum() == 500
        )  # whole transactions only, and the cache goes on
        opened.write(keys, features, thumbnails)
        assert sound(opened, (keys, features, thumbnails)).all()


def test_a_closed_store_is_an_empty_one(home: Path) -> None:
    rows = fill(home, 5)
    opened = cache(home)
    opened.close()
    opened.close()
    opened.write(*rows)
    assert not sound(opened, rows).any()


# --- the cache as a whole ---


def three_spaces(home: Path) -> None:
    """Spaces of 100, 200 and 300 rows, used ten, five and zero days ago."""
    for index, days in enumerate([10, 5, 0]):
        before = set((home / "features").glob("*"))
        with FeatureCache({"index": index}, WIDTH, home) as opened:
            opened.write(*make(range(100 * (index + 1))))
        (path,) = set((home / "features").glob("*")) - before
        os.utime(path, (time.time() - days * 86400,) * 2)


def test_spaces_are_listed_with_what_they_are(home: Path) -> None:
    assert spaces(home) == []
    three_spaces(home)
    listed = spaces(home)
    assert [(info.description, info.rows) for info in listed] == [
        ({"index": 2}, 300),
        ({"index": 1}, 200),
        ({"index": 0}, 100),
    ]
    assert sum(info.size for info in listed) == sum(path.stat().st_size for path in (home / "features").iterdir())
    assert abs(time.time() - 5 * 86400 - listed[1].last_used) < 60
    assert spaces() == listed  # HEADSTART_HOME is the default


def test_a_damaged_space_is_listed_and_pruned(home: Path) -> None:
    fill(home, 5)
    (path,) = (home / "features").iterdir()
    path.write_bytes(b"junk" * 1000)
    assert [(info.description, info.rows, info.size) for info in spaces(home)] == [({}, 0, 4000)]
    assert prune(home, everything=True) == 4000
    assert files(home) == []


def test_prune_by_age(home: Path) -> None:
    three_spaces(home)
    size = {info.rows: info.size for info in spaces(home)}
    assert prune(home, older_than_days=7) == size[100]
    assert [info.rows for info in spaces(home)] == [300, 200]
    assert prune(home) == 0


def test_prune_by_size_takes_the_longest_unused_first(home: Path) -> None:
    three_spaces(home)
    size = {info.rows: info.size for info in spaces(home)}
    assert prune(home, max_bytes=sum(size.values())) == 0
    assert prune(home, max_bytes=size[200] + size[300]) == size[100]
    assert prune(home, max_bytes=size[300] + 1) == size[200]
    assert [info.rows for info in spaces(home)] == [300]
    assert prune(home, max_bytes=0) == size[300]


def test_opening_counts_as_use(home: Path) -> None:
    three_spaces(home)
    FeatureCache({"index": 0}, WIDTH, home).close()
    assert prune(home, older_than_days=3) > 0
    assert sorted(info.rows for info in spaces(home)) == [100, 300]


def test_prune_removes_its_own_files_only_and_none_in_use(home: Path) -> None:
    three_spaces(home)
    others = [home / "features" / "notes.sqlite", home / "features" / ("0" * 32 + ".0.sqlite.bak"), home / "mine.txt"]
    for path in others:
        path.write_text("mine")
    leftover = home / "features" / ("0" * 32 + ".3.sqlite-wal")  # of a database that is gone
    leftover.write_text("left")
    with FeatureCache({"index": 2}, WIDTH, home) as opened:
        assert prune(home, everything=True) > 4
        assert sound(opened, make(range(300))).all()
        opened.write(*make(range(300, 310)))
    assert [info.rows for info in spaces(home)] == [310]
    assert not leftover.exists()
    assert [path.read_text() for path in others] == ["mine"] * 3


# --- where it all lies ---


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "not yet"))
    assert cache_dir() == tmp_path / "not yet"
    assert not (tmp_path / "not yet").exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HEADSTART_HOME", "~/here")
    assert cache_dir() == tmp_path / "here"
    monkeypatch.setenv("HEADSTART_HOME", "")
    empty = cache_dir()
    monkeypatch.delenv("HEADSTART_HOME")
    assert cache_dir() == empty
    assert empty.is_absolute()
    assert "headstart" in str(empty).lower()
