"""The feature cache: several processes at once."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from feature_caches import WIDTH, cache, files, fill, make, output, run, sound
from headstart.learn.feature_cache import FeatureCache

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
