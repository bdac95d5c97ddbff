"""The feature cache: disks that are full, read-only or unusual; listing and removing spaces."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from feature_caches import WIDTH, cache, files, fill, make, mounted, output, run, sound
from headstart.core.cache_folder import cache_dir
from headstart.core.errors import UsageError
from headstart.learn import cache_database as database
from headstart.learn.feature_cache import FeatureCache, prune, spaces

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
        with pytest.raises(UsageError, match=r"\.sqlite' cannot be removed: read-only file system\."):
            prune(disk, everything=True)
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
